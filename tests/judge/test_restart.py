"""What is done about a finding, when, and from which checkpoint a run goes on."""

from __future__ import annotations

import argparse
import contextlib
import io
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fluxgym_watchdog.demo.console import Console
from fluxgym_watchdog.demo.plan import Plan, length, start_at
from fluxgym_watchdog.judge.causes import NEVER_THE_STATES_FAULT
from fluxgym_watchdog.judge.restart import JITTER_SHARE, absolute_step, backoff, decide, not_ready, start_points
from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    Decision,
    DecisionKind,
    Finding,
    FindingKind,
    Gpu,
    GpuReading,
    Host,
    RunRecord,
    StartPoint,
)
from fluxgym_watchdog.settings import Settings
from tests.judge.builders import NOW, attempt, final_state, record, state, step_state, weights

SETTINGS = Settings()
FOLDER = PurePosixPath("/outputs/x")
STALLED = Finding(FindingKind.STALLED, "no step for 5 min")
CRASHED = Finding(FindingKind.CRASHED, "it fell over", "unknown", retry=True)
HOPELESS = Finding(FindingKind.CRASHED, "bad arguments", "bad_arguments", retry=False)

# decide


@pytest.mark.parametrize(
    ("finding", "auto_resume", "kind"),
    [
        (Finding(FindingKind.HEALTHY, ""), True, DecisionKind.NOTHING),
        (Finding(FindingKind.BLIND, "cannot see"), True, DecisionKind.NOTHING),
        (Finding(FindingKind.SUSPECT, "quiet"), True, DecisionKind.GATHER_EVIDENCE),
        (Finding(FindingKind.SUSPECT, "quiet"), False, DecisionKind.GATHER_EVIDENCE),
        (Finding(FindingKind.FINISHED, "saved"), True, DecisionKind.FINISH),
        (Finding(FindingKind.FINISHED, "saved"), False, DecisionKind.FINISH),
        (STALLED, True, DecisionKind.STOP_AND_RESTART),
        (STALLED, False, DecisionKind.ASK),
        (CRASHED, True, DecisionKind.RESTART),
        (CRASHED, False, DecisionKind.ASK),
        (HOPELESS, True, DecisionKind.GIVE_UP),
        (HOPELESS, False, DecisionKind.GIVE_UP),
    ],
)
def test_what_follows_from_a_finding(finding: Finding, auto_resume: bool, kind: DecisionKind) -> None:
    decision = decide(record(auto_resume=auto_resume), finding, SETTINGS, 0.5)
    assert decision.kind is kind
    assert decision.text == finding.text


@pytest.mark.parametrize("finding", [STALLED, CRASHED])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_the_budget(finding: Finding, limit: int) -> None:
    settings = replace(SETTINGS, max_restarts=limit)
    for restarts in range(limit):
        assert decide(record(restarts=restarts), finding, settings, 0).kind is not DecisionKind.GIVE_UP
    given_up = decide(record(restarts=limit), finding, settings, 0)
    times = "1 restart" if limit == 1 else f"{limit} restarts"
    assert given_up.kind is DecisionKind.GIVE_UP
    assert given_up.text == f"{finding.text}; given up after {times} without a new checkpoint"


def test_an_observer_is_asked_however_often_it_restarted() -> None:
    assert decide(record(auto_resume=False, restarts=99), CRASHED, SETTINGS, 0).kind is DecisionKind.ASK


def test_a_finished_run_is_never_restarted() -> None:
    for restarts in (0, 99):
        decision = decide(record(restarts=restarts), Finding(FindingKind.FINISHED, "saved"), SETTINGS, 1)
        assert decision == Decision(DecisionKind.FINISH, "saved")


# backoff


def test_the_wait_doubles_up_to_its_bound() -> None:
    assert [backoff(n, SETTINGS, 0) for n in range(7)] == [10, 20, 40, 80, 160, 300, 300]


@hypothesis_settings(deadline=None)
@given(
    restarts=st.integers(0, 10**6),
    first=st.floats(0, 86400),
    longest=st.floats(0, 86400),
    jitter=st.floats(0, 1),
)
def test_the_wait_stays_between_its_bounds(restarts: int, first: float, longest: float, jitter: float) -> None:
    settings = replace(SETTINGS, backoff=first, backoff_max=longest)
    wait = backoff(restarts, settings, jitter)
    whole = backoff(restarts, settings, 0)
    assert min(first, longest) <= whole <= longest
    assert whole * (1 - JITTER_SHARE) - 1e-9 <= wait <= whole
    assert wait <= backoff(restarts + 1, settings, jitter)


