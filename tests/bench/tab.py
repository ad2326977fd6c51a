"""What the tab costs: a real Gradio server, and pages that look every two seconds as a browser would.

The run that is looked at is written as the engine writes it, through the store: a day of noisy samples, a timeline with
evidence, 2,000 checkpoints, 99 other runs beside it. At each tick a step is made; now and then a checkpoint is saved
and a line is added to the timeline and to the log. Our own time is the CPU time of the handler's thread inside our code
(`time.thread_time`); bytes are the bodies of the answers, with Gradio's envelope. A tick of the watchdog is timed with
a real stand-in training, with no page open and with ten.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxgym_watchdog.demo import create_fluxgym, environment
from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    CheckpointKind,
    Event,
    FindingKind,
    Gpu,
    Host,
    Phase,
    RunRecord,
    RunState,
    Sample,
    Saves,
    Status,
)
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab.board import Board, news
from fluxgym_watchdog.tab.show import PARTS
from fluxgym_watchdog.watchdog import Watchdog
from tests.bench.pages import Page, look_function
from tests.bench.run_folders import run_folder as demo_run
from tests.trainings import TEST_VARIABLE, clean_up

TICK_S = 2.0
TICKS = 300
SAMPLES = 40_000
"""About a day of two-second ticks."""
CHECKPOINTS = 2_000
EVENTS = 200
LIMITS = {"bytes": 12_000, "ms": 3.0, "first": 150.0, "slower": 1.25}
GIB = 1024**3


def report(seed: int, command: str, date: str, as_json: bool, ticks: int = TICKS) -> str:
    """Runs the bench; the table as text or JSON."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    found: dict[str, object] = {"command": command, "seed": seed, "date": date}
    found |= {"python": sys.version.split()[0], "gradio": gr.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        world = World(Path(scratch).resolve() / "outputs", seed)
        found |= _ticks(world, ticks)
        found |= _first_views(world)
        found |= _ten_pages(Path(scratch).resolve() / "fluxgym")
    if as_json:
        return json.dumps(found, indent=1)
    wide = max(map(len, found))
    return "\n".join(f"{key:<{wide}}  {value}" for key, value in found.items())


class World:
    """A run as it goes on, and others beside it."""

    def __init__(self, outputs: Path, seed: int) -> None:
        self.outputs, self._random = outputs, random.Random(seed)
        self.now, self.step = 1_750_000_000.0, 0
        for number in range(99):
            ended = Attempt(1, 1.0, ended_at=2.0, exit_code=0, outcome="finished", last_step=240)
            self._store(f"old-{number:03d}").write_record(RunRecord("old", RunState.FINISHED, attempts=(ended,)))
        self.store = self._store("a-live-run")
        began = self.now
        self.checkpoints = tuple(self._checkpoint(number) for number in range(CHECKPOINTS))
        samples = []
        for _ in range(SAMPLES):
            self.now += TICK_S
            self.step += self._random.random() < 0.87
            samples.append(self._sample())
        self.store.append_samples(samples)
        attempt = Attempt(1, began, last_step=self.step)
        self.record = RunRecord("a-live-run", RunState.TRAINING, attempts=(attempt,), steps_per_epoch=100)
        self.record = replace(self.record, total_steps=2 * self.step)
        self.store.write_record(self.record)
        for number in range(EVENTS):
            self._tell(self.now - 3 * (EVENTS - number))
        self.go_on(saving=True)

    def go_on(self, *, saving: bool = False, telling: bool = False) -> None:
        """One tick of the engine, which has seen one step more."""
        self._age_files()
        self.now += TICK_S
        self.step += 1
        if saving:
            new = self._checkpoint(len(self.checkpoints))
            self.checkpoints = (new, *self.checkpoints[:-1])
        if saving or telling:
            self._tell(self.now)
        self.store.append_samples([self._sample()])
        self.store.write_status(self._status())
        line = "" if self.step % 100 else f"\nepoch {self.step // 100}/400\n"
        bar = f"\rsteps:  50%|#####     | {self.step}/80000 [9:10:11<9:10:11,  2.31s/it, avr_loss=0.413]"
        with (self.store.run_folder / "training.log").open("a") as log:
            log.write(line + bar)

    def _age_files(self) -> None:
        """Makes the files as old as they would be: ticks follow each other here without a pause, and what was changed
        a moment ago is read again at each look."""
        now = time.time()
        for path in (self.store.run_folder, *self.store.run_folder.iterdir(), *self.store.folder.iterdir()):
            if now - (written := path.stat().st_mtime) < TICK_S:
                os.utime(path, (now, written - TICK_S))

    def other_runs(self, number: int) -> None:
        """So many more runs that were never trained here."""
        for each in range(number):
            self._store(f"more-{each:03d}")

    def _store(self, name: str) -> Store:
        folder = self.outputs / name
        folder.mkdir(parents=True)
        (folder / "train.sh").write_text("accelerate launch\n")
        return Store(folder)

    def _sample(self) -> Sample:
        noise = self._random.random
        loss = 0.1 + math.exp(-self.step / 20_000) + 0.2 * noise()
        used = int((15 + noise()) * GIB)
        values = (100 * noise(), used, 24 * GIB, 60 + 20 * noise(), 450 * noise(), 450.0)
        return Sample(self.now, 0, *values, self.step, loss, used - GIB)

    def _checkpoint(self, number: int) -> Checkpoint:
        state = number % 2 == 0
        end, kind = ("-state", CheckpointKind.STATE) if state else (".safetensors", CheckpointKind.WEIGHTS)
        at, step = self.now - 30 * (CHECKPOINTS - number), 100 * (number // 2)
        name = f"a-live-run-{number // 2:06d}{end}"
        return Checkpoint(name, kind, at, 119_000_000 if state else 40_000_000, True, epoch=number // 2, step=step)

    def _tell(self, at: float) -> None:
        lines = [f"steps:  50%|#####     | {self.step - i}/80000 [9:10:11<9:10:11, avr_loss=0.4]" for i in range(10)]
        processes = [{"pid": 4000 + i, "role": "worker", "state": "sleeping", "cpu_s": 12.5} for i in range(4)]
        text = "No step for 58 s (longest so far 9.1 s), GPU at 0 %. A data loader worker waits in a file read."
        evidence = {"folder": "evidence/20260101-000000", "processes": processes, "last_lines": lines}
        self.store.append_event(Event(at, "suspect", text, "act", 1, evidence))

    def _status(self) -> Status:
        sample = self._sample()
        gpu = Gpu(0, "GPU-0", "bench GPU (simulated)", 97.0, sample.memory_used_bytes, 24 * GIB, 72.0, 324.0, 450.0)
        return Status(
            at=self.now,
            state=RunState.TRAINING,
            finding=FindingKind.HEALTHY,
            text="a step every 2.3 s",
            phase=Phase.TRAINING,
            attempt=1,
            step=self.step,
            total_steps=self.record.total_steps,
            epoch=4,
            epochs=400,
            loss=sample.loss,
            seconds_per_step=2.3,
            heartbeat_at=self.now - 1,
            count=0,
            count_total=None,
            processes=4,
            gpu_source="simulated",
            gpus=(gpu,),
            checkpoints=self.checkpoints,
            host=Host(64 * GIB, int(40 * GIB + GIB * self._random.random()), 8 * GIB, GIB, 500 * GIB, 41 * GIB),
            saves=Saves(100, self.step % 100, 100.0, 231.0, 100 - self.step % 100, 159_000_000, fits=True),
        )


class _Timed(Board):
    """The board, which notes how long each look takes."""

    def __init__(self, *arguments: Any, **values: Any) -> None:
        super().__init__(*arguments, **values)
        self.times_ms: list[float] = []

    def show(self, *arguments: Any, **values: Any) -> Any:
        began = time.thread_time()
        shown = super().show(*arguments, **values)
        news(shown, {})  # once more than it is needed: the handler's own call is not within reach here
        self.times_ms.append(1000 * (time.thread_time() - began))
        return shown


@contextlib.contextmanager
def _served(board: Board) -> Iterator[tuple[str, int]]:
    """The tab on a real server: its address with the API's prefix, and the number of the look's handler."""
    import gradio as gr

    from fluxgym_watchdog.tab.layout import lay_out

    with gr.Blocks() as demo, gr.Tabs():
        lay_out(board, demo)
    with contextlib.redirect_stdout(io.StringIO()):
        demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        yield demo.local_api_url, look_function(demo)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            demo.close()


def _ticks(world: World, ticks: int) -> dict[str, object]:
    board = _Timed(world.outputs, Settings(), find_runs, clock=lambda: world.now)
    sizes, whole = [], []
    found: dict[str, object] = {}
    with _served(board) as (url, function):
        time.sleep(1)
        found["looks computed before any page was open"] = (
            f"{len(board.times_ms)}   limit 0   {_met(not board.times_ms)}"
        )
        for span in ("15 min", "1 h", "6 h", "all"):
            page = Page(url, function)
            whole.append(page.look("a-live-run", span)[0])
            board.times_ms.clear()
            of_span = []
            for number in range(ticks // 4):
                world.go_on(saving=number % 25 == 10, telling=number % 10 == 5)
                of_span.append(page.look("a-live-run", span)[0])
                if number % 15 == 14:
                    print(f"\rticks at {span}: {number + 1} of {ticks // 4} ", end="", file=sys.stderr, flush=True)
            sizes += of_span
            found |= _row(f"at {span}: bytes a tick", of_span, LIMITS["bytes"], most=True)
            found |= _row(f"at {span}: our ms CPU a tick", board.times_ms, LIMITS["ms"], most=False)
        for _ in PARTS:  # what had to wait has arrived by then
            same, values = page.look("a-live-run", span)
        *parts, _sign_of_life, _state = values  # every look is answered with these two, changed or not
        sent = [value for value in parts if not _is_skipped(value)]
        found["parts sent where nothing changed"] = f"{len(sent)}   limit 0   {_met(not sent)}"
        found["bytes of that answer"] = same
        found["bytes of a first view, each range"] = ", ".join(map(str, whole))
    return found


def _is_skipped(value: object) -> bool:
    """Whether a component was sent nothing: Gradio's envelope for that differs between versions."""
    return isinstance(value, dict) and all(
        key == "__type__" or (key == "props" and _is_skipped(inner)) for key, inner in value.items()
    )


def _first_views(world: World) -> dict[str, object]:
    world.other_runs(100)
    found: dict[str, object] = {}
    for name, samples in (("300 samples", 300), (f"a day of samples ({SAMPLES})", SAMPLES)):
        times = []
        path = world.store.folder / "samples.csv"
        whole = path.read_text()
        header, *lines = whole.splitlines(keepends=True)
        path.write_text("".join([header, *lines[-samples:]]))
        for _ in range(7):
            board = Board(world.outputs, Settings(), find_runs, clock=lambda: world.now)
            began = time.perf_counter()
            news(board.show("a-live-run", "15 min"), {})
            times.append(1000 * (time.perf_counter() - began))
        path.write_text(whole)
        found |= _row(
            f"first view, 200 runs, {CHECKPOINTS} checkpoints, {name}: ms", times, LIMITS["first"], most=False
        )
    return found


def _ten_pages(folder: Path) -> dict[str, object]:
    """Ticks of a watchdog over a real stand-in training, alone and with ten pages open."""
    create_fluxgym(folder)
    os.environ.update(environment(folder) | {TEST_VARIABLE: str(folder), "DEMO_FAULTS": "", "DEMO_STEP_SECONDS": "0.3"})
    watchdog = Watchdog(folder / "outputs", Settings(check_interval=0.2))
    try:
        script = demo_run(folder, "demo-lora")
        watchdog.train(script)
        with _served(Board(folder / "outputs", Settings(), find_runs)) as (url, function):
            _timed_ticks(watchdog, 40)
            alone = _timed_ticks(watchdog, 100)
            arguments = [sys.executable, "-m", "tests.bench.pages", url, str(function), "10", "26"]
            pages = subprocess.Popen(arguments)
            time.sleep(3)
            beside = _timed_ticks(watchdog, 100)
            pages.wait()
            again = _timed_ticks(watchdog, 100)
    finally:
        watchdog.stop()
        clean_up(folder)
    usual = statistics.median(alone + again)
    with_ten = statistics.median(beside)
    return {
        "a tick of the watchdog, ms: no page": f"{usual:.2f} (median), {_p95(alone + again):.2f} (p95)",
        "a tick of the watchdog, ms: ten pages": f"{with_ten:.2f} (median), {_p95(beside):.2f} (p95)   "
        f"limit {LIMITS['slower']:g} times   {_met(with_ten <= LIMITS['slower'] * usual)}",
    }


def _timed_ticks(watchdog: Watchdog, ticks: int) -> list[float]:
    times = []
    for _ in range(ticks):
        began = time.perf_counter()
        watchdog.tick(time.monotonic())
        times.append(1000 * (time.perf_counter() - began))
        time.sleep(0.2)
    return times


def _row(name: str, values: list[float] | list[int], limit: float, *, most: bool) -> dict[str, object]:
    judged = max(values) if most else statistics.median(values)
    what = "most" if most else "median"
    text = f"median {statistics.median(values):.4g}, p95 {_p95(values):.4g}, most {max(values):.4g}"
    return {name: f"{text}   limit {limit:g} ({what})   {_met(judged <= limit)}"}


def _p95(values: list[float] | list[int]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def _met(met: object) -> str:
    return "met" if met else "MISSED"
