"""What to do about a finding, and where to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from fluxgym_watchdog.judge.causes import CAUSES, NEVER_THE_STATES_FAULT
from fluxgym_watchdog.judge.stall import AFTER_THE_END
from fluxgym_watchdog.records import (
    Checkpoint,
    CheckpointKind,
    Decision,
    DecisionKind,
    Finding,
    FindingKind,
    GpuReading,
    Host,
    RunRecord,
    StartPoint,
)
from fluxgym_watchdog.settings import Settings

LEAST_DISK_BYTES = 200_000_000
LEAST_MEMORY_SHARE = 0.1
"""With less of the machine's memory available a training that just ran out of it would do so again."""
JITTER_SHARE = 0.2
"""Waits are up to this much shorter, so that several runs on one machine do not start in the same second."""


def decide(record: RunRecord, finding: Finding, settings: Settings, jitter: float) -> Decision:
    """The decision; `jitter` is a random number from 0 to 1."""
    if finding.kind is FindingKind.FINISHED:
        return Decision(DecisionKind.FINISH, finding.text)
    if finding.kind is FindingKind.SUSPECT:
        return Decision(DecisionKind.GATHER_EVIDENCE, finding.text)
    if finding.kind not in (FindingKind.STALLED, FindingKind.CRASHED):
        return Decision(DecisionKind.NOTHING, finding.text)
    quarantine = _to_quarantine(record, finding)
    if finding.cause == AFTER_THE_END and record.auto_resume:
        return Decision(DecisionKind.STOP_AND_FINISH, finding.text)
    if finding.kind is FindingKind.CRASHED and finding.retry is False:
        return Decision(DecisionKind.GIVE_UP, finding.text)
    if not record.auto_resume:
        return Decision(DecisionKind.ASK, finding.text, quarantine=quarantine)
    if record.restarts >= settings.max_restarts:
        times = "1 restart" if record.restarts == 1 else f"{record.restarts} restarts"
        text = f"{finding.text}; given up after {times} without a new checkpoint"
        return Decision(DecisionKind.GIVE_UP, text, quarantine=quarantine)
    delay = backoff(record.restarts, settings, jitter)
    kind = DecisionKind.STOP_AND_RESTART if finding.kind is FindingKind.STALLED else DecisionKind.RESTART
    return Decision(kind, finding.text, delay, quarantine)


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


def absolute_step(checkpoint: Checkpoint, steps_per_epoch: int | None) -> int | None:
    """The optimizer step that a checkpoint holds, counted over the whole run; None where it cannot be known.

    `current_step` of a state is relative to the attempt that wrote it, its epoch is absolute. An attempt begins at an
    epoch's start or, counting from there, within one; so the step within the epoch is `current_step` modulo the epoch.
    """
    if not steps_per_epoch or checkpoint.epoch is None:
        return None
    if checkpoint.step_in_name is None and not checkpoint.final:
        return checkpoint.epoch * steps_per_epoch
    if checkpoint.kind is CheckpointKind.WEIGHTS or not checkpoint.attempt_step:
        return None
    within = (checkpoint.attempt_step - 1) % steps_per_epoch + 1
    return (checkpoint.epoch - 1) * steps_per_epoch + within


def start_points(
    record: RunRecord,
    checkpoints: Sequence[Checkpoint],
    folder: PurePath,
    settings: Settings,
    chosen: str | None = None,
) -> list[StartPoint]:
    """The ways to go on, the best one first: newest sound state, older ones, weights, the beginning.

    `chosen` names a checkpoint that the user picked: then it is the only way. Checkpoints older than this training's
    beginning belong to an earlier training and are left out; so are quarantined and finished ones.
    """
    points = []
    for checkpoint in sorted(checkpoints, key=lambda c: _order(c, record), reverse=True):
        if chosen is not None and checkpoint.name != chosen:
            continue
        if checkpoint.saved_at < record.files_since and not chosen:
            continue
        if checkpoint.stamp in record.quarantined and not chosen:
            continue
        point = _start_at(checkpoint, record, folder)
        if point is not None:
            points.append(point)
    if chosen is None and settings.from_beginning:
        points.append(StartPoint(None, 0))
    return points


def _start_at(checkpoint: Checkpoint, record: RunRecord, folder: PurePath) -> StartPoint | None:
    step = absolute_step(checkpoint, record.steps_per_epoch)
    finished = step is not None and record.total_steps is not None and step >= record.total_steps
    unplaced = checkpoint.final and (step is None or record.total_steps is None)
    if not checkpoint.sound or checkpoint.epoch is None or finished or unplaced:
        return None
    path = str(folder / checkpoint.name)
    if checkpoint.kind is CheckpointKind.WEIGHTS:
        if checkpoint.step_in_name is not None or checkpoint.final:
            return None
        options: tuple[str, ...] = ("--network_weights", path, "--initial_epoch", str(checkpoint.epoch + 1))
        return StartPoint(checkpoint.stamp, step or 0, options, f"from the weights of {_where(checkpoint, step)}")
    if checkpoint.step_in_name is None:
        options = ("--resume", path, "--initial_epoch", str(checkpoint.epoch + 1))
    elif step is None or (record.accumulation or 1) > 1:
        return None  # with accumulation the trainer skips a wrong number of batches (sd-scripts issue 2407)
    else:
        options = ("--resume", path, "--skip_until_initial_step", "--initial_step", str(step))
    return StartPoint(checkpoint.stamp, step or 0, options, f"from {_where(checkpoint, step)}")


def _where(checkpoint: Checkpoint, step: int | None) -> str:
    if checkpoint.step_in_name is not None:
        return f"step {step}"
    return f"epoch {checkpoint.epoch}" + ("" if step is None else f" (step {step})")


def _order(checkpoint: Checkpoint, record: RunRecord) -> tuple[bool, int, int, float]:
    step = absolute_step(checkpoint, record.steps_per_epoch)
    return (checkpoint.kind is CheckpointKind.STATE, step or 0, checkpoint.epoch or 0, checkpoint.saved_at)


def _to_quarantine(record: RunRecord, finding: Finding) -> tuple[str, ...]:
    """The checkpoint that this attempt began from, if it failed to load, or if two attempts died on it at once."""
    attempt = record.attempt
    if attempt is None or attempt.resumed_from is None:
        return ()
    if finding.cause == "state_unloadable":
        return (attempt.resumed_from,)
    before = record.attempts[-2] if len(record.attempts) > 1 else None
    at_once = attempt.last_step <= attempt.first_step and finding.cause not in NEVER_THE_STATES_FAULT
    before_at_once = (
        before is not None and before.resumed_from == attempt.resumed_from and before.last_step <= before.first_step
    )
    return (attempt.resumed_from,) if at_once and before_at_once else ()
