"""What all open pages read of one run, read once: a file again only when it has changed, of samples only the new."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxgym_watchdog import samples as sample_lines
from fluxgym_watchdog.records import Sample
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab.seen import Seen, is_stale

LOG_BYTES = 16 * 1024
LOG_LINES = 100

Signature = tuple[int, int, int]
"""A file's inode, size and modification time: what has not changed need not be read again."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Feed:
    """One run's folder. Not safe for threads: the board holds a lock around it."""

    def __init__(self, run_folder: Path) -> None:
        self.store = Store(run_folder)
        self._kept: dict[str, tuple[Signature | None, Any]] = {}
        self._samples = Samples(self.store.folder / "samples.csv")

    def look(self, settings: Settings, now: float | None = None) -> Seen:
        """What the run's folder says now."""
        store = self.store
        record, problem = self._unless_same(store.folder / "run.json", store.read_record)
        seen = Seen(
            name=store.run_folder.name,
            record=record,
            problem=problem,
            status=self._unless_same(store.folder / "status.json", store.read_status),
            events=self._unless_same(store.folder / "events.jsonl", store.read_events),
            samples=self._samples.read(),
            requests=self._unless_same(store.folder / "requests", store.pending_requests),
            log=self._unless_same(store.run_folder / "training.log", lambda: log_tail(store.run_folder)),
        )
        if is_stale(seen.state, seen.status, settings, time.time() if now is None else now):
            return replace(seen, stale=True, held=store.is_held())
        return seen

    def _unless_same(self, path: Path, read: Callable[[], Any]) -> Any:
        signature = _signature(path)
        kept = self._kept.get(path.name)
        if kept is None or kept[0] != signature:
            kept = self._kept[path.name] = (signature, read())
        return kept[1]


class Samples:
    """samples.csv, of which each look reads only the lines that are new; begins again when the file was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[Sample] = []
        self._inode = 0
        self._offset = 0
        self._columns: list[str] = []

    def read(self) -> list[Sample]:
        """All samples, oldest first; lines that cannot be read are left out. The list is the same one every time."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._offset:
                    self._found, self._columns, self._offset, self._inode = [], [], 0, found.st_ino
                if found.st_size == self._offset:
                    return self._found
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("utf-8", "replace").split("\n")[:-1]:
            if not self._columns:
                self._columns = line.split(",")
            elif (sample := sample_lines.parsed(self._columns, line)) is not None:
                self._found.append(sample)
        return self._found


def log_tail(run_folder: Path) -> list[str]:
    """The last lines of training.log as a terminal would show them: of a redrawn bar only its newest drawing."""
    path = run_folder / "training.log"
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        drawings = [drawing for drawing in line.split("\r") if drawing.strip()]
        # rich pads its columns to the width it was given: on a page that only breaks the lines.
        lines.append(re.sub(r"(?<=\S) {3,}", "  ", _ESCAPES.sub("", drawings[-1])).rstrip() if drawings else "")
    if size > LOG_BYTES:
        lines = lines[1:] or lines
    while lines and not lines[-1]:
        lines.pop()
    return lines[-LOG_LINES:]


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
