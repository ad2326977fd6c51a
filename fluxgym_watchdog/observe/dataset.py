"""How many batches an epoch has, estimated from dataset.toml before the trainer has counted them itself."""

from __future__ import annotations

import math
import re
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def count_images(dataset_config: Path) -> tuple[int, int]:
    """Number of images and of batches in an epoch, over all subsets of a dataset.toml; (0, 0) where it cannot be told.

    An estimate: the trainer sorts images of several sizes into batches of equal size, which makes some more. Only the
    keys needed here are read, one `key = value` a line (a TOML parser comes with Python 3.11). Never raises.
    """
    try:
        text = dataset_config.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return 0, 0
    images, batches, batch_size = 0, 0, 1
    for block in re.split(r"(?m)^\s*\[\[", text):
        values = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*['\"]?(.*?)['\"]?\s*(?:#.*)?$", block))
        batch_size = _number(values.get("batch_size"), batch_size)
        folder = values.get("image_dir")
        if folder:
            found = _pictures(Path(folder))
            images += found
            batches += math.ceil(found * _number(values.get("num_repeats"), 1) / max(1, batch_size))
    return images, batches


def _pictures(folder: Path) -> int:
    try:
        return sum(file.suffix.lower() in PICTURE_SUFFIXES for file in folder.iterdir())
    except OSError:
        return 0


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and re.fullmatch(r"\d{1,9}", text) else otherwise