@pytest.mark.parametrize("restarts", [0, 9])
def test_runs_that_died_together_do_not_start_together(restarts: int) -> None:
    settings = replace(SETTINGS, max_restarts=10)
    run = record(restarts=restarts)
    assert len({decide(run, CRASHED, settings, jitter / 10).delay_s for jitter in range(10)}) == 10


# quarantine

STAMP = state().stamp


def resumed(number: int, at: str | None = STAMP, steps: int = 0) -> Attempt:
    return attempt(number, resumed_from=at, first_step=80, last_step=80 + steps)


@pytest.mark.parametrize(
    ("attempts", "finding", "quarantined"),
    [
        ((attempt(1, last_step=85),), CRASHED, ()),
        ((attempt(1),), CRASHED, ()),
        ((attempt(1), resumed(2)), CRASHED, ()),
        ((attempt(1), resumed(2), resumed(3)), CRASHED, (STAMP,)),
        ((attempt(1), resumed(2), resumed(3)), STALLED, (STAMP,)),
        ((attempt(1), resumed(2, steps=1), resumed(3)), CRASHED, ()),
        ((attempt(1), resumed(2), resumed(3, steps=1)), CRASHED, ()),
        ((attempt(1), resumed(2, at="x-000001-state@1.000"), resumed(3)), CRASHED, ()),
        ((attempt(1), resumed(2), attempt(3)), CRASHED, ()),
        ((attempt(1), resumed(2)), replace(CRASHED, cause="state_unloadable"), (STAMP,)),
        ((attempt(1), attempt(2)), replace(CRASHED, cause="state_unloadable"), ()),
        *(
            ((attempt(1), resumed(2), resumed(3)), replace(CRASHED, cause=cause), ())
            for cause in sorted(NEVER_THE_STATES_FAULT)
        ),
        ((), CRASHED, ()),
    ],
)
@pytest.mark.parametrize("auto_resume", [True, False])
def test_a_state_is_set_aside_that_two_attempts_died_on_or_that_failed_to_load(
    attempts: tuple[Attempt, ...], finding: Finding, quarantined: tuple[str, ...], auto_resume: bool
) -> None:
    assert decide(record(attempts=attempts, auto_resume=auto_resume), finding, SETTINGS, 0).quarantine == quarantined


def test_the_last_restart_of_the_budget_still_sets_its_state_aside() -> None:
    found = decide(record(attempts=(attempt(1), resumed(2), resumed(3)), restarts=3), CRASHED, SETTINGS, 0)
    assert (found.kind, found.quarantine) == (DecisionKind.GIVE_UP, (STAMP,))


# conditions


def host(disk_free: int = 10**12, memory: int = 20 * 10**9) -> Host:
    return Host(32 * 10**9, memory, 0, 0, 10**13, disk_free)


SEEN = GpuReading("nvml", (Gpu(0, "u", "g", 0.0),), expected=True)
GONE = GpuReading("nvml", (), "GPU is lost", expected=True)


@pytest.mark.parametrize(
    ("cause", "machine", "gpu", "said"),
    [
        ("disk_full", host(disk_free=199_999_999), SEEN, "waiting for disk space: 200 MB free, 200 MB needed"),
        ("disk_full", host(disk_free=200_000_000), SEEN, ""),
        ("disk_full", None, SEEN, ""),
        ("gpu_lost", host(), GONE, "waiting for the GPU to come back: GPU is lost"),
        ("gpu_lost", host(), SEEN, ""),
        ("gpu_lost", host(), GpuReading(), ""),
        ("host_memory", host(memory=10**9), SEEN, "waiting for memory: 1.0 GB available, 3.2 GB needed"),
        ("host_memory", host(), SEEN, ""),
        ("unknown", host(disk_free=0, memory=0), GONE, ""),
        ("hang", host(disk_free=0, memory=0), GONE, ""),
        ("", host(disk_free=0), GONE, ""),
    ],
)
def test_a_restart_waits_for_what_ended_the_last_attempt(
    cause: str, machine: Host | None, gpu: GpuReading, said: str
) -> None:
    assert not_ready(cause, machine, gpu, state_bytes=1000) == said


def test_there_must_be_room_for_the_next_saves() -> None:
    assert not_ready("disk_full", host(disk_free=2 * 10**9), SEEN, state_bytes=10**9)
    assert not not_ready("disk_full", host(disk_free=3 * 10**9), SEEN, state_bytes=10**9)


# where to go on from


def points(run: RunRecord, *checkpoints: Checkpoint, chosen: str | None = None, **changes: bool) -> list[StartPoint]:
    return start_points(run, checkpoints, FOLDER, replace(SETTINGS, **changes), chosen)


def stamps(found: list[StartPoint]) -> list[str | None]:
    return [p.checkpoint for p in found]


