"""samples.csv as columns of numbers, of which each look reads only the lines that are new."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fluxgym_watchdog.files import must_be_file
from fluxgym_watchdog.recordjson import LARGEST_NUMBER
from fluxgym_watchdog.records import Sample

COLUMNS = tuple(f.name for f in fields(Sample))
Numbers = Any
"""An array of numbers; NaN stands for what is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A run's samples, the oldest first: a row for each GPU and tick, a column for each field of a Sample."""

    rows: Numbers

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> Numbers:
        """One field of all samples."""
        return self.rows[:, COLUMNS.index(name)]

    def newest(self, name: str) -> float | None:
        """The newest sample's value, None where it is not known."""
        value = float(self.column(name)[-1]) if len(self) else float("nan")
        return None if np.isnan(value) else value

    def since(self, start: float) -> History:
        """The samples at or after a time."""
        return History(self.rows[np.searchsorted(self.column("at"), start) :])

    def of_gpu(self, index: int) -> History:
        """The samples of one GPU."""
        own = self.column("gpu") == index
        return self if own.all() else History(self.rows[own])

    def ticks(self) -> History:
        """One sample for each tick: with several GPUs each tick has several, which say the same of the training."""
        later = np.diff(self.column("at"), prepend=-np.inf) > 0
        return self if later.all() else History(self.rows[later])


EMPTY = History(np.empty((0, len(COLUMNS))))


def history_of(samples: Sequence[Sample]) -> History:
    """The history that these samples are."""
    rows = [[_number(getattr(sample, name)) for name in COLUMNS] for sample in samples]
    return History(np.array(rows, float).reshape(-1, len(COLUMNS)))


class SampleFile:
    """A samples.csv that grows; it is read anew when it was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = np.empty((1024, len(COLUMNS)))
        self._count = 0
        self._inode = 0
        self._offset = 0
        self._names: list[str] = []

    def read(self) -> History:
        """All samples; lines that cannot be read are left out."""
        try:
            must_be_file(self.path)
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._offset:
                    self._rows, self._count = np.empty((1024, len(COLUMNS))), 0
                    self._names, self._offset, self._inode = [], 0, found.st_ino
                if found.st_size > self._offset:
                    file.seek(self._offset)
                    self._take(file.read())
        except OSError:
            return EMPTY
        return History(self._rows[: self._count])

    def _take(self, new: bytes) -> None:
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.decode("utf-8", "replace").split("\n")[:-1]
        if not self._names and lines:
            self._names = lines.pop(0).split(",")
        if not self._names:
            return  # a header that a full disk cut off
        rows = _rows(self._names, lines)
        if self._count + len(rows) > len(self._rows):  # a new array: those who hold the old one keep what they saw
            grown = np.empty((2 * (self._count + len(rows)), len(COLUMNS)))
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : self._count + len(rows)] = rows
        self._count += len(rows)
        self._forget_the_future(len(rows))

    def _forget_the_future(self, new: int) -> None:
        """A clock that was set back: what was measured by it before lies ahead of now, and would be drawn there."""
        at = self._rows[: self._count, COLUMNS.index("at")]
        if (np.diff(at[-new - 1 :]) < 0).any():
            kept = self._rows[: self._count][at <= np.minimum.accumulate(at[::-1])[::-1]]
            self._rows = np.concatenate([kept, np.empty((1024, len(COLUMNS)))])
            self._count = len(kept)


def _rows(names: Sequence[str], lines: Sequence[str]) -> Numbers:
    """The lines as rows in the order of COLUMNS, without those that are no whole sample."""
    wide = len(names)
    lines = [line for line in lines if line.count(",") == wide - 1]
    try:
        table = _table(lines)
    except ValueError:
        table = _table([line for line in lines if _is_readable(line)])
    table = table.reshape(-1, wide)
    rows = np.full((len(table), len(COLUMNS)), np.nan)
    for number, name in enumerate(names):
        if name in COLUMNS:
            rows[:, COLUMNS.index(name)] = table[:, number]
    needed = rows[:, [COLUMNS.index(name) for name in ("at", "gpu", "step")]]
    # What was never written by us would stretch every axis to nothing.
    usable = np.isfinite(needed).all(axis=1) & ~(np.abs(rows) >= LARGEST_NUMBER).any(axis=1)
    return rows[usable]


def _table(lines: Sequence[str]) -> Numbers:
    """All cells in a row. Raises ValueError where one is no number."""
    text = ",".join(lines).replace(",,", ",nan,").replace(",,", ",nan,")  # a day's file is read in a moment this way
    text = f"{text}nan" if text.endswith(",") else text
    return np.array(list(map(float, text.split(","))) if text else [], float)


def _is_readable(line: str) -> bool:
    try:
        _table([line])
    except ValueError:
        return False
    return True


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
