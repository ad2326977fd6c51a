"""What the options of a training command say, and which ones it is given for a launch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fluxgym_watchdog.act.script import Script
from fluxgym_watchdog.records import Asked

PATHS = (
    *("--pretrained_model_name_or_path", "--clip_l", "--t5xxl", "--ae", "--network_weights", "--resume"),
    *("--dataset_config", "--sample_prompts", "--config_file", "--output_dir"),
)
"""The options of sd-scripts' FLUX trainer that FluxGym or its users set to files and folders."""
OWN_START = ("--resume", "--network_weights", "--initial_epoch", "--initial_step", "--skip_until_initial_step")
"""With these a script begins somewhere else than at the first step with nothing."""
FLAGS = re.compile(
    r"--(?:highvram|lowvram|sdpa|xformers|persistent_data_loader_workers|gradient_checkpointing|cache_\w+|fp8_base\w*"
    r"|save_state\w*|split_mode|full_\w+|no_\w+)"
)
"""Options that take no value: what follows one is not its value."""
DEFAULT_STEPS = 1600
"""sd-scripts' --max_train_steps where a script says nothing of how long to train."""


def asked(script: Script) -> Asked:
    """What the script asks of the trainer; what is not plain text or no number counts as not said."""
    kept = ("--save_last_n_epochs_state", "--save_last_n_epochs", "--save_last_n_steps_state")
    elsewhere = _says_more_elsewhere(script)
    says_how_long = any(script.option(name) is not None for name in ("--max_train_epochs", "--max_train_steps"))
    return Asked(
        epochs=_number(script, "--max_train_epochs"),
        steps=_number(script, "--max_train_steps") if says_how_long or elsewhere else DEFAULT_STEPS,
        save_every_epochs=_number(script, "--save_every_n_epochs"),
        save_every_steps=_number(script, "--save_every_n_steps"),
        saves_states=script.option("--save_state") is not None,
        keeps=any(script.option(name) is not None for name in kept),
        accumulation=_number(script, "--gradient_accumulation_steps") or 1,
        rank=_number(script, "--network_dim"),
        optimizer=_plain(script, "--optimizer_type") or "",
        lr_scheduler=_plain(script, "--lr_scheduler") or ("" if elsewhere else "constant"),
        save_precision=_plain(script, "--save_precision") or "",
        save_model_as=_plain(script, "--save_model_as") or "safetensors",
        begins_within=any(script.option(name) is not None for name in OWN_START),
        sets_initial_step=script.option("--initial_step") is not None,
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


def named_paths(script: Script) -> dict[str, str]:
    """The files and folders that the script names in plain text, by option."""
    return {option: named for option in PATHS if (named := _plain(script, option))}


def writes_elsewhere(script: Script) -> bool:
    """Whether the training command's output goes into a file of its own, and not where we could read it."""
    rest = re.split(r"[\n|;]", script.text[script.words[-1].end :], maxsplit=1)[0]
    return re.search(r"(?:^|[^2-9>&])(?:1?>>?(?!\s*(?:[&(]|>\())|&>)", rest) is not None


def with_paths(places: Mapping[str, str]) -> Sequence[str]:
    """The options that override those paths."""
    return [word for option, place in places.items() for word in (option, place)]


def _says_more_elsewhere(script: Script) -> bool:
    """Whether options may come from where they cannot be seen: a file, an expansion that is no option's value, or a
    shortened name, which argparse takes as well."""
    texts = script.arguments[1:]
    words = script.words[len(script.words) - len(texts) :]
    for before, text, word in zip(["", *texts], texts, words, strict=False):
        value = before.startswith("--") and not FLAGS.fullmatch(before)
        if word.expands and not text.startswith("--") and (not value or re.search(r"\$[@*]|[\[][@*]", text)):
            return True
        name = text.partition("=")[0]
        if name.startswith("--max_train_") and name not in ("--max_train_epochs", "--max_train_steps"):
            return True
    return script.option("--config_file") is not None


def _plain(script: Script, name: str) -> str | None:
    """An option's value; None where it is missing, empty, or the shell's to make."""
    return None if script.hides(name) else script.option(name) or None


def _number(script: Script, name: str) -> int | None:
    found = _plain(script, name)
    return int(found) if found and re.fullmatch(r"\d{1,12}", found) else None
