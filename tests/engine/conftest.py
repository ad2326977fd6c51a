"""Watchdogs in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import QUICK_SETTINGS, Training


@pytest.fixture
def watchdogs(short_training: Training, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watchdog]]:
    """Makes watchdogs in this very process, whose trainings run in the demo's environment."""
    made: list[Watchdog] = []

    def make(faults: str = "", settings: Settings = QUICK_SETTINGS) -> Watchdog:
        for name, value in short_training.environment(DEMO_FAULTS=faults).items():
            monkeypatch.setenv(name, value)
        made.append(Watchdog(short_training.root / "outputs", settings, gpu=GpuReader()))
        return made[-1]

    yield make
    for watchdog in made:
        watchdog.stop()
