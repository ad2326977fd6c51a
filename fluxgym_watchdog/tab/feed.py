"""What all open pages read of one run, read once: a file again only when it has changed, of samples only the new."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxgym_watchdog.fluxgym.runs import SCRIPT_NAMES
from fluxgym_watchdog.glance import Glance, glance
from fluxgym_watchdog.observe.logtext import clean
from fluxgym_watchdog.records import CheckpointKind, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import FOLDER, Store
from fluxgym_watchdog.tab.history import SampleFile
from fluxgym_watchdog.tab.seen import Seen, is_stale
from fluxgym_watchdog.tab.show import Drawn

LOG_BYTES = 16 * 1024
LOG_SHOWN = 7000
LOG_LINES = 100
"""At most so many lines of the log are shown, and together at most so many letters."""

LOOK_AGAIN_S = 5.0
"""A run at rest whose newest checkpoint is not sound is looked at again after so long: it may still be written."""

COARSE_S = 2.0
"""Times of files may be as coarse as that: what was changed so lately may change again without showing it."""

Signature = tuple[tuple[int, int, int] | None, ...]
"""Each file's inode, size and modification time: what has not changed need not be read again."""


class Feed:
    """One run's folder, and the parts that were made of it. Whoever looks holds its lock.

    The lock is its own: a disk that does not answer must not keep the pages from the other runs.
    """

    def __init__(self, run_folder: Path) -> None:
        self.store = Store(run_folder)
        self.lock = threading.Lock()
        self.drawn = Drawn()
        self.wanted_at = 0.0
        self._kept: dict[str, tuple[Signature, Any]] = {}
        self._scripts = [run_folder / name for name in SCRIPT_NAMES]
        self._samples = SampleFile(self.store.folder / "samples.csv")
        self._at_rest_at = 0.0

    def look(self, settings: Settings, now: float | None = None) -> Seen:
        """What the run's folder says now."""
        store, folder = self.store, self.store.folder
        now = time.time() if now is None else now
        record, problem = self._unless_same(store.read_record, folder / "run.json")
        log, log_now = self._unless_same(lambda: log_tail(store.run_folder), store.run_folder / "training.log")
        seen = Seen(
            name=store.run_folder.name,
            record=record,
            problem=problem,
            status=self._unless_same(store.read_status, folder / "status.json", folder / "checkpoints.json"),
            events=self._unless_same(store.read_events, folder / "events.jsonl"),
            history=self._samples.read(),
            requests=self._unless_same(store.pending_requests, folder / "requests"),
            log=log,
            log_now=log_now,
        )
        if self._changed_at_rest(seen):
            seen = replace(seen, at_rest=self._at_rest(settings, now))
        if seen.state is RunState.FINISHED:
            states = sum(c.size_bytes for c in seen.checkpoints if c.kind is CheckpointKind.STATE)
            files = self._unless_same(lambda: files_bytes(store.run_folder), store.run_folder, folder)
            return replace(seen, folder_bytes=states + files)
        if is_stale(seen.state, seen.status, now):
            return replace(seen, stale=True, held=store.is_held())
        return seen

    def _at_rest(self, settings: Settings, now: float) -> Glance:
        def look() -> Glance:
            self._at_rest_at = now
            return glance(self.store.run_folder, settings)

        watched = (*self._scripts, self.store.run_folder)
        found: Glance = self._unless_same(look, *watched)
        newest = max(found.checkpoints, key=lambda c: c.saved_at, default=None)
        if newest is not None and not newest.sound and not 0 <= now - self._at_rest_at < LOOK_AGAIN_S:
            self._kept.pop(watched[0].name, None)
            found = self._unless_same(look, *watched)
        return found

    def _changed_at_rest(self, seen: Seen) -> bool:
        """Whether the folder itself must tell: the run was never watched, or its script was changed after its end."""
        if seen.record is None:
            return not seen.problem
        ended_at = seen.record.attempt.ended_at if seen.record.attempt else None
        if seen.state is not RunState.FINISHED or ended_at is None:
            return False
        written = [found[2] / 1e9 for path in self._scripts if (found := _signature(path))]
        return max(written, default=0.0) > ended_at

    def _unless_same(self, read: Callable[[], Any], *paths: Path) -> Any:
        signature = tuple(_signature(path) for path in paths)
        kept = self._kept.get(paths[0].name)
        if kept is not None and kept[0] == signature:
            return kept[1]
        found = read()
        if any(of_file and abs(time.time() - of_file[2] / 1e9) < COARSE_S for of_file in signature):
            self._kept.pop(paths[0].name, None)
        else:
            self._kept[paths[0].name] = (signature, found)
        return found


def files_bytes(run_folder: Path) -> int:
    """The size of the files in a run's folder, its samples and the watchdog's own; the states' folders left out."""
    total = 0
    for folder in (run_folder, run_folder / "sample", run_folder / FOLDER):
        try:
            with os.scandir(folder) as entries:
                total += sum(entry.stat().st_size for entry in entries if entry.is_file())
        except OSError:
            continue  # not there, or gone meanwhile
    return total


def log_tail(run_folder: Path) -> tuple[list[str], str]:
    """The last lines of training.log as a terminal would show them, and the one that is not finished yet: of a
    redrawn bar its newest drawing."""
    path = run_folder / "training.log"
    try:
        if not path.is_file():
            return [], ""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return [], ""
    *lines, last = [_shown(line) for line in text.replace("\r\n", "\n").split("\n")]
    if size > LOG_BYTES:
        lines = lines[1:] or lines
    while lines and not lines[-1]:
        lines.pop()
    lines = lines[-LOG_LINES:]
    while len(lines) > 1 and sum(map(len, lines)) > LOG_SHOWN:
        lines.pop(0)
    return lines, last


def _shown(line: str) -> str:
    drawings = [drawing for drawing in line.split("\r") if drawing.strip()]
    # rich pads its columns to the width it was given: on a page that only breaks the lines.
    text = re.sub(r"(?<=\S) {3,}|^ {13,}", "  ", clean(drawings[-1])) if drawings else ""
    return text if len(text) <= LOG_SHOWN else f"{text[:LOG_SHOWN]}…"


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
