"""The options of sd-scripts that the stand-in obeys, and the dataset that they name."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

DEFAULT_MAX_TRAIN_STEPS = 1600
DEFAULT_STEPS_PER_EPOCH = 40
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. The last of a doubled option counts; options unknown here are accepted and ignored.
    Exits with 2, as argparse does, on a value of the wrong type."""
    parser = argparse.ArgumentParser(prog="flux_train_network.py", allow_abbrev=False)
    parser.add_argument("--output_dir", default=".")
    parser.add_argument("--output_name", default="last")
    parser.add_argument("--max_train_epochs", type=int)
    parser.add_argument("--max_train_steps", type=int, default=DEFAULT_MAX_TRAIN_STEPS)
    parser.add_argument("--save_every_n_epochs", type=int)
    parser.add_argument("--save_every_n_steps", type=int)
    parser.add_argument("--save_last_n_epochs", type=int)
    parser.add_argument("--save_last_n_steps", type=int)
    parser.add_argument("--save_state", action="store_true")
    parser.add_argument("--save_state_on_train_end", action="store_true")
    parser.add_argument("--save_last_n_epochs_state", type=int)
    parser.add_argument("--save_last_n_steps_state", type=int)
    parser.add_argument("--max_data_loader_n_workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--dataset_config")
    parser.add_argument("--resume")
    parser.add_argument("--initial_epoch", type=int)
    parser.add_argument("--initial_step", type=int)
    parser.add_argument("--skip_until_initial_step", action="store_true")
    parser.add_argument("--network_weights")
    parser.add_argument("--sample_prompts")
    parser.add_argument("--sample_every_n_steps", type=int)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--network_dim", type=int, default=4)
    parser.add_argument("--seed", type=int)
    known, _ = parser.parse_known_args(arguments)
    return known


def batches_per_epoch(dataset_config: str | None) -> tuple[int, int]:
    """Number of images and of batches in an epoch: images x repeats, from the dataset file if it can be read and
    names images that exist, else `DEMO_STEPS_PER_EPOCH` (default 40)."""
    if dataset_config and Path(dataset_config).is_file():
        images, batches = _count(Path(dataset_config).read_text(encoding="utf-8"))
        if batches:
            return images, batches
    steps = int(os.environ.get("DEMO_STEPS_PER_EPOCH") or DEFAULT_STEPS_PER_EPOCH)
    return steps, steps


def _count(dataset_config: str) -> tuple[int, int]:
    """Count over all subsets. Only the keys needed here are read, one `key = value` a line."""
    images, batches, batch_size = 0, 0, 1
    for block in re.split(r"(?m)^\s*\[\[", dataset_config):
        values = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*(?:#.*)?$", block))
        batch_size = int(values.get("batch_size", batch_size))
        folder = Path(values.get("image_dir", ""))
        if "image_dir" in values and folder.is_dir():
            found = sum(file.suffix.lower() in PICTURE_SUFFIXES for file in folder.iterdir())
            images += found
            batches += math.ceil(found * int(values.get("num_repeats", 1)) / batch_size)
    return images, batches
