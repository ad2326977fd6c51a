"""Records → HTML: the timeline, the checkpoints and the end of the log. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluxgym_watchdog.records import Checkpoint, CheckpointKind, Event, RunRecord
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.words import clock, escape, size

EVENTS = 60
CHECKPOINTS = 40
"""At most so many lines are shown, the newest; older ones stay in the run's folder."""


def timeline(events: Sequence[Event]) -> str:
    """What happened, newest first: plain words, the evidence folded under them."""
    if not events:
        return _box("What happened", '<p class="wd-empty">Nothing yet.</p>')
    lines = []
    for event in reversed(events[-EVENTS:]):
        tone = event.tone if event.tone in ("ok", "act", "bad") else "info"
        folded = ""
        if event.evidence:
            facts = "".join(
                f"<div><dt>{escape(key)}</dt><dd>{_fact(value)}</dd></div>" for key, value in event.evidence.items()
            )
            folded = f'<details data-key="{event.at:.3f}"><summary>Evidence</summary><dl>{facts}</dl></details>'
        text = escape(event.text or event.kind)
        if tone == "bad":
            text = f"<b>{text}</b>"
        lines.append(f'<li>{clock(event.at)}<i class="wd-{tone}"></i><div>{text}{folded}</div></li>')
    more = len(events) - EVENTS
    older = f'<p class="wd-mut">and {more} older</p>' if more > 0 else ""
    return _box("What happened", f'<ol class="wd-lines">{"".join(lines)}</ol>{older}')


def checkpoints(seen: Seen) -> str:
    """What can be resumed from, newest first, sound or why not; while nothing runs one can go back to a sound state."""
    found = sorted(seen.status.checkpoints if seen.status else (), key=lambda c: c.saved_at, reverse=True)
    if not found:
        text = "None yet. A state is saved at the end of an epoch; until the first one a restart begins at step 0."
        return _box("Checkpoints", f'<p class="wd-empty">{text}</p>')
    rows = "".join(_row(checkpoint, seen) for checkpoint in found[:CHECKPOINTS])
    head = "".join(f'<th scope="col">{name}</th>' for name in ("What", "Step", "Size", "Saved", "Sound"))
    more = len(found) - CHECKPOINTS
    total = f"{len(found)} checkpoints, {size(sum(c.size_bytes for c in found))}"
    if more > 0:
        total += f"; the newest {CHECKPOINTS} are shown"
    if seen.live and not seen.may_resume() and any(resumable(c, seen.record) for c in found):
        total += ". To go back to one of them, stop the training first."
    table = f"<table><thead><tr>{head}<th></th></tr></thead><tbody>{rows}</tbody></table>"
    return _box("Checkpoints", f'<div class="wd-scroll" tabindex="0">{table}</div><p class="wd-mut">{total}</p>')


def log(lines: Sequence[str]) -> str:
    """The last lines that the training wrote."""
    if not lines:
        return _box("Log", '<p class="wd-empty">The training has written nothing yet.</p>')
    text = escape("\n".join(lines))
    return _box(
        "Log", f'<div class="wd-log" tabindex="0" aria-label="last lines of training.log"><pre>{text}</pre></div>'
    )


def absolute_step(checkpoint: Checkpoint, record: RunRecord | None) -> int | None:
    """The step of the run that a checkpoint stands at, None where it cannot be told.

    The names of step states, and `current_step`, are relative to the attempt that wrote them; the epoch is absolute.
    """
    per_epoch = record.steps_per_epoch if record else None
    if checkpoint.epoch is None or not per_epoch:
        return record.total_steps if checkpoint.final and record else None
    if checkpoint.step_in_name is not None:
        if checkpoint.attempt_step is None:
            return None
        return (checkpoint.epoch - 1) * per_epoch + (checkpoint.attempt_step - 1) % per_epoch + 1
    total = record.total_steps if record else None
    return min(checkpoint.epoch * per_epoch, total) if total else checkpoint.epoch * per_epoch


def resumable(checkpoint: Checkpoint, record: RunRecord | None) -> bool:
    """Whether a training can be sent back to this checkpoint."""
    quarantined = record is not None and checkpoint.stamp in record.quarantined
    return checkpoint.kind is CheckpointKind.STATE and checkpoint.sound and not checkpoint.final and not quarantined


def _row(checkpoint: Checkpoint, seen: Seen) -> str:
    record = seen.record
    kind = "State" if checkpoint.kind is CheckpointKind.STATE else "Weights"
    if checkpoint.final:
        what = f"{kind}, final"
    elif checkpoint.epoch is not None:
        what = f"{kind}, epoch {checkpoint.epoch}"
    else:
        what = kind
    if record is not None and checkpoint.stamp in record.quarantined:
        sound = '<span class="wd-bad">set aside: a training failed to go on from it</span>'
    elif checkpoint.sound:
        sound = '<span class="wd-ok">yes</span>'
    else:
        sound = f'<span class="wd-bad">no: {escape(checkpoint.reason or "incomplete")}</span>'
    step = absolute_step(checkpoint, record)
    old = record is not None and checkpoint.saved_at < record.began_at
    return (
        f'<tr{" class=wd-old" if old else ""}><td title="{escape(checkpoint.name)}">{what}'
        f'{", of an earlier training" if old else ""}</td><td class="wd-n">{"–" if step is None else step}</td>'
        f'<td class="wd-n">{size(checkpoint.size_bytes)}</td><td>{clock(checkpoint.saved_at)}</td>'
        f"<td>{sound}</td><td>{_button(checkpoint, seen, step)}</td></tr>"
    )


def _button(checkpoint: Checkpoint, seen: Seen, step: int | None) -> str:
    if not resumable(checkpoint, seen.record) or not seen.may_resume():
        return ""
    reached = seen.status.step if seen.status else 0
    if step is not None and reached > step:
        sure = f"Goes back from step {reached} to step {step}. Sure?"
    else:
        sure = "Goes on from here. Sure?"
    return (
        f'<button type="button" class="wd-link" data-checkpoint="{escape(checkpoint.name)}" data-sure="{sure}">'
        "Resume from here</button>"
    )


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(k)} {escape(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return "<br>".join(escape(v) for v in value)
    if isinstance(value, float):
        return escape(f"{value:.6g}")
    return escape(value)


def _box(title: str, inner: str) -> str:
    return f'<section class="wd wd-box"><h3>{title}</h3>{inner}</section>'
