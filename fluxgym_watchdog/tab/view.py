"""Records → HTML: the run's card, the machine, and what is said when there is nothing to show. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from fluxgym_watchdog.records import (
    Attempt,
    FindingKind,
    RunRecord,
    RunState,
    Status,
)
from fluxgym_watchdog.tab import saves
from fluxgym_watchdog.tab.estimate import left
from fluxgym_watchdog.tab.history import History
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.series import pace
from fluxgym_watchdog.tab.words import (
    STATES,
    ago,
    clock,
    doing,
    duration,
    escape,
    many,
    memory,
    number,
    sentence,
    until,
)

_DOING = frozenset({RunState.STARTING, RunState.TRAINING, RunState.SUSPECT, RunState.STALLED})
"""States in which a trainer is doing something that the card names."""
_EXPLAINED = frozenset({RunState.STALLED, RunState.CRASHED, RunState.FAILED, RunState.WAITING, RunState.STOPPED})
"""States whose reason and advice the card gives."""


def card(seen: Seen, now: float) -> str:
    """The run at a glance: its state in words and colour, how far it is, when it will be done, what to do."""
    record, status = seen.record, seen.status
    if record is None:
        text = seen.problem or _never_watched(seen)
        tone = "bad" if seen.problem else "info"
        state = RunState.IDLE
        if seen.at_rest is not None and seen.at_rest.finished and not seen.problem:
            state = RunState.FINISHED
            tone = STATES[state][1]
        return _card(seen, tone, STATES[state][0], f"<p class='wd-says'>{escape(text)}</p>")
    label, tone = STATES[seen.state]
    says = sentence(status.text) if status else ""
    if seen.stale:
        looked = f"; the last look was {ago(status.at, now)}" if status else ""
        why = "The watchdog is busy or hangs" if seen.held else "Nobody watches this run at the moment"
        says_html = f"<p class='wd-says wd-bad'><b>{why}</b>{looked}. What is shown below may be out of date.</p>"
        label, tone = "Not watched", "bad"
    else:
        if status and status.finding is FindingKind.BLIND and seen.live:
            label, tone = "Cannot see the training", "act"
        says_html = f"<p class='wd-says'>{escape(says)}</p>" if says else ""
    if status and status.problem:
        says_html += f"<p class='wd-says wd-act'>{escape(sentence(status.problem))}</p>"
    if seen.state in _EXPLAINED and record.reason:
        reason = sentence(record.reason)
        shown = "" if reason == says else f"<b>{escape(reason)}</b> "
        says_html += f"<p class='wd-reason'>{shown}{escape(record.advice)}</p>" if shown or record.advice else ""
    if seen.asks_for_more and seen.may_resume():
        says_html += "<p class='wd-says'>The train script asks for more now: Resume goes on.</p>"
    body = [says_html, _asked(seen)]
    waiting_until = (status.next_start_at if status else None) or record.next_start_at
    if seen.state is RunState.WAITING and waiting_until:
        body.append(f"<p class='wd-says wd-act'>Next start in <b>{until(waiting_until, now)}</b>.</p>")
    body += [_progress(record, status), _numbers(seen, now), saves.question(seen)]
    return _card(seen, tone, label, "".join(body))


def _never_watched(seen: Seen) -> str:
    if seen.may_resume():
        return "Not trained under the watchdog yet. Resume goes on from its newest sound checkpoint."
    if seen.at_rest is not None and seen.at_rest.finished:
        return "Not trained under the watchdog. It is finished: its final weights are there."
    return "Not trained under the watchdog yet. Start it in the Gym tab."


def host(seen: Seen) -> str:
    """The machine: memory, swap, disk, and who uses the GPUs."""
    status = seen.status
    if status is None or status.host is None:
        return "<section class='wd wd-box'><h3>Machine</h3><p class='wd-empty'>Not measured yet.</p></section>"
    machine = status.host
    used = machine.memory_total_bytes - machine.memory_available_bytes
    rows = [
        (
            "Memory in use",
            f"{memory(used)} of {memory(machine.memory_total_bytes)}",
            _share(used, machine.memory_total_bytes),
        ),
        (
            "Swap in use",
            f"{memory(machine.swap_used_bytes)} of {memory(machine.swap_total_bytes)}"
            if machine.swap_total_bytes
            else "no swap",
            0.0,
        ),
        (
            "Disk in use",
            f"{memory(machine.disk_total_bytes - machine.disk_free_bytes)} of {memory(machine.disk_total_bytes)}",
            _share(machine.disk_total_bytes - machine.disk_free_bytes, machine.disk_total_bytes),
        ),
        ("Processes of this run", str(status.processes), 0.0),
    ]
    for gpu in status.gpus if seen.live else ():
        if gpu.processes:
            count = many(len(gpu.processes), "process")
            rows.append((f"On GPU {gpu.index}", f"{count}, {memory(sum(gpu.processes.values()))}", 0.0))
        if gpu.slowed:
            rows.append((f"GPU {gpu.index} is slowed", gpu.slowed, 0.0))
    cells = "".join(
        f"<div><dt>{name}</dt><dd class='{'wd-bad' if share > 0.95 else ''}'>{escape(text)}</dd></div>"
        for name, text, share in rows
    )
    measured = "" if seen.live and not seen.stale else f"<span class='wd-mut'>measured at {clock(status.at)}</span>"
    return f"<section class='wd wd-box'><h3>Machine{measured}</h3><dl class='wd-host'>{cells}</dl></section>"


def note(problem: str) -> str:
    """What is wrong with the watchdog itself, above the card; nothing where nothing is."""
    return _notice(escape(sentence(problem))) if problem else ""


def others(in_need: Mapping[str, str]) -> str:
    """The runs beside the one shown that need a look, above the card; nothing where none does."""
    if not in_need:
        return ""
    told = ", ".join(f"{name}: {state}" for name, state in in_need.items())
    text = f"<b>Another run needs a look</b>: {escape(told)}. Choose it above."
    return _notice(text, f" data-elsewhere='{escape(told)}'")


def nothing(problem: str = "") -> str:
    """What stands in the card's place while there is no run."""
    text = escape(problem) or (
        "<b>No training yet.</b> Press Start in the Gym tab: the training then appears here, is watched, and goes on "
        "by itself after a hang or a crash."
    )
    tone = "bad" if problem else "info"
    return f"<section class='wd wd-box wd-card wd-none wd-tone-{tone}'><p class='wd-says'>{text}</p></section>"


