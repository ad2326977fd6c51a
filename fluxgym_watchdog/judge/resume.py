"""Which step each checkpoint holds, and how to go on from it so that exactly the steps asked for are trained.

The trainer counts from the start of its attempt: names of step states and `current_step` are relative to that, epochs
are absolute. `--resume` alone is therefore right once. What is exact every time was measured on sd-scripts (branch
sd3): `--initial_epoch` where a whole epoch begins, `--skip_until_initial_step --initial_step` within one.

A training that is asked for in steps (`--max_train_steps`) may end within an epoch. The trainer stops there only if it
has counted all steps itself, so a resumed one would train its last epoch to the end. There `--initial_step 0
--max_train_steps REST` is exact: epochs and names count from 1 again (`renumbered`), and the ledger knows better. A
learning rate that follows a curve would be drawn for the rest alone, though, and jump: then the end of the epoch is
trained, and the start point says how many steps that is too many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from fluxgym_watchdog.judge.causes import LOAD_WHOLE
from fluxgym_watchdog.records import (
    Asked,
    Attempt,
    Checkpoint,
    CheckpointKind,
    LedgerLine,
    RunRecord,
    StartPoint,
)
from fluxgym_watchdog.settings import Settings

QUARANTINED = "set aside: it did not load, trainings died on it, or you went back to before it"
EARLIER = "of an earlier training"
NOTHING_LEFT = "holds the last step: nothing is left to train"


def placed(checkpoints: Sequence[Checkpoint], record: RunRecord, asked: Asked) -> tuple[Checkpoint, ...]:
    """The checkpoints with the step that each holds, and why a sound one is not gone on from by itself."""
    ledger = {line.stamp: line.step for line in record.ledger}
    return tuple(_placed(checkpoint, record, asked, ledger) for checkpoint in checkpoints)


def start_points(
    record: RunRecord,
    checkpoints: Sequence[Checkpoint],
    folder: PurePath,
    settings: Settings,
    asked: Asked,
    chosen: str | None = None,
) -> list[StartPoint]:
    """The ways to go on, the best one first: newest sound state, older ones, weights, the beginning.

    `chosen` names a checkpoint that the user picked: then it is the only way, also if it is quarantined or of an
    earlier training.
    """
    points = []
    for checkpoint in sorted(placed(checkpoints, record, asked), key=order, reverse=True):
        if chosen is None and checkpoint.aside:
            continue
        if chosen is not None and checkpoint.name != chosen:
            continue
        if checkpoint.sound and not _hindrance(checkpoint, record, asked):
            points.append(_start_at(checkpoint, record, asked, folder))
    if chosen is None and settings.from_beginning and record.attempts:
        points.append(beginning(asked))  # never for one that we have not seen train: its files are not ours
    return points


def beginning(asked: Asked) -> StartPoint:
    """Where the script itself begins: from nothing, unless its own options say otherwise."""
    if asked.begins_within:
        return StartPoint(None, 0, text="where the script begins", counted_from=None, epochs_before=None)
    return StartPoint(None, 0)


def order(checkpoint: Checkpoint) -> tuple[bool, int, int, float]:
    """By which placed checkpoints are preferred: states before weights, then the step, not the date of the file."""
    is_state = checkpoint.kind is CheckpointKind.STATE
    return (is_state, checkpoint.step or 0, checkpoint.epoch or 0, checkpoint.saved_at)


def may_be_chosen(checkpoint: Checkpoint) -> bool:
    """Whether a placed checkpoint can be gone on from if its user says so."""
    return checkpoint.sound and checkpoint.aside in ("", QUARANTINED, EARLIER)


def nothing_left(
    record: RunRecord, checkpoints: Sequence[Checkpoint], final_weights_at: float | None, asked: Asked
) -> bool:
    """Whether this training has saved what it was for, whatever its record says: it is never trained again.

    `final_weights_at` is when the sound final weights were written, None where there are none.
    """
    if final_weights_at is None or final_weights_at < record.files_since:
        return False
    total, last = record.total_steps, record.attempt
    if total and last is not None and last.last_step >= total:
        return final_weights_at >= (last.files_since or last.started_at)
    found = placed(checkpoints, record, asked)
    left = record.quarantined  # the end of a training that its user went back from is no end any more
    ends = [c for c in found if c.final and c.sound and c.saved_at >= record.files_since and c.stamp not in left]
    if any(_is_last(c, record, asked) and final_weights_at >= c.saved_at for c in ends):
        return True  # a training whose output could not be read has counted no steps
    if any(attempt.supervised for attempt in record.attempts):
        return False
    if any(c.epoch is not None and asked.epochs is not None and c.epoch < asked.epochs for c in ends):
        return False  # more epochs were asked for since
    if any(c.step is not None and total is not None and c.step < total for c in ends):
        return False
    return final_weights_at >= max((c.saved_at for c in found), default=0.0)


def to_complete(
    record: RunRecord, checkpoints: Sequence[Checkpoint], final_weights_at: float | None, asked: Asked
) -> Checkpoint | None:
    """The final state of a training that died between it and the final weights: only a conversion is missing.

    The trainer writes NAME-state before NAME.safetensors, which equals its model.safetensors in the saved precision.
    """
    for checkpoint in placed(checkpoints, record, asked):
        state = checkpoint.kind is CheckpointKind.STATE and checkpoint.sound and checkpoint.aside == NOTHING_LEFT
        # Also an epoch's state, where the script asks for no more than that epoch now.
        at_the_end = checkpoint.final or checkpoint.step == record.total_steps
        missing = final_weights_at is None or final_weights_at < checkpoint.saved_at
        if state and at_the_end and missing and not _beyond(checkpoint, record):
            return checkpoint
    return None


def trained_too_far(record: RunRecord, checkpoints: Sequence[Checkpoint], asked: Asked) -> Checkpoint | None:
    """A checkpoint of this training that holds more steps than are asked for now: going on would throw it away."""
    found = [c for c in placed(checkpoints, record, asked) if c.sound and c.aside == NOTHING_LEFT]
    return next((c for c in sorted(found, key=order, reverse=True) if _beyond(c, record)), None)


def _beyond(checkpoint: Checkpoint, record: RunRecord) -> bool:
    return checkpoint.step is not None and record.total_steps is not None and checkpoint.step > record.total_steps


def going_back(
    record: RunRecord, point: StartPoint, checkpoints: Sequence[Checkpoint]
) -> tuple[tuple[str, ...], tuple[LedgerLine, ...]]:
    """The quarantine and the ledger of a run that goes back to a placed checkpoint which its user chose.

    What lies ahead of it is set aside, or the next crash would jump there again. One of an earlier training becomes
    this one's, with what was saved before it; then all that was saved since that training ended is of the one that is
    left, and set aside as well.
    """
    chosen = next((c for c in checkpoints if c.stamp == point.checkpoint), None)
    aside, ledger = ahead_of(point, checkpoints), record.ledger
    if chosen is not None and _is_earlier(chosen, record):
        aside += tuple(c.stamp for c in checkpoints if not _is_earlier(c, record) and c.stamp not in aside)
        of_it = [c for c in checkpoints if _is_earlier(c, record) and c.saved_at <= chosen.saved_at]
        ledger += tuple(LedgerLine(c.stamp, c.step, 0) for c in of_it if c.stamp not in aside)
    kept = tuple(stamp for stamp in record.quarantined if stamp != point.checkpoint and stamp not in aside)
    return (*kept, *aside), ledger


def ahead_of(point: StartPoint, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The stamps of the placed checkpoints that hold a later step than a starting point."""

    def lies_ahead(checkpoint: Checkpoint) -> bool:
        if checkpoint.step is not None and point.counted_from is not None:
            return checkpoint.step > point.first_step
        return point.epochs_before is not None and (checkpoint.epoch or 0) > point.epochs_before

    return tuple(c.stamp for c in checkpoints if lies_ahead(c))


