"""Deletes states that the user has named. The only place that deletes anything of a run's."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from fluxgym_watchdog.records import Checkpoint, CheckpointKind

DOOMED = ".deleting-"
"""Goes before the name of a state that is being deleted: killed in between, what is left is no checkpoint any more."""


class CannotDelete(Exception):
    """A checkpoint that is not deleted; the message says why."""


def delete_state(folder: Path, checkpoint: Checkpoint) -> None:
    """Deletes one state folder in a run's checkpoint folder. Raises CannotDelete, OSError.

    Whoever asks has looked the checkpoint up in that folder: its name is that of an entry there.
    """
    if checkpoint.kind is not CheckpointKind.STATE:
        raise CannotDelete(f"{checkpoint.name} is no state: weights are what was trained for, and stay")
    path = folder / checkpoint.name
    if path.is_symlink() or not path.is_dir():
        raise CannotDelete(f"{checkpoint.name} is no folder of its own: delete it by hand")
    doomed = folder / f"{DOOMED}{checkpoint.name}"
    path.rename(doomed)
    shutil.rmtree(doomed)


def clear_leftovers(folder: Path) -> None:
    """Removes what deletions that were killed have left."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{DOOMED}*-state"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
