"""What a training's log says: how far it came, how it ended, why, and what to do. For any log of sd-scripts.

Only the end of a file is read (`TAIL_BYTES`), and of it only the last attempt is explained, so that gigabytes take no
longer than megabytes. A log alone cannot tell a running training from one that hangs or was killed: where it just stops
and no exit code is given, `running` means that the file changed within `RECENT_S`, and anything older is `unknown`.
"""

from __future__ import annotations

import math
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from fluxgym_watchdog.judge.causes import CAUSES, NAN_LOSS, UNKNOWN, Cause
from fluxgym_watchdog.judge.crash import find_cause, may_retry
from fluxgym_watchdog.observe.logparser import LogParser
from fluxgym_watchdog.observe.logtext import Bar, bars_and_text, clean
from fluxgym_watchdog.records import LogProgress, Phase

TAIL_BYTES = 8 * 1_048_576
"""A training writes about 250 bytes a step: the last 30,000 steps."""
MOST_LINES = 40_000
"""Of an attempt with more lines than that its beginning and its end are heard."""
RECENT_S = 120.0
"""A running training writes at least every few minutes, mostly every few seconds."""

FINISHED, CRASHED, RUNNING, NOT_KNOWN = "finished", "crashed", "running", "unknown"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a log says of its last attempt; the fields are the keys of `explain --json`.

    `phase` is a Phase's value. `step` is the attempt's own count, as its bar shows it. `outcome` is finished, crashed,
    running or unknown; `cause` a documented name or None. `retry`: whether the same command may work the next time.
    `attempts` is how many attempts the part that was read shows, or the number that the watchdog gave the last one.
    """

    phase: str
    step: int
    total_steps: int | None
    outcome: str
    cause: str | None
    retry: bool
    advice: str
    attempts: int


def explain(path: Path, exit_code: int | None = None, now: float | None = None) -> Explanation:
    """Explains a log; `exit_code` is how the training ended, where that is known, `now` the wall clock (for tests).

    Raises OSError for what is no readable file.
    """
    text, changed_at, size = _read_end(path)
    if not size:
        return _nothing(f"{path} is empty: the training has not written anything into it.")
    if _is_binary(text):
        return _nothing(f"{path} is not text: expected what a training prints, as in outputs/<name>/training.log.")
    pieces, attempts = _last_attempt(_thinned(text))
    parser = LogParser()
    if len(pieces) > MOST_LINES:
        pieces = pieces[: MOST_LINES // 4] + pieces[-MOST_LINES * 3 // 4 :]
    parser.feed("\n".join(pieces))
    log = parser.progress
    if exit_code is None:
        exit_code = _exit_code(pieces[-200:])
    recent = (time.time() if now is None else now) - changed_at <= RECENT_S
    known = log.advances > 0 or any(_KNOWN.search(piece) for piece in pieces[:100])
    outcome = _outcome(log, exit_code, recent=recent and known)
    cause = _cause(log, exit_code, outcome)
    retry = outcome not in (FINISHED, RUNNING) and (known if cause is None else may_retry(cause, log.step))
    return Explanation(
        phase=log.phase.value if known else Phase.UNKNOWN.value,
        step=_step(log, outcome),
        total_steps=log.total_steps or log.bar_total,
        outcome=outcome,
        cause=cause.name if cause else None,
        retry=retry,
        advice=_advice(outcome, cause, known=known),
        attempts=attempts,
    )


def in_words(found: Explanation) -> str:
    """The explanation as people read it."""
    steps = f"step {found.step}" + (f" of {found.total_steps}" if found.total_steps else "")
    attempts = "" if found.attempts < 2 else f", attempt {found.attempts}"
    lines = [f"{found.outcome}: reached {found.phase}, {steps}{attempts}"]
    lines += [f"cause: {found.cause}"] if found.cause else []
    lines += [f"the same again may work: {'yes' if found.retry else 'no'}"] if found.outcome != RUNNING else []
    return "\n".join([*lines, found.advice])


# reading


def _read_end(path: Path) -> tuple[str, float, int]:
    """The end of the file as text, when it was changed last, and its size."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(21, "is a folder; expected a log file, such as its training.log", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(22, "is no regular file", str(path))
    with path.open("rb") as file:
        head = file.read(2)
        size = file.seek(0, os.SEEK_END)
        wide = head in (b"\xff\xfe", b"\xfe\xff")  # what PowerShell's > writes
        start = max(0, size - TAIL_BYTES)
        start -= start % 2 if wide else 0
        file.seek(start)
        data = file.read(TAIL_BYTES + 2)
    encoding = "utf-8" if not wide else "utf-16-le" if head == b"\xff\xfe" else "utf-16-be"
    text = data.decode(encoding, "replace")
    if start:  # not from the middle of a line
        text = text[len(re.split(r"[\r\n]", text[:4096], maxsplit=1)[0]) :]
    return text.replace("\0", ""), found.st_mtime, size  # zeros: a hole, or what a power cut left


