"""A run's .watchdog/ folder: the only place of ours that is written to, and the only one that others read.

    run.json        the RunRecord; replaced atomically
    status.json     what the last tick saw; replaced atomically, not synced: it is worth nothing after a power cut
    events.jsonl    the timeline; appended and synced
    samples.csv     GPU and training over time; appended, thinned when it grows
    requests/       one file a request (stop, resume, switch), for whoever holds the run's lock
    lock            held by the operating system for the process that supervises the run

Readers never lock. A file that cannot be read as what it should be is set aside under another name and reported.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import IO, Any, TypeVar

from fluxgym_watchdog.records import (
    SCHEMA_VERSION,
    Attempt,
    Checkpoint,
    CheckpointKind,
    Event,
    FindingKind,
    Gpu,
    Host,
    Phase,
    ProcessId,
    RunRecord,
    RunState,
    Sample,
    Status,
)

FOLDER = ".watchdog"
SAMPLES_LIMIT_BYTES = 4_000_000
"""Where samples.csv is thinned: about a day of two-second ticks with one GPU."""

Record = TypeVar("Record")


class Held(Exception):
    """Another supervisor holds the run's lock."""


class Store:
    """One run's .watchdog/ folder. Reading makes no folder; writing does."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / FOLDER
        self.evidence_folder = self.folder / "evidence"
        self._lock_file: IO[bytes] | None = None

    # run.json and status.json

    def read_record(self) -> tuple[RunRecord | None, str]:
        """The run's record, or None where there is none, and what was wrong with an unreadable one, now set aside."""
        path = self.folder / "run.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("schema", 0) > SCHEMA_VERSION:
                return None, f"{path}: written by a newer version (schema {found['schema']}); update FluxGym Watchdog"
            return _decode(RunRecord, found), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{path}: cannot be read: {error}"
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            aside = path.with_name(f"run.json.unreadable-{int(time.time())}")
            with contextlib.suppress(OSError):
                path.replace(aside)
            return None, f"{path}: is not a run record ({error}); set aside as {aside.name}"

    def write_record(self, record: RunRecord) -> None:
        """Replaces run.json, synced. Raises OSError."""
        _replace(self.folder / "run.json", json.dumps(plain(record), indent=1), sync=True)

    def read_status(self) -> Status | None:
        """What the last tick saw; None where nothing readable is there."""
        try:
            return _decode(Status, json.loads((self.folder / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None

    def write_status(self, status: Status) -> None:
        """Replaces status.json. Raises OSError."""
        _replace(self.folder / "status.json", json.dumps(plain(status)), sync=False)

    # events.jsonl

    def append_event(self, event: Event) -> None:
        """Adds a line to the timeline, synced. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(plain(event), ensure_ascii=False) + "\n"
        with (self.folder / "events.jsonl").open("ab+") as file:
            if file.tell() and not _ends_in_newline(file):
                line = "\n" + line  # a line cut off by a crash must not swallow this one
            file.write(line.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())

    def read_events(self, limit: int = 200) -> list[Event]:
        """The newest events, oldest first; lines cut off by a crash are left out."""
        events = []
        for line in _last_lines(self.folder / "events.jsonl", limit, bytes_each=4096):
            with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
                events.append(_decode(Event, json.loads(line)))
        return events

    # samples.csv

    def append_samples(self, samples: list[Sample]) -> None:
        """Adds lines to samples.csv; thins its older half when it has grown too large. Raises OSError."""
        path = self.folder / "samples.csv"
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(f.name for f in fields(Sample))
            for sample in samples:
                writer.writerow([_cell(getattr(sample, f.name)) for f in fields(Sample)])
            size = file.tell()
        if size > SAMPLES_LIMIT_BYTES:
            _thin(path)

    def read_samples(self, since: float = 0.0) -> list[Sample]:
        """All samples at or after a time, oldest first; lines cut off by a crash are left out."""
        samples = []
        with contextlib.suppress(OSError), (self.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                with contextlib.suppress(ValueError, TypeError):
                    if float(row["at"]) >= since:
                        samples.append(_sample(row))
        return samples

    # requests/

    def request(self, kind: str, **values: str | bool) -> None:
        """Leaves a request (stop, resume, switch) for whoever holds the run's lock. Raises OSError."""
        name = f"{time.time_ns():020d}-{kind}-{uuid.uuid4().hex[:8]}.json"
        _replace(self.folder / "requests" / name, json.dumps({"kind": kind, **values}), sync=False)

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
        try:
            names = sorted(p for p in (self.folder / "requests").iterdir() if p.suffix == ".json")
        except OSError:
            return
        for path in names:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
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
        self.folder.mkdir(parents=True, exist_ok=True)
        file = (self.folder / "lock").open("ab+")
        for tries_left in (2, 1, 0):
            try:
                _lock(file)
                break
            except OSError as error:
                if not tries_left:
                    file.close()
                    raise Held(f"{self.run_folder} is supervised by another process") from error
                time.sleep(0.05)  # is_held() of another process holds it for an instant
        self._lock_file = file

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
                _lock(file)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt  # noqa: PLC0415 - exists on Windows alone

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl  # noqa: PLC0415 - exists on POSIX alone

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _replace(path: Path, text: str, *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def _ends_in_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _last_lines(path: Path, limit: int, bytes_each: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - limit * bytes_each)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[1 if start else 0 :][-limit:]


def _thin(path: Path) -> None:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    half = len(lines) // 2
    # GPUs take turns line by line: whole ticks are dropped, or every other GPU would lose its history.
    ticks = sorted({line.split(",", 1)[0] for line in lines[:half]})
    dropped = set(ticks[::2])
    kept = [line for line in lines[:half] if line.split(",", 1)[0] not in dropped] + lines[half:]
    _replace(path, "\n".join([header, *kept]) + "\n", sync=False)


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _sample(row: Mapping[str, str]) -> Sample:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    def count(name: str) -> int | None:
        return int(float(row[name])) if row[name] else None

    return Sample(
        at=float(row["at"]),
        gpu=int(row["gpu"]),
        utilization_percent=number("utilization_percent"),
        memory_used_bytes=count("memory_used_bytes"),
        memory_total_bytes=count("memory_total_bytes"),
        temperature_c=number("temperature_c"),
        power_w=number("power_w"),
        power_limit_w=number("power_limit_w"),
        step=count("step") or 0,
        loss=number("loss"),
    )


def plain(record: Any) -> dict[str, Any]:
    """A record as JSON can hold it."""

    def value(found: Any) -> Any:
        if isinstance(found, Enum):
            return found.value
        if isinstance(found, Mapping):
            return {str(k): value(v) for k, v in found.items()}
        if isinstance(found, (list, tuple)):
            return [value(v) for v in found]
        if isinstance(found, float) and not math.isfinite(found):  # neither NaN nor infinity is JSON
            return None
        return found

    return {key: value(found) for key, found in asdict(record).items()}


_FIELDS: dict[tuple[type, str], Callable[[Any], Any]] = {
    (RunRecord, "state"): RunState,
    (RunRecord, "stopping_for"): lambda found: found and RunState(found),
    (RunRecord, "attempts"): lambda found: tuple(_decode(Attempt, a) for a in found),
    (RunRecord, "quarantined"): tuple,
    (Attempt, "process"): lambda found: found and _decode(ProcessId, found),
    (Status, "state"): RunState,
    (Status, "finding"): FindingKind,
    (Status, "phase"): Phase,
    (Status, "gpus"): lambda found: tuple(_decode(Gpu, g) for g in found),
    (Status, "checkpoints"): lambda found: tuple(_decode(Checkpoint, c) for c in found),
    (Status, "host"): lambda found: found and _decode(Host, found),
    (Gpu, "processes"): lambda found: {int(pid): used for pid, used in found.items()},
    (Checkpoint, "kind"): CheckpointKind,
}


def _decode(kind: type[Record], found: Mapping[str, Any]) -> Record:
    """A record from its JSON; keys of a later version are left out, missing ones get their defaults."""
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in found:
            convert = _FIELDS.get((kind, f.name))
            values[f.name] = convert(found[f.name]) if convert else found[f.name]
    return kind(**values)
