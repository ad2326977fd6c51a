"""Bad moments and bad company: what must neither harm a run nor be lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fluxgym_watchdog.act import options
from fluxgym_watchdog.act.launch import RUN_VARIABLE, run_mark
from fluxgym_watchdog.act.script import ScriptError, read
from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.observe.processes import find_by_environment
from fluxgym_watchdog.records import RunState
from fluxgym_watchdog.settings import Settings, SettingsError, load
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.supervision import Supervision
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import Training, tick_until, until

Watchdogs = Callable[..., Watchdog]


def finish(watchdog: Watchdog, training: Training) -> None:
    tick_until(watchdog, lambda: training.state is RunState.FINISHED, "the finished run")


def test_a_failed_adoption_never_ends_in_a_judgement_of_the_unseen(
    short_training: Training, watchdogs: Watchdogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = watchdogs("stop@50")
    first.train(short_training.script)
    tick_until(first, lambda: any(s == 49 for _, s in short_training.executed), "step 49")
    trainer = short_training.parked()
    first.stop()
    monkeypatch.setattr(Supervision, "adopt", lambda *_: (_ for _ in ()).throw(RuntimeError("a defect of ours")))
    second = watchdogs("stop@50")
    for _ in range(3):
        second.tick(time.monotonic())
    assert not second.supervises("demo-lora")
    assert trainer.is_running()


def test_a_finished_run_is_not_trained_again_by_a_late_request(short_training: Training, watchdogs: Watchdogs) -> None:
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    finish(watchdog, short_training)
    short_training.store.request("resume")
    tick_until(watchdog, lambda: not short_training.store.pending_requests(), "the request to be taken")
    watchdog.tick(time.monotonic())
    assert short_training.state is RunState.FINISHED
    assert len(short_training.record.attempts) == 1


def test_a_start_from_nothing_stays_one_when_the_watchdog_dies_before_it(
    short_training: Training, watchdogs: Watchdogs
) -> None:
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    finish(watchdog, short_training)
    watchdog.train(short_training.script)
    watchdog.stop()
    again = watchdogs()
    finish(again, short_training)
    second = short_training.record.attempts[1]
    assert second.fresh
    assert second.resumed_from is None


def test_a_supervisor_that_died_while_it_judged_a_crash_is_replaced(
    short_training: Training, watchdogs: Watchdogs
) -> None:
    watchdog = watchdogs("crash@50")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: bool(short_training.events("crashed")), "the crash")
    watchdog.stop()
    record = replace(short_training.record, state=RunState.CRASHED, stopping_for=None, next_start_at=None)
    with short_training.store.locked():
        short_training.store.write_record(record)
    finish(watchdogs(), short_training)


def test_a_run_without_its_script_can_still_be_stopped(short_training: Training, watchdogs: Watchdogs) -> None:
    watchdog = watchdogs("hang@50")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: any(s == 49 for _, s in short_training.executed), "step 49")
    watchdog.stop()
    short_training.script.write_text("nothing of use\n")
    ended = short_training.cli("stop", str(short_training.run_folder))
    assert ended.ends() == 0
    assert short_training.state is RunState.STOPPED
    short_training.nothing_left()


def test_a_copied_folder_has_no_part_in_the_training_that_its_script_names(short_training: Training) -> None:
    """Started by something else, the original carries no mark: only its folder tells whose it is."""
    short_training.plain(DEMO_FAULTS="stop@50")
    trainer = short_training.parked()
    short_training.store.folder.mkdir()  # as a watched run has
    copy = short_training.run_folder.with_name("copy")
    shutil.copytree(short_training.run_folder, copy)
    with pytest.raises(ScriptError, match="another run's folder"):
        Supervision(Store(copy), copy / "train.sh", short_training.root, Settings(), GpuReader())
    lenient = Supervision(Store(copy), copy / "train.sh", short_training.root, Settings(), GpuReader(), strict=False)
    assert lenient.strangers() == []
    assert trainer.is_running()


def test_a_script_that_ends_before_its_training_is_watched_to_the_end(
    short_training: Training, watchdogs: Watchdogs
) -> None:
    text = short_training.script.read_text().rstrip("\\\n ")
    short_training.script.write_text(f"{text} &\n")
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    finish(watchdog, short_training)
    assert len(short_training.record.attempts) == 1


def test_a_link_to_a_run_is_no_run_of_its_own(short_training: Training) -> None:
    (short_training.root / "outputs" / "latest").symlink_to(short_training.name)
    assert find_runs(short_training.root / "outputs") == [short_training.run_folder]


def test_an_unreadable_record_is_never_written_over(
    short_training: Training, watchdogs: Watchdogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    finish(watchdog, short_training)
    before = (short_training.store.folder / "run.json").read_bytes()
    monkeypatch.setattr("fluxgym_watchdog.store.text_of", lambda path: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(OSError, match="cannot be read"):
        watchdog.train(short_training.script)
    assert (short_training.store.folder / "run.json").read_bytes() == before


def test_pipes_in_place_of_files_are_refused_and_block_nothing(short_training: Training, watchdogs: Watchdogs) -> None:
    requests = short_training.store.folder / "requests"
    requests.mkdir(parents=True)
    os.mkfifo(requests / "x.json")
    assert short_training.store.pending_requests() == []
    os.mkfifo(short_training.root / "pipe")
    (short_training.root / "watchdog.yaml").unlink(missing_ok=True)
    os.mkfifo(short_training.root / "watchdog.yaml")
    with pytest.raises(SettingsError, match="not a file"):
        load(short_training.root)
    os.mkfifo(short_training.run_folder / "training.log")
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.state is RunState.FAILED, "the refusal")
    assert "not a file" in short_training.record.reason


def test_an_own_save_state_keeps_as_many_as_the_script_says() -> None:
    own = read(b"accelerate launch flux_train_network.py --save_state --loss_type l2\n")
    assert options.saving(options.asked(own), save_states=True, keep_states=2) == []


def test_a_deleted_run_does_not_come_back(short_training: Training, watchdogs: Watchdogs) -> None:
    watchdog = watchdogs("crash@50")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: bool(short_training.events("crashed")), "the crash")
    until(lambda: not short_training.marked(), "the crashed training to be gone")
    shutil.rmtree(short_training.run_folder)
    tick_until(watchdog, lambda: not watchdog.supervises("demo-lora"), "the watch to end")
    assert not short_training.run_folder.exists()


def test_what_has_only_inherited_the_mark_is_no_part_of_the_training(tmp_path: Path) -> None:
    mark = run_mark(tmp_path)
    code = (
        f"from fluxgym_watchdog.observe.processes import find_by_environment as f; print(f({RUN_VARIABLE!r}, {mark!r}))"
    )
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {code!r}], "
            "capture_output=True, text=True).stdout)",
        ],
        env={**os.environ, RUN_VARIABLE: mark, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"  # neither itself nor the process that it was started from
    assert find_by_environment(RUN_VARIABLE, mark) == []


def test_numbers_without_bounds_are_no_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder.mkdir()
    (store.folder / "run.json").write_text(json.dumps({"name": "x", "next_start_at": 10**400}))
    record, problem = store.read_record()
    assert record is None
    assert "too large" in problem
