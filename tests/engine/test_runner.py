"""FluxGym's log runner with the watchdog in it: what it yields, and that FluxGym trains whatever happens to us."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.fluxgym import runner as runner_module
from fluxgym_watchdog.fluxgym.runner import supervised, train_script_in
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.records import RunRecord, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import PARKED, Training, until

SETTINGS = Settings(check_interval=0.1, stuck_threshold=3, backoff=0.1, stop_grace=1, max_restarts=0)


class LogsViewRunner:
    """As much of gradio_logsview's runner as FluxGym uses; what it is asked to run, it only notes."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.lines: list[str] = []
        self.ran: list[tuple[Any, Any]] = []

    def log(self, message: str) -> str:
        self.lines.append(message)
        return "\n".join(self.lines)

    def run_command(self, command: Any, cwd: Any = None) -> Iterator[str]:
        self.ran.append((command, cwd))
        yield self.log("the original ran")
        self.exit_code = 0


class Gym:
    """A FluxGym with a watchdog of its own thread, and a runner of its class."""

    def __init__(self, training: Training, watchdog: Watchdog) -> None:
        self.training, self.watchdog = training, watchdog
        self.kind = supervised(LogsViewRunner, watchdog.train)

    def press_start(self) -> tuple[Any, Iterator[str]]:
        runner = self.kind()
        return runner, runner.run_command([f'bash "{self.training.script}"'], cwd=str(self.training.root))


@pytest.fixture
def gym(short_training: Training, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Gym]]:
    made: list[Watchdog] = []

    def make(faults: str = "", settings: Settings = SETTINGS) -> Gym:
        for name, value in short_training.environment(DEMO_FAULTS=faults).items():
            monkeypatch.setenv(name, value)
        made.append(Watchdog(short_training.root / "outputs", settings, gpu=GpuReader()))
        made[-1].start()
        return Gym(short_training, made[-1])

    yield make
    for watchdog in made:
        watchdog.stop()


class TestRecognises:
    def test_fluxgyms_command(self, tmp_path: Path) -> None:
        folder = tmp_path / "with a blank" / "outputs" / "x"
        folder.mkdir(parents=True)
        for name in ("train.sh", "train.bat"):
            (folder / name).touch()
        root = folder.parents[1]
        assert train_script_in([f'bash "{folder}/train.sh"'], root) == folder / "train.sh"
        assert train_script_in(f'bash "{folder}/train.sh"', root) == folder / "train.sh"
        assert train_script_in(["bash", f"{folder}/train.sh"], root) == folder / "train.sh"
        assert train_script_in(['bash "outputs/x/train.sh"'], root) == folder / "train.sh"
        assert train_script_in([f'"{folder}/train.bat"'], root) == folder / "train.bat"

    @pytest.mark.parametrize(
        "command",
        [
            ["echo hello"],
            ["bash 'unclosed"],
            [],
            [""],
            ['bash "outputs/none/train.sh"'],
            ["python", "train.py"],
            [None],
        ],
    )
    def test_nothing_else(self, tmp_path: Path, command: list[Any]) -> None:
        assert train_script_in(command, tmp_path) is None

    def test_no_script_outside_of_outputs(self, tmp_path: Path) -> None:
        (tmp_path / "train.sh").touch()
        assert train_script_in([f'bash "{tmp_path}/train.sh"'], tmp_path) is None


class TestOriginal:
    def test_runs_any_other_command(self) -> None:
        def train(_: Path) -> Store:
            raise AssertionError("it was asked to train")

        runner = supervised(LogsViewRunner, train)()
        assert list(runner.run_command(["pip install x"], cwd="/")) == ["the original ran"]
        assert runner.ran == [(["pip install x"], "/")]

    @pytest.mark.parametrize("error", [RuntimeError("a defect of ours"), OSError(28, "No space left on device")])
    def test_runs_the_training_once_if_we_fail_before_the_launch(
        self, short_training: Training, error: Exception
    ) -> None:
        def train(_: Path) -> Store:
            raise error

        runner = supervised(LogsViewRunner, train)()
        assert list(runner.run_command([f'bash "{short_training.script}"'], cwd=str(short_training.root)))
        assert len(runner.ran) == 1
        assert runner.exit_code == 0

    def test_runs_the_training_if_its_log_cannot_be_looked_at(self, gym: Callable[..., Gym]) -> None:
        made = gym()
        (made.training.run_folder / "training.log").symlink_to("x" * 300)  # stat raises: the name is too long
        _, shown = made.press_start()
        assert list(shown) == ["the original ran"]
        assert not made.training.store.is_held()

    def test_runs_a_script_that_we_do_not_understand(self, gym: Callable[..., Gym]) -> None:
        made = gym()
        made.training.script.write_text("exec my-own-trainer\n")
        _, shown = made.press_start()
        assert list(shown) == ["the original ran"]
        assert not made.training.store.is_held()

    def test_keeps_its_name_and_ancestors(self) -> None:
        kind = supervised(LogsViewRunner, lambda _: Store(Path()))
        assert kind.__name__ == "LogsViewRunner"
        assert issubclass(kind, LogsViewRunner)


