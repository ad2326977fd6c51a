"""FluxGym's log runner, with its trainings handed to the watchdog."""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fluxgym_watchdog.act.launch import LOG_NAME
from fluxgym_watchdog.fluxgym.runs import SCRIPT_NAMES
from fluxgym_watchdog.observe.logtext import ShownLine
from fluxgym_watchdog.observe.trainlog import TextFollower
from fluxgym_watchdog.records import RunRecord, RunState
from fluxgym_watchdog.store import Held, Store

log = logging.getLogger("fluxgym_watchdog.runner")

FOLLOW_EVERY_S = 0.5
QUEUED_START_S = 15.0
QUEUED_START = "This run has finished just now. To train it again from the beginning, press Start once more."
"""Gradio serves one Start at a time: one that was pressed during a training comes in the moment that it ends, and would
train over what has just been finished."""
SHOWN_AFTER_JOINING_BYTES = 64_000
GONE_AFTER_S = 10.0
"""A run without a readable record that nobody supervises for so long is no longer followed."""
OVER = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED, RunState.CRASHED})


def supervised(runner: type, train: Callable[[Path], Store]) -> type:
    """A subclass of a LogsViewRunner whose `run_command` hands train scripts to `train` and follows the training.

    It yields what the original yields, over all attempts of the run. Any other command, and any failure of ours before
    the launch, goes to the original. A training that ends without being finished raises Gradio's Error, so that
    FluxGym does not announce it as complete.
    """

    class SupervisedRunner(runner):  # type: ignore[misc]
        def run_command(self, command: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            script = train_script_in(command, kwargs.get("cwd"))
            followed = _handed_over(script, train) if script is not None else None
            if followed is None:
                yield from super().run_command(command, *args, **kwargs)
                return
            store, offset = followed
            if (finished := store.read_record()[0]) is not None and _just_finished(finished):
                yield self.log(QUEUED_START)
            record = yield from _follow(self, store, offset)
            self.exit_code = _exit_code(record)
            if record is None or record.state is not RunState.FINISHED:
                yield self.log(_verdict(record))
                raise _error(record)

    SupervisedRunner.__name__ = SupervisedRunner.__qualname__ = runner.__name__
    return SupervisedRunner


def train_script_in(command: Any, cwd: Any) -> Path | None:
    """The train script that FluxGym's command (`bash "<path>/train.sh"`, or the .bat itself) runs, if it is one."""
    words = [str(w) for w in command] if isinstance(command, (list, tuple)) else [str(command)]
    candidates = list(words)
    if len(words) == 1:
        quoted = re.fullmatch(r'\s*(?:bash\s+)?"([^"]+)"\s*', words[0])
        candidates = [quoted.group(1)] if quoted else [words[0], *_split(words[0])]
    for word in candidates:
        path = Path(cwd or ".") / word
        if path.name in SCRIPT_NAMES and path.parent.parent.name == "outputs" and path.is_file():
            return path.absolute()
    return None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _handed_over(script: Path, train: Callable[[Path], Store]) -> tuple[Store, int] | None:
    """The run's store and where in its log to begin showing; None if the original must run the command."""
    log_path = script.parent / LOG_NAME
    try:
        size_before = log_path.stat().st_size if log_path.exists() else 0
        record, _ = Store(script.parent).read_record()
        if record is not None and _just_finished(record):
            log.warning("%s: %s", script.parent.name, QUEUED_START)
            return Store(script.parent), size_before
        joins = record is not None and record.state not in OVER and Store(script.parent).is_held()
        store = train(script)
    except Held:
        store, joins = Store(script.parent), True
    except Exception:  # the edge of FluxGym: it trains whatever happens to us
        log.exception("FluxGym Watchdog cannot supervise %s; FluxGym runs it by itself.", script)
        return None
    if joins:
        text = (
            "Start was pressed while this run is live: it goes on, and is shown here. Its train script did not change."
        )
        log.warning("%s: %s", script.parent.name, text)
    return store, max(0, size_before - SHOWN_AFTER_JOINING_BYTES) if joins else size_before


def _just_finished(record: RunRecord) -> bool:
    attempt = record.attempt
    ended_at = attempt.ended_at if attempt is not None and record.state is RunState.FINISHED else None
    return ended_at is not None and 0 <= time.time() - ended_at < QUEUED_START_S


def _follow(runner: Any, store: Store, offset: int) -> Generator[Any, None, RunRecord | None]:
    """Yields the training's output until the run is over; returns its record, or None where that is gone for good."""
    follower = TextFollower(store.run_folder / LOG_NAME, offset)
    known_at = time.monotonic()
    while True:
        record, _ = store.read_record()
        if record is not None or store.is_held():
            known_at = time.monotonic()
        elif time.monotonic() - known_at >= GONE_AFTER_S:
            return None  # FluxGym's queue waits for us: the next training must not
        # A crash that will be retried passes through `crashed` for an instant, under its supervisor's lock.
        ended = record if record is not None and record.state in OVER and not store.is_held() else None
        lines = follower.poll()
        while ended is not None and (more := follower.poll()):
            lines += more
        if ended is not None:
            lines += follower.rest()
        shown = None
        for line in without_redraws(lines):
            shown = runner.log(line)
        if shown is not None:
            yield shown
        if ended is not None:
            return ended
        time.sleep(FOLLOW_EVERY_S)


def without_redraws(lines: Sequence[ShownLine]) -> list[str]:
    """The lines without those redraws of a progress bar that the next line replaces."""
    kept = [line for (line, bar), (_, after) in pairwise(lines) if bar is None or bar != after]
    return [*kept, *(line for line, _ in lines[-1:])]


def _exit_code(record: RunRecord | None) -> int:
    """What the original would have had to say: forks ask it whether the training has succeeded."""
    if record is None:
        return 1
    if record.state is RunState.FINISHED:
        return 0
    return (record.attempt.exit_code if record.attempt else None) or 1


def _verdict(record: RunRecord | None) -> str:
    if record is None:
        return "The run's folder is gone, or its record (.watchdog/run.json) cannot be read. See the Watchdog tab."
    if record.state is RunState.STOPPED:
        return "The training was stopped. The Watchdog tab can go on with it."
    return f"The training failed: {record.reason}. {record.advice} See the Watchdog tab.".replace(". .", ".")


def _error(record: RunRecord | None) -> Exception:
    import gradio  # noqa: PLC0415 - nothing else here needs it

    stopped = record is not None and record.state is RunState.STOPPED
    return gradio.Error(_verdict(record), duration=10 if stopped else None)  # type: ignore[no-any-return]