def test_states_newest_first_then_weights_then_the_beginning() -> None:
    old, new, step, w1, w2 = state(1, 40), state(2, 80), step_state(3, 20), weights(1), weights(2)
    found = points(record(), w1, old, step, w2, new)
    assert stamps(found) == [step.stamp, new.stamp, old.stamp, w2.stamp, w1.stamp, None]
    assert [p.first_step for p in found] == [100, 80, 40, 80, 40, 0]


def test_the_options_of_each_kind() -> None:
    by_kind = points(record(), state(2, 80), step_state(3, 20), weights(2))
    assert [p.options for p in by_kind] == [
        ("--resume", "/outputs/x/x-step00000020-state", "--skip_until_initial_step", "--initial_step", "100"),
        ("--resume", "/outputs/x/x-000002-state", "--initial_epoch", "3"),
        ("--network_weights", "/outputs/x/x-000002.safetensors", "--initial_epoch", "3"),
        (),
    ]
    assert [p.text for p in by_kind] == [
        "from step 100",
        "from epoch 2 (step 80)",
        "from the weights of epoch 2 (step 80)",
        "from the beginning",
    ]


@pytest.mark.parametrize(
    "unusable",
    [
        state(3, 120, sound=False, reason="optimizer.bin is missing"),
        state(None, 120),
        state(3, 120, saved_at=NOW - 2000),  # of an earlier training
        final_state(6, 240),  # finished
        final_state(6, 160),  # finished by an attempt that began at step 80
        weights(6, final=True),
        weights(3, step_in_name=100),
        weights(3, sound=False),
        step_state(3, 0),  # nobody knows where it stands
        step_state(3, 0, attempt_step=None),
    ],
)
def test_what_cannot_be_gone_on_from(unusable: Checkpoint) -> None:
    assert stamps(points(record(), unusable, state(2, 80))) == [state(2, 80).stamp, None]


def test_a_quarantine_is_for_the_content_not_for_the_name() -> None:
    bad, older = state(3, 120), state(2, 80)
    run = record(quarantined=(bad.stamp,))
    assert stamps(points(run, bad, older)) == [older.stamp, None]
    rewritten = replace(bad, saved_at=bad.saved_at + 60)
    assert stamps(points(run, rewritten, older)) == [rewritten.stamp, older.stamp, None]


def test_a_new_training_in_an_old_folder_starts_over() -> None:
    run = record(attempts=(attempt(1), attempt(2, started_at=NOW + 100, fresh=True)))
    assert stamps(points(run, state(4, 160), state(5, 200))) == [None]
    assert stamps(points(run, state(4, 160), chosen=state(4).name)) == [state(4, 160).stamp]


def test_a_finished_training_goes_on_when_more_epochs_are_asked_for() -> None:
    longer = record(total_steps=320)
    (found, _) = points(longer, final_state(6, 160))
    assert found.first_step == 240
    assert found.options[-3:] == ("--skip_until_initial_step", "--initial_step", "240") or found.options[-2:] == (
        "--initial_epoch",
        "7",
    )


def test_without_knowing_the_total_a_final_state_is_left_alone() -> None:
    assert stamps(points(record(total_steps=None), final_state(6, 240), state(2, 80))) == [state(2, 80).stamp, None]


def test_without_knowing_the_steps_of_an_epoch_only_whole_epochs_can_be_placed() -> None:
    run = record(steps_per_epoch=None, total_steps=None)
    found = points(run, state(2, 80), state(1, 40), step_state(3, 20), final_state(6, 240), weights(3))
    assert stamps(found) == [state(2, 80).stamp, state(1, 40).stamp, weights(3).stamp, None]
    assert found[0].options == ("--resume", "/outputs/x/x-000002-state", "--initial_epoch", "3")
    assert found[0].text == "from epoch 2"


def test_with_accumulation_only_whole_epochs_are_used() -> None:
    """The trainer skips a wrong number of batches then (sd-scripts issue 2407)."""
    found = points(record(accumulation=4), step_state(3, 20), state(2, 80), weights(1))
    assert stamps(found) == [state(2, 80).stamp, weights(1).stamp, None]


def test_the_beginning_only_where_it_is_allowed() -> None:
    assert stamps(points(record(), from_beginning=True)) == [None]
    assert points(record(), from_beginning=False) == []
    assert stamps(points(record(), state(), from_beginning=False)) == [STAMP]


def test_the_one_that_the_user_chose_is_the_only_way() -> None:
    run = record(quarantined=(state(1, 40).stamp,))
    assert stamps(points(run, state(1, 40), state(2, 80), chosen="x-000001-state")) == [state(1, 40).stamp]
    assert points(run, state(2, 80), chosen="x-000009-state") == []
    assert points(run, state(2, 80, sound=False), chosen="x-000002-state") == []


