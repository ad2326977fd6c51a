"""Watchdog.tick: with a simulated clock where that is enough, and over real trainings for taking them up again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.records import RunState
from fluxgym_watchdog.store import Held, Store
from fluxgym_watchdog.supervision import Supervision
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import PARKED, QUICK_SETTINGS, Training, clean_up, tick_until, until

PATIENT = replace(QUICK_SETTINGS, stuck_threshold=120)


def tick_until_parked(watchdog: Watchdog, training: Training) -> psutil.Process:
    """Ticks until a `stop@50` holds the training: no step comes, as on a machine that sleeps."""
    tick_until(watchdog, lambda: any(s == 49 for _, s in training.executed), "step 49")
    trainer = training.parked()
    watchdog.tick(time.monotonic())
    return trainer


class TestTick:
    def test_trains_to_the_end(self, short_training: Training, watchdogs: Callable[..., Watchdog]) -> None:
        watchdog = watchdogs()
        watchdog.train(short_training.script)
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert not watchdog.supervises("demo-lora")
        assert not short_training.store.is_held()

    def test_an_hour_in_which_the_machine_slept_is_no_silence(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        watchdog = watchdogs("stop@50")
        watchdog.train(short_training.script)
        trainer = tick_until_parked(watchdog, short_training)
        now = time.monotonic()
        watchdog.tick(now)
        watchdog.tick(now + 0.1)
        for at in (3600.0, 3600.1, 3600.2, 7200.0, 7200.1):
            watchdog.tick(now + at)
            assert short_training.state in (RunState.TRAINING, RunState.SUSPECT)
        trainer.resume()
        assert not short_training.events("stalled")

    def test_silence_in_simulated_time_is_a_hang(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        watchdog = watchdogs("stop@50")
        watchdog.train(short_training.script)
        trainer = tick_until_parked(watchdog, short_training)
        now = time.monotonic()
        for number in range(60):
            watchdog.tick(now + number * 0.1)
        assert short_training.events("stalled")
        tick_until(watchdog, lambda: not trainer.is_running(), "the stop")
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_a_failure_of_ours_in_one_run_does_not_end_the_watch_over_others(
        self, short_training: Training, watchdogs: Callable[..., Watchdog], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Training(short_training.root, "other", epochs=1)
        watchdog = watchdogs()
        watchdog.train(short_training.script)
        watchdog.train(other.script)
        broken, look = [True], Supervision._look

        def fails(supervision: Supervision, now: float) -> None:
            if broken and supervision.run_folder.name == "demo-lora":
                raise RuntimeError("a defect of ours")
            look(supervision, now)

        monkeypatch.setattr(Supervision, "_look", fails)
        tick_until(watchdog, lambda: other.state is RunState.FINISHED, "the other run's end")
        assert "a defect of ours" in watchdog.problem
        status = short_training.store.read_status()
        assert status is not None
        assert "a defect of ours" in status.problem
        broken.clear()
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert watchdog.problem == ""
        status = short_training.store.read_status()
        assert status is not None
        assert status.problem == "" or "GPU" in status.problem

    def test_a_failure_while_starting_leaves_nothing_behind(
        self, short_training: Training, watchdogs: Callable[..., Watchdog], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever asked starts the training otherwise; a second one of ours would write into the same folder."""

        def fails(*_: Any) -> None:
            raise RuntimeError("a defect of ours")

        monkeypatch.setattr(Supervision, "begin", fails)
        watchdog = watchdogs()
        with pytest.raises(RuntimeError):
            watchdog.train(short_training.script)
        assert not watchdog.supervises("demo-lora")
        assert not short_training.store.is_held()
        watchdog.tick(time.monotonic())
        assert not short_training.marked()

    def test_the_thread_starts_once_and_stops(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        watchdog = watchdogs("stop@10", PATIENT)
        watchdog.start()
        watchdog.start()
        watchdog.train(short_training.script)
        short_training.parked()
        watchdog.stop()
        assert not short_training.store.is_held()
        assert short_training.trainer().is_running(), "the training goes on"

    def test_one_run_has_one_supervisor(self, short_training: Training, watchdogs: Callable[..., Watchdog]) -> None:
        first, second = watchdogs(), watchdogs()
        store = first.train(short_training.script)
        assert first.train(short_training.script) is store
        with pytest.raises(Held):
            second.train(short_training.script)


class TestRequests:
    def test_for_a_run_that_nobody_supervises_are_taken(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        watchdog = watchdogs("stop@50", PATIENT)
        watchdog.train(short_training.script)
        tick_until_parked(watchdog, short_training)
        short_training.store.request("stop")
        tick_until(watchdog, lambda: short_training.state is RunState.STOPPED, "the stop")
        short_training.store.request("switch", auto_resume=False)
        tick_until(watchdog, lambda: not short_training.record.auto_resume, "the switch")
        assert not watchdog.supervises("demo-lora")
        short_training.store.request("resume")
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_stop_from_the_command_line(self, short_training: Training, watchdogs: Callable[..., Watchdog]) -> None:
        watchdog = watchdogs("stop@10", PATIENT)
        watchdog.start()
        watchdog.train(short_training.script)
        short_training.parked()
        stopped = short_training.cli("stop", str(short_training.run_folder))
        assert stopped.ends() == 0, stopped.output
        assert short_training.state is RunState.STOPPED
        short_training.nothing_left()

    def test_that_cannot_be_served_are_said_once(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        short_training.script.write_text("echo no training\n")
        short_training.store.request("resume")
        watchdog = watchdogs()
        watchdog.tick(time.monotonic())
        assert short_training.store.pending_requests() == []
        assert short_training.state is RunState.FAILED
        assert "has no 'accelerate launch" in short_training.record.reason
        assert len(short_training.events("failed")) == 1


class TestRecovery:
    def begin_and_vanish(self, training: Training, watchdogs: Callable[..., Watchdog], auto_resume: bool) -> None:
        watchdog = watchdogs("stop@50", PATIENT)
        watchdog.train(training.script)
        watchdog.set_auto_resume("demo-lora", auto_resume)
        tick_until_parked(watchdog, training)
        watchdog.stop()

    def kill_all(self, training: Training) -> None:
        for process in training.tree():
            os.kill(process.id.pid, signal.SIGKILL)
        until(lambda: not training.tree(), "the death of everything")

    def test_of_a_living_training(self, short_training: Training, watchdogs: Callable[..., Watchdog]) -> None:
        self.begin_and_vanish(short_training, watchdogs, True)
        watchdog = watchdogs(settings=PATIENT)
        watchdog.tick(time.monotonic())
        short_training.go_on()
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert len(short_training.record.attempts) == 1

    def test_of_a_dead_one_goes_on(self, short_training: Training, watchdogs: Callable[..., Watchdog]) -> None:
        self.begin_and_vanish(short_training, watchdogs, True)
        self.kill_all(short_training)
        watchdog = watchdogs()
        tick_until(watchdog, lambda: short_training.state is RunState.FINISHED, "the end")
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_of_a_dead_one_with_auto_resume_off_is_no_phantom(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        self.begin_and_vanish(short_training, watchdogs, False)
        self.kill_all(short_training)
        watchdog = watchdogs()
        watchdog.tick(time.monotonic())
        assert short_training.state is RunState.CRASHED
        assert not watchdog.supervises("demo-lora")

    def test_of_a_run_whose_supervisor_died_while_we_were_here(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        watchdog = watchdogs()
        watchdog.tick(time.monotonic())
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        watchdog.tick(time.monotonic())
        assert not watchdog.supervises("demo-lora")
        started.signal(signal.SIGKILL)
        started.ends()
        watchdog.tick(time.monotonic() + 60)
        assert watchdog.supervises("demo-lora")

    def test_a_copy_of_a_living_run_is_left_alone(
        self, short_training: Training, watchdogs: Callable[..., Watchdog]
    ) -> None:
        self.begin_and_vanish(short_training, watchdogs, True)
        copy = short_training.run_folder.with_name("copy")
        shutil.copytree(short_training.run_folder, copy, ignore=shutil.ignore_patterns("*-state"))
        (copy / "train.sh").write_text(
            (copy / "train.sh").read_text().replace(str(short_training.run_folder), str(copy))
        )
        trainer = short_training.trainer()
        watchdog = watchdogs()
        watchdog.tick(time.monotonic())
        copied, _ = Store(copy).read_record()
        assert copied is not None
        assert copied.state is RunState.STOPPED
        assert trainer.is_running()
        assert watchdog.supervises("demo-lora")
        assert not watchdog.supervises("copy")


def test_the_first_tick_of_a_fresh_fluxgym_without_outputs(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "outputs", QUICK_SETTINGS)
    watchdog.tick(time.monotonic())
    assert watchdog.problem == ""
    clean_up(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="making a link needs rights on Windows")
def test_a_link_to_itself_among_the_runs_ends_no_watch(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "real").mkdir(parents=True)
    (tmp_path / "outputs" / "real" / "train.sh").write_text("accelerate launch\n")
    (tmp_path / "outputs" / "loop").symlink_to("loop")
    assert [path.name for path in find_runs(tmp_path / "outputs")] == ["real"]


def test_stop_is_heard_however_far_apart_the_looks_are(
    short_training: Training, watchdogs: Callable[..., Watchdog]
) -> None:
    watchdog = watchdogs("stop@50", replace(PATIENT, check_interval=3600.0))
    watchdog.start()
    watchdog.train(short_training.script)
    short_training.parked()
    short_training.store.request("stop")
    until(lambda: short_training.state is RunState.STOPPED, "the stop")


def test_what_was_trained_while_nobody_watched_is_counted_by_a_stop(
    short_training: Training, watchdogs: Callable[..., Watchdog]
) -> None:
    first = watchdogs("stop@70")
    first.train(short_training.script)
    tick_until(first, lambda: short_training.state is RunState.TRAINING, "the launch")
    first.stop()
    short_training.parked()
    short_training.store.request("stop")
    second = watchdogs("stop@70")
    tick_until(second, lambda: short_training.state is RunState.STOPPED, "the stop")
    attempt = short_training.record.attempt
    assert attempt is not None
    assert attempt.last_step >= 69