def cures(versions: Mapping[str, str]) -> tuple[str, ...]:
    """The environment variables (NAME=VALUE) without which these versions cannot load all of their own states.

    Measured with torch 2.13: accelerate 0.32 and 0.33 fail (`KeyError: 'step'`), 0.31 and 0.34 leave the random state
    behind without a word, 1.6 and later load everything; by its source, so does 1.1.
    """
    accelerate, torch = _version(versions.get("accelerate", "")), _version(versions.get("torch", ""))
    return (LOAD_WHOLE,) if accelerate and torch and accelerate < (1, 1) and torch >= (2, 6) else ()


def ledger_line(checkpoint: Checkpoint, attempt: Attempt, steps_per_epoch: int | None) -> LedgerLine | None:
    """What is kept of a checkpoint that `attempt` has written; None where it has not counted, or need not be kept.

    The attempt's count is checked against the state's own files: where they differ, the line holds no step.
    """
    if attempt.counted_from is None or not steps_per_epoch:
        return None
    if checkpoint.kind is CheckpointKind.WEIGHTS:
        whole_epochs = checkpoint.epoch is not None and checkpoint.step_in_name is None and not checkpoint.final
        if not attempt.renumbered or not whole_epochs:
            return None  # their names tell
        return LedgerLine(
            checkpoint.stamp, attempt.counted_from + (checkpoint.epoch or 0) * steps_per_epoch, attempt.number
        )
    if checkpoint.attempt_step is None:
        return None
    step: int | None = attempt.counted_from + checkpoint.attempt_step
    if not attempt.renumbered and step != absolute_step(checkpoint, steps_per_epoch):
        step = None
    return LedgerLine(checkpoint.stamp, step, attempt.number)


