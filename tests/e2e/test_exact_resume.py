"""Real accelerate, real torch, real kills: the final weights are made of just the steps that were asked for."""

from __future__ import annotations

import importlib.metadata
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
EPOCHS = max(3, KILLS // 2)
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
def test_a_run_that_lacks_only_its_final_weights_trains_nothing_again(epochs: int, folder: Path) -> None:
    training = RealTraining(folder, epochs)
    training.finished_exactly(training.survive([Kill("tree", "ending", training.total)]))
    assert len(training.executed) == training.total


def test_a_machine_that_goes_down_twice_while_it_loads_has_nothing_against_the_state(folder: Path) -> None:
    training = RealTraining(folder, 2)
    training.finished_exactly(training.survive([Kill("all", place, 50) for place in ("running", "loading", "loading")]))
    assert training.record.quarantined == ()


@pytest.mark.skipif(
    not importlib.metadata.version("accelerate").startswith(("0.32.", "0.33.")),
    reason="only accelerate 0.32 and 0.33 cannot load what they have saved, with torch 2.6 or newer (KeyError: 'step')",
)
def test_what_torch_no_longer_loads_by_itself_is_resumed_with_its_optimizer(folder: Path) -> None:
    training = RealTraining(folder, 2)
    training.finished_exactly(training.survive([Kill("tree", "step", 60)]))
    assert len(training.record.attempts) == 2
    assert training.scheduled == training.total, "the optimizer began anew"
