"""What the last tick saw of a run: status.json, and checkpoints.json, which may hold thousands."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxgym_watchdog.files import replace_file, text_of, write_over
from fluxgym_watchdog.recordjson import decode, plain
from fluxgym_watchdog.records import Checkpoint, Status

WAITS_S = (0.0, 0.002, 0.02)
"""Before each try to read status.json: its writer may have been interrupted halfway."""


class LastLook:
    """The two files in a run's .watchdog/ folder; checkpoints are written, and read, only when they have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._status = folder / "status.json"
        self._checkpoints = folder / "checkpoints.json"
        self._written: tuple[Checkpoint, ...] | None = None
        self._signature = (0, 0, 0)
        self._known: dict[str, tuple[Any, Checkpoint]] = {}
        self._found: tuple[Checkpoint, ...] = ()

    def read(self) -> Status | None:
        """What the last tick saw; None where nothing readable is there."""
        for wait_s in WAITS_S:
            time.sleep(wait_s)
            try:
                status = decode(Status, json.loads(text_of(self._status)))
            except OSError:
                break
            except (ValueError, RecursionError):
                continue
            return status if status.checkpoints else replace(status, checkpoints=self._read_checkpoints())
        return None

    def write(self, status: Status) -> None:
        """Writes over status.json, and replaces checkpoints.json where they are others than before. Raises OSError.

        status.json is not replaced: that took more CPU than all else in a tick, and had ext4 write to the disk at every
        one. Nothing is decided by what is read here, so half of an old one may be seen for an instant.
        """
        write_over(self._status, self._folder, json.dumps(plain(replace(status, checkpoints=()))).encode())
        if status.checkpoints != self._written or not self._checkpoints.exists():
            self.write_checkpoints(status.checkpoints)

    def write_checkpoints(self, checkpoints: tuple[Checkpoint, ...]) -> None:
        """Replaces checkpoints.json alone. Raises OSError."""
        listed = {checkpoint.name: plain(checkpoint) for checkpoint in checkpoints}
        replace_file(self._checkpoints, self._folder, json.dumps(listed))
        self._written = checkpoints

    def _read_checkpoints(self) -> tuple[Checkpoint, ...]:
        try:
            there = self._checkpoints.stat()
            signature = there.st_ino, there.st_size, there.st_mtime_ns
            if signature != self._signature:
                known, read = self._known, {}
                for name, facts in json.loads(text_of(self._checkpoints)).items():
                    same = name in known and known[name][0] == facts
                    read[name] = known[name] if same else (facts, decode(Checkpoint, facts))
                self._signature, self._known = signature, read
                self._found = tuple(checkpoint for _, checkpoint in read.values())
        except (OSError, ValueError, AttributeError, RecursionError):
            return ()
        return self._found