def _notice(text: str, attribute: str = "") -> str:
    box = f"<section class='wd wd-box wd-card wd-tone-bad wd-note'{attribute}>"
    return f"{box}<p class='wd-says wd-bad'>{text}</p></section>"


def _card(seen: Seen, tone: str, label: str, body: str) -> str:
    record = seen.record
    facts = []
    if record and record.attempt:
        facts.append(f"attempt {record.attempt.number}")
        if (recovered := len(_resumed(record))) > 0:
            facts.append(f"resumed {many(recovered, 'time')}, {many(_lost(record), 'step')} trained again")
        if record.restarts:
            facts.append(f"{many(record.restarts, 'restart')} in a row without a new checkpoint")
        if seen.live and not record.attempt.supervised:
            facts.append("started by something else: its output cannot be read")
    if record and seen.live and not record.auto_resume:
        facts.append("watching only: auto-resume is off")
    if seen.status and seen.state in _DOING and not seen.stale and (what := doing(seen.status)):
        if seen.state in (RunState.STARTING, RunState.TRAINING):
            label = f"{what[0].upper()}{what[1:]}"
        else:
            facts.insert(0, escape(what))
    return (
        f"<section class='wd wd-box wd-card wd-tone-{tone}' data-state='{seen.state.value}' "
        f"data-tone='{tone}' data-name='{escape(seen.name)}' "
        f"data-alert='{escape(_alert(seen, tone, label))}'><div class='wd-top'>"
        f"<h2>{escape(seen.name)}</h2><span class='wd-pill wd-{tone}'>{escape(label)}</span>"
        f"<span class='wd-mut'>{' · '.join(facts)}</span></div>{body}</section>"
    )


def _alert(seen: Seen, tone: str, label: str) -> str:
    """Why somebody should have a look, for the page's title; nothing where nobody need."""
    status = seen.status
    if tone == "bad" or (status and status.finding is FindingKind.BLIND and seen.live):
        return label
    if not seen.live or status is None:
        return ""
    if _is_nan(seen):
        return "the loss is not a number"
    return "no room for the next save" if status.saves and status.saves.fits is False else ""


def _is_nan(seen: Seen) -> bool:
    """JSON knows no NaN; a loss that was there and is none any more is not a number."""
    attempt, status = seen.record.attempt if seen.record else None, seen.status
    if attempt is None or status is None or status.step <= attempt.first_step:
        return False
    if status.loss is not None or seen.history.newest("loss") is not None:
        return False
    return bool(np.isfinite(seen.history.since(attempt.started_at).column("loss")).any())


