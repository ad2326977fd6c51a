"""What a supervised run does beyond healing: closer looks, going back, ending a trainer that does not end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxgym_watchdog.fluxgym.runner import without_redraws
from fluxgym_watchdog.judge import restart, resume
from fluxgym_watchdog.judge.resume import ahead_of
from fluxgym_watchdog.judge.stall import AFTER_THE_END
from fluxgym_watchdog.records import Asked, Attempt, DecisionKind, Finding, FindingKind, RunRecord, RunState, StartPoint
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.watchdog import Watchdog
from tests.judge.builders import NOW, state
from tests.trainings import Training, tick_until


def test_a_silence_is_looked_at_closely_once_and_kept_as_files(
    short_training: Training,
    watchdogs: Callable[..., Watchdog],
) -> None:
    watchdog = watchdogs("hang@50")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.record.state is RunState.FINISHED, "the healed end")
    folders = list((short_training.run_folder / ".watchdog" / "evidence").iterdir())
    assert len(folders) == 1
    assert {"processes.txt", "stacks.txt", "gpu.txt", "machine.txt", "last-lines.txt"} == {
        p.name for p in folders[0].iterdir()
    }
    assert "trainer" in (folders[0] / "processes.txt").read_text()
    assert "steps:" in (folders[0] / "last-lines.txt").read_text()
    stalled = next(e for e in short_training.store.read_events() if e.kind == "stalled")
    assert stalled.evidence["folder"] == f"evidence/{folders[0].name}"


def test_a_trainer_that_hangs_after_its_final_weights_is_ended_and_the_run_is_finished(
    short_training: Training,
    watchdogs: Callable[..., Watchdog],
) -> None:
    watchdog = watchdogs("hang@ending")
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.record.state is RunState.FINISHED, "the end")
    assert len(short_training.record.attempts) == 1
    assert "does not end" in short_training.events("stalled")[0]
    short_training.nothing_left()


@pytest.mark.parametrize(("auto_resume", "expected"), [(True, DecisionKind.STOP_AND_FINISH), (False, DecisionKind.ASK)])
def test_a_stall_after_the_end_is_never_a_restart(auto_resume: bool, expected: DecisionKind) -> None:
    record = RunRecord("x", RunState.TRAINING, auto_resume=auto_resume, attempts=(Attempt(1, NOW),))
    finding = Finding(FindingKind.STALLED, "it does not end", AFTER_THE_END)
    assert restart.decide(record, finding, Settings(), 0.0).kind is expected


def test_going_back_leaves_behind_what_lies_ahead() -> None:
    record = RunRecord("x", attempts=(Attempt(1, NOW),), steps_per_epoch=40, total_steps=240)
    found = [state(1, 40), state(2, 80), state(3, 120)]
    placed = resume.placed(found, record, Asked(epochs=6))
    assert ahead_of(StartPoint(found[0].stamp, 40), placed) == (found[1].stamp, found[2].stamp)


def test_states_are_told_apart_by_the_clock_of_their_file_system() -> None:
    # A network volume whose clock is a minute behind: the state is older than the attempt by the machine's clock.
    attempt = Attempt(1, NOW, files_since=NOW - 60)
    record = RunRecord("x", attempts=(attempt,), steps_per_epoch=40, total_steps=240)
    own, earlier = state(2, 80, saved_at=NOW - 30), state(3, 120, saved_at=NOW - 90)
    points = resume.start_points(record, [own, earlier], Path("/f"), Settings(), Asked(epochs=6))
    assert [p.checkpoint for p in points] == [own.stamp, None]


def test_a_launch_notes_the_clock_of_the_file_system(
    short_training: Training,
    watchdogs: Callable[..., Watchdog],
) -> None:
    watchdog = watchdogs()
    watchdog.train(short_training.script)
    tick_until(watchdog, lambda: short_training.record.state is RunState.FINISHED, "the end")
    script = short_training.run_folder / ".watchdog" / "attempt-1.sh"
    assert short_training.record.attempts[0].files_since == pytest.approx(script.stat().st_mtime)


def test_redraws_of_a_bar_are_shown_once() -> None:
    texts = ["epoch 1/6", "steps:   1%|▏ | 1/240", "steps:   2%|▏ | 2/240", "saved", "steps:   3%|▏ | 3/240", ""]
    lines = [(text, "steps:" if text.startswith("steps") else None) for text in texts]
    assert without_redraws(lines) == ["epoch 1/6", "steps:   2%|▏ | 2/240", "saved", "steps:   3%|▏ | 3/240", ""]
    assert without_redraws([]) == []
