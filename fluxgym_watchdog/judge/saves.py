"""How much work hangs on a run's saves, whether the next ones fit on the disk, and what may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fluxgym_watchdog.judge.resume import NOTHING_LEFT, order
from fluxgym_watchdog.judge.stall import duration
from fluxgym_watchdog.records import (
    LIVE_STATES,
    Asked,
    Checkpoint,
    CheckpointKind,
    Host,
    RunRecord,
    RunState,
    SaveOffer,
    Saves,
)
from fluxgym_watchdog.settings import Settings

WEIGHTS_BYTES_PER_RANK = 10_000_000
STATE_BYTES_PER_RANK = 59_000_000
STATE_BYTES_PER_RANK_SMALL = 30_000_000
"""FLUX.1, computed: rank 4 makes weights of 40 MB, a state of 237 MB with AdamW, of 119 MB with an 8-bit optimizer."""
SMALL_OPTIMIZERS = ("8bit", "adafactor", "lion", "sgd")
MARGIN_BYTES = 50_000_000
"""A disk that is filled to the last byte fails other writers: the log, the samples."""
LEAST_BYTES = 2_000_000_000
"""What should be free where nothing is known of the sizes."""


def foresee(
    record: RunRecord,
    asked: Asked,
    step: int,
    checkpoints: Sequence[Checkpoint],
    host: Host | None,
    settings: Settings,
    pace_s: float | None = None,
) -> Saves:
    """What hangs on the saves of a run that stands at absolute `step`; `checkpoints` are placed (judge.resume).

    `pace_s` is how long a step takes; where it is not known nothing is said about time.
    """
    wanted = chosen(asked, record.save_options)
    weights, state, estimated = _sizes(checkpoints, asked)
    usable = [c for c in checkpoints if _useful(c)]
    since = max(0, step - max([c.step for c in usable if c.step is not None and c.step <= step], default=0))
    every = _interval(wanted, record, settings)
    if not (asked.saves_states or settings.save_states):
        state = 0
    next_bytes = weights + state if weights is not None and state is not None else None
    saves = Saves(
        every_steps=every,
        since_steps=since,
        since_s=since * pace_s if pace_s else None,
        most_s=every * pace_s if every and pace_s else None,
        next_in_steps=_next_in(wanted, record, step) if every else None,
        next_bytes=next_bytes,
        estimated=estimated,
        fits=host.disk_free_bytes - next_bytes >= MARGIN_BYTES if host and next_bytes is not None else None,
    )
    one_more = len(usable) < settings.keep_states if not asked.saves_states else not asked.keeps
    grows = (weights or 0) + (state or 0 if one_more else 0)
    saves = replace(saves, warning=_warning(saves, grows, host, prunable(record, checkpoints)))
    if pace_s and saves.most_s and saves.most_s > settings.max_work_at_risk * 60 and record.closer_saves is None:
        return replace(saves, offer=_offer(wanted, record, every or 0, pace_s, settings, weights, state))
    return saves


def heeded(asked: Asked, save_options: Sequence[str]) -> tuple[str, ...]:
    """Of a chosen interval what still holds: nothing where the script, edited since, itself saves as often or more."""
    values = dict(zip(save_options[::2], save_options[1::2], strict=False))
    epochs = values.get("--save_every_n_epochs")
    if epochs and asked.save_every_epochs and asked.save_every_epochs <= int(epochs):
        return ()
    return () if "--save_every_n_steps" in values and asked.save_every_steps else tuple(save_options)


def chosen(asked: Asked, save_options: Sequence[str]) -> Asked:
    """What the script asks for, with the save interval that its user has chosen instead."""
    held = heeded(asked, save_options)
    values = dict(zip(held[::2], held[1::2], strict=False))
    epochs, steps = values.get("--save_every_n_epochs"), values.get("--save_every_n_steps")
    return replace(
        asked,
        save_every_epochs=int(epochs) if epochs else asked.save_every_epochs,
        save_every_steps=int(steps) if steps else asked.save_every_steps,
    )


def options_of(offer: SaveOffer) -> tuple[str, ...]:
    """The options for the trainer that accept an offer.

    Saves within epochs are by-products that nobody asked for: of them two are kept. (These options count steps.)
    """
    options: tuple[str, ...] = (offer.option, str(offer.every))
    if offer.option == "--save_every_n_steps":
        kept = str(offer.every)
        options = (*options, "--save_last_n_steps", kept, "--save_last_n_steps_state", kept)
    return options


def offer_in_words(saves: Saves) -> str:
    """What can be lost, and what closer saves would cost, as people read it; '' where nothing is offered."""
    offer = saves.offer
    if offer is None or saves.most_s is None:
        return ""
    unit = "epoch" if offer.option == "--save_every_n_epochs" else "step"
    every = f"every {unit}" if offer.every == 1 else f"every {offer.every} {unit}s"
    cost = "1 more file" if offer.more_files == 1 else f"{offer.more_files} more files"
    size = f", about {in_bytes(offer.more_bytes)}" if offer.more_bytes is not None else ""
    risk = f"{duration(offer.most_s)}, for {cost}{size}" if offer.most_s is not None else f"less, for {cost}{size}"
    return (
        f"Up to {duration(saves.most_s)} of work ({saves.every_steps} steps) can be lost between two saves. "
        f"Saving {every} would risk {risk}"
    )


def deletable(record: RunRecord, checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The states that may be deleted at their owner's word, newest first; `checkpoints` are placed.

    Never the one that its user has chosen to go back to. Of a run that is finished, and of which no more is asked, all
    others. Else all but the one that a restart would take; and while somebody supervises the run only those older than
    that one, and not the one that this attempt began from: what is newer may be being written.
    """
    states = sorted((c for c in checkpoints if c.kind is CheckpointKind.STATE), key=lambda c: -c.saved_at)
    needed = _best(states)
    states = [c for c in states if c.name != record.chosen_next]
    if _needs_none(record, checkpoints):
        return tuple(states)
    if record.state not in LIVE_STATES:
        return tuple(c for c in states if c is not needed)
    begun = record.attempt.resumed_from if record.attempt else None
    older = [c for c in states if needed is not None and c is not needed and c.saved_at < needed.saved_at]
    return tuple(c for c in older if c.stamp != begun)


