"""What watching costs: real ticks over real run folders, beside the seed's way, in one run.

One stand-in training runs alone; then 99 ended runs lie beside it; then 99 more are watched as if they were live, each
with its own log and checkpoints but all with the one living tree; then a day of ticks is simulated over a training that
is there but held (SIGSTOP). The clock is put forward by hand, two seconds a tick. CPU time is this process's own
(`time.process_time`), so a busy machine makes it longer; the seed's two commands are counted with their children. A
limit is met by the mean: what is slow now and then (a search for new processes, a record synced to disk) is in it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from fluxgym_watchdog.demo import create_fluxgym, environment
from fluxgym_watchdog.observe import procfs
from fluxgym_watchdog.observe.processes import ProcessReader
from fluxgym_watchdog.observe.trainlog import LogFollower
from fluxgym_watchdog.records import RunRecord, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.supervision import Supervision
from fluxgym_watchdog.watchdog import Watchdog
from tests.bench.run_folders import copy_files, ended_run, run_folder
from tests.trainings import TEST_VARIABLE, clean_up

TICK_S = 2.0
TICKS = 200
WARM_UP_TICKS = 20
"""So many ticks take up what has just been put there."""
ENDED_RUNS = 99
DAY_TICKS = 43_200
"""A day of looks every two seconds."""
LONG_LOG_BYTES = 1_000_000_000
LIMITS = {"one": 2.0, "many": 50.0, "memory": 5.0}
ONE = "1 live run"


def report(command: str, date: str, as_json: bool, day_ticks: int = DAY_TICKS) -> str:
    """Runs the bench; the table as text or JSON. An interrupt or SIGTERM ends the training, too."""
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    with tempfile.TemporaryDirectory() as scratch, _environment():
        found = _measure(Path(scratch).resolve() / "fluxgym", day_ticks)
    found = {"command": command, "date": date, "python": sys.version.split()[0], **found}
    if as_json:
        return json.dumps(found, indent=1)
    wide = max(map(len, found))
    return "\n".join(f"{key:<{wide}}  {value}" for key, value in found.items())


def _end(number: int, _: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one must not disturb the cleaning up
    sys.exit(128 + number)


@contextlib.contextmanager
def _environment():  # type: ignore[no-untyped-def]
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure(folder: Path, day_ticks: int) -> dict[str, object]:
    create_fluxgym(folder)
    os.environ.update(environment(folder) | {TEST_VARIABLE: str(folder)})
    script = run_folder(folder, "demo-lora")
    watchdog = Watchdog(folder / "outputs", Settings())
    clock = _Clock()
    try:
        watchdog.train(script)
        watchdog.set_auto_resume("demo-lora", False)  # the clock runs ahead of the training: nothing may be restarted
        supervision = watchdog._runs["demo-lora"]
        deadline = time.monotonic() + 120
        while not _steps(supervision) and time.monotonic() < deadline:
            watchdog.tick(time.monotonic())
            time.sleep(0.1)
        found: dict[str, object] = {"processes on this machine": len(psutil.pids())}
        one = _ticks(watchdog, clock, TICKS)
        found |= _row(f"{ONE}, ms CPU a tick", one, LIMITS["one"])
        for number in range(ENDED_RUNS):
            ended_run(folder, f"old-{number:02d}")
        _ticks(watchdog, clock, WARM_UP_TICKS)
        found |= _row(
            f"1 live + {ENDED_RUNS} ended runs, ms CPU a tick", _ticks(watchdog, clock, TICKS), LIMITS["many"]
        )
        found |= _hundred(watchdog, folder, supervision, clock)
        found |= _seed(statistics.fmean(one))
        found |= _long_log(folder)
        found |= _day(watchdog, supervision, clock, day_ticks)
    finally:
        clean_up(folder)
        watchdog.stop()
    return found


def _steps(supervision: Supervision) -> int:
    snapshot = supervision._watch.snapshot
    return snapshot.log.step if snapshot and snapshot.log else 0


class _Clock:
    """The watchdog's monotonic time, put forward by hand."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def next(self) -> float:
        self._now += TICK_S
        return self._now


def _ticks(watchdog: Watchdog, clock: _Clock, number: int, before: Callable[[], object] = lambda: None) -> list[float]:
    """CPU milliseconds of each tick, two seconds apart by the watchdog's clock."""
    times = []
    for _ in range(number):
        time.sleep(0.02)
        before()
        now = clock.next()
        times.append(_cpu_ms(lambda at=now: watchdog.tick(at)))  # type: ignore[misc]
    return times


def _hundred(watchdog: Watchdog, folder: Path, live: Supervision, clock: _Clock) -> dict[str, object]:
    """100 live runs: 99 more that look at the one living tree, each with its own files and a log that grows."""
    attempt = live.record.attempt
    assert attempt is not None
    logs, taken_up = [], []
    for number in range(99):
        name = f"live-{number:02d}"
        script = run_folder(folder, name)
        copy_files(live.run_folder, script.parent)
        logs.append(script.parent / "training.log")
        store = Store(script.parent)
        first = replace(attempt, log_offset=0)
        store.write_record(RunRecord(name, RunState.TRAINING, False, "train.sh", (first,)))
        store.lock()
        taken_up.append(_cpu_ms(lambda s=store, f=script: _take_up(watchdog, s, f, folder)))  # type: ignore[misc]
        if number % 5 == 4:  # runs begin one after the other, so that their slower looks do not all fall into one tick
            _ticks(watchdog, clock, 1)
    steps = iter(range(10_000, 1_000_000))

    def train() -> None:
        bar = f"\rsteps:  10%|#  | {next(steps)}/1000000 [10:00<90:00,  1.00it/s, avr_loss=0.31]"
        for log in logs:
            with log.open("a") as file:
                file.write(bar)

    found = _row("100 live runs, ms CPU a tick", _ticks(watchdog, clock, TICKS, train), LIMITS["many"])
    found["100 live runs, ms CPU of taking up one: median"] = round(statistics.median(taken_up), 2)
    for number in range(99):
        watchdog._drop(f"live-{number:02d}")
        shutil.rmtree(folder / "outputs" / f"live-{number:02d}")
    return found


