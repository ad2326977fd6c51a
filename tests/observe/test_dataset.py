"""How long an epoch will be, told from dataset.toml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxgym_watchdog.observe.dataset import count_images


def test_images_times_repeats_in_batches(tmp_path: Path) -> None:
    for folder, count in (("a", 5), ("b", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number}.PNG").touch()
            (tmp_path / folder / f"{number}.txt").touch()
    (tmp_path / "dataset.toml").write_text(
        "[general]\nkeep_tokens = 1\n\n[[datasets]]\nresolution = 512\nbatch_size = 2\n\n"
        f"  [[datasets.subsets]]\n  image_dir = '{tmp_path}/a'\n  num_repeats = 10 # often\n"
        f'  [[datasets.subsets]]\n  image_dir = "{tmp_path}/b"\n'
        f"  [[datasets.subsets]]\n  image_dir = '{tmp_path}/gone'\n"
    )
    assert count_images(tmp_path / "dataset.toml") == (8, 25 + 2)


def test_what_cannot_be_told_is_nothing(tmp_path: Path) -> None:
    assert count_images(tmp_path / "gone.toml") == (0, 0)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\0")
    assert count_images(tmp_path / "binary.toml") == (0, 0)
    (tmp_path / "odd.toml").write_text(f"[[datasets]]\nbatch_size = 0\nimage_dir = '{tmp_path}'\nnum_repeats = many\n")
    assert count_images(tmp_path / "odd.toml") == (0, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset.toml")
    assert count_images(tmp_path / "dataset.toml") == (0, 0)
