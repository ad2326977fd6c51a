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
import errno
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from fluxgym_watchdog import samples as sample_lines
from fluxgym_watchdog.recordjson import decode, plain
from fluxgym_watchdog.records import SCHEMA_VERSION, Checkpoint, Event, RunRecord, Sample, Status

__all__ = ["FOLDER", "Held", "Store", "plain"]

FOLDER = ".watchdog"

EVIDENCE_KEPT = 20
STATUS_WAITS_S = (0.0, 0.002, 0.02)
"""Before each try to read status.json: its writer may have been interrupted halfway."""


class Held(Exception):
    """Another supervisor holds the run's lock."""


class Store:
    """One run's .watchdog/ folder. Reading makes no folder; writing does."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / FOLDER
        self.unread = False
        self.evidence_folder = self.folder / "evidence"
        self._status = self.folder / "status.json"
        self._samples = self.folder / "samples.csv"
        self._requests_folder = self.folder / "requests"
        self._lock_file: IO[bytes] | None = None
        self._newer_record = False
        self._checkpoints_written: tuple[Checkpoint, ...] | None = None
        self._checkpoints: tuple[Checkpoint, ...] = ()
        self._checkpoints_signature = (0, 0, 0)
        self._checkpoints_read: dict[str, tuple[Any, Checkpoint]] = {}

    # run.json and status.json

    def read_record(self) -> tuple[RunRecord | None, str]:
        """The run's record, or None where there is none, and what is wrong with one that cannot be used.

        Whoever holds the lock sets an unreadable one aside at once; one of a newer version is set aside only when
        another is written over it. All others only say what is wrong.
        """
        path = self.folder / "run.json"
        try:
            self.unread = False
            found = json.loads(_text(path))
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
            return None, f"{problem}; {_set_aside(path, 'unreadable')}" if self._lock_file is not None else problem

    def write_record(self, record: RunRecord) -> None:
        """Replaces run.json, synced. Raises OSError."""
        path = self.folder / "run.json"
        if self._newer_record:
            _set_aside(path, "newer")
            self._newer_record = False
        self._replace(path, json.dumps(plain(record), indent=1), sync=True)

    def read_status(self) -> Status | None:
        """What the last tick saw; None where nothing readable is there."""
        for wait_s in STATUS_WAITS_S:
            time.sleep(wait_s)
            try:
                status = decode(Status, json.loads(_text(self._status)))
            except OSError:
                break
            except (ValueError, RecursionError):
                continue
            return status if status.checkpoints else replace(status, checkpoints=self._read_checkpoints())
        return None

    def write_status(self, status: Status) -> None:
        """Writes over status.json, in one call that leaves no rest of a longer one. Raises OSError.

        It is not replaced as run.json is: that took more CPU than all else in a tick, and had ext4 write to the disk
        at every one. Nothing is decided by what is read here, so half of an old one may be seen for an instant.
        Its checkpoints stand in checkpoints.json, which is replaced where they are others than before.
        """
        path = self._status
        text = json.dumps(plain(replace(status, checkpoints=()))).encode()
        with self._writing(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            try:
                there = os.fstat(file)
                if not stat.S_ISREG(there.st_mode):
                    raise OSError(errno.EINVAL, "is not a file")
                text = text.ljust(there.st_size)
                if os.write(file, text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
        path = self.folder / "checkpoints.json"
        if status.checkpoints != self._checkpoints_written or not path.exists():
            listed = {checkpoint.name: plain(checkpoint) for checkpoint in status.checkpoints}
            self._replace(path, json.dumps(listed))
            self._checkpoints_written = status.checkpoints

    def _read_checkpoints(self) -> tuple[Checkpoint, ...]:
        path = self.folder / "checkpoints.json"
        try:
            found = path.stat()
            signature = found.st_ino, found.st_size, found.st_mtime_ns
            if signature != self._checkpoints_signature:
                known, read = self._checkpoints_read, {}
                for name, facts in json.loads(_text(path)).items():
                    same = name in known and known[name][0] == facts
                    read[name] = known[name] if same else (facts, decode(Checkpoint, facts))
                self._checkpoints_signature, self._checkpoints_read = signature, read
                self._checkpoints = tuple(checkpoint for _, checkpoint in read.values())
        except (OSError, ValueError, AttributeError, RecursionError):
            return ()
        return self._checkpoints

    # events.jsonl

    def append_event(self, event: Event) -> None:
        """Adds a line to the timeline, synced. Raises OSError."""
        path = self.folder / "events.jsonl"
        line = json.dumps(plain(event), ensure_ascii=False) + "\n"
        with self._writing(path), path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and not sample_lines.ends_in_newline(file):
                line = "\n" + line  # a line cut off by a crash must not swallow this one
            file.write(line.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())

    def read_events(self, limit: int = 200) -> list[Event]:
        """The newest events, oldest first; lines cut off by a crash are left out."""
        events = []
        for line in _last_lines(self.folder / "events.jsonl", limit, bytes_each=4096):
            with contextlib.suppress(ValueError, RecursionError):
                events.append(decode(Event, json.loads(line)))
        return events

    # samples.csv

    def append_samples(self, samples: list[Sample]) -> None:
        """Adds lines to samples.csv; thins its older half when it has grown too large. Raises OSError."""
        path = self._samples
        with self._writing(path):
            grown = sample_lines.append(path, samples)
        if grown:
            self._replace(path, sample_lines.thinned(path.read_text(encoding="utf-8", errors="replace")))

    def read_samples(self, since: float = 0.0) -> list[Sample]:
        """All samples at or after a time, oldest first; lines cut off by a crash are left out."""
        return sample_lines.read(self._samples, since)

    # evidence/

    def write_evidence(self, name: str, files: Mapping[str, str]) -> None:
        """Keeps what a closer look has found as evidence/<name>/; the oldest make room. Raises OSError."""
        for file, text in files.items():
            self._replace(self.evidence_folder / name / file, text)
        for old in sorted(p for p in self.evidence_folder.iterdir() if p.is_dir())[:-EVIDENCE_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    # requests/

    def request(self, kind: str, **values: str | bool | Sequence[str]) -> None:
        """Leaves a request for whoever holds the run's lock. Raises OSError.

        stop · resume (checkpoint: a name) · switch (auto_resume) · saves (closer) · delete (checkpoints: stamps)
        """
        name = f"{time.time_ns():020d}-{kind}-{uuid.uuid4().hex[:8]}.json"
        self._replace(self._requests_folder / name, json.dumps({"kind": kind, **values}))

    def pending_requests(self) -> list[Mapping[str, Any]]:
        """The requests not yet taken, oldest first."""
        return [found for _, found in self._requests()]

    def take_requests(self) -> list[Mapping[str, Any]]:
        """Takes all requests, oldest first. Only the holder of the lock may call this."""
        taken = []
        for path, found in self._requests():
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
                found = json.loads(_text(path))
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
        with self._writing(path):
            file = path.open("ab+")
        try:
            for tries_left in (2, 1, 0):
                if _locked(file, shared=False):
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
                return not _locked(file, shared=True)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    # small parts

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Makes the folder for a file that is written in the block, and names the file in an OSError.

        The run's own folder is not made: a run that was deleted must not come back as an empty one.
        """
        try:
            if not path.parent.is_dir():
                self.folder.mkdir(exist_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    def _replace(self, path: Path, text: str, *, sync: bool = False) -> None:
        scratch = path.with_name(f".{path.name}.part")
        with self._writing(path):
            try:
                with scratch.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                    file.write(text)
                    if sync:
                        file.flush()
                        os.fsync(file.fileno())
                scratch.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    scratch.unlink()
                raise


def _text(path: Path) -> str:
    """A file's text. Raises OSError also for what is no file: opening a pipe would wait for its other end for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is not a file", str(path))
    return path.read_text(encoding="utf-8")


def _set_aside(path: Path, why: str) -> str:
    aside = path.with_name(f"{path.name}.{why}-{int(time.time())}")
    try:
        path.replace(aside)
    except OSError as error:
        return f"it cannot be set aside: {error}"
    return f"set aside as {aside.name}"


def _locked(file: IO[bytes], *, shared: bool) -> bool:
    """Whether the operating system gave us the lock on a file; shared: with others who only ask. Raises OSError."""
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 - exists on Windows alone

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl  # noqa: PLC0415 - exists on POSIX alone

            fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _last_lines(path: Path, limit: int, bytes_each: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - limit * bytes_each)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    return [line for line in lines[1 if start else 0 :] if line][-limit:]
