"""What to do about a finding, and when; where to go on from is judged in `resume`."""

from __future__ import annotations

from fluxgym_watchdog.judge.causes import CAUSES, NEVER_THE_STATES_FAULT
from fluxgym_watchdog.judge.stall import AFTER_THE_END
from fluxgym_watchdog.records import (
    Attempt,
    Decision,
    DecisionKind,
    Finding,
    FindingKind,
    GpuReading,
    Host,
    RunRecord,
)
from fluxgym_watchdog.settings import Settings

LEAST_DISK_BYTES = 200_000_000
LEAST_MEMORY_SHARE = 0.1
"""With less of the machine's memory available a training that just ran out of it would do so again."""
JITTER_SHARE = 0.2
"""Waits are up to this much shorter, so that several runs on one machine do not start in the same second."""


def decide(
    record: RunRecord, finding: Finding, settings: Settings, jitter: float, *, all_trained: bool = False
) -> Decision:
    """The decision; `jitter` is a random number from 0 to 1.

    `all_trained`: the attempt has ended, and its final state holds the last step (see `resume.to_complete`).
    """
    if finding.kind is FindingKind.FINISHED:
        return Decision(DecisionKind.FINISH, finding.text)
    if finding.kind is FindingKind.SUSPECT:
        return Decision(DecisionKind.GATHER_EVIDENCE, finding.text)
    if finding.kind not in (FindingKind.STALLED, FindingKind.CRASHED):
        return Decision(DecisionKind.NOTHING, finding.text)
    crashed = finding.kind is FindingKind.CRASHED
    cure = finding.cure if finding.cure not in record.cures else ""
    quarantine = () if cure else _to_quarantine(record, finding)
    if finding.cause == AFTER_THE_END and record.auto_resume:
        return Decision(DecisionKind.STOP_AND_FINISH, finding.text)
    if crashed and all_trained and record.auto_resume:
        return Decision(DecisionKind.COMPLETE, finding.text)
    if record.unresumable:
        kind = DecisionKind.GIVE_UP if crashed and record.auto_resume else DecisionKind.ASK
        return Decision(kind, f"{finding.text}; it is not started again by itself, since {record.unresumable}")
    if not record.auto_resume:
        return Decision(DecisionKind.ASK, finding.text, quarantine=quarantine, cure=cure)
    too_late = record.attempt is not None and _began_too_late(record.attempt, finding)
    if crashed and finding.retry is False and not too_late:
        return Decision(DecisionKind.GIVE_UP, finding.text)
    if record.restarts >= settings.max_restarts:
        times = "1 restart" if record.restarts == 1 else f"{record.restarts} restarts"
        text = f"{finding.text}; given up after {times} without a new checkpoint"
        return Decision(DecisionKind.GIVE_UP, text, quarantine=quarantine)
    delay = backoff(record.restarts, settings, jitter)
    kind = DecisionKind.RESTART if crashed else DecisionKind.STOP_AND_RESTART
    return Decision(kind, finding.text, delay, quarantine, cure)


def backoff(restarts: int, settings: Settings, jitter: float) -> float:
    """The wait before the next start in seconds, doubling with each restart in a row, never over `backoff_max`.

    The jitter shortens it: a wait at its bound could not be longer, and runs that wait there must part, too.
    """
    wait = min(settings.backoff * 2.0 ** min(restarts, 30), settings.backoff_max)
    return wait * (1 - JITTER_SHARE * jitter)


def not_ready(cause: str, host: Host | None, gpu: GpuReading, state_bytes: int) -> str:
    """Why a restart must still wait for the condition that ended the last attempt to clear; '' when it need not.

    `state_bytes` is the size of the newest state: room for two of them, and for its weights, must be there.
    """
    waits_for = next((c.wait_for for c in CAUSES if c.name == cause), "")
    if waits_for == "disk" and host is not None:
        needed = max(LEAST_DISK_BYTES, 3 * state_bytes)
        if host.disk_free_bytes < needed:
            return f"waiting for disk space: {host.disk_free_bytes / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed"
    if waits_for == "memory" and host is not None:
        free, least = host.memory_available_bytes, LEAST_MEMORY_SHARE * host.memory_total_bytes
        if free < least:
            return f"waiting for memory: {free / 1e9:.1f} GB available, {least / 1e9:.1f} GB needed"
    if waits_for == "gpu" and gpu.expected and not gpu.gpus:
        return f"waiting for the GPU to come back: {gpu.problem}"
    return ""


def _began_too_late(attempt: Attempt, finding: Finding) -> bool:
    """The dataset was changed meanwhile, so that a step within an epoch lies behind the end; whole epochs never do."""
    within_epoch = attempt.counted_from is not None and attempt.first_step > attempt.counted_from
    return finding.cause == "already_finished" and within_epoch


def _to_quarantine(record: RunRecord, finding: Finding) -> tuple[str, ...]:
    """The checkpoint that this attempt began from, if it failed to load, or if two attempts died on it at once."""
    attempt = record.attempt
    if attempt is None or attempt.resumed_from is None:
        return ()
    if finding.cause == "state_unloadable" or _began_too_late(attempt, finding):
        return (attempt.resumed_from,)
    before = record.attempts[-2] if len(record.attempts) > 1 else None
    if before is None or before.resumed_from != attempt.resumed_from:
        return ()
    deaths = ((before, before.outcome), (attempt, finding.cause))
    at_once = all(a.last_step <= a.first_step and cause not in NEVER_THE_STATES_FAULT for a, cause in deaths)
    return (attempt.resumed_from,) if at_once else ()