def _take_up(watchdog: Watchdog, store: Store, script: Path, folder: Path) -> None:
    supervision = Supervision(store, script, folder, Settings(), watchdog._gpu)
    attempt = supervision.record.attempt
    supervision._watch = supervision._watch_attempt(
        ProcessReader([attempt.process] if attempt and attempt.process else [])
    )
    watchdog._runs[store.run_folder.name] = supervision
    supervision.tick(time.monotonic())


def _seed(ours_ms: float) -> dict[str, object]:
    """The seed's check: one nvidia-smi and one ps aux, as its documents say, with their own CPU time."""
    smi = shutil.which("nvidia-smi")
    query = [smi or "", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    stand_in = ""
    if not smi or subprocess.run(query, capture_output=True, check=False).returncode:
        query, stand_in = ["/bin/sh", "-c", "echo 97"], " (stand-in: a shell that says 97; the real one costs far more)"
    times = []
    for _ in range(20):
        before = _with_children_ms()
        subprocess.run(query, capture_output=True, check=False)
        listed = subprocess.run(["ps", "aux"], capture_output=True, text=True, check=False).stdout
        _ = [line for line in listed.splitlines() if "python" in line and "flux_train_network.py" in line]
        times.append(_with_children_ms() - before)
    seed_ms = statistics.fmean(times)
    return {
        "seed's way, ms CPU a check: mean": f"{seed_ms:.2f}{stand_in}",
        "ratio seed / one tick (1 live run, means)": f"{seed_ms / ours_ms:.1f}",
        "ms CPU a minute: ours every 2 s, the seed every 30 s": f"{30 * ours_ms:.0f}, {2 * seed_ms:.0f}",
    }


def _long_log(folder: Path) -> dict[str, object]:
    """What a look reads of a log of a gigabyte (mostly a hole) when a bar's redraw is appended to it."""
    log = folder / "long.log"
    with log.open("wb") as file:
        file.truncate(LONG_LOG_BYTES)
    follower = LogFollower(log, LONG_LOG_BYTES)
    follower.poll()
    appended = b"\rsteps:  10%|#  | 24/240 [00:10<01:30,  2.40it/s, avr_loss=0.31]"
    read, heard = [], 0
    for _ in range(100):
        with log.open("ab") as file:
            file.write(appended)
        before = (procfs.read_io(os.getpid()) or (0, 0))[0]
        heard += follower.poll().new_bytes
        between = (procfs.read_io(os.getpid()) or (0, 0))[0] - before
        own = (procfs.read_io(os.getpid()) or (0, 0))[0] - before - between  # asking costs a read itself
        read.append(between - own)
    log.unlink()
    assert heard == 100 * len(appended)
    most = max(read)
    met = "met" if most <= len(appended) + 64 else "MISSED"
    return {
        f"bytes read of a log of {LONG_LOG_BYTES / 1e9:.0f} GB a look, for {len(appended)} appended: most": (
            f"{most}   limit: those and the 64 before them   {met}"
        )
    }


def _day(watchdog: Watchdog, supervision: Supervision, clock: _Clock, ticks: int) -> dict[str, object]:
    """A day of ticks over a held training."""
    process = supervision.record.attempt.process if supervision.record.attempt else None
    held = []
    if process is not None:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.Error):
                os.kill(one.pid, signal.SIGSTOP)
                held.append(one.pid)
    for _ in range(2000):  # caches and the allocator settle
        watchdog.tick(clock.next())
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.process_time()
    for number in range(ticks):
        watchdog.tick(clock.next())
        if number % 1000 == 0:
            print(f"\rtick {number} of {ticks}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    gc.collect()
    grown = (psutil.Process().memory_info().rss - before) / 1e6
    spent = time.process_time() - began
    for pid in held:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
    key = f"memory grown over {ticks} ticks ({ticks * TICK_S / 3600:.1f} h), MB"
    return {
        key: f"{grown:.2f}   limit {LIMITS['memory']:g}   {'met' if grown < LIMITS['memory'] else 'MISSED'}",
        "CPU of those ticks, s": f"{spent:.1f}",
        "peak memory of this process, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f}",
    }


def _row(name: str, times: list[float], limit: float) -> dict[str, object]:
    ordered = sorted(times)
    mean = statistics.fmean(times)
    rest = f"{statistics.median(times):.2f}, {ordered[int(0.95 * len(ordered))]:.2f}, {ordered[-1]:.2f}"
    return {
        f"{name}: mean": f"{mean:.2f}   limit {limit:g}   {'met' if mean < limit else 'MISSED'}",
        f"{name}: median, p95, most": rest,
    }


def _cpu_ms(step: Callable[[], object]) -> float:
    before = time.process_time()
    step()
    return (time.process_time() - before) * 1000


def _with_children_ms() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (time.process_time() + children.ru_utime + children.ru_stime) * 1000
