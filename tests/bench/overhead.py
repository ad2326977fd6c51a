"""What watching costs: real ticks over real run folders, beside the seed's way, in one run.

One stand-in training runs alone; then 99 ended runs lie beside it; then a day of ticks is simulated over a training
that is there but held (SIGSTOP), with the clock put forward by hand. CPU time is this process's own
(`time.process_time`); the seed's two commands are counted with their children, as they cost it.
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
from fluxgym_watchdog.observe.processes import ProcessReader
from fluxgym_watchdog.observe.trainlog import LogFollower
from fluxgym_watchdog.records import Attempt, RunRecord, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.supervision import Supervision
from fluxgym_watchdog.watchdog import Watchdog
from tests.trainings import TEST_VARIABLE, clean_up

TICKS = 200
WARM_UP_TICKS = 20
"""So many ticks fill caches that live as long as the watchdog."""
ENDED_RUNS = 99
DAY_TICKS = 43_200
"""A day of looks every two seconds."""
LIMITS = {"one": 2.0, "hundred": 50.0, "memory": 5.0}

_SCRIPT = """accelerate launch \\
  --mixed_precision bf16 \\
  --num_cpu_threads_per_process 1 \\
  sd-scripts/flux_train_network.py \\
  --save_model_as safetensors \\
  --max_data_loader_n_workers 2 \\
  --max_train_epochs 400 \\
  --save_every_n_epochs 1 \\
  --dataset_config "{run}/dataset.toml" \\
  --output_dir "{run}" \\
  --output_name {name} \\
  --loss_type l2 \\"""
_DATASET = """[general]
shuffle_caption = false
[[datasets]]
resolution = 512
batch_size = 1
  [[datasets.subsets]]
  image_dir = "{folder}/datasets/demo-lora"
  class_tokens = 'dmo'
  num_repeats = 10