def _is_binary(text: str) -> bool:
    sample = text[-65_536:]
    odd = sum(1 for c in sample if c == "\ufffd" or (c < " " and c not in "\t\r\n\x1b\b\x07"))
    return not sample or odd > 0.1 * len(sample)


# attempts

_KNOWN = re.compile(r"accelerate launch|FluxGym Watchdog\]")
_BANNER = re.compile(r"\[FluxGym Watchdog\] attempt (\d{1,6})\b")
_LAUNCHER_END = re.compile(r"(?:returned non-zero exit status (\d+)|died with <Signals\.\w+: \d+>)")
_BEGINNINGS = ("highvramisenabled", "Loadingdatasetconfigfrom", "preparetokenizer", "prepareimages")
_MARK = re.compile(
    r"FluxGym Watchdog\]|returned non-zero|died with <Signals|running training|model saved\."
    r"|highvram|oading\s+dataset|prepare\s+(?:tokenizer|images)"
)


_STEP_BAR = re.compile(r"\s*steps: +\d+%\|[^|]*\|[^|\[]*\[[^\[\]]*\]\s*$")
_LONG = 8192
"""Longer than any line that tells something: of longer ones, the two ends are enough."""


def _thinned(text: str) -> list[str]:
    """The pieces between line ends, without the redraws of the step bar that another one follows."""
    pieces = [p if len(p) <= _LONG else f"{p[: _LONG // 2]} {p[-_LONG // 2 :]}" for p in re.split(r"[\r\n]+", text)]
    is_bar = [bool(_STEP_BAR.match(piece)) for piece in pieces]
    return [
        piece
        for piece, bar, bar_follows in zip(pieces, is_bar, [*is_bar[1:], False], strict=True)
        if piece and not (bar and bar_follows)
    ]


def _last_attempt(pieces: list[str]) -> tuple[list[str], int]:
    """The lines of the last attempt, and how many attempts there are.

    One begins where the watchdog says so; behind the launcher's last word, if a training speaks there and not only the
    script around it; or where a trainer that had begun to train prepares again.
    """
    begins, count, trained, ended = 0, 1, False, False
    speaks_last = next((n for n in range(len(pieces) - 1, -1, -1) if _SPEAKS.search(pieces[n])), -1)
    for number, piece in enumerate(pieces):
        if ended and number <= speaks_last and _says_something(piece):
            begins, count, trained, ended = number, count + 1, False, False
        if not _MARK.search(piece):
            continue
        cleaned = clean(piece)
        if banner := _BANNER.search(cleaned):
            count = int(banner[1]) if number or int(banner[1]) > 1 else 1
            begins, trained, ended = number, False, False
        elif _LAUNCHER_END.search(cleaned):
            ended = True
        elif "running training" in cleaned or "model saved." in cleaned:
            trained = True
        elif trained and any(mark in "".join(cleaned.split()) for mark in _BEGINNINGS):
            begins, count, trained = number, count + 1, False
    return pieces[begins:], count