# the trainer's arithmetic


@pytest.mark.parametrize(
    ("checkpoint", "step"),
    [
        (state(1, 40), 40),
        (state(3, 40), 120),  # relative to an attempt that began at step 80
        (step_state(2, 50), 50),
        (step_state(3, 20), 100),
        (step_state(2, 40), 80),  # on the epoch's last step
        (step_state(2, 80), 80),
        (final_state(6, 240), 240),
        (final_state(6, 160), 240),
        (weights(2), 80),
        (weights(6, final=True), None),
        (weights(2, step_in_name=50), None),
        (step_state(2, 0), None),
        (state(None, 80), None),
    ],
)
def test_the_absolute_step(checkpoint: Checkpoint, step: int | None) -> None:
    assert absolute_step(checkpoint, 40) == step
    assert absolute_step(checkpoint, None) is None
    assert absolute_step(checkpoint, 0) is None


def parsed(options: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--initial_epoch", type=int)
    parser.add_argument("--initial_step", type=int)
    parser.add_argument("--skip_until_initial_step", action="store_true")
    parser.add_argument("--resume")
    parser.add_argument("--network_weights")
    return parser.parse_args(options)


def train(
    plan: Plan, until: int | None, save_every_steps: int, at: float
) -> tuple[list[int], list[tuple[Checkpoint, int]]]:
    """The absolute steps that one attempt executes, up to `until` of its own, and what it saves, with the truth."""
    executed: list[int] = []
    saved: list[tuple[Checkpoint, int]] = []
    counter = plan.first_step
    for epoch in range(plan.first_epoch, plan.epochs):
        first = plan.skipped_batches if epoch == plan.first_epoch else 0
        for batch in range(first, plan.steps_per_epoch):
            if until is not None and len(executed) >= until:
                return executed, saved
            step = epoch * plan.steps_per_epoch + batch + 1
            executed.append(step)
            counter += 1
            if save_every_steps and counter % save_every_steps == 0:
                saved.append((step_state(epoch + 1, counter, saved_at=at + len(executed) / 1000), step))
            if step >= plan.total_steps:
                saved.append((final_state(epoch + 1, counter, saved_at=at + 1), step))
                return executed, saved
        if epoch + 1 < plan.epochs:
            step = (epoch + 1) * plan.steps_per_epoch
            saved.append((state(epoch + 1, counter, saved_at=at + len(executed) / 1000 + 0.0005), step))
            saved.append((weights(epoch + 1, saved_at=at + len(executed) / 1000 + 0.0004), step))
    return executed, saved


@hypothesis_settings(deadline=None, max_examples=300)
@given(
    steps_per_epoch=st.integers(1, 12),
    total=st.integers(1, 60),
    save_every_steps=st.integers(0, 9),
    interruptions=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 3)), max_size=6),
)
def test_after_any_interruptions_exactly_the_missing_steps_are_executed(
    steps_per_epoch: int, total: int, save_every_steps: int, interruptions: list[tuple[int, int]]
) -> None:
    """The other side is the stand-in trainer's own arithmetic, which was written after sd-scripts'."""
    asked = argparse.Namespace(gradient_accumulation_steps=1, max_train_steps=total, max_train_epochs=None)
    whole = length(asked, steps_per_epoch)
    run = record(steps_per_epoch=steps_per_epoch, total_steps=total)
    disk: dict[str, tuple[Checkpoint, int]] = {}
    options: tuple[str, ...] = ()
    holds = 0
    for number, (until, lost) in enumerate([*interruptions, (None, 0)]):
        named = parsed(options)
        from_state = None
        if named.resume:
            from_state = disk[PurePosixPath(named.resume).name][0].attempt_step
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            plan = start_at(whole, named, from_state, Console())
        executed, saved = train(plan, until, save_every_steps, NOW + 10 * number)
        assert executed == list(range(holds + 1, holds + 1 + len(executed)))
        if executed and executed[-1] == total:
            break
        for checkpoint, step in saved:
            assert absolute_step(checkpoint, steps_per_epoch) == step
            disk[checkpoint.name] = (checkpoint, step)
        found = points(run, *(checkpoint for checkpoint, _ in disk.values()))
        point = found[min(lost, len(found) - 1)]  # sometimes the best ones cannot be used
        options = point.options
        holds = next((step for checkpoint, step in disk.values() if checkpoint.stamp == point.checkpoint), 0)
        assert point.first_step == holds
    assert executed[-1] == total
    assert len(executed) == total - holds
