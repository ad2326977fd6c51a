"""Where FluxGym keeps its runs: outputs/<name>/ with a train.sh or train.bat in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fluxgym_watchdog.store import FOLDER

SCRIPT_NAMES = ("train.bat", "train.sh") if sys.platform == "win32" else ("train.sh", "train.bat")
_TOUCHED = tuple(f"{os.sep}{name}" for name in (*SCRIPT_NAMES, f"{FOLDER}/run.json"))
NOT_RUNS = frozenset({"sample"})


class NotARun(ValueError):
    """A path that is no run; the message says what was expected."""


def find_runs(outputs: Path) -> list[Path]:
    """The run folders under an outputs folder, the newest activity first. Raises OSError if it cannot be listed."""
    found, top = [], os.path.realpath(outputs)  # not Path.resolve(), which raises for a link to itself
    with os.scandir(outputs) as entries:
        for entry in entries:
            if entry.name in NOT_RUNS or entry.name.startswith("."):
                continue
            if entry.is_symlink() and os.path.dirname(os.path.realpath(entry.path)) == top:  # noqa: PTH120
                continue  # another name for a run that is found by its own
            touched = _touched(entry.path)
            if touched is not None:
                found.append((touched, entry.path))
    return [Path(path) for _, path in sorted(found, reverse=True)]


def script_of(run_folder: Path) -> Path:
    """The train script of a run. Raises NotARun where there is none."""
    for name in SCRIPT_NAMES:
        if (run_folder / name).is_file():
            return run_folder / name
    raise NotARun(f"{run_folder}: no {' or '.join(SCRIPT_NAMES)} in it")


def expected_script(run_folder: Path) -> Path:
    """The train script of a run, or where it should be."""
    try:
        return script_of(run_folder)
    except NotARun:
        return run_folder / SCRIPT_NAMES[0]


def fluxgym_of(run_folder: Path) -> Path:
    """The FluxGym folder above outputs/, in which the training must run. Raises NotARun where outputs/ is not above."""
    if run_folder.parent.name != "outputs":
        raise NotARun(f"{run_folder}: not a run of FluxGym; expected …/outputs/<name>")
    return run_folder.parent.parent


def _touched(run_folder: str) -> float | None:
    newest = None
    for name in _TOUCHED:  # not a Path a file: this runs for every run, every few seconds
        try:
            at = os.stat(run_folder + name).st_mtime  # noqa: PTH116
        except OSError:
            continue
        newest = at if newest is None or at > newest else newest
    return newest
