"""Tiny PNG files, for the demo's dataset and for the samples of its trainer."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SIDE = 64


def write_picture(file: Path, hue: int) -> None:
    """Write a 64 x 64 RGB gradient; `hue` (any integer) picks its colours."""
    red, green, blue = hue * 67 % 256, hue * 131 % 256, hue * 29 % 256
    rows = bytearray()
    for y in range(SIDE):
        rows.append(0)
        for x in range(SIDE):
            rows += bytes(((red + 2 * x) % 256, (green + 2 * y) % 256, (blue + x + y) % 256))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(bytes(rows)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
