"""samples.csv: GPU and training over time, one line a GPU and tick; appended, and thinned when it grows."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO

from fluxgym_watchdog.files import must_be_file
from fluxgym_watchdog.recordjson import LARGEST_NUMBER
from fluxgym_watchdog.records import Sample

LIMIT_BYTES = 4_000_000
"""Where the file is thinned: about a day of two-second ticks with one GPU."""

_COLUMNS = [f.name for f in fields(Sample)]
_WHOLE = frozenset({"gpu", "memory_used_bytes", "memory_total_bytes", "memory_run_bytes", "step"})
_HEADER = (",".join(_COLUMNS) + "\n").encode()
_CUT_OFF = b",cut off\n"
"""Ends a line that a crash cut off, so that what is left of it cannot be taken for a whole line."""


class NotSamples(OSError):
    """A file whose first line names no columns: what is added to it nobody could read."""


def append(path: Path, samples: Sequence[Sample]) -> bool:
    """Adds lines, in the columns that the file has; true where it has grown so large that it should be thinned.

    Raises NotSamples where it has none, and OSError.
    """
    with path.open("ab+", buffering=0) as file:
        file.seek(0)
        begins = file.read(2 * len(_HEADER))
        header = begins[: begins.find(b"\n") + 1]
        if not header and len(begins) < len(_HEADER) and _HEADER.startswith(begins):
            file.truncate(0)  # nothing, or a header that a crash cut off
            file.write(_HEADER)
            header = _HEADER
        # The file of an older version has fewer columns.
        names = header.decode("utf-8", "replace").strip().split(",")
        if not {"at", "gpu", "step"} <= set(names):
            if path.is_file():
                raise NotSamples(errno.EINVAL, "its first line names no columns")
            names = _COLUMNS  # a device, perhaps: writing to it tells what is wrong
        file.seek(0, os.SEEK_END)
        if not ends_in_newline(file):
            file.write(_CUT_OFF)
        file.write("".join(_line(sample, names) for sample in samples).encode())
        return file.tell() > LIMIT_BYTES


def read(path: Path, since: float = 0.0) -> list[Sample]:
    """All samples at or after a time, oldest first; lines cut off by a crash are left out, as is a missing file."""
    found = []
    with contextlib.suppress(OSError):
        must_be_file(path)
        header, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        names = header.split(",")
        for line in lines[:-1]:  # what follows the last newline was cut off
            sample = parsed(names, line)
            if sample is not None and sample.at >= since:
                found.append(sample)
    return found


def parsed(names: Sequence[str], line: str) -> Sample | None:
    """A line, without its newline, under the header's names; None where it is no whole sample."""
    try:
        sample = _sample(names, line.split(","))
    except (ValueError, OverflowError):
        return None
    numbers = (getattr(sample, name) for name in Sample.__slots__)
    # What was never written by us: it would stretch every axis to nothing.
    return sample if all(n is None or abs(n) < LARGEST_NUMBER for n in numbers) else None


def text(samples: Sequence[Sample]) -> str:
    """The samples as the text of a file of their own."""
    return ",".join(_COLUMNS) + "\n" + "".join(_line(sample, _COLUMNS) for sample in samples)


def thinned(text: str) -> str:
    """The file's text without every other tick of its older half."""
    header, *lines = text.splitlines()
    at = [line.partition(",")[0] for line in lines]
    half = len(lines) // 2
    # GPUs take turns line by line: whole ticks are dropped, or every other GPU would lose its history.
    old = sorted(set(at[:half]) - set(at[half:]))
    dropped = set(old[::2])
    return "\n".join([header, *(line for line, tick in zip(lines, at, strict=True) if tick not in dropped)]) + "\n"


def ends_in_newline(file: IO[bytes]) -> bool:
    """Whether the last byte of a file that is not empty is a newline; leaves its position at the end."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _line(sample: Sample, names: Sequence[str]) -> str:
    return ",".join(_cell(getattr(sample, name, None)) for name in names) + "\n"


def _cell(value: float | int | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _sample(names: Sequence[str], cells: Sequence[str]) -> Sample:
    values = dict.fromkeys(_COLUMNS) | {
        name: None if cell == "" else int(cell) if name in _WHOLE else float(cell)
        for name, cell in zip(names, cells, strict=True)
        if name in _COLUMNS
    }
    if any(values[name] is None for name in ("at", "gpu", "step")):
        raise ValueError("a line without its time, GPU or step")
    return Sample(**values)  # type: ignore[arg-type]
