"""Deletes states that the user has named. The only place that deletes anything of a run's."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from fluxgym_watchdog.records import Checkpoint, CheckpointKind

DOOMED = ".deleting-"
"""Goes before the name of a state that is being deleted: from then on it is no checkpoint any more."""


class CannotDelete(Exception):
    """A checkpoint that is not deleted; the message says why."""


def doom(folder: Path, checkpoint: Checkpoint) -> None:
    """Takes one state folder out of a run's checkpoint folder at once; `clear` then frees its space.

    Whoever asks has looked the checkpoint up in that folder: its name is that of an entry there. Raises CannotDelete,
    OSError.
    """
    if checkpoint.kind is not CheckpointKind.STATE:
        raise CannotDelete(f"{checkpoint.name} is no state: weights are what was trained for, and stay")
    path = folder / checkpoint.name
    if path.is_symlink() or not path.is_dir():
        raise CannotDelete(f"{checkpoint.name} is no folder of its own: delete it by hand")
    path.rename(folder / f"{DOOMED}{time.time_ns()}-{checkpoint.name}")


def doomed(folder: Path) -> list[Path]:
    """What is to be cleared: also what was left when a clearing was killed. Never raises."""
    try:
        return [p for p in folder.glob(f"{DOOMED}*-state") if p.is_dir() and not p.is_symlink()]
    except OSError:
        return []


def clear(folder: Path) -> None:
    """Removes the doomed; on a network volume that takes its time. Never raises: what stays is tried the next time."""
    for path in doomed(folder):
        shutil.rmtree(path, ignore_errors=True)
