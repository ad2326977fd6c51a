"""How many batches an epoch has, estimated from dataset.toml before the trainer has counted them itself."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from fluxgym_watchdog.files import text_of

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def count_images(dataset_config: Path) -> tuple[int, int]:
    """Number of images and of batches in an epoch, over all subsets of a dataset.toml; (0, 0) where it cannot be told.

    An estimate: the trainer sorts images of several sizes into batches of equal size, which makes some more. Only the
    keys needed here are read, one `key = value` a line (a TOML parser comes with Python 3.11). Never raises.
    """
    images, batches, batch_size = 0, 0, 1
    for values in _blocks(dataset_config):
        batch_size = _number(values.get("batch_size"), batch_size)
        folder = values.get("image_dir")
        if folder:
            found = _pictures(Path(folder))
            images += found
            batches += math.ceil(found * _number(values.get("num_repeats"), 1) / max(1, batch_size))
    return images, batches


def missing_images(dataset_config: Path) -> tuple[str, ...]:
    """The folders of images that a dataset.toml names by absolute paths and that are not here. Never raises."""
    named = [values["image_dir"] for values in _blocks(dataset_config) if values.get("image_dir")]
    # Not Path.is_dir(), which raises where the folder above is not ours to read.
    return tuple(n for n in named if Path(n).is_absolute() and not os.path.isdir(n))  # noqa: PTH112


def _blocks(dataset_config: Path) -> list[dict[str, str]]:
    try:
        text = text_of(dataset_config)
    except (OSError, ValueError):
        return []
    return [
        dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*(?:#.*)?$", block))
        for block in re.split(r"(?m)^\s*\[\[", text)
    ]


def _pictures(folder: Path) -> int:
    try:
        return sum(file.suffix.lower() in PICTURE_SUFFIXES for file in folder.iterdir())
    except OSError:
        return 0


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and re.fullmatch(r"\d{1,9}", text) else otherwise
