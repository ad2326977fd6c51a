"""Finds a run's checkpoints and says which of them training can go on from.

What a sound state is was measured on sd-scripts (branch sd3) with accelerate 1.6: five files, written one after the
other and in place, random_states_0.pkl last. See `soundness` for the tests of the single files.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fluxgym_watchdog.observe.soundness import Unreadable, safetensors_reason, train_state, trained, zip_reason
from fluxgym_watchdog.records import Checkpoint, CheckpointKind, Trained

TRAIN_STATE = "train_state.json"
MARKER = "random_states_0.pkl"
"""Written last: a state without it, or with one older than its train state, was cut off or is being written."""

STATE_FILES = (TRAIN_STATE, "model.safetensors", "optimizer.bin", "scheduler.bin", MARKER)


class CheckpointReader:
    """The states and weights of one output name in a run's folder.

    A checkpoint's content is read once; until its files change (modification time, size, inode) only the folder is
    listed, so that thousands of checkpoints cost little at every tick.
    """

    def __init__(self, run_folder: Path, output_name: str, save_model_as: str = "safetensors") -> None:
        """`output_name` is the trainer's --output_name, which all names of its checkpoints begin with; `save_model_as`
        the format of its weights, of which only the final ones are looked for where it is another."""
        self._folder = run_folder
        name = re.escape(output_name)
        self._name = re.compile(
            rf"{name}(?:-(?P<epoch>\d{{6,18}})|-step(?P<step>\d{{8,18}}))?(?P<end>-state|\.safetensors)"
        )
        self._final_weights = f"{output_name}.{save_model_as}"
        self._known: dict[str, tuple[_Fingerprint, Checkpoint]] = {}

    def read(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, the newest first. Never raises: an unreadable folder holds none that could be used."""
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries]
        except (OSError, ValueError):
            names = []
        found: dict[str, Checkpoint] = {}
        for name in names:
            checkpoint = self._checkpoint(name)
            if checkpoint is not None:
                found[name] = checkpoint
        self._known = {name: known for name, known in self._known.items() if name in found}
        return tuple(sorted(found.values(), key=lambda c: (-c.saved_at, c.kind is not CheckpointKind.STATE, c.name)))

    def final_weights_at(self) -> float | None:
        """When the final weights (NAME.safetensors) were written, wall clock; None where there are no sound ones."""
        if not self._final_weights.endswith(".safetensors"):
            return self._written_at(self._folder / self._final_weights)
        checkpoint = self._checkpoint(self._final_weights)
        return checkpoint.saved_at if checkpoint is not None and checkpoint.sound else None

    def _written_at(self, path: Path) -> float | None:
        """When a file of another format was written: whether it is whole cannot be told without running it."""
        try:
            there = path.stat()
        except (OSError, ValueError):
            return None
        return there.st_mtime if stat.S_ISREG(there.st_mode) and there.st_size else None

    def trained(self) -> Trained:
        """What the newest sound weights tell of the training that wrote them; all unknown where there are none."""
        for checkpoint in self.read():
            if checkpoint.kind is CheckpointKind.WEIGHTS and checkpoint.sound:
                try:
                    return trained(self._folder / checkpoint.name)
                except Unreadable:
                    continue  # the next older ones tell the same
        return Trained()

    def _checkpoint(self, name: str) -> Checkpoint | None:
        match = self._name.fullmatch(name)
        if match is None:
            return None
        is_state = match["end"] == "-state"
        path = self._folder / name
        try:
            fingerprint = _fingerprint(path, is_state)
        except (FileNotFoundError, ValueError):
            return None  # the trainer deletes old checkpoints while we look
        except OSError as error:
            return _of_name(match, reason=f"cannot be read: {error.strerror or error}")
        known = self._known.get(name)
        if known and known[0] == fingerprint:
            return known[1]
        look = _look_at_state if is_state else _look_at_weights
        try:
            checkpoint = look(path, fingerprint, match, self._folder)
        except Unreadable as error:
            return _of_name(match, fingerprint, reason=str(error))
        if fingerprint.settled:
            self._known[name] = (fingerprint, checkpoint)
        return checkpoint


@dataclass(frozen=True, slots=True)
class _File:
    mode: int
    mtime_ns: int
    size: int
    inode: int
    changed_ns: int
    target: str

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    """The checkpoint's own entry and, for a state, the files in it; `settled`: old enough to be remembered."""

    entry: _File
    files: tuple[tuple[str, _File], ...]
    settled: bool

    @property
    def size_bytes(self) -> int:
        sizes = [file.size for _, file in self.files if file.is_regular]
        return sum(sizes) if self.entry.is_folder else self.entry.size if self.entry.is_regular else 0

    @property
    def saved_at(self) -> float:
        files = dict(self.files)
        if MARKER in files:
            return files[MARKER].mtime_ns / 1e9
        return max([file.mtime_ns for file in files.values()], default=self.entry.mtime_ns) / 1e9


