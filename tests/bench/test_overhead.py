"""The overhead bench leaves nothing behind when it is ended halfway."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.trainings import ROOT, clean_up, until


@pytest.mark.skipif(sys.platform == "win32", reason="the bench is for POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_bench_that_is_ended_halfway_ends_its_training(tmp_path: Path, number: int) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "overhead"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started: list[psutil.Process] = []
    try:
        until(lambda: list(tmp_path.glob("*/fluxgym/outputs/demo-lora/training.log")), "the training")
        started += psutil.Process(bench.pid).children(recursive=True)
        assert started
        bench.send_signal(number)
        assert bench.wait(60) == 128 + number
        assert not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert list(tmp_path.iterdir()) == []
    finally:
        bench.kill()
        bench.wait()
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for folder in tmp_path.glob("*/fluxgym"):
            clean_up(folder.resolve())