class TestTraining:
    def test_shows_what_log_returns_over_all_attempts(self, gym: Callable[..., Gym]) -> None:
        made = gym("crash@50", Settings(check_interval=0.1, stuck_threshold=3, backoff=0.1))
        runner, shown = made.press_start()
        texts = list(shown)
        assert runner.ran == []
        assert runner.exit_code == 0
        assert texts[-1] == "\n".join(runner.lines)
        assert texts[-1].count("running training / 学習開始") == 2
        assert "CUDA error: unspecified launch failure" in texts[-1]
        assert "model saved." in texts[-1]
        assert made.training.lineage == list(range(1, 81))

    def test_a_closed_page_leaves_it_alive_and_a_second_start_joins(self, gym: Callable[..., Gym]) -> None:
        made = gym("stop@10", replace(SETTINGS, stuck_threshold=120))
        _, shown = made.press_start()
        next(shown)
        made.training.parked()
        shown.close()  # type: ignore[attr-defined]
        trainer = made.training.trainer()
        assert trainer.is_running()
        runner, shown = made.press_start()
        next(shown)
        made.training.go_on()
        assert "model saved." in list(shown)[-1]
        assert runner.exit_code == 0
        assert {pid for pid, _ in made.training.executed} == {trainer.pid}

    def test_a_start_while_another_process_supervises_joins(self, gym: Callable[..., Gym]) -> None:
        made = gym()
        started = made.training.run(*PARKED, faults="stop@10")
        made.training.parked()
        runner, shown = made.press_start()
        next(shown)
        made.training.go_on()
        assert "model saved." in list(shown)[-1]
        assert runner.exit_code == 0
        assert started.ends() == 0
        assert len({pid for pid, _ in made.training.executed}) == 1

    def test_a_failure_is_an_error_on_the_page(self, gym: Callable[..., Gym]) -> None:
        gradio = pytest.importorskip("gradio")
        made = gym("crash@10")
        runner, shown = made.press_start()
        with pytest.raises(gradio.Error, match="CUDA reported an error"):
            list(shown)
        assert runner.exit_code not in (0, None)
        assert "The training failed" in runner.lines[-1]

    def test_a_stop_is_an_error_on_the_page(self, gym: Callable[..., Gym]) -> None:
        gradio = pytest.importorskip("gradio")
        made = gym("stop@10", replace(SETTINGS, stuck_threshold=120))
        _, shown = made.press_start()
        next(shown)
        made.training.parked()
        made.training.store.request("stop")
        with pytest.raises(gradio.Error, match="was stopped"):
            list(shown)
        assert made.training.state is RunState.STOPPED

    def test_a_second_start_of_a_finished_run_trains_again(
        self, gym: Callable[..., Gym], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner_module, "QUEUED_START_S", 0.0)
        """As FluxGym does: Start begins from nothing."""
        made = gym()
        for _ in range(2):
            _, shown = made.press_start()
            list(shown)
        assert [s for _, s in made.training.executed] == [*range(1, 81), *range(1, 81)]
        until(lambda: not made.training.store.is_held(), "the lock to be free")
        assert [(a.fresh, a.outcome) for a in made.training.record.attempts] == [(True, "finished")] * 2

    def test_a_start_that_waited_in_the_queue_does_not_train_over_what_has_just_finished(
        self, gym: Callable[..., Gym], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner_module, "QUEUED_START_S", 3600.0)
        made = gym()
        list(made.press_start()[1])
        runner, shown = made.press_start()
        assert "press Start once more" in list(shown)[-1]
        assert runner.exit_code == 0
        assert len(made.training.record.attempts) == 1


class TestGone:
    @pytest.mark.parametrize("harm", ["folder", "record"])
    def test_a_training_whose_record_is_gone_for_good_does_not_block_the_queue(
        self, short_training: Training, monkeypatch: pytest.MonkeyPatch, harm: str
    ) -> None:
        gradio = pytest.importorskip("gradio")
        monkeypatch.setattr(runner_module, "GONE_AFTER_S", 0.2)
        monkeypatch.setattr(runner_module, "FOLLOW_EVERY_S", 0.05)
        store = Store(short_training.run_folder)

        def train(_: Path) -> Store:
            store.write_record(RunRecord("demo-lora", RunState.TRAINING))
            if harm == "folder":
                shutil.rmtree(store.run_folder)
            else:
                (store.folder / "run.json").write_text("{")
            return store

        runner = supervised(LogsViewRunner, train)()
        with pytest.raises(gradio.Error, match="folder is gone"):
            list(runner.run_command([f'bash "{short_training.script}"'], cwd=str(short_training.root)))
        assert runner.ran == []
        assert runner.exit_code == 1
        assert "folder is gone" in runner.lines[-1]

    def test_a_record_is_waited_for_as_long_as_somebody_supervises(
        self, short_training: Training, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner_module, "GONE_AFTER_S", 0.0)
        monkeypatch.setattr(runner_module, "FOLLOW_EVERY_S", 0.0)
        store = Store(short_training.run_folder)
        looks: list[int] = []

        def held() -> bool:
            looks.append(1)
            if len(looks) == 20:
                store.write_record(RunRecord("demo-lora", RunState.FINISHED))
            return len(looks) <= 20

        monkeypatch.setattr(store, "is_held", held)
        runner = supervised(LogsViewRunner, lambda _: store)()
        list(runner.run_command([f'bash "{short_training.script}"'], cwd=str(short_training.root)))
        assert runner.exit_code == 0

    def test_a_folder_deleted_under_a_training_ends_with_it(
        self, gym: Callable[..., Gym], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gradio = pytest.importorskip("gradio")
        monkeypatch.setattr(runner_module, "GONE_AFTER_S", 0.2)
        made = gym("stop@10", replace(SETTINGS, stuck_threshold=120))
        _, shown = made.press_start()
        next(shown)
        trainer = made.training.parked()
        shutil.rmtree(made.training.run_folder)
        trainer.kill()
        with pytest.raises(gradio.Error, match="folder is gone"):
            list(shown)
