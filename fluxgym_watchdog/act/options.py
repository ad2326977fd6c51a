"""What the options of a training command say, and which ones it is given for a launch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fluxgym_watchdog.act.script import Script
from fluxgym_watchdog.records import Asked

PATHS = (
    *("--pretrained_model_name_or_path", "--clip_l", "--t5xxl", "--ae", "--network_weights", "--resume"),
    *("--dataset_config", "--sample_prompts", "--config_file", "--output_dir"),
)
"""The options of sd-scripts' FLUX trainer that FluxGym or its users set to files and folders."""
FILES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".bin", ".gguf", ".toml", ".json", ".txt"})
DEFAULT_STEPS = 1600
"""sd-scripts' --max_train_steps where a script says nothing of how long to train."""


def asked(script: Script) -> Asked:
    """What the script asks of the trainer; what is not plain text or no number counts as not said."""
    kept = ("--save_last_n_epochs_state", "--save_last_n_epochs", "--save_last_n_steps_state")
    says_how_long = any(script.option(name) is not None for name in ("--max_train_epochs", "--max_train_steps"))
    return Asked(
        epochs=_number(script, "--max_train_epochs"),
        steps=_number(script, "--max_train_steps") if says_how_long else DEFAULT_STEPS,
        save_every_epochs=_number(script, "--save_every_n_epochs"),
        save_every_steps=_number(script, "--save_every_n_steps"),
        saves_states=script.option("--save_state") is not None,
        keeps=any(script.option(name) is not None for name in kept),
        accumulation=_number(script, "--gradient_accumulation_steps") or 1,
        rank=_number(script, "--network_dim"),
        optimizer=_plain(script, "--optimizer_type") or "",
        lr_scheduler=_plain(script, "--lr_scheduler") or "constant",
        save_precision=_plain(script, "--save_precision") or "",
        save_model_as=_plain(script, "--save_model_as") or "safetensors",
    )


def saving(found: Asked, *, save_states: bool, keep_states: int) -> list[str]:
    """The options that make a training resumable, less what its script sets itself."""
    if not save_states or found.saves_states:
        return []  # then how many are kept is the script's own choice, too
    return ["--save_state", *([] if found.keeps else ["--save_last_n_epochs_state", str(keep_states)])]


def output_dir(script: Script, cwd: Path, run_folder: Path) -> Path:
    """Where the training writes its checkpoints: its --output_dir, or the run's folder where that is not plain text."""
    found = _plain(script, "--output_dir")
    return cwd / found if found else run_folder


def output_name(script: Script, run_folder: Path) -> str:
    """What its checkpoints' names begin with: its --output_name, or the folder's name where that is not plain text."""
    return _plain(script, "--output_name") or run_folder.name


def missing_paths(script: Script, cwd: Path) -> dict[str, str]:
    """The options whose files and folders are not on this machine, each with the path that it names.

    A model may also be named as a hub knows it (owner/name): only what is an absolute path, or ends as files do, is
    looked for. A folder for output is made by the trainer, unless the folder above it is missing too, or is FluxGym's
    outputs/: there the script lies in it, so one that is not there was renamed.
    """
    found = {}
    for option in PATHS:
        named = _plain(script, option)
        if not named or not (_is_absolute(named) or PurePosixPath(named).suffix in FILES):
            continue
        path = cwd / named
        made_by_trainer = option == "--output_dir" and path.parent.exists() and path.parent.name != "outputs"
        if not path.exists() and not made_by_trainer:
            found[option] = named
    return found


def relocated(missing: Mapping[str, str], cwd: Path, run_folder: Path) -> dict[str, str]:
    """Where the missing paths lie here, if the FluxGym folder or the run's folder was moved or copied as a whole.

    The longest end of a path that exists below this FluxGym folder is taken; a run's own files lie in its folder,
    whatever that is called now.
    """
    found = {}
    for option, named in missing.items():
        parts = (PureWindowsPath(named) if "\\" in named else PurePosixPath(named)).parts
        below = [Path(*parts[at:]) for at in range(1, len(parts))]
        if option == "--output_dir":
            if run_folder.parent.name == "outputs" and len(parts) > 1 and parts[-2] == "outputs":
                found[option] = str(run_folder)
            continue
        places = [cwd / path for path in below if len(path.parts) > 1] + [run_folder / parts[-1]]
        there = next((place for place in places if place.exists()), None)
        if there is not None:
            found[option] = str(there)
    return found


def with_paths(places: Mapping[str, str]) -> Sequence[str]:
    """The options that override those paths."""
    return [word for option, place in places.items() for word in (option, place)]


def _is_absolute(named: str) -> bool:
    return PurePosixPath(named).is_absolute() or PureWindowsPath(named).is_absolute()


def _plain(script: Script, name: str) -> str | None:
    """An option's value; None where it is missing, empty, or the shell's to expand."""
    found = script.option(name)
    return None if not found or re.search(r"[$`%]" if os.name == "nt" else r"[$`]", found) else found


def _number(script: Script, name: str) -> int | None:
    found = _plain(script, name)
    return int(found) if found and re.fullmatch(r"\d{1,12}", found) else None
