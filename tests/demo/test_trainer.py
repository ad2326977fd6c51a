"""The stand-in trainer behaves as the real one was measured to: steps over resumes, files, output, failures."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sessions are those of POSIX")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
STATE_FILES = ["train_state.json", "model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"]
EPOCH_STATES = ("--save_state", "--save_every_n_epochs", "1")
FAST = {f"DEMO_{part}_SECONDS": "0" for part in ("LOAD", "STEP", "SAVE", "SAMPLE", "END")}


class Run:
    """One output folder named `x`, trained in as many attempts as a test wants; 6 epochs of 40 steps are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "outputs" / "x"
        self.started: list[subprocess.Popen[bytes]] = []
        self.log = ""

    def state(self, suffix: str) -> Path:
        return self.output / f"x{suffix}-state"

    def start(self, *options: str, faults: str = "", workers: int = 0, **variables: str) -> subprocess.Popen[bytes]:
        """Start an attempt in a session of its own; its output goes to a file of its own."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400", **FAST, "DEMO_FAULTS": faults}
        environment |= {"DEMO_STEPS_FILE": str(self.folder / "steps.txt"), **variables}
        command = [sys.executable, "-m", "fluxgym_watchdog.demo.trainer", "--output_dir", str(self.output)]
        command += ["--output_name", "x", "--max_train_epochs", "6", "--max_data_loader_n_workers", str(workers)]
        with (self.folder / f"attempt-{len(self.started) + 1}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def train(self, *options: str, faults: str = "", **variables: Any) -> int:
        """Run an attempt to its end and return the exit code (negative: the signal that ended it)."""
        code = self.start(*options, faults=faults, **variables).wait(PATIENCE_S)
        self.log = self.log_file.read_bytes().decode()
        return code

    @property
    def log_file(self) -> Path:
        return self.folder / f"attempt-{len(self.started)}.log"

    @property
    def steps(self) -> list[int]:
        """The absolute numbers of all steps executed so far, in order, over all attempts."""
        file = self.folder / "steps.txt"
        return [int(line.split()[2]) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    # A stray has left its session, yet its command line names this run.
    for process in psutil.process_iter():
        try:
            if str(made.output) in process.cmdline():
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    for started in made.started:
        started.wait(PATIENCE_S)


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.01)


class TestExecutedSteps:
    """240 steps are asked for; how many are executed depends on how the training is resumed."""

    def test_first_resume_is_right(self, run: Run) -> None:
        assert run.train(*EPOCH_STATES, faults="kill@81") == -signal.SIGKILL
        assert run.train(*EPOCH_STATES, "--resume", str(run.state("-000002"))) == 0
        assert run.steps == list(range(1, 241))

    @pytest.mark.parametrize("options", [[], ["--skip_until_initial_step"]])
    def test_second_resume_is_80_steps_too_long(self, run: Run, options: list[str]) -> None:
        run.train(*EPOCH_STATES, faults="kill@81")
        run.train(*EPOCH_STATES, *options, "--resume", str(run.state("-000002")), faults="kill@161")
        assert json.loads((run.state("-000004") / "train_state.json").read_text()) == {
            "current_epoch": 4,
            "current_step": 80,
        }
        assert run.train(*EPOCH_STATES, *options, "--resume", str(run.state("-000004"))) == 0
        assert len(run.steps) == 320

    def test_final_state_of_a_resumed_run_trains_80_more(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@81")
        run.train(*EPOCH_STATES, "--resume", str(run.state("-000002")))
        assert run.train(*EPOCH_STATES, "--resume", str(run.state(""))) == 0
        assert len(run.steps) == 240 + 80

    def test_final_state_of_a_clean_run_fails(self, run: Run) -> None:
        assert run.train(*EPOCH_STATES) == 0
        assert run.train(*EPOCH_STATES, "--resume", str(run.state(""))) == 1
        assert "AssertionError: max_train_steps should be greater than initial step" in run.log
        assert len(run.steps) == 240

    def test_initial_epoch_is_exact_over_three_resumes(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@81")
        for epoch, faults in ((2, "kill@121"), (3, "kill@201"), (5, "")):
            code = run.train(
                *EPOCH_STATES,
                *("--resume", str(run.state(f"-{epoch:06d}")), "--initial_epoch", str(epoch + 1)),
                faults=faults,
            )
        assert code == 0
        assert run.steps == list(range(1, 241))
        assert " 40/240 " in run.log and " 41/240 " not in run.log, "success does not need 100 %"

    def test_initial_step_is_exact_over_four_resumes_from_unaligned_step_states(self, run: Run) -> None:
        save = ("--save_state", "--save_every_n_steps", "15")
        run.train(*save, faults="kill@106")
        for reached, next_kill in ((105, 126), (125, 151), (150, 181), (180, None)):
            newest = max(
                run.output.glob("x-step*-state"), key=lambda state: (state / STATE_FILES[-1]).stat().st_mtime_ns
            )
            numbers = json.loads((newest / "train_state.json").read_text())
            absolute = (numbers["current_epoch"] - 1) * 40 + (numbers["current_step"] - 1) % 40 + 1
            assert absolute == reached
            resume = ("--resume", str(newest), "--skip_until_initial_step", "--initial_step", str(absolute))
            code = run.train(*save, *resume, faults=f"kill@{next_kill}" if next_kill else "")
            assert f"/{240 - absolute % 40} [" in run.log, "the bar ends at what the attempt believes to be left"
        assert code == 0
        assert run.steps == list(range(1, 241))

    def test_weights_alone_start_at_the_given_epoch(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@161")
        weights = ("--network_weights", str(run.output / "x-000004.safetensors"))
        assert run.train(*weights, "--initial_epoch", "5") == 0
        assert run.steps == list(range(1, 241))
        assert run.train(*weights) == 0
        assert len(run.steps) == 480


class TestFiles:
    def test_a_clean_run_leaves_the_real_names(self, run: Run) -> None:
        options = ("--save_every_n_steps", "50", "--save_last_n_epochs_state", "2", "--save_last_n_steps_state", "20")
        assert run.train(*EPOCH_STATES, *options) == 0
        assert sorted(path.name for path in run.output.iterdir() if path.is_dir()) == [
            *("x-000004-state", "x-000005-state", "x-state", "x-step00000200-state"),
        ]
        weights = [f"x-{epoch:06d}.safetensors" for epoch in range(1, 6)]
        weights += [f"x-step{step:08d}.safetensors" for step in (50, 100, 150, 200)]
        assert {path.name for path in run.output.iterdir() if path.is_file()} == {*weights, "x.safetensors"}

    def test_a_state_has_five_valid_files_written_in_order(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@41", DEMO_SAVE_SECONDS="0.1")
        state = run.state("-000001")
        assert sorted(path.name for path in state.iterdir()) == sorted(STATE_FILES)
        assert sorted(STATE_FILES, key=lambda name: (state / name).stat().st_mtime_ns) == STATE_FILES
        assert json.loads((state / "train_state.json").read_text()) == {"current_epoch": 1, "current_step": 40}
        for name in STATE_FILES[2:]:
            assert zipfile.ZipFile(state / name).testzip() is None
        assert tensor(state / "model.safetensors")[0] == "F32"

    def test_final_weights_are_the_final_state_cast_down(self, run: Run) -> None:
        run.train(*EPOCH_STATES)
        kind, full = tensor(run.state("") / "model.safetensors")
        cast_kind, cast = tensor(run.output / "x.safetensors")
        assert (kind, cast_kind) == ("F32", "BF16")
        numbers = [number for (number,) in struct.iter_unpack("<I", full)]
        nearest = [(bits + 0x7FFF + (bits >> 16 & 1)) >> 16 for bits in numbers]  # ties to even
        assert struct.pack(f"<{len(nearest)}H", *nearest) == cast

    @pytest.mark.parametrize(
        ("file", "damage", "said"),
        [
            ("train_state.json", b"", "JSONDecodeError"),
            ("model.safetensors", b"", "SafetensorError: Error while deserializing header"),
            ("model.safetensors", b"\xff" * 64, "SafetensorError: Error while deserializing header"),
            ("model.safetensors", None, "FileNotFoundError"),
            ("optimizer.bin", None, "FileNotFoundError"),
            ("optimizer.bin", b"", "EOFError"),
            ("optimizer.bin", b"PK\x03\x04 half", "PytorchStreamReader failed reading zip archive"),
            ("scheduler.bin", b"PK\x03\x04 half", "failed finding central directory"),
        ],
    )
    def test_a_broken_state_fails_with_its_error_and_no_step(
        self, run: Run, file: str, damage: bytes | None, said: str
    ) -> None:
        run.train(*EPOCH_STATES, faults="kill@41")
        spoil(run.state("-000001") / file, damage)
        assert run.train(*EPOCH_STATES, "--resume", str(run.state("-000001"))) == 1
        assert "resume training from local state" in run.log
        assert "Traceback (most recent call last):" in run.log
        assert said in run.log
        assert "steps:" not in run.log

    def test_two_broken_states_load_in_silence(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@41")
        spoil(run.state("-000001") / "random_states_0.pkl", b"")
        assert run.train(*EPOCH_STATES, "--resume", str(run.state("-000001")), faults="kill@81") == -signal.SIGKILL
        assert run.steps == list(range(1, 81))
        spoil(run.state("-000002") / "train_state.json", None)
        assert run.train(*EPOCH_STATES, "--resume", str(run.state("-000002"))) == 0
        assert len(run.steps) == 80 + 240

    def test_a_missing_state_and_another_rank_fail(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@41")
        assert run.train("--resume", str(run.output / "nowhere")) == 1
        assert "but folder does not exist" in run.log
        assert run.train("--resume", str(run.state("-000001")), "--network_dim", "16") == 1
        assert "Error(s) in loading state_dict for LoRANetwork" in run.log


class TestOutput:
    def test_marks_come_in_order(self, run: Run) -> None:
        assert run.train(*EPOCH_STATES) == 0
        at = 0
        for mark in (
            *("Building Flux model", "Building AutoEncoder", "caching latents...", "caching Text Encoder outputs..."),
            *("create LoRA network", "running training / 学習開始", "  num batches per epoch / 1epochのバッチ数: 40\n"),
            *("  num epochs / epoch数: 6\n", "  total optimization steps / 学習ステップ数: 240\n"),
            *("\rsteps:   0%|          | 0/240 [00:00<?, ?it/s]", "\nepoch 1/6\n", "| 40/240 [", ", avr_loss="),
            *(f"saving checkpoint: {run.output / 'x-000001.safetensors'}\n", "saving state at epoch 1"),
            *(f"Saving current state to {run.state('-000001')}", "Random states saved in", "epoch 6/6"),
            *("240/240", "saving last state.", "saving checkpoint: ", "model saved."),
        ):
            found = run.log.find(mark, at)
            assert found >= 0, f"{mark!r} is missing or too early"
            at = found + len(mark)

    def test_paths_are_wrapped_at_80_columns_unless_columns_says_more(self, run: Run) -> None:
        run.train(*EPOCH_STATES, faults="kill@41", COLUMNS="")
        assert f"Saving current state to {run.state('-000001')}" not in run.log
        rows = [row for row in run.log.replace("\r", "\n").splitlines() if " INFO " in row and "steps:" not in row]
        assert all(len(row) == 80 for row in rows if row.isascii())

    def test_samples_are_drawn_while_the_step_bar_stands_still(self, run: Run) -> None:
        prompts = run.folder / "sample_prompts.txt"
        prompts.write_text("a red square\n", encoding="utf-8")
        assert run.train("--sample_prompts", str(prompts), "--sample_every_n_steps", "100") == 0
        assert "generating sample images at step / サンプル画像生成ステップ: 100" in run.log
        assert len(list((run.output / "sample").glob("*.png"))) == 2

    def test_steps_come_from_the_dataset(self, run: Run) -> None:
        pictures = run.folder / "pictures"
        pictures.mkdir()
        for name in ("1.png", "2.JPG", "2.txt"):
            (pictures / name).touch()
        config = run.folder / "dataset.toml"
        config.write_text(
            f"[general]\nkeep_tokens = 1\n[[datasets]]\nbatch_size = 1\n  [[datasets.subsets]]\n"
            f"  image_dir = '{pictures}'\n  num_repeats = 3",
            encoding="utf-8",
        )
        assert run.train("--dataset_config", str(config)) == 0
        assert len(run.steps) == 2 * 3 * 6

    def test_a_wrong_value_exits_with_2_and_an_unknown_option_is_accepted(self, run: Run) -> None:
        assert run.train("--max_train_epochs", "many") == 2
        assert run.train("--max_train_epochs", "1", "--split_mode", "--network_args", "train_blocks=single") == 0

    def test_the_simulated_gpu_is_busy(self, run: Run) -> None:
        gpu = run.folder / "gpu.json"
        assert run.train("--max_train_epochs", "1", FLUXGYM_WATCHDOG_SIMULATED_GPU=str(gpu)) == 0
        reading = json.loads(gpu.read_text())
        assert 90 <= reading["utilization_percent"] <= 100
        assert reading["memory_used_bytes"] < reading["memory_total_bytes"] == 25769803776


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "code", "said"),
        [
            ("crash@50", 1, "]Traceback (most recent call last):"),
            ("crash@50", 1, "RuntimeError: CUDA error: unspecified launch failure"),
            ("crash@loading", 1, "RuntimeError"),
            ("oom@1", 1, "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate"),
            ("disk_full@50", 1, "OSError: [Errno 28] No space left on device"),
            ("kill@50", -9, ""),
            ("segv@50", -11, ""),
            ("half_state@50", -9, ""),
        ],
    )
    def test_a_fault_ends_the_training_once(self, run: Run, fault: str, code: int, said: str) -> None:
        assert run.train(*EPOCH_STATES, faults=fault) == code
        assert said in run.log
        assert run.train(*EPOCH_STATES, faults=fault) == 0, "it has fired already"
        assert run.train(*EPOCH_STATES, faults=f"{fault},{fault}") == code, "ordered twice, fired once so far"

    @pytest.mark.parametrize("fault", ["disk_full@50", "half_state@50"])
    def test_a_spoiled_save_leaves_half_a_state(self, run: Run, fault: str) -> None:
        run.train(*EPOCH_STATES, faults=fault)
        assert sorted(path.name for path in run.state("-000002").iterdir()) == sorted(STATE_FILES[:3])
        assert not zipfile.is_zipfile(run.state("-000002") / "optimizer.bin")

    def test_nan_goes_on_to_the_end(self, run: Run) -> None:
        assert run.train(faults="nan@50") == 0
        assert run.log.index("avr_loss=nan") > run.log.index(" 49/240 ")
        assert "240/240" in run.log

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            ("hang@50", psutil.STATUS_SLEEPING),
            ("hang@loading", psutil.STATUS_SLEEPING),
            ("hang@caching", psutil.STATUS_SLEEPING),
            ("hang@saving", psutil.STATUS_SLEEPING),
            ("hang@sampling", psutil.STATUS_SLEEPING),
            ("hang@ending", psutil.STATUS_SLEEPING),
            ("busy@50", psutil.STATUS_RUNNING),
            ("stop@50", psutil.STATUS_STOPPED),
            ("stop_worker@50", psutil.STATUS_SLEEPING),
        ],
    )
    def test_a_hang_stands_still(self, run: Run, fault: str, status: str) -> None:
        prompts = run.folder / "prompts.txt"
        prompts.write_text("a prompt\n", encoding="utf-8")
        sampling = ("--sample_prompts", str(prompts), "--sample_every_n_steps", "45")
        trainer = psutil.Process(run.start(*EPOCH_STATES, *sampling, faults=fault, workers=1).pid)
        done = run.folder / ".demo-faults-done"
        until(lambda: done.exists() and fault in done.read_text().split(), "the fault to fire")
        until(lambda: trainer.status() == status, status)
        if fault.startswith("busy"):
            until(lambda: trainer.cpu_times().user > 1, "CPU time to be burnt")
        if fault.startswith("stop_worker"):
            until(lambda: trainer.children()[0].status() == psutil.STATUS_STOPPED, "a stopped worker")
        if fault.endswith("@50"):
            assert run.steps[-1] == 49
        assert ("model saved." in run.log_file.read_text(encoding="utf-8")) == fault.endswith("ending")

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
    def test_ignore_term_ignores_it(self, run: Run) -> None:
        trainer = run.start(faults="ignore_term@50")
        until((run.folder / ".demo-faults-done").exists, "the fault to fire")

        def ignores_term() -> bool:
            status = Path(f"/proc/{trainer.pid}/status").read_text()
            mask = int(status.partition("SigIgn:")[2].split()[0], 16)
            return bool(mask >> (signal.SIGTERM - 1) & 1)

        until(ignores_term, "TERM to be ignored")
        trainer.terminate()
        assert trainer.poll() is None
        trainer.kill()
        assert trainer.wait(PATIENCE_S) == -signal.SIGKILL

    def test_a_stray_leaves_the_session(self, run: Run) -> None:
        trainer = psutil.Process(run.start(faults="stray@50").pid)
        until(
            lambda: any(os.getsid(child.pid) == child.pid for child in trainer.children()), "a child in its own session"
        )

    def test_an_unknown_fault_is_refused_by_name(self, run: Run) -> None:
        assert run.train(faults="vanish@7") == 1
        assert "'vanish@7' is no fault" in run.log


class TestProcesses:
    def test_workers_share_the_command_line_and_outlive_a_kill_by_seconds(self, run: Run) -> None:
        trainer = run.start(workers=2, DEMO_STEP_SECONDS="0.05")
        until(lambda: len(run.steps) > 2, "steps")
        workers = psutil.Process(trainer.pid).children()
        assert len(workers) == 2
        assert {tuple(worker.cmdline()) for worker in workers} == {tuple(psutil.Process(trainer.pid).cmdline())}
        trainer.kill()
        trainer.wait(PATIENCE_S)
        assert any(worker.is_running() for worker in workers)
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not alive

    def test_a_killed_worker_fails_the_trainer(self, run: Run) -> None:
        trainer = run.start(workers=2, DEMO_STEP_SECONDS="0.05")
        until(lambda: len(run.steps) > 2, "steps")
        victim, other = psutil.Process(trainer.pid).children()
        victim.kill()
        assert trainer.wait(PATIENCE_S) == 1
        said = run.log_file.read_text(encoding="utf-8")
        assert f"RuntimeError: DataLoader worker (pid {victim.pid}) is killed by signal: Killed." in said
        other.wait(PATIENCE_S)

    @pytest.mark.parametrize("fault", ["", "crash@50", "kill@50"])
    def test_accelerate_tells_how_the_trainer_ended(self, run: Run, fault: str) -> None:
        script = ROOT / "fluxgym_watchdog" / "demo" / "trainer.py"
        launch = [sys.executable, "-m", "fluxgym_watchdog.demo.accelerate", "launch", "--mixed_precision", "bf16"]
        done = subprocess.run(
            [*launch, str(script), "--output_dir", str(run.output), "--max_train_epochs", "2"],
            cwd=run.folder,
            env={**os.environ, **FAST, "PYTHONPATH": str(ROOT), "DEMO_FAULTS": fault},
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == (1 if fault else 0)
        assert ("returned non-zero exit status 1." in said) == (fault == "crash@50")
        assert ("died with <Signals.SIGKILL: 9>." in said) == (fault == "kill@50")


def spoil(file: Path, damage: bytes | None) -> None:
    """Replace the content of `file` by `damage`, or delete it if that is None."""
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)


def tensor(file: Path) -> tuple[str, bytes]:
    """Type and data of the one tensor in a safetensors file, after checking the header against the size."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    (entry,) = (value for name, value in header.items() if name != "__metadata__")
    start, end = entry["data_offsets"]
    assert (start, 8 + length + end) == (0, len(content))
    return entry["dtype"], content[8 + length :]