def absolute_step(checkpoint: Checkpoint, steps_per_epoch: int | None) -> int | None:
    """The optimizer step that a checkpoint holds, as its name and files tell; None where they do not.

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


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else ()


def _placed(checkpoint: Checkpoint, record: RunRecord, asked: Asked, ledger: dict[str, int | None]) -> Checkpoint:
    if checkpoint.stamp in ledger:
        step = ledger[checkpoint.stamp]
    elif any(a.renumbered and checkpoint.saved_at >= (a.files_since or a.started_at) for a in record.attempts):
        step = None  # by then its name and files count from somewhere else
    elif checkpoint.final and checkpoint.kind is CheckpointKind.WEIGHTS:
        # Their epoch was trained to its end only where whole epochs are asked for.
        whole = checkpoint.epoch is not None and asked.epochs is not None and record.steps_per_epoch
        step = (checkpoint.epoch or 0) * (record.steps_per_epoch or 0) if whole else None
    else:
        step = absolute_step(checkpoint, record.steps_per_epoch)
    found = replace(checkpoint, step=step)
    if not found.sound:
        return replace(found, aside="")
    why = QUARANTINED if found.stamp in record.quarantined else EARLIER if _is_earlier(found, record) else ""
    hindrance = _hindrance(found, record, asked)
    # With a hindrance not even its user can choose it; and the end of an earlier training is not this one's.
    return replace(found, aside=f"{why}, and {hindrance}" if why and hindrance else why or hindrance)


def _is_earlier(checkpoint: Checkpoint, record: RunRecord) -> bool:
    """What stands in the ledger was seen being written, or was gone back to, whatever the clock says."""
    in_ledger = any(line.stamp == checkpoint.stamp for line in record.ledger)
    return checkpoint.saved_at < record.files_since and not in_ledger


def _hindrance(checkpoint: Checkpoint, record: RunRecord, asked: Asked) -> str:
    """Why nobody can go on from a sound, placed checkpoint, whatever its user wants; '' where it can be done."""
    step, per_epoch = checkpoint.step, record.steps_per_epoch
    if checkpoint.kind is CheckpointKind.WEIGHTS and checkpoint.step_in_name is not None:
        return "weights from within an epoch: only those of whole epochs can be gone on from"
    if _is_last(checkpoint, record, asked):
        return NOTHING_LEFT
    in_name = checkpoint.epoch is not None and checkpoint.step_in_name is None
    if step is None and (not in_name or per_epoch or (checkpoint.final and asked.epochs is None)):
        return "at which step it was saved cannot be told"
    if asked.sets_initial_step and step is None:
        return "the script's own --initial_step stands in the way: how many steps an epoch has is not known"
    accumulates = max(record.accumulation or 1, asked.accumulation) > 1
    skips = asked.sets_initial_step or (step is not None and per_epoch and step % per_epoch)
    if accumulates and skips and not _renumbers(record, asked):
        return "from within an epoch, and gradients are accumulated: the trainer would skip too much (its issue 2407)"
    return ""


def _is_last(checkpoint: Checkpoint, record: RunRecord, asked: Asked) -> bool:
    if checkpoint.step is not None and record.total_steps is not None:
        return checkpoint.step >= record.total_steps
    # The final state lies where the training was asked to end, however long an epoch is.
    return checkpoint.final and checkpoint.epoch is not None and checkpoint.epoch == asked.epochs


def _start_at(checkpoint: Checkpoint, record: RunRecord, asked: Asked, folder: PurePath) -> StartPoint:
    step, per_epoch = checkpoint.step, record.steps_per_epoch
    of_weights = checkpoint.kind is CheckpointKind.WEIGHTS
    path = str(folder / checkpoint.name)
    load: tuple[str, ...] = ("--network_weights" if of_weights else "--resume", path)
    if of_weights and asked.begins_within:
        load = (*load, "--resume", "")  # empty, it is none: the script's own would be loaded over the weights
    text = f"from the weights of {_where(checkpoint)}" if of_weights else f"from {_where(checkpoint)}"
    if step is not None and record.total_steps is not None and _renumbers(record, asked):
        options: tuple[str, ...] = (*load, "--initial_step", "0", "--max_train_steps", str(record.total_steps - step))
        return StartPoint(checkpoint.stamp, step, options, text, counted_from=step, epochs_before=None, renumbered=True)
    if step is None or not per_epoch or (step % per_epoch == 0 and not asked.sets_initial_step):
        epochs = step // per_epoch if step is not None and per_epoch else checkpoint.epoch or 0
        options = (*load, "--initial_epoch", str(epochs + 1))
        more = _too_many(record, step or 0)
        return StartPoint(checkpoint.stamp, step or 0, options, text + more, counted_from=step, epochs_before=epochs)
    options = (*load, "--skip_until_initial_step", "--initial_step", str(step))
    counted_from = step - step % per_epoch
    more = _too_many(record, counted_from)
    return StartPoint(checkpoint.stamp, step, options, text + more, counted_from=counted_from, epochs_before=None)


def _ends_within_epoch(record: RunRecord) -> bool:
    return bool(record.steps_per_epoch and record.total_steps and record.total_steps % record.steps_per_epoch)


def _renumbers(record: RunRecord, asked: Asked) -> bool:
    constant = asked.lr_scheduler.startswith("constant")
    return _ends_within_epoch(record) and asked.epochs is None and constant


def _too_many(record: RunRecord, counted_from: int) -> str:
    if not _ends_within_epoch(record) or not record.steps_per_epoch or not record.total_steps:
        return ""
    to_the_end = -(-record.total_steps // record.steps_per_epoch) * record.steps_per_epoch
    steps = min(record.total_steps + counted_from, to_the_end) - record.total_steps
    return f" ({steps} steps more than asked for will be trained: the trainer ends its last epoch)" if steps else ""


def _where(checkpoint: Checkpoint) -> str:
    if checkpoint.epoch is None or checkpoint.step_in_name is not None:
        return f"step {checkpoint.step}"
    return f"epoch {checkpoint.epoch}" + ("" if checkpoint.step is None else f" (step {checkpoint.step})")