def prunable(record: RunRecord, checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Of those, what can go without a thought: the next best that is sound stays, as a second way back."""
    found = deletable(record, checkpoints)
    if _needs_none(record, checkpoints):
        return found
    if not any(c.sound for c in checkpoints if c.kind is CheckpointKind.STATE):
        return ()  # copied without their times, perhaps: the last way back is not thrown away without a thought
    spare = _best(found)
    return tuple(c for c in found if c is not spare)


def _needs_none(record: RunRecord, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether the run is finished, and no more is asked of it."""
    return record.state is RunState.FINISHED and any(c.aside == NOTHING_LEFT for c in checkpoints)


def _best(states: Sequence[Checkpoint]) -> Checkpoint | None:
    """The state that a restart takes; where all are set aside, the one that its user would try next."""
    usable = [c for c in states if _useful(c)] or [c for c in states if c.sound]
    return max(usable, key=order, default=None)


def in_bytes(number: int) -> str:
    """A size as people read it: 119 MB, 2.1 GB."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB" if number >= 1e6 else f"{number} B"


def _useful(checkpoint: Checkpoint) -> bool:
    return checkpoint.sound and checkpoint.kind is CheckpointKind.STATE and checkpoint.aside in ("", NOTHING_LEFT)


def _sizes(checkpoints: Sequence[Checkpoint], asked: Asked) -> tuple[int | None, int | None, bool]:
    """What the next save's weights and state take, in bytes, and whether that is only estimated from the rank."""
    found: dict[CheckpointKind, int] = {}
    for checkpoint in checkpoints:
        if checkpoint.sound:
            found[checkpoint.kind] = max(found.get(checkpoint.kind, 0), checkpoint.size_bytes)
    weights, state = found.get(CheckpointKind.WEIGHTS), found.get(CheckpointKind.STATE)
    if weights is not None and state is not None:
        return weights, state, False
    if asked.rank is None:
        return weights, state, True
    small = any(name in asked.optimizer.lower() for name in SMALL_OPTIMIZERS)
    by_rank = STATE_BYTES_PER_RANK_SMALL if small else STATE_BYTES_PER_RANK
    return weights or WEIGHTS_BYTES_PER_RANK * asked.rank, state or by_rank * asked.rank, True


def _interval(asked: Asked, record: RunRecord, settings: Settings) -> int | None:
    """Steps between two states that can be gone on from; the whole training where only its end is saved."""
    per_epoch = record.steps_per_epoch
    total = _total_steps(record, asked)
    if not (asked.saves_states or settings.save_states) or total is None:
        return None
    by_epochs = asked.save_every_epochs * per_epoch if asked.save_every_epochs and per_epoch else None
    by_steps = None if _accumulates(record, asked) else asked.save_every_steps
    return min(found for found in (by_epochs, by_steps, total) if found)


def _total_steps(record: RunRecord, asked: Asked) -> int | None:
    return record.total_steps or asked.total_steps(record.steps_per_epoch)


def _accumulates(record: RunRecord, asked: Asked) -> bool:
    return (record.accumulation or asked.accumulation) > 1


def _next_in(asked: Asked, record: RunRecord, step: int) -> int | None:
    total = _total_steps(record, asked)
    if total is None or step >= total:
        return None
    counted_from = record.attempt.counted_from if record.attempt and record.attempt.counted_from else 0
    waits = [total - step]
    if asked.save_every_epochs and record.steps_per_epoch:
        every = asked.save_every_epochs * record.steps_per_epoch
        begun = counted_from if record.attempt and record.attempt.renumbered else 0
        waits.append(every - (step - begun) % every)
    if asked.save_every_steps:
        waits.append(asked.save_every_steps - (step - counted_from) % asked.save_every_steps)
    return min(waits)


def _warning(saves: Saves, grows: int, host: Host | None, may_go: Sequence[Checkpoint]) -> str:
    if host is None:
        return ""
    free = host.disk_free_bytes
    going = ", ".join(f"{c.name} ({in_bytes(c.size_bytes)})" for c in may_go[:3])
    more = f" and {len(may_go) - 3} more states" if len(may_go) > 3 else ""
    advice = (
        f"What may go: {going}{more}; samples; models that are not used."
        if going
        else ("What may go: states of finished runs, samples, models that are not used.")
    )
    if saves.next_bytes is None:
        if free >= LEAST_BYTES:
            return ""
        return f"The disk is nearly full: {in_bytes(free)} free. The next save may fail. {advice}"
    about = "about " if saves.estimated else ""
    needs = f"{about}{in_bytes(saves.next_bytes)}"
    if not saves.fits:
        return f"The next save does not fit on the disk: it takes {needs}, {in_bytes(free)} are free. {advice}"
    if free - grows - saves.next_bytes < MARGIN_BYTES:
        return (
            f"The disk has room for the next save ({needs}), not for the one after it: {in_bytes(free)} free. {advice}"
        )
    return ""


def _offer(
    asked: Asked,
    record: RunRecord,
    every: int,
    pace_s: float,
    settings: Settings,
    weights: int | None,
    state: int | None,
) -> SaveOffer | None:
    """The widest interval that risks no more than the setting, in whole epochs where they are short enough."""
    limit_s, per_epoch = settings.max_work_at_risk * 60, record.steps_per_epoch
    total = _total_steps(record, asked)
    if not per_epoch or not total:
        return None
    keep = settings.keep_states
    epochs, now = -(-total // per_epoch), asked.save_every_epochs or 0
    fitting = max(1, int(limit_s / (per_epoch * pace_s)))
    if fitting * per_epoch * pace_s <= limit_s or _accumulates(record, asked):
        if fitting * per_epoch >= every:
            return None  # there is nothing closer
        before, after = ((epochs - 1) // now if now else 0), (epochs - 1) // fitting
        more, more_states = after - before, min(keep, after) - min(keep, before)
        size = more * weights + more_states * state if weights is not None and state is not None else None
        steps = fitting * per_epoch
        return SaveOffer("--save_every_n_epochs", fitting, steps, steps * pace_s, more + more_states, size)
    steps = _rounded(int(limit_s / pace_s))
    if steps >= every or asked.save_every_steps:
        return None
    size = 2 * (weights + state) if weights is not None and state is not None else None
    return SaveOffer("--save_every_n_steps", steps, steps, steps * pace_s, 4, size)


def _rounded(steps: int) -> int:
    """Down to a number that people would have chosen."""
    for unit in (50, 10, 5):
        if steps >= 2 * unit:
            return steps - steps % unit
    return max(1, steps)
