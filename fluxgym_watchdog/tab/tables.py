"""Records → HTML: the timeline, the checkpoints and the end of the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from fluxgym_watchdog.judge.resume import EARLIER, QUARANTINED
from fluxgym_watchdog.records import Checkpoint, CheckpointKind, Event, RunState
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.words import clock, escape, many, memory, size

PART_LETTERS = 8500
"""A part is sent whole when anything in it changes: older lines than fit are only counted."""

FACTS = 6
FACT_LETTERS = 120
FACTS_KINDS = 12
"""Of evidence so many facts of a kind are shown, each so long, and so many kinds of them."""
TEXT_LETTERS = 2000
"""So much of an event's text is shown: what the watchdog writes is shorter by far."""

ADVICE = "A state is saved at the end of an epoch; until the first one a restart begins at step 0."


def timeline(events: Sequence[Event]) -> str:
    """What happened, newest first: plain words, the evidence folded under them."""
    if not events:
        return _box(
            "What happened",
            "<p class='wd-empty'>Nothing yet. Each thing that the watchdog sees or does is told here.</p>",
        )
    told = _folded(events)
    lines, more = _fitting((_line(event) for event in reversed(told)), len(told))
    older = f"<p class='wd-mut'>and {more} older</p>" if more else ""
    return _box("What happened", f"<ol class='wd-lines' tabindex='0' aria-label='what happened'>{lines}</ol>{older}")


def checkpoints(seen: Seen) -> str:
    """What can be resumed from, newest first, sound or why not; while nothing runs one can go back to a sound state."""
    found = sorted(seen.checkpoints, key=lambda c: c.saved_at, reverse=True)
    if not found:
        return _box("Checkpoints", f"<p class='wd-empty'>None yet. {ADVICE}</p>{_room(seen)}")
    deletable = seen.deletable()
    stamps = {c.stamp for c in deletable}
    rows, more = _fitting(
        (_row(checkpoint, seen, deletable=checkpoint.stamp in stamps) for checkpoint in found), len(found)
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("What", "Step", "Size", "Saved", "Sound"))
    head += "<th><span class='wd-unseen'>What to do</span></th>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    total = f"{many(len(found), 'checkpoint')}, {size(sum(c.size_bytes for c in found))}"
    total += f"; the newest {len(found) - more} are shown" if more else ""
    if seen.live and not seen.may_resume() and any(map(seen.resumable, found)):
        total += ". To go back to one of them, stop the training first"
    return _box(
        "Checkpoints",
        f"<div class='wd-scroll' tabindex='0' role='group' aria-label='checkpoints'>{table}</div>"
        f"<p class='wd-mut'>{total}.</p>{_room(seen)}{_upload(seen)}{_clearing(seen.unneeded())}",
    )


def log(lines: Sequence[str], now: str = "") -> str:
    """The last lines that the training wrote."""
    if not lines and not now:
        return _box("Log", "<p class='wd-empty'>The training has written nothing yet.</p>")
    text = escape("\n".join(lines))
    return _box(
        "Log", f"<div class='wd-log' tabindex='0' aria-label='last lines of training.log'><pre>{text}</pre></div>"
    )


def log_now(text: str) -> str:
    """The line that the training is writing: a part of its own, since a bar is redrawn at every step."""
    return f"<div class='wd wd-box wd-log-now'><pre>{escape(text)}</pre></div>" if text else ""


def action(act: str, value: str, text: str, sure: str = "", style: str = "wd-link") -> str:
    """A button that the page's script hands to the server: what to do, and with what; `sure` is asked once before."""
    asked = f" data-sure='{escape(sure)}'" if sure else ""
    return (
        f"<button type='button' class='{style}' data-act='{act}' data-value='{escape(value)}'{asked}>"
        f"{escape(text)}</button>"
    )


def _fitting(parts: Iterable[str], of: int) -> tuple[str, int]:
    """The first of so many parts, joined, as many as one part of the page may hold; and how many are left out."""
    letters = 0
    kept: list[str] = []
    for part in parts:
        letters += len(part)
        if kept and letters > PART_LETTERS:
            break
        kept.append(part)
    return "".join(kept), of - len(kept)


def _folded(events: Sequence[Event]) -> list[Event]:
    """The events, of saved states in a row the newest alone: a night of them must not hide what happened in it."""
    found: list[Event] = []
    for kind, row in groupby(events, key=lambda event: event.kind):
        same = list(row)
        if kind == "checkpoint" and len(same) > 1:
            others = "is the one" if len(same) == 2 else f"are the {len(same) - 1}"
            same = [replace(same[-1], text=f"{same[-1].text} So {others} saved before it.")]
        found += same
    return found


def _line(event: Event) -> str:
    tone = event.tone if event.tone in ("ok", "act", "bad") else "info"
    folded = ""
    if event.evidence:
        facts = "".join(
            f"<div><dt>{_name(key)}</dt><dd>{_fact(value)}</dd></div>"
            for key, value in list(event.evidence.items())[:FACTS_KINDS]
            if value not in (None, "", [])
        )
        download = action("evidence", f"{event.at:.3f}", "Download all of it (zip)")
        folded = f"<details data-key='{event.at:.3f}'><summary>Evidence</summary><dl>{facts}</dl>{download}</details>"
    text = escape((event.text or event.kind)[:TEXT_LETTERS])
    if tone == "bad":
        text = f"<b>{text}</b>"
    return f"<li>{clock(event.at)}<i class='wd-{tone}'></i><div>{text}{folded}</div></li>"


