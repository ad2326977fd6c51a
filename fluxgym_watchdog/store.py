"""A run's .watchdog/ folder: the only place of ours that is written to, and the only one that others read.

    run.json        the RunRecord; replaced atomically
    status.json     what the last tick saw; written over in place, not synced: it is worth nothing after a power cut
    checkpoints.json  its checkpoints, which may be thousands: written and read again only when they have changed
    events.jsonl    the timeline; appended and synced
    samples.csv     GPU and training over time; appended, thinned when it grows
    evidence/       what closer looks have found, a folder each
    requests/       one file a request (see `request`), for whoever holds the run's lock
    lock            held by the operating system for the process that supervises the run

Readers never lock. A run.json that is no record is reported, and set aside under another name by the lock's holder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fluxgym_watchdog import samples as sample_lines
from fluxgym_watchdog.files import last_lines, locked, replace_file, set_aside, text_of, writing
from fluxgym_watchdog.last_look import LastLook
from fluxgym_watchdog.recordjson import decode, plain
from fluxgym_watchdog.records import SCHEMA_VERSION, Checkpoint, Event, RunRecord, Sample, Status

__all__ = ["FOLDER", "Held", "Store", "plain"]

FOLDER = ".watchdog"

EVENTS_BYTES, SAVES_READ = 800_000, 2000
"""So much of the timeline's end is read, and at most so many lines of saved checkpoints."""
EVIDENCE_KEPT = 20
_A_LOOK = re.compile(r"\d{8}-\d{6}")
"""The name of a closer look's folder: when it was."""


class Held(Exception):
    """Another supervisor holds the run's lock."""


