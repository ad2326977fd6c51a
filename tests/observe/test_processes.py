"""Processes keep their identity, and trainers are told apart by where they write and whose they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fluxgym_watchdog.observe import processes
from fluxgym_watchdog.observe.processes import RUN_VARIABLE, ProcessReader, find, find_trainers, identify
from fluxgym_watchdog.records import ProcessId

HAS_PROC = Path("/proc/self/stat").exists()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def step_clock(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    before = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before(self) + by_s)


@pytest.mark.skipif(not HAS_PROC, reason="there is no /proc on this system")
@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_a_stepped_clock_hides_no_living_process(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    identity = identify(child.pid)
    assert identity is not None
    step_clock(monkeypatch, by_s)
    assert find(identity) is not None
    assert identify(child.pid) == identity
    child.kill()
    child.wait()
    assert find(identity) is None


@pytest.mark.skipif(not HAS_PROC, reason="there is no /proc on this system")
def test_a_process_that_was_taken_up_is_known_after_a_step_too(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = ProcessId(child.pid, psutil.Process(child.pid).create_time() + 1.0)  # the clock was a second off then
    ProcessReader([saved])
    step_clock(monkeypatch, 3600.0)
    assert find(saved) is not None


def test_another_process_of_that_pid_is_not_taken_for_it(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    created = psutil.Process(child.pid).create_time()
    monkeypatch.setitem(processes._identities, child.pid, (ProcessId(child.pid, created - 900.0), 1))
    assert find(ProcessId(child.pid, created - 900.0)) is None
    assert find(ProcessId(child.pid, created)) is not None


@pytest.mark.parametrize(
    ("carried", "mark", "found"),
    [
        (None, "/o/mine", True),
        ("", "/o/mine", True),
        ("/o/mine", "/o/mine", True),
        ("/o/other", "/o/mine", False),
        ("/o/other", "", True),
    ],
)
def test_a_trainer_of_another_run_is_left_out(tmp_path: Path, carried: str | None, mark: str, found: bool) -> None:
    script = tmp_path / "flux_train_network.py"
    script.write_text("print(flush=True)\nimport time\ntime.sleep(600)\n")
    environ = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    if carried is not None:
        environ[RUN_VARIABLE] = carried
    command = [sys.executable, str(script), "--output_dir", str(tmp_path), "--output_name", "x"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            trainers = find_trainers(tmp_path, "x", tmp_path, mark)
        finally:
            process.kill()
    assert [p.pid for p in trainers] == ([process.pid] if found else [])


def test_a_trainer_whose_environment_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> dict[str, str]:
        raise psutil.AccessDenied(self.pid)

    script = tmp_path / "flux_train_network.py"
    script.write_text("print(flush=True)\nimport time\ntime.sleep(600)\n")
    monkeypatch.setattr(psutil.Process, "environ", denied)
    command = [sys.executable, str(script), "--output_dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            trainers = find_trainers(tmp_path, None, tmp_path, "/o/mine")
        finally:
            process.kill()
    assert [p.pid for p in trainers] == [process.pid]
