"""The decoy: another run's training, of the same command line, that must survive everything."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from fluxgym_watchdog.act.launch import RUN_VARIABLE
from fluxgym_watchdog.observe.processes import find_trainers
from tests.trainings import Training, clean_up, until


@pytest.fixture(scope="session")
def decoy_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[psutil.Process]]:
    folder = tmp_path_factory.mktemp("decoy").resolve() / "gym"
    decoy = Training(folder, epochs=1000)
    decoy.plain(DEMO_STEP_SECONDS="0.3", **{RUN_VARIABLE: str(decoy.run_folder)})
    until(lambda: decoy.executed, "the decoy's first step")
    trainer = psutil.Process(find_trainers(decoy.run_folder, None, folder)[0].pid)
    processes = [*trainer.parents()[:2], trainer, *until(trainer.children, "the decoy's workers")]
    yield processes
    clean_up(folder)


@pytest.fixture(autouse=True)
def decoy(decoy_processes: list[psutil.Process]) -> Iterator[None]:
    """Fails a test after which the decoy is not as alive as before."""
    assert all(p.is_running() for p in decoy_processes)
    yield
    for process in decoy_processes:
        assert process.is_running(), f"a foreign process was ended: {process}"
        assert process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED), f"a foreign process: {process}"