def _says_something(piece: str) -> bool:
    """Whether it belongs to a new attempt: a bar that is drawn once more, and a recording's end, do not."""
    cleaned = clean(piece)
    return bool(
        any(isinstance(part, str) for part in bars_and_text(cleaned))
        and not _RECORDED_END.search(cleaned)
        and not _LAUNCHER_END.search(cleaned)
        and not re.search(r"Terminating process|Killed|Training Complete|E\d{4} |^\s*$", cleaned)
    )


# how it ended

_RECORDED_END = re.compile(r'^Script (?:done|started) (?:.*COMMAND_EXIT_CODE="(\d+)")?')
_ERROR_LINE = re.compile(r"^\s*[\w.]{0,200}(?:Error|Exception|Interrupt|Exit)(?::|\s*$)")
_SHELL_END = re.compile(r"command not found|: No such file or directory$|^(?:\S+: line \d+: +\d+ )?Killed\b|: error: ")
_SPEAKS = re.compile(
    rf"{_KNOWN.pattern}|{_MARK.pattern}|Traceback \(most|INFO {{2,}}|WARNING {{2,}}|\d%\||{_SHELL_END.pattern}"
)
"""What only a training says, or the shell that could not start one."""


def _exit_code(pieces: list[str]) -> int | None:
    """The exit code that the end itself tells: a terminal recording's, or the launcher's."""
    for piece in reversed(pieces):
        cleaned = clean(piece)
        if (recorded := _RECORDED_END.search(cleaned)) and recorded[1]:
            return int(recorded[1])
        if (launcher := _LAUNCHER_END.search(cleaned)) and launcher[1]:
            return int(launcher[1])
    return None


def _outcome(log: LogProgress, exit_code: int | None, *, recent: bool) -> str:
    if log.model_saved:
        return FINISHED
    if exit_code is not None or _tells_of_its_end(log.last_lines):
        return CRASHED
    return RUNNING if recent else NOT_KNOWN


def _tells_of_its_end(lines: tuple[str, ...]) -> bool:
    """Whether a traceback, the launcher or the shell has the last word: no bar moved behind it."""
    in_traceback = False
    told = False
    for line in lines:
        parts = bars_and_text(line)
        if any(isinstance(part, Bar) for part in parts):
            in_traceback = told = False
        elif "Traceback (most recent call last)" in line:
            in_traceback = True
        elif _LAUNCHER_END.search(line) or _SHELL_END.search(line) or (in_traceback and _ERROR_LINE.search(line)):
            told = True
    return told


def _cause(log: LogProgress, exit_code: int | None, outcome: str) -> Cause | None:
    nan = log.loss is not None and math.isnan(log.loss)
    if outcome == CRASHED:
        found = find_cause(log, exit_code)
        return NAN_LOSS if nan and found is UNKNOWN else found
    return NAN_LOSS if nan else None


def _step(log: LogProgress, outcome: str) -> int:
    # A recording may hold no bars: what began at the beginning and finished has made all of its steps.
    if outcome == FINISHED and log.bar_total is None and not log.resumed:
        return log.total_steps or 0
    return log.step


def _advice(outcome: str, cause: Cause | None, *, known: bool) -> str:
    if outcome == CRASHED:
        return (cause or UNKNOWN).advice
    if cause is not None:
        return f"The loss is not a number: nothing was learned from there on. {cause.advice}"
    if outcome == FINISHED:
        return "The final weights are saved. There is nothing to do."
    if outcome == RUNNING:
        return "It has written something within the last two minutes. Wait."
    if not known:
        return "Nothing in it is known of a training by sd-scripts. Is it the right file?"
    return (
        "The log just stops: the training hangs, was killed without a word, or the machine went down. If no process of "
        "it is left, resume from the newest checkpoint; if one is, stop it first."
    )


def _nothing(advice: str) -> Explanation:
    return Explanation(Phase.UNKNOWN.value, 0, None, NOT_KNOWN, None, False, advice, 0)


CAUSE_NAMES = tuple(dict.fromkeys([*(c.name for c in CAUSES), "state_unloadable", UNKNOWN.name]))
