"""Real accelerate, real torch, real kills: the final weights are made of just the steps that were asked for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainings import clean_up

MISSING = [name for name in ("torch", "accelerate", "safetensors") if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"needs the extra e2e: {', '.join(MISSING)} not installed", allow_module_level=True)

from tests.e2e.real_training import Kill, RealTraining, plan  # noqa: E402 - needs torch

KILLS = int(os.environ.get("FLUXGYM_WATCHDOG_E2E_KILLS", "3"))
SEED = int(os.environ.get("FLUXGYM_WATCHDOG_E2E_SEED", "1"))
EPOCHS = max(3, KILLS // 3)
LAYOUTS: dict[str, Callable[[Path], RealTraining]] = {
    "epoch states": lambda folder: RealTraining(folder, EPOCHS),
    "step states": lambda folder: RealTraining(folder, EPOCHS, "--save_every_n_steps 7", "--save_every_n_epochs 999"),
    "both": lambda folder: RealTraining(folder, EPOCHS, "--save_every_n_steps 17"),
    "one epoch": lambda folder: RealTraining(folder, 1, "--save_every_n_steps 9"),
    "accumulation": lambda folder: RealTraining(folder, EPOCHS + 1, accumulation=2),
    "accumulation, both": lambda folder: RealTraining(folder, EPOCHS + 1, "--save_every_n_steps 7", accumulation=2),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A FluxGym folder that no process of outlives the test."""
    folder = tmp_path.resolve() / "gym"
    yield folder
    clean_up(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_again_and_again(layout: str, folder: Path) -> None:
    training = LAYOUTS[layout](folder)
    kills = plan(f"{SEED} {layout}", KILLS, training.total)
    print(f"seed {SEED}, {KILLS} kills, {training.total} steps")
    training.finished_exactly(training.survive(kills))


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.xfail(strict=True, reason="a run that has its final state is not yet completed without training")
def test_a_run_that_lacks_only_its_final_weights_trains_nothing_again(epochs: int, folder: Path) -> None:
    training = RealTraining(folder, epochs)
    training.finished_exactly(training.survive([Kill("tree", "final weights", training.total)]))
    assert len(training.executed) == training.total
