"""What is known of a run before it trains: what its script says, where its paths lie, how long epochs and steps are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fluxgym_watchdog.act import options
from fluxgym_watchdog.act.script import Script
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.dataset import count_images, missing_images
from fluxgym_watchdog.observe.paths import OUTPUT, missing_paths, relocated
from fluxgym_watchdog.records import Asked, RunRecord
from fluxgym_watchdog.store import Store

DATASET = "--dataset_config"
NEIGHBOURS = 5
"""So many of the newest other runs are asked how long a step takes on this machine."""


@dataclass(frozen=True, slots=True)
class Given:
    """What is started: a run's train script and what it says. `script` is None where it is not understood.

    `content` is the script's bytes. `missing` are its paths that are not on this machine, `places` where they lie now.
    `dataset` is its dataset.toml, `no_images` the folders of images in it that are not on this machine. `silent`: its
    output goes into a file of its own.
    """

    content: bytes
    script: Script | None
    asked: Asked
    output_dir: Path
    output_name: str
    missing: Mapping[str, str]
    places: Mapping[str, str]
    dataset: Path | None = None
    no_images: tuple[str, ...] = ()
    silent: bool = False


def given(content: bytes, script: Script | None, cwd: Path, run_folder: Path) -> Given:
    """What a script says, its paths looked up on this machine."""
    if script is None:
        return Given(content, None, Asked(), run_folder, run_folder.name, {}, {})
    missing = missing_paths(options.named_paths(script))
    places = relocated(missing, cwd, run_folder)
    config = places.get(DATASET) or script.option(DATASET)
    dataset = cwd / config if config else None
    return Given(
        content,
        script,
        options.asked(script),
        run_folder if OUTPUT in places else options.output_dir(script, cwd, run_folder),
        options.output_name(script, run_folder),
        missing,
        places,
        dataset,
        missing_images(dataset) if dataset else (),
        options.writes_elsewhere(script),
    )


def informed(record: RunRecord, what: Given, checkpoints: CheckpointReader) -> dict[str, int | None]:
    """What is known of a run's length before its trainer says so: by its weights, and by what its script asks now."""
    per_epoch, accumulation = record.steps_per_epoch, record.accumulation
    if per_epoch is None:
        told = checkpoints.trained()
        per_epoch, accumulation = told.steps_per_epoch, accumulation or told.accumulation
    if what.script is not None and accumulation not in (None, what.asked.accumulation):
        return {"steps_per_epoch": None, "accumulation": what.asked.accumulation, "total_steps": None}
    total = what.asked.total_steps(per_epoch) or record.total_steps
    return {"steps_per_epoch": per_epoch, "accumulation": accumulation, "total_steps": total}


def estimated(record: RunRecord, what: Given) -> RunRecord:
    """The record with an epoch's length estimated from the dataset, where neither trainer nor weights have told it."""
    if record.steps_per_epoch is not None or what.dataset is None:
        return record
    _, batches = count_images(what.dataset)
    per_epoch = math.ceil(batches / what.asked.accumulation) or None
    return replace(record, steps_per_epoch=per_epoch, total_steps=what.asked.total_steps(per_epoch))


def usual_pace_s(record: RunRecord, run_folder: Path) -> float | None:
    """How long a step takes: in this run before, else in the newest other run on this machine that knows."""
    if record.pace_s:
        return record.pace_s
    others = []
    for path in run_folder.parent.glob("*/.watchdog/run.json"):
        try:
            others.append((path.stat().st_mtime, path.parent.parent))
        except OSError:
            continue
    for _, folder in sorted(others, reverse=True)[:NEIGHBOURS]:
        found, _ = Store(folder).read_record()
        if found is not None and found.pace_s:
            return found.pace_s
    return None
