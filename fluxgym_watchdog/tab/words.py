"""Numbers, times and states in the words that people read. Everything that comes from outside is escaped here."""

from __future__ import annotations

import html
import math
import time
from datetime import datetime, timezone

from fluxgym_watchdog.records import Phase, RunState, Status

STATES: dict[RunState, tuple[str, str]] = {
    RunState.IDLE: ("Not started", "info"),
    RunState.STARTING: ("Starting", "act"),
    RunState.TRAINING: ("Training", "ok"),
    RunState.SUSPECT: ("Slow, looking closer", "act"),
    RunState.STALLED: ("Stuck", "bad"),
    RunState.STOPPING: ("Stopping", "act"),
    RunState.CRASHED: ("Crashed", "bad"),
    RunState.WAITING: ("Waiting to start again", "act"),
    RunState.FINISHED: ("Finished", "ok"),
    RunState.STOPPED: ("Stopped", "info"),
    RunState.FAILED: ("Failed", "bad"),
}
"""Each state's name for people and its tone: ok, act, bad or info."""

_PHASES: dict[Phase, str] = {
    Phase.IMPORTS: "starting Python",
    Phase.DOWNLOAD: "downloading models",
    Phase.LOADING: "loading models",
    Phase.CACHING_LATENTS: "caching latents",
    Phase.CACHING_TEXT: "caching text encoder outputs",
    Phase.FIRST_STEP: "first step",
    Phase.SAVING: "saving",
    Phase.SAMPLING: "drawing samples",
    Phase.ENDING: "ending",
}


def escape(text: object) -> str:
    """Text made harmless for HTML, in attributes too."""
    return html.escape(str(text), quote=True)


def sendable(text: str) -> str:
    """The text with its code for what cannot be sent: half a letter, as in a file's name that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def sentence(text: str) -> str:
    """A finding's text as a sentence: findings are written to stand inside one."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.!?…' else '.'}" if text else ""


def duration(seconds: float) -> str:
    """A length of time as `45 s`, `24 min`, `3 h 05 min` or `2 d 4 h`; `unknown` for what is no number."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = (whole + 30) // 60  # as the page's script rounds
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, never in powers of ten between 0.001 and a million; a dash for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{max(0, digits - 1)}e}"
    whole_digits = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - whole_digits)}f}"


def memory(size_bytes: float) -> str:
    """RAM and video memory, and disks, in binary units as their makers' tools show them: `15.3 GiB`."""
    return _scaled(size_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def size(size_bytes: float) -> str:
    """A file's size in decimal units: `119 MB`."""
    return _scaled(size_bytes, 1000, ("B", "kB", "MB", "GB", "TB"))


def clock(at: float) -> str:
    """A time as an element whose text the page's script turns into the reader's own time zone."""
    return _time(at, "clock", _local(at))


def ago(at: float, now: float) -> str:
    """How long ago something was, kept up to date by the page's script."""
    return _time(at, "ago", f"{duration(now - at)} ago")


def until(at: float, now: float) -> str:
    """How long until something happens, kept up to date by the page's script."""
    return _time(at, "until", duration(at - now))


def many(count: int, what: str) -> str:
    """A count with its noun: `1 step`, `62 steps`."""
    return f"{count} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


def doing(status: Status) -> str:
    """What the trainer is doing, where that is more than training: `caching latents, 3 of 20`."""
    text = _PHASES.get(status.phase, "")
    if text and status.count_total:
        return f"{text}, {status.count} of {status.count_total}"
    return text


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while value >= base and power < len(units) - 1:
        value /= base
        power += 1
    text = f"{value:.1f}".removesuffix(".0") if power and value < 100 else f"{value:.0f}"
    return f"{text} {units[power]}"


def _local(at: float) -> str:
    try:
        form = "%H:%M" if abs(time.time() - at) < 72000 else "%d %b %H:%M"
        return time.strftime(form, time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "unknown"


def _time(at: float, form: str, text: str) -> str:
    try:
        iso = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "unknown"
    return f"<time datetime='{iso}' data-at='{at:.0f}' data-form='{form}'>{text}</time>"
