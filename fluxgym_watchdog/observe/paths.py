"""Which of the paths that a train script names are on this machine, and where those that are not lie now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

OUTPUT = "--output_dir"


def missing_paths(named: Mapping[str, str]) -> dict[str, str]:
    """Those of the absolute paths (by option) that are not on this machine.

    What is not absolute may be a model's name on a hub (owner/name), or lie wherever the script has gone to: FluxGym
    writes absolute paths. A folder for output is made by the trainer, unless the folder above it is missing too, or is
    FluxGym's outputs/: there the script lies in it, so one that is not there was renamed.
    """
    return {option: path for option, path in named.items() if _is_absolute(path) and not _there(option, path)}


def relocated(missing: Mapping[str, str], cwd: Path, run_folder: Path) -> dict[str, str]:
    """Where the missing paths lie here, if the run's folder or the whole FluxGym folder was renamed, moved or copied.

    That is told by an --output_dir …/outputs/NAME that is not here either. Only what lay in those two folders is looked
    for, at the same place in them: a file of the same name elsewhere may be another one.
    """
    if OUTPUT not in missing or run_folder.parent.name != "outputs":
        return {}
    old_run = _pure(missing[OUTPUT])
    if old_run.parent.name != "outputs":
        return {}
    found = {OUTPUT: str(run_folder)}
    for option, named in missing.items():
        path = _pure(named)
        for old, new in ((old_run, run_folder), (old_run.parent.parent, cwd)):
            if option != OUTPUT and path.is_relative_to(old):
                place = new / Path(*path.relative_to(old).parts)
                if os.path.exists(place):  # noqa: PTH110 - Path.exists() raises where the folder is not ours to read
                    found[option] = str(place)
                break
    return found


def _there(option: str, named: str) -> bool:
    path = _pure(named)
    exists = os.path.exists(named)  # noqa: PTH110 - as above
    parent_exists = os.path.exists(path.parent)  # noqa: PTH110 - as above
    return exists or (option == OUTPUT and parent_exists and path.parent.name != "outputs")


def _is_absolute(named: str) -> bool:
    return PurePosixPath(named).is_absolute() or PureWindowsPath(named).is_absolute()


def _pure(named: str) -> PurePath:
    return PureWindowsPath(named) if "\\" in named else PurePosixPath(named)
