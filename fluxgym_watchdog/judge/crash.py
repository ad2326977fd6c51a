"""Why a training ended: the judgement of an ended attempt.

Every failure of a training ends in exit 1 of its shell; the reason is only in the text. So the causes are looked for
in the last lines, the newest line first, then in the exit code. Within a line the leftmost match counts: what follows
it is detail, such as the name of a file, which may be called anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from fluxgym_watchdog.judge.causes import (
    BY_EXIT_CODE,
    CAUSES,
    LOST,
    NAN_LOSS,
    NEVER_THE_STATES_FAULT,
    STATE_UNLOADABLE,
    UNKNOWN,
    Cause,
)
from fluxgym_watchdog.records import Finding, FindingKind, LogProgress, Phase, Snapshot


def judge_end(snapshot: Snapshot, began_at: float) -> Finding:
    """Finished or crashed(cause), for an attempt of which nothing that trains is left.

    Finished needs exit 0 and the final weights (or `model saved.`). Where nobody saw the exit code, the weights must be
    borne out by the log: a file of that name may be a copy that the user made. A trainer that fell over after both
    were there has finished too: there is nothing to train again.
    """
    exit_code, log = snapshot.tree.exit_code, snapshot.log
    model_saved = log is not None and log.model_saved
    weights = snapshot.final_weights_at is not None and snapshot.final_weights_at >= began_at
    borne_out = log is None or log.phase is Phase.ENDING
    by_code = exit_code == 0 or (exit_code is None and (model_saved or borne_out))
    if (model_saved and weights) or ((model_saved or weights) and by_code):
        return Finding(FindingKind.FINISHED, "the final weights are saved")
    cause = find_cause(log, exit_code)
    if exit_code == 0 and cause is UNKNOWN:
        text = "it ended with exit 0 but without its final weights"
        return Finding(FindingKind.CRASHED, text, UNKNOWN.name, retry=True, advice=UNKNOWN.advice)
    if exit_code is None and cause is UNKNOWN:
        cause = LOST
    code = "nobody saw the exit code" if exit_code is None else f"exit {exit_code}"
    where = f" at {log.phase.value}" if log is not None and log.step == 0 else ""
    return Finding(
        FindingKind.CRASHED,
        f"{cause.words}{where} ({code})",
        cause.name,
        retry=may_retry(cause, log.step if log else 0),
        advice=cause.advice,
        cure=cause.cure,
    )


def find_cause(log: LogProgress | None, exit_code: int | None) -> Cause:
    """The cause that an ended attempt's last lines and exit code tell."""
    found = _in_lines(log.last_lines) if log else None
    # The trainer says how long it will train once it has loaded: what comes after that is not the state's doing.
    loading = log is not None and log.resumed and log.step == 0 and log.total_steps is None
    resume_failed = loading and exit_code != 0
    if found is not None and found.cure:
        return found if resume_failed else UNKNOWN
    if resume_failed and (exit_code is not None if found is None else found.name not in NEVER_THE_STATES_FAULT):
        by_signal = BY_EXIT_CODE.get(exit_code) if found is None and exit_code is not None else None
        return by_signal or STATE_UNLOADABLE
    if found is None and log is not None and log.loss is not None and math.isnan(log.loss):
        return NAN_LOSS
    return found or (UNKNOWN if exit_code is None else BY_EXIT_CODE.get(exit_code, UNKNOWN))


def may_retry(cause: Cause, steps: int) -> bool:
    """Whether the same command may work the next time, `steps` having been trained in this attempt."""
    return cause.retry and (steps > 0 or not cause.retry_after_steps)


_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_AFTERMATH = re.compile(
    r"CalledProcessError|ChildFailedError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|EOFError"
)
"""What the launcher and the data loader's workers say when the trainer is gone: its own words stand further up."""
_REPORT = re.compile(
    r"(?:^|[\s\]])(?:INFO|WARNING|DEBUG) {2,}"  # rich's lines, which name files and prompts
    r"|^\s+(?!\s|(?:ERROR|CRITICAL) )"  # a traceback's frames, and how rich goes on
    r"|^(?:prompt|saving checkpoint|removing old checkpoint): |Warning: "
)
_COMMAND = re.compile(r"Command '\[.*?(?:\]' (?=returned|died)|$)")
"""The whole command as the launcher repeats it."""


def _in_lines(lines: Sequence[str]) -> Cause | None:
    """The cause named by the newest traceback that is the trainer's own, or by a line behind it."""
    said = ""
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        if _TRACEBACK in line:
            before = next((text for text in reversed(lines[:number]) if text.strip()), "")
            if not before.startswith(_CHAINED) and not _AFTERMATH.search(said):
                return None  # it is of a kind that we do not know: what stands further up did not end the training
        elif not _REPORT.search(line):
            said = _COMMAND.sub("", line)
            cause = _in_line(said)
            if cause is not None:
                return cause
    return None


def _in_line(text: str) -> Cause | None:
    matches = [(m.start(), rank) for rank, c in enumerate(CAUSES) for p in c.patterns if (m := re.search(p, text))]
    return CAUSES[min(matches)[1]] if matches else None
