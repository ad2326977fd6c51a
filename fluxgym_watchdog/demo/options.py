"""The options of sd-scripts that the stand-in obeys, and the dataset that they name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from fluxgym_watchdog.observe.dataset import count_images

DEFAULT_MAX_TRAIN_STEPS = 1600
DEFAULT_STEPS_PER_EPOCH = 40


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
        images, batches = count_images(Path(dataset_config))
        if batches:
            return images, batches
    steps = int(os.environ.get("DEMO_STEPS_PER_EPOCH") or DEFAULT_STEPS_PER_EPOCH)
    return steps, steps