"""


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
    script = _run_folder(folder, "demo-lora")
    watchdog = Watchdog(folder / "outputs", Settings(check_interval=0.05))
    try:
        watchdog.train(script)
        watchdog.set_auto_resume("demo-lora", False)  # the clock runs ahead of the training: nothing may be restarted
        supervision = watchdog._runs["demo-lora"]
        deadline = time.monotonic() + 120
        while not _steps(supervision) and time.monotonic() < deadline:
            watchdog.tick(time.monotonic())
            time.sleep(0.1)
        found: dict[str, object] = {"processes on this machine": len(psutil.pids())}
        one, log_bytes, log_size = _ticks(watchdog, script.parent)
        found |= _row("1 live run, ms CPU a tick", one, LIMITS["one"])
        found[f"1 live run, ms CPU a tick: mean without the first {WARM_UP_TICKS}"] = round(
            statistics.fmean(one[WARM_UP_TICKS:]), 3
        )
        found["log bytes read a tick (median, most)"] = log_bytes
        found["log size at the end of that, bytes"] = log_size
        for number in range(ENDED_RUNS):
            _ended_run(folder, f"old-{number:02d}")
        watchdog.tick(time.monotonic())
        many, _, _ = _ticks(watchdog, script.parent)
        found |= _row(f"1 live + {ENDED_RUNS} ended runs, ms CPU a tick", many, LIMITS["hundred"])
        found |= _hundred_watched(watchdog, folder, supervision)
        found |= _seed(found)
        found |= _day(watchdog, supervision, day_ticks)
    finally:
        clean_up(folder)
        watchdog.stop()
    return found


def _run_folder(folder: Path, name: str) -> Path:
    run = folder / "outputs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "dataset.toml").write_text(_DATASET.format(folder=folder))
    (run / "train.sh").write_text(_SCRIPT.format(run=run, name=name))
    return run / "train.sh"


def _ended_run(folder: Path, name: str) -> None:
    script = _run_folder(folder, name)
    attempt = Attempt(1, 1.0, ended_at=2.0, exit_code=0, outcome="finished", last_step=240)
    Store(script.parent).write_record(RunRecord(name, RunState.FINISHED, script="train.sh", attempts=(attempt,)))


def _steps(supervision: Supervision) -> int:
    snapshot = supervision._watch.snapshot
    return snapshot.log.step if snapshot and snapshot.log else 0


def _ticks(watchdog: Watchdog, run: Path) -> tuple[list[float], str, int]:
    """CPU milliseconds of each tick, two seconds apart by the watchdog's clock, and the log's bytes read in them."""
    times, read = [], []
    follower = LogFollower(run / "training.log", (run / "training.log").stat().st_size)
    now = time.monotonic()
    for number in range(TICKS):
        time.sleep(0.02)
        times.append(_cpu_ms(lambda at=now + 2.0 * number: watchdog.tick(at)))  # type: ignore[misc]
        read.append(follower.poll().new_bytes)
    return times, f"{statistics.median(read):.0f}, {max(read)}", (run / "training.log").stat().st_size


def _hundred_watched(watchdog: Watchdog, folder: Path, live: Supervision) -> dict[str, object]:
    """100 supervisions that each look at the one living tree: what 100 trainings on one machine would cost."""
    extra = []
    attempt = live.record.attempt
    assert attempt is not None
    for number in range(99):
        name = f"old-{number:02d}"
        script = folder / "outputs" / name / "train.sh"
        store = Store(script.parent)
        first = replace(attempt, log_offset=0)
        store.write_record(RunRecord(name, RunState.TRAINING, False, "train.sh", (first,)))
        shutil.copy(folder / "outputs" / "demo-lora" / "training.log", script.parent)
        supervision = Supervision(store, script, folder, Settings(check_interval=0.05), watchdog._gpu)
        supervision._watch = supervision._watch_attempt(ProcessReader([attempt.process] if attempt.process else []))
        extra.append(supervision)
    now = time.monotonic() + 10_000
    times = []
    for number in range(20):
        time.sleep(0.02)

        def tick(at: float = now + 2.0 * number) -> None:
            for supervision in [live, *extra]:
                supervision.tick(at)

        times.append(_cpu_ms(tick))
    return _row("100 live runs, ms CPU a tick", times, LIMITS["hundred"])


def _seed(found: dict[str, object]) -> dict[str, object]:
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
    ours = found["1 live run, ms CPU a tick: median"]
    seed = statistics.median(times)
    assert isinstance(ours, float)
    return {
        "seed's way, ms CPU a check: median": f"{seed:.2f}{stand_in}",
        "ratio seed / one tick": f"{seed / ours:.1f}",
    }


def _day(watchdog: Watchdog, supervision: Supervision, ticks: int) -> dict[str, object]:
    """A day of ticks over a held training."""
    process = supervision.record.attempt.process if supervision.record.attempt else None
    held = []
    if process is not None:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.Error):
                os.kill(one.pid, signal.SIGSTOP)
                held.append(one.pid)
    now = time.monotonic() + 100_000
    for number in range(2000):  # caches and the allocator settle
        watchdog.tick(now + 2.0 * number)
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.process_time()
    for number in range(2000, 2000 + ticks):
        watchdog.tick(now + 2.0 * number)
        if number % 1000 == 0:
            print(f"\rtick {number} of {ticks}", end="", file=sys.stderr, flush=True)
    gc.collect()
    grown = (psutil.Process().memory_info().rss - before) / 1e6
    spent = time.process_time() - began
    for pid in held:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
    key = f"memory grown over {ticks} ticks ({ticks * 2 / 3600:.1f} h), MB"
    return {
        key: f"{grown:.2f}   limit {LIMITS['memory']:g}   {'met' if grown < LIMITS['memory'] else 'MISSED'}",
        "CPU of those ticks, s": f"{spent:.1f}",
        "peak memory of this process, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f}",
    }


def _row(name: str, times: list[float], limit: float) -> dict[str, object]:
    ordered = sorted(times)
    mean = statistics.fmean(times)
    return {
        f"{name}: median": round(statistics.median(times), 3),
        f"{name}: mean, p95": f"{mean:.2f}, {ordered[int(0.95 * len(ordered))]:.2f}   limit {limit:g}   "
        + ("met" if mean < limit else "MISSED"),
    }


def _cpu_ms(step: Callable[[], object]) -> float:
    before = time.process_time()
    step()
    return (time.process_time() - before) * 1000


def _with_children_ms() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (time.process_time() + children.ru_utime + children.ru_stime) * 1000
