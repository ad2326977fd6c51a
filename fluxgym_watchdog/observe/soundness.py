"""Whether a checkpoint's files are whole, without running anything that they hold.

A pickle runs code when it is loaded, so none ever is: torch writes zip archives, and an archive's directory stands at
its end, where a file that was cut off has none. The weights are safetensors: a header that says how long the file is.
Each test gives a short reason, or "" for a sound file.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fluxgym_watchdog.records import Trained

TRAIN_STATE_LIMIT_BYTES = 65_536
HEADER_LIMIT_BYTES = 100_000_000
"""The longest header that the safetensors format allows."""


class Unreadable(Exception):
    """The file system did not let us look: says nothing about the content, and may be over in a moment.

    The message names the file.
    """

    def __init__(self, name: str, error: Exception | str) -> None:
        super().__init__(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


def train_state(path: Path) -> tuple[int, int] | str:
    """current_epoch and current_step of a train_state.json, or the reason why it is none. Raises Unreadable."""
    with _opened(path) as file:
        text = _read(path, file, TRAIN_STATE_LIMIT_BYTES + 1)
    if len(text) > TRAIN_STATE_LIMIT_BYTES:
        return "is too long to be a train state"
    found = _json(text)
    if not isinstance(found, dict):
        return "is not valid JSON"
    epoch, step = found.get("current_epoch"), found.get("current_step")
    if type(epoch) is not int or type(step) is not int or epoch < 0 or step < 0:
        return "does not say current_epoch and current_step"
    return epoch, step


def safetensors_reason(path: Path) -> str:
    """Why a .safetensors file is not whole: its header's tensors must lie end to end and end where the file does.

    Raises Unreadable.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        header, begins_at = _header(path, file, size)
    if isinstance(header, str):
        return header
    spans = _spans(header)
    if spans is None:
        return "is damaged (its header does not say where the tensors are)"
    if not spans:
        return "holds no tensors"
    end = 0
    for begin, until in sorted(spans):
        if begin != end:
            return "is damaged (its tensors do not lie end to end)"
        end = until
    if begins_at + end > size:
        return "is cut off"
    return "is longer than its header says" if begins_at + end < size else ""


def trained(path: Path) -> Trained:
    """What a .safetensors file tells of the training that wrote it. Raises Unreadable."""
    with _opened(path) as file:
        header, _ = _header(path, file, os.fstat(file.fileno()).st_size)
    told = header.get("__metadata__") if isinstance(header, dict) else None
    metadata = {k: v for k, v in told.items() if isinstance(v, str)} if isinstance(told, dict) else {}
    accumulation = _count(metadata, "ss_gradient_accumulation_steps")
    batches = _count(metadata, "ss_num_batches_per_epoch")
    return Trained(
        steps_per_epoch=-(-batches // (accumulation or 1)) if batches else None,
        accumulation=accumulation,
        epoch=_count(metadata, "ss_epoch"),
        metadata=metadata,
    )


def _count(metadata: Mapping[str, str], key: str) -> int | None:
    found = metadata.get(key, "")
    return int(found) or None if re.fullmatch(r"\d{1,12}", found, re.ASCII) else None


def zip_reason(path: Path) -> str:
    """Why a file that torch.save wrote is not whole; its content is not looked at. Raises Unreadable."""
    with _opened(path) as file:
        if _read(path, file, 4) != b"PK\x03\x04":
            return "is damaged (not written by torch)"
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, struct.error, NotImplementedError):
            return "is cut off"
        except OSError as error:
            if error.errno is None or error.errno == _INVALID_SEEK:
                return "is cut off"
            raise Unreadable(path.name, error) from error
    # Offsets count from the archive's beginning: a first member elsewhere means bytes lost or added in the middle.
    if not members or min(member.header_offset for member in members) != 0:
        return "is damaged (its parts do not lie where its directory says)"
    return ""


_INVALID_SEEK = 22  # EINVAL


def _opened(path: Path) -> IO[bytes]:
    """The file, open for reading; never waits for a pipe's other end. Raises Unreadable."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise Unreadable(path.name, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(path.name, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def _header(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, Any] | str, int]:
    """A .safetensors file's header, or why it has none, and where its tensors begin."""
    prefix = _read(path, file, 8)
    if len(prefix) < 8:
        return "is cut off", 0
    (length,) = struct.unpack("<Q", prefix)
    if length < 2 or length > HEADER_LIMIT_BYTES:
        return "is damaged (no safetensors header)", 0
    if 8 + length > size:
        return "is cut off", 0
    if _read(path, file, 1) != b"{":
        return "is damaged (no safetensors header)", 0
    header = _json(b"{" + _read(path, file, length - 1))
    return (header if isinstance(header, dict) else "is damaged (its header is not valid JSON)"), 8 + length


def _read(path: Path, file: IO[bytes], count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise Unreadable(path.name, error) from error


def _json(text: bytes) -> Any:
    """The value, or None for what is no JSON, is nested too deeply to be ours, or names a key twice."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _spans(header: dict[str, Any]) -> list[tuple[int, int]] | None:
    spans = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
            return None
        begin, end = offsets
        if not 0 <= begin <= end:
            return None
        spans.append((begin, end))
    return spans