def _asked(seen: Seen) -> str:
    asked = {"stop": "Asked to stop.", "resume": "Asked to resume.", "delete": "Asked to delete states."}
    texts = [text for kind, text in asked.items() if seen.pending(kind)]
    return f"<p class='wd-says wd-act'>{' '.join(texts)} Waiting for the watchdog to take it up.</p>" if texts else ""


def _progress(record: RunRecord, status: Status | None) -> str:
    total = (status.total_steps if status else None) or record.total_steps
    step = status.step if status else (record.attempt.last_step if record.attempt else 0)
    if not total or total <= 0:
        return ""
    begun = record.attempt.first_step if record.attempt and not record.attempt.fresh else 0
    marks = "".join(
        f"<em style='left:{_percent(a.first_step, total)}%' title='attempt {a.number} from step {a.first_step}'></em>"
        for a in _resumed(record)
    )
    epochs = _epochs(record, status, step, total)
    resumed = f"<span>resumed at step {begun}</span>" if begun else ""
    before, after = _percent(min(begun, step), total), _percent(max(0, step - begun), total)
    return (
        f"<div class='wd-bar' role='progressbar' aria-label='steps' aria-valuemin='0' aria-valuemax='{total}' "
        f"aria-valuenow='{step}'><i class='wd-before' style='width:{before}%'></i>"
        f"<i style='width:{after}%'></i>{marks}</div>"
        f"<div class='wd-ends'><span>{epochs}</span>{resumed}<span>step {step} of {total}</span></div>"
    )


def _numbers(seen: Seen, now: float) -> str:
    record, status = seen.record, seen.status
    if record is None or status is None:
        return ""
    cells: list[tuple[str, str]] = []
    of_late = pace(seen.history)
    still = None if seen.stale else left(seen.state, status, of_late, seen.history, record.attempts)
    if still is not None:
        text = "left"
        if still.high_s - still.low_s > 0.05 * still.seconds and still.seconds >= 60:
            text += f" ({duration(still.low_s)} to {duration(still.high_s)})"
        cells.append((duration(still.seconds), f"{text}, done about {clock(status.at + still.seconds)}"))
    per_step = of_late.median_s if of_late else status.seconds_per_step
    if per_step:
        cells.append((f"{number(per_step)} s", "per step"))
    loss = status.loss if status.loss is not None else seen.history.newest("loss")
    if loss is not None:
        cells.append((number(loss), f"loss{_trend(seen.history)}"))
    elif _is_nan(seen):
        cells.append(("NaN", "loss: the training has gone wrong"))
    if record.attempt and record.attempt.ended_at and not seen.live:
        took = record.attempt.ended_at - record.began_at
        cells.append((clock(record.attempt.ended_at), f"ended, after {duration(took)}" if record.began_at else "ended"))
    elif status.heartbeat_at:
        begun = record.attempt.first_step if record.attempt else 0
        cells.append((ago(status.heartbeat_at, now), "last step" if status.step > begun else "last sign of progress"))
    if seen.live and status.step:
        cells += saves.at_risk(seen, now)
    if status.host and seen.live:  # else it was measured then, and may be otherwise now
        cells.append((memory(status.host.disk_free_bytes), f"disk left{saves.next_save(status)}"))
    inner = "".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in cells)
    return f"<div class='wd-numbers'>{inner}</div>" if cells else ""


def _trend(history: History) -> str:
    values = history.column("loss")[-600:]
    values = values[np.isfinite(values)]
    if len(values) < 60:
        return ""
    older, newer = (float(half.mean()) for half in np.array_split(values, 2))
    if abs(newer - older) < 0.02 * abs(older):
        return ", level"
    return ", falling" if newer < older else ", rising"


def _epochs(record: RunRecord, status: Status | None, step: int, total: int) -> str:
    per_epoch = record.steps_per_epoch
    if per_epoch:
        epochs = math.ceil(total / per_epoch)
        return f"epoch {min(epochs, step // per_epoch + 1)} of {epochs}"
    if status and status.epoch and status.epochs:
        return f"epoch {status.epoch} of {status.epochs}"
    return ""


def _this_training(record: RunRecord) -> list[Attempt]:
    found: list[Attempt] = []
    for attempt in record.attempts:
        found = [attempt] if attempt.fresh else [*found, attempt]
    return found


def _resumed(record: RunRecord) -> list[Attempt]:
    return _this_training(record)[1:]


def _lost(record: RunRecord) -> int:
    attempts = _this_training(record)
    return sum(max(0, a.last_step - b.first_step) for a, b in pairwise(attempts))


def _percent(step: int, total: int) -> str:
    return f"{min(100.0, max(0.0, 100 * step / total)):.2f}"


def _share(used: float, total: float) -> float:
    return used / total if total else 0.0
