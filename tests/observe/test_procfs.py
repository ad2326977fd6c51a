"""/proc read directly says what psutil says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fluxgym_watchdog.observe import procfs

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc on this system")


def test_this_process_is_read_as_psutil_reads_it() -> None:
    stat, process = procfs.read_stat(os.getpid()), psutil.Process()
    assert stat is not None
    assert (stat.name, stat.parent_pid, stat.status) == (process.name(), process.ppid(), "running")
    times = process.cpu_times()
    assert stat.cpu_s == pytest.approx(times.user + times.system, abs=0.5)
    assert stat.rss_bytes == pytest.approx(process.memory_info().rss, rel=0.2)


def test_memory_is_read_as_psutil_reads_it() -> None:
    read, memory, swap = procfs.read_memory(), psutil.virtual_memory(), psutil.swap_memory()
    assert read is not None
    assert (read[0], read[2]) == (memory.total, swap.total)
    assert read[1] == pytest.approx(memory.available, rel=0.2)
    assert 0 <= read[3] <= read[2]


def test_io_counts_what_the_page_cache_serves(tmp_path: Path) -> None:
    before = procfs.read_io(os.getpid())
    (tmp_path / "file").write_bytes(bytes(300_000))
    (tmp_path / "file").read_bytes()
    after = procfs.read_io(os.getpid())
    assert before is not None
    assert after is not None
    assert after[0] - before[0] >= 300_000
    assert after[1] - before[1] >= 300_000


def test_children_are_found_while_threads_come_and_go() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in (procfs.children(os.getpid()) or [])
    finally:
        child.communicate(b"\n")
    assert child.pid not in (procfs.children(os.getpid()) or [])


def test_nothing_is_known_of_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert procfs.read_stat(child.pid) is None
    assert procfs.read_io(child.pid) is None
    assert procfs.children(child.pid) is None
    assert procfs.wait_channel(child.pid) == ""
