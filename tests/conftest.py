"""Fixtures that start real trainings; see tests/trainings.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainings import Herd, Training, clean_up

if sys.platform == "win32":
    collect_ignore = ["engine", "faults", "e2e"]  # faults and kills are POSIX signals


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    """A run of 240 steps that no test leaves a process of."""
    folder = tmp_path.resolve() / "gym"
    yield Training(folder)
    clean_up(folder)


@pytest.fixture
def short_training(tmp_path: Path) -> Iterator[Training]:
    """A run of 80 steps that no test leaves a process of."""
    folder = tmp_path.resolve() / "gym"
    yield Training(folder, epochs=2)
    clean_up(folder)


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    """Starts several runs of 80 steps at once; no test leaves a process of any of them."""
    herd = Herd(tmp_path.resolve())
    yield herd
    for training in herd.members:
        clean_up(training.root)