SETTLED_NS = 2_000_000_000
"""Younger files are looked at again: within a file system's clock tick content can change and the times stay equal."""


def _fingerprint(path: Path, is_state: bool) -> _Fingerprint:
    place = str(path)  # not a Path a file: this runs for thousands of files at every tick
    entry = _file(place)
    files: list[tuple[str, _File]] = []
    if is_state and entry.is_folder:
        with os.scandir(place) as entries:
            names = sorted(found.name for found in entries)
        for name in names:
            try:
                files.append((name, _file(f"{place}{os.sep}{name}")))
            except FileNotFoundError:
                continue
    newest = max([entry.mtime_ns, *(file.mtime_ns for _, file in files)])
    return _Fingerprint(entry, tuple(files), abs(time.time_ns() - newest) > SETTLED_NS)


def _file(path: str) -> _File:
    """What stands at the path; for a link, what it leads to (its own facts where that is nothing)."""
    found = os.lstat(path)
    target = ""
    if stat.S_ISLNK(found.st_mode):
        target = os.path.realpath(path)
        try:
            found = os.stat(path)  # noqa: PTH116 - follows the link
        except (OSError, ValueError):
            target = target or "nowhere"
    return _File(found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns, target)


def _look_at_weights(path: Path, fingerprint: _Fingerprint, match: re.Match[str], folder: Path) -> Checkpoint:
    found = _of_name(match, fingerprint, _entry_reason(fingerprint.entry, folder) or safetensors_reason(path))
    # The name of the final weights tells no epoch.
    return replace(found, epoch=trained(path).epoch) if found.final and found.sound else found


def _look_at_state(path: Path, fingerprint: _Fingerprint, match: re.Match[str], folder: Path) -> Checkpoint:
    if reason := _link_reason(fingerprint.entry, folder):
        return _of_name(match, fingerprint, reason)
    if not fingerprint.entry.is_folder:
        return _of_name(match, fingerprint, "is not a folder")
    files = dict(fingerprint.files)
    reason = _files_reason(files, folder)
    said: tuple[int, int] | None = None
    if TRAIN_STATE in files and not _entry_reason(files[TRAIN_STATE], folder):
        found = train_state(path / TRAIN_STATE)
        if isinstance(found, str):
            reason = reason or f"{TRAIN_STATE} {found}"
        else:
            said = found
    reason = reason or _content_reason(path)
    return _of_name(match, fingerprint, reason, said)


def _files_reason(files: Mapping[str, _File], folder: Path) -> str:
    missing = [name for name in STATE_FILES if name not in files]
    if missing:
        *most, last = missing
        return f"{', '.join(most)} and {last} are missing" if most else f"{last} is missing"
    for name in STATE_FILES:
        if reason := _entry_reason(files[name], folder):
            return f"{name} {reason}"
    if files[MARKER].mtime_ns < files[TRAIN_STATE].mtime_ns:
        order = f"{MARKER} is older than {TRAIN_STATE}"
        return f"is being rewritten, was cut off while saving, or was copied without its files' times ({order})"
    return ""


def _content_reason(path: Path) -> str:
    if reason := safetensors_reason(path / "model.safetensors"):
        return f"model.safetensors {reason}"
    for name in ("optimizer.bin", "scheduler.bin", MARKER):
        if reason := zip_reason(path / name):
            return f"{name} {reason}"
    return ""


def _entry_reason(file: _File, folder: Path) -> str:
    """What is wrong with a file before it is opened."""
    if reason := _link_reason(file, folder):
        return reason
    if file.is_folder:
        return "is a folder"
    if not file.is_regular:
        return "is no regular file"
    return "" if file.size else "is empty"


def _link_reason(file: _File, folder: Path) -> str:
    if not file.target:
        return ""
    if not Path(file.target).is_relative_to(os.path.realpath(folder)):
        return "is a link that leads out of the run's folder"
    return "is a link that leads nowhere" if stat.S_ISLNK(file.mode) else ""


def _of_name(
    match: re.Match[str],
    fingerprint: _Fingerprint | None = None,
    reason: str = "",
    said: tuple[int, int] | None = None,
) -> Checkpoint:
    """The checkpoint of that name; `said` is what its train_state.json says of epoch and step."""
    epoch = int(match["epoch"]) if match["epoch"] else None
    return Checkpoint(
        name=match[0],
        kind=CheckpointKind.STATE if match["end"] == "-state" else CheckpointKind.WEIGHTS,
        saved_at=fingerprint.saved_at if fingerprint else 0.0,
        size_bytes=fingerprint.size_bytes if fingerprint else 0,
        sound=not reason,
        reason=reason,
        epoch=said[0] if said else epoch,
        attempt_step=said[1] if said else None,
        step_in_name=int(match["step"]) if match["step"] else None,
        final=not match["epoch"] and not match["step"],
    )
