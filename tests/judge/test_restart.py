"""What is done about a finding, when, and from which checkpoint a run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fluxgym_watchdog.judge.causes import NEVER_THE_STATES_FAULT
from fluxgym_watchdog.judge.restart import JITTER_SHARE, backoff, decide, not_ready
from fluxgym_watchdog.records import (
    Asked,
    Attempt,
    Decision,
    DecisionKind,
    Finding,
    FindingKind,
    Gpu,
    GpuReading,
    Host,
)
from fluxgym_watchdog.settings import Settings
from tests.judge.builders import attempt, record, state

SETTINGS = Settings()
ASKED = Asked(epochs=6)
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
        (HOPELESS, False, DecisionKind.ASK),  # giving up ends what is left of the processes: that is acting
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
        *(
            ((attempt(1), replace(resumed(2), outcome=cause), resumed(3)), CRASHED, ())
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


# scripts that are not understood, versions that need help, ends that lack a file


@pytest.mark.parametrize(("finding", "kind"), [(STALLED, DecisionKind.ASK), (CRASHED, DecisionKind.GIVE_UP)])
def test_a_run_that_cannot_be_resumed_is_never_started_again(finding: Finding, kind: DecisionKind) -> None:
    run = record(unresumable="train.sh is not understood: line 3: …")
    decision = decide(run, finding, SETTINGS, 0)
    assert decision.kind is kind
    assert "train.sh is not understood: line 3" in decision.text
    assert decide(replace(run, auto_resume=False), finding, SETTINGS, 0).kind is DecisionKind.ASK


def test_a_cure_is_tried_once_before_a_state_is_blamed() -> None:
    attempts = (attempt(1), resumed(2))
    uncured = replace(CRASHED, cause="state_unloadable", cure="A=1")
    first = decide(record(attempts=attempts), uncured, SETTINGS, 0)
    assert (first.kind, first.cure, first.quarantine) == (DecisionKind.RESTART, "A=1", ())
    second = decide(record(attempts=attempts, cures=("A=1",)), uncured, SETTINGS, 0)
    assert (second.kind, second.cure, second.quarantine) == (DecisionKind.RESTART, "", (STAMP,))


@pytest.mark.parametrize("finding", [CRASHED, HOPELESS])
@pytest.mark.parametrize("restarts", [0, 99])
def test_what_lacks_only_a_file_is_completed_whatever_its_budget(finding: Finding, restarts: int) -> None:
    assert decide(record(restarts=restarts), finding, SETTINGS, 0, all_trained=True).kind is DecisionKind.COMPLETE
    observed = record(restarts=restarts, auto_resume=False)
    assert decide(observed, finding, SETTINGS, 0, all_trained=True).kind is DecisionKind.ASK


def test_a_step_that_lies_behind_the_end_by_now_is_given_up_for_an_epoch() -> None:
    late = replace(HOPELESS, cause="already_finished")
    within = attempt(2, resumed_from=STAMP, first_step=75, counted_from=40)
    decision = decide(record(attempts=(attempt(1), within)), late, SETTINGS, 0)
    assert (decision.kind, decision.quarantine) == (DecisionKind.RESTART, (STAMP,))
    whole = attempt(2, resumed_from=STAMP, first_step=80, counted_from=80, epochs_before=2)
    assert decide(record(attempts=(attempt(1), whole)), late, SETTINGS, 0).kind is DecisionKind.GIVE_UP
