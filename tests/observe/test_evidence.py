"""The closer look at a silent training: what it writes, and what it says where it cannot see."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.observe import evidence
from fluxgym_watchdog.records import Gpu, GpuReading, Host, LogProgress, Process, ProcessId, ProcessTree, Role, Snapshot

TRAINER = Process(ProcessId(os.getpid(), 1.0), 1, Role.TRAINER, "python", "sleeping", cpu_s=12.3, rss_bytes=4_000_000)


def snapshot(gpu: GpuReading, log: LogProgress | None = None) -> Snapshot:
    return Snapshot(100.0, 1000.0, ProcessTree((TRAINER,)), log, gpu, host=Host(64, 32, 8, 1, 500, 41))


def gather(seen: Snapshot, run: Any) -> dict[str, str]:
    return evidence.gather(seen, run)


def silent(*_: object, **__: object) -> Any:
    raise AssertionError("no program may be started")


def test_processes_are_listed_with_what_they_wait_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: None)
    files = gather(snapshot(GpuReading(problem="no driver")), silent)
    row = files["processes.txt"].splitlines()[1].split()
    assert row[:4] == [str(os.getpid()), "1", "trainer", "sleeping"]
    assert "py-spy is not installed" in files["stacks.txt"]
    assert "no driver" in files["gpu.txt"]
    assert "no log" in files["last-lines.txt"]


def test_stacks_come_from_py_spy_without_pausing_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: "/opt/py-spy")
    asked = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "Thread 1 (idle): read (socket.py:1)", "")

    files = gather(snapshot(GpuReading()), run)
    assert asked == [["/opt/py-spy", "dump", "--nonblocking", "--pid", str(os.getpid())]]
    assert "read (socket.py:1)" in files["stacks.txt"]


def test_a_py_spy_that_hangs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: "/opt/py-spy")

    def run(command: list[str], **_: object) -> Any:
        raise subprocess.TimeoutExpired(command, 15)

    assert "did not answer" in gather(snapshot(GpuReading()), run)["stacks.txt"]


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_stacks_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "py-spy"
    program.write_text("#!/bin/sh\nprintf 'read (sc\\303\\250ne\\377.py:1)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: str(program))
    assert "read (scène\ufffd.py:1)" in gather(snapshot(GpuReading()), subprocess.run)["stacks.txt"]


def test_all_stacks_together_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: "/opt/py-spy")
    now, asked = [0.0], []

    def run(command: list[str], timeout: float, **_: object) -> Any:
        asked.append((command[-1], timeout))
        now[0] += min(timeout, 12.0)
        raise subprocess.TimeoutExpired(command, timeout)

    workers = [replace(TRAINER, id=ProcessId(2**22 + n, 1.0), role=Role.WORKER) for n in range(8)]
    seen = replace(snapshot(GpuReading()), tree=ProcessTree((*workers, TRAINER)))
    text = evidence.gather(seen, run, lambda: now[0])["stacks.txt"]
    assert asked == [(str(os.getpid()), 15.0), (str(2**22), 15.0), (str(2**22 + 1), 6.0)]
    assert text.endswith("no time left.")


def test_gpu_processes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shutil, "which", lambda *_, **__: None)
    gpu = Gpu(0, "GPU-1", "RTX", 100.0, 20_000_000_000, 24_000_000_000, processes={os.getpid(): 15 * 10**9, 7: 10**9})
    text = gather(snapshot(GpuReading("nvml", (gpu,)), LogProgress(last_lines=("a", "b"))), silent)["gpu.txt"]
    assert f"process {os.getpid()}: 15.0 GB, of this training" in text
    assert "process 7: 1.0 GB, not of this training" in text
