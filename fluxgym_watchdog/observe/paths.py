"""Which of the paths that a train script names are on this machine, and where those that are not lie now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

OUTPUT = "--output_dir"
FILES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".bin", ".gguf", ".toml", ".json", ".txt"})
"""A model may also be named as a hub knows it (owner/name): what is not absolute and does not end so is no path."""


def missing_paths(named: Mapping[str, str], cwd: Path) -> dict[str, str]:
    """Those of the paths (by option) that are not on this machine.

    A folder for output is made by the trainer, unless the folder above it is missing too, or is FluxGym's outputs/:
    there the script lies in it, so one that is not there was renamed.
    """
    return {option: path for option, path in named.items() if not _there(option, path, cwd)}


def relocated(missing: Mapping[str, str], cwd: Path, run_folder: Path) -> dict[str, str]:
    """Where the missing paths lie here, if the FluxGym folder or the run's folder was moved or copied as a whole.

    The longest end of a path that exists below this FluxGym folder is taken; a run's own files lie in its folder,
    whatever that is called now.
    """
    found = {}
    for option, named in missing.items():
        parts = (PureWindowsPath(named) if "\\" in named else PurePosixPath(named)).parts
        if option == OUTPUT:
            if run_folder.parent.name == "outputs" and len(parts) > 1 and parts[-2] == "outputs":
                found[option] = str(run_folder)
            continue
        ends = [Path(*parts[at:]) for at in range(1, len(parts) - 1)]
        places = [*(cwd / end for end in ends), run_folder / parts[-1]]
        there = next((place for place in places if place.exists()), None)
        if there is not None:
            found[option] = str(there)
    return found


def _there(option: str, named: str, cwd: Path) -> bool:
    absolute = PurePosixPath(named).is_absolute() or PureWindowsPath(named).is_absolute()
    if not absolute and PurePosixPath(named).suffix not in FILES:
        return True
    path = cwd / named
    made_by_trainer = option == OUTPUT and path.parent.exists() and path.parent.name != "outputs"
    return path.exists() or made_by_trainer