def _row(checkpoint: Checkpoint, seen: Seen, *, deletable: bool) -> str:
    kind = "State" if checkpoint.kind is CheckpointKind.STATE else "Weights"
    if checkpoint.final:
        what = f"{kind}, final"
    elif checkpoint.epoch is not None and checkpoint.step_in_name is None:
        what = f"{kind}, epoch {checkpoint.epoch}"
    else:
        what = kind
    if not checkpoint.sound:
        sound = f"<span class='wd-bad'>no: {escape(checkpoint.reason or 'incomplete')}</span>"
    elif checkpoint.aside:
        sound = f"yes, but {escape(checkpoint.aside)}"
    else:
        sound = "<span class='wd-ok'>yes</span>"
    buttons = _resume_button(checkpoint, seen)
    if deletable:
        sure = f"Delete {checkpoint.name} and free {size(checkpoint.size_bytes)}?"
        buttons += action("delete", checkpoint.stamp, "Delete", sure, "wd-link wd-quiet")
    aside = " class='wd-old'" if checkpoint.aside else ""
    return (
        f"<tr{aside}><td title='{escape(checkpoint.name)}'>{what}</td>"
        f"<td class='wd-n'>{'–' if checkpoint.step is None else checkpoint.step}</td>"
        f"<td class='wd-n'>{size(checkpoint.size_bytes)}</td><td>{clock(checkpoint.saved_at)}</td>"
        f"<td>{sound}</td><td>{buttons}</td></tr>"
    )


def _resume_button(checkpoint: Checkpoint, seen: Seen) -> str:
    if not seen.resumable(checkpoint) or not seen.may_resume():
        return ""
    step, reached = checkpoint.step, seen.status.step if seen.status else 0
    if seen.at_rest is not None:
        reached = seen.at_rest.step
    if checkpoint.aside == EARLIER:
        where = "" if step is None else f" at step {step}"
        sure = f"Leaves this training at step {reached} and goes on with an earlier one{where}. Sure?"
    elif step is not None and reached > step:
        sure = f"Goes back from step {reached} to step {step}: {many(reached - step, 'step')} to train again. Sure?"
    else:
        sure = "Goes on from here. Sure?"
    if checkpoint.aside == QUARANTINED:
        sure = f"This one was {QUARANTINED}. {sure}"
    return action("resume", checkpoint.name, "Resume from here", sure)


def _room(seen: Seen) -> str:
    """The disk's room, and whether the next save fits."""
    status = seen.status
    if status is None or status.host is None or seen.state is RunState.FINISHED:
        return ""
    text = f"{memory(status.host.disk_free_bytes)} of disk left"
    text += "" if seen.live else f" at {clock(status.at)}"
    saves = status.saves
    if saves is None or saves.next_bytes is None:
        return f"<p class='wd-mut'>{text}.</p>"
    about = "about " if saves.estimated else ""
    text += f". The next save takes {about}{size(saves.next_bytes)}"
    if saves.fits is False:
        return f"<p class='wd-bad'>{text}: <b>it does not fit.</b> Make room, or it fails.</p>"
    return f"<p class='wd-mut'>{text}{': it fits' if saves.fits else ''}.</p>"


def _upload(seen: Seen) -> str:
    """What FluxGym's Publish tab would upload: the whole folder, the states too."""
    if seen.folder_bytes is None or seen.asks_for_more:
        return ""
    states = [c for c in seen.checkpoints if c.kind is CheckpointKind.STATE]
    text = f"Publish would upload about {size(seen.folder_bytes)}"
    if states:
        text += (
            f", {size(sum(c.size_bytes for c in states))} of it {many(len(states), 'state')} that only resuming needs"
        )
    return f"<p>{text}.</p>"


def _clearing(deletable: Sequence[Checkpoint]) -> str:
    """One button for all states that nothing needs; its value is the newest of them, so that no newer one goes."""
    if len(deletable) < 2:
        return ""
    what = f"{len(deletable)} states"
    freed = size(sum(c.size_bytes for c in deletable))
    sure = f"Delete {what} for good and free {freed}?"
    button = action("delete-older", deletable[0].stamp, f"Delete {what} that are not needed ({freed})", sure)
    return f"<p>{button}</p>"


def _fact(value: object) -> str:
    """A piece of evidence in short: all of it is in the zip."""
    if isinstance(value, Mapping):
        found = [f"{_name(k)} {_fact(v)}" for k, v in list(value.items())[:FACTS] if v not in (None, "")]
        return ", ".join(found)
    if isinstance(value, (list, tuple)):
        more = [f"… {len(value) - FACTS} before these"] if len(value) > FACTS else []
        return "<br>".join([*more, *(_fact(v) for v in value[-FACTS:])])
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= FACT_LETTERS else f"{text[:FACT_LETTERS]}…")


def _name(key: object) -> str:
    return escape(str(key)[:FACT_LETTERS].replace("_", " "))


def _box(title: str, inner: str) -> str:
    return f"<section class='wd wd-box'><h3>{title}</h3>{inner}</section>"