class Store:
    """One run's .watchdog/ folder. Reading makes no folder; writing does."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / FOLDER
        self.unread = False
        self.evidence_folder = self.folder / "evidence"
        self._last_look = LastLook(self.folder)
        self._samples = self.folder / "samples.csv"
        self._requests_folder = self.folder / "requests"
        self._lock_file: IO[bytes] | None = None
        self._newer_record = False

    # run.json and status.json

    def read_record(self) -> tuple[RunRecord | None, str]:
        """The run's record, or None where there is none, and what is wrong with one that cannot be used.

        Whoever holds the lock sets an unreadable one aside at once; one of a newer version is set aside only when
        another is written over it. All others only say what is wrong.
        """
        path = self.folder / "run.json"
        try:
            self.unread = False
            found = json.loads(text_of(path))
            schema = found.get("schema", 0) if isinstance(found, dict) else 0
            self._newer_record = isinstance(schema, int) and schema > SCHEMA_VERSION
            if self._newer_record:
                return None, f"{path}: written by a newer version (schema {schema}); update FluxGym Watchdog"
            return decode(RunRecord, found), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            self.unread = True
            return None, f"{path}: cannot be read: {error}"
        except (ValueError, RecursionError) as error:
            problem = f"{path}: is not a run record ({error})"
            return None, f"{problem}; {set_aside(path, 'unreadable')}" if self._lock_file is not None else problem

    def write_record(self, record: RunRecord) -> None:
        """Replaces run.json, synced. Raises OSError."""
        path = self.folder / "run.json"
        if self._newer_record:
            set_aside(path, "newer")
            self._newer_record = False
        replace_file(path, self.folder, json.dumps(plain(record), indent=1), sync=True)

    def read_status(self) -> Status | None:
        """What the last tick saw; None where nothing readable is there."""
        return self._last_look.read()

    def write_checkpoints(self, checkpoints: tuple[Checkpoint, ...]) -> None:
        """Writes the checkpoints that are there now, the rest of the last look as it was. Raises OSError."""
        self._last_look.write_checkpoints(checkpoints)

    def write_status(self, status: Status) -> None:
        """Writes what this tick saw. Raises OSError."""
        self._last_look.write(status)

    # events.jsonl

    def append_event(self, event: Event) -> None:
        """Adds a line to the timeline, synced. Raises OSError."""
        path = self.folder / "events.jsonl"
        line = json.dumps(plain(event), ensure_ascii=False) + "\n"
        with writing(path, self.folder), path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and not sample_lines.ends_in_newline(file):
                line = "\n" + line  # a line cut off by a crash must not swallow this one
            file.write(line.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())

    def read_events(self, limit: int = 200) -> list[Event]:
        """The newest events, oldest first; lines cut off by a crash are left out.

        Saved checkpoints do not count against the limit: a night of them must not push out what happened before.
        """
        events: list[Event] = []
        left = {True: SAVES_READ, False: limit}
        for line in reversed(last_lines(self.folder / "events.jsonl", EVENTS_BYTES)):
            with contextlib.suppress(ValueError, RecursionError):
                event = decode(Event, json.loads(line))
                left[event.kind == "checkpoint"] -= 1
                if left[event.kind == "checkpoint"] >= 0:
                    events.append(event)
            if left[False] <= 0:
                break
        return events[::-1]

    # samples.csv

    def append_samples(self, samples: list[Sample]) -> str:
        """Adds lines to samples.csv; thins its older half when it has grown too large. Raises OSError.

        One that holds something else is set aside: then what was found, and its new name, is returned.
        """
        path, problem = self._samples, ""
        with writing(path, self.folder):
            try:
                grown = sample_lines.append(path, samples)
            except sample_lines.NotSamples:
                problem = f"{path}: its first line names no columns; {set_aside(path, 'unreadable')}"
                grown = sample_lines.append(path, samples)
        if grown:
            replace_file(path, self.folder, sample_lines.thinned(path.read_text(encoding="utf-8", errors="replace")))
        return problem

    def read_samples(self, since: float = 0.0) -> list[Sample]:
        """All samples at or after a time, oldest first; lines cut off by a crash are left out."""
        return sample_lines.read(self._samples, since)

    # evidence/

    def write_evidence(self, name: str, files: Mapping[str, str]) -> None:
        """Keeps what a closer look has found as evidence/<name>/, a time; the oldest make room. Raises OSError.

        A folder that is a link may have come along in an archive: what lies behind it is not ours to delete.
        """
        for file, text in files.items():
            replace_file(self.evidence_folder / name / file, self.folder, text)
        if self.folder.is_symlink() or self.evidence_folder.is_symlink():
            return
        looks = [p for p in self.evidence_folder.iterdir() if _A_LOOK.fullmatch(p.name) and not p.is_symlink()]
        for old in sorted(looks)[:-EVIDENCE_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    # requests/

    def request(self, kind: str, **values: str | bool | Sequence[str]) -> None:
        """Leaves a request for whoever holds the run's lock. Raises OSError.

        stop · resume (checkpoint: a name) · switch (auto_resume) · saves (closer) · delete (checkpoints: stamps)
        """
        name = f"{time.time_ns():020d}-{kind}-{uuid.uuid4().hex[:8]}.json"
        replace_file(self._requests_folder / name, self.folder, json.dumps({"kind": kind, **values}))

    def pending_requests(self) -> list[Mapping[str, Any]]:
        """The requests not yet taken, oldest first."""
        return [found for _, found in self._requests()]

    def take_requests(self, kinds: Collection[str] | None = None) -> list[Mapping[str, Any]]:
        """Takes all requests, or those of some kinds, oldest first. Only the holder of the lock may call this."""
        taken = []
        for path, found in self._requests():
            if kinds is not None and found["kind"] not in kinds:
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                taken.append(found)
        return taken

    def _requests(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        folder = self._requests_folder
        try:
            names = os.listdir(folder)  # noqa: PTH208 - names are enough, and this is asked at every tick
        except OSError:
            return
        for name in sorted(n for n in names if n.endswith(".json")):
            path = folder / name
            try:
                found = json.loads(text_of(path))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(found, dict) and isinstance(found.get("kind"), str):
                yield path, found

    # the lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's lock for a block. Raises Held, or OSError where the folder cannot be written."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> None:
        """Takes the run's lock; the operating system gives it back when this process ends. Raises Held, OSError."""
        if self._lock_file is not None:
            raise Held(f"{self.run_folder} is already supervised by this process")
        path = self.folder / "lock"
        with writing(path, self.folder):
            file = path.open("ab+")
        try:
            for tries_left in (2, 1, 0):
                if locked(file, shared=False):
                    self._lock_file = file
                    return
                if tries_left:
                    time.sleep(0.05)  # is_held() of another process holds it for an instant
            raise Held(f"{self.run_folder} is already supervised")
        finally:
            if self._lock_file is None:
                file.close()

    def unlock(self) -> None:
        """Gives the lock back; does nothing without it."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def is_held(self) -> bool:
        """Whether somebody, this process or another, supervises the run at this moment."""
        if self._lock_file is not None:
            return True
        try:
            with (self.folder / "lock").open("rb+") as file:
                return not locked(file, shared=True)
        except FileNotFoundError:
            return False
        except OSError:
            return True
