"""A timeline as a watcher sees it: one Snapshot a tick, with a simulated clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from fluxgym_watchdog.observe.logparser import LogParser
from fluxgym_watchdog.records import (
    Gpu,
    GpuReading,
    LogProgress,
    Phase,
    Process,
    ProcessId,
    ProcessTree,
    Role,
    Snapshot,
)
from tests.bench.world import BAR_BYTES, Stretch, Timeline

CHECK_INTERVAL_S = 2.0
BEGAN_AT = 1_750_000_000.0
GPU_BYTES = 24_000_000_000
_NO_GPU = GpuReading(problem="No GPU can be read.")
_LOST_GPU = GpuReading(problem="NVML has given no answer for 60 s", expected=True)


@dataclass(slots=True)
class _Lived:
    """What the run has done up to now."""

    cpu_s: float = 3.0
    io_bytes: float = 5e6
    written: float = 1000.0
    beats: int = 0
    beats_seen: int = 0
    steps: int = 0


def looks(timeline: Timeline) -> Iterator[tuple[float, Snapshot]]:
    """Pairs of the run's own time and what is seen then, every two seconds, until nobody watches any more."""
    rng = random.Random(timeline.seed)
    lived, at_stretch, into = _Lived(), 0, 0.0
    at, shift_monotonic, shift_wall = 0.0, 0.0, 0.0
    sleeps, steps = list(timeline.sleeps), list(timeline.clock_steps)
    while at < timeline.watched_s:
        length = CHECK_INTERVAL_S * rng.uniform(1.0, 1.02)
        left = length
        while left > 0 and at_stretch < len(timeline.stretches):
            here = timeline.stretches[at_stretch]
            piece = min(left, here.length_s - into)
            lived.cpu_s += here.cpu * piece
            lived.io_bytes += here.io * piece
            into, left = into + piece, left - piece
            if into >= here.length_s - 1e-9:
                at_stretch, into = at_stretch + 1, 0.0
                if here.beat:
                    _beat(lived, here)
        at += length
        while sleeps and sleeps[0][0] <= at:
            _, slept, counted = sleeps.pop(0)
            shift_wall += slept
            shift_monotonic += slept if counted else 0.0
        while steps and steps[0][0] <= at:
            shift_wall += steps.pop(0)[1]
        if any(begin <= at < end for begin, end in timeline.frozen):
            continue
        here = timeline.stretches[min(at_stretch, len(timeline.stretches) - 1)]
        yield at, _look(timeline, lived, here, at, at + shift_monotonic, BEGAN_AT + at + shift_wall, rng)


def _beat(lived: _Lived, ended: Stretch) -> None:
    lived.beats += 1
    lived.written += BAR_BYTES
    if ended.phase is Phase.TRAINING:
        lived.steps += 1


def _look(
    timeline: Timeline, lived: _Lived, here: Stretch, at: float, monotonic: float, wall: float, rng: random.Random
) -> Snapshot:
    ended = timeline.ended_at is not None and at >= timeline.ended_at
    fell = timeline.label == "crash" and timeline.fault_at is not None and at >= timeline.fault_at
    tree = ProcessTree((), timeline.exit_code) if ended else _tree(timeline, lived, here, trainer=not fell)
    gpu, own = _gpu(timeline, here, at, rng, gone=ended or fell)
    return Snapshot(
        monotonic_at=monotonic,
        at=wall,
        tree=tree,
        log=_log(timeline, lived, here, at, ended or fell),
        gpu=gpu,
        run_gpus=own,
        final_weights_at=wall - 60 if ended and timeline.model_saved else None,
    )


def _tree(timeline: Timeline, lived: _Lived, here: Stretch, *, trainer: bool) -> ProcessTree:
    shell = Process(ProcessId(10, 1.0), 1, Role.WRAPPER, "bash", "sleeping", 0.01, 9000, 100, wchan="do_wait")
    launcher = Process(ProcessId(11, 2.0), 10, Role.LAUNCHER, "python", "sleeping", 2.5, 80_000_000, 2000)
    if here.phase is Phase.DOWNLOAD or not trainer:
        busy = Process(
            ProcessId(11, 2.0), 10, Role.LAUNCHER, "python", here.trainer, lived.cpu_s, int(lived.io_bytes), 2000
        )
        return ProcessTree((shell, busy))
    seen = timeline.trait.waits_seen
    wait, worker_wait = (here.trainer_wait, here.worker_wait) if seen else ("", "")
    main = Process(
        id=ProcessId(12, 3.0),
        parent_pid=11,
        role=Role.TRAINER,
        name="python",
        status="running" if here.cpu > 0.5 and here.trainer == "sleeping" else here.trainer,
        cpu_s=lived.cpu_s,
        read_bytes=int(lived.io_bytes),
        write_bytes=int(lived.written),
        wchan=wait or ("poll_schedule_timeout" if seen and here.cpu <= 0.5 else ""),
    )
    workers: tuple[Process, ...] = ()
    if lived.steps or here.phase in (Phase.FIRST_STEP, Phase.TRAINING):
        idle = "pipe_read" if seen else ""
        workers = (
            Process(ProcessId(13, 4.0), 12, Role.WORKER, "python", here.worker, 0.5, 10, 10, wchan=worker_wait or idle),
            Process(ProcessId(14, 4.0), 12, Role.WORKER, "python", "sleeping", 0.5, 10, 10, wchan=idle),
        )
    return ProcessTree((shell, launcher, main, *workers))


def _gpu(
    timeline: Timeline, here: Stretch, at: float, rng: random.Random, *, gone: bool
) -> tuple[GpuReading, tuple[Gpu, ...]]:
    if not timeline.gpu_readable:
        return _NO_GPU, ()
    if timeline.gpu_unseen and timeline.gpu_unseen[0] <= at < timeline.gpu_unseen[1]:
        return _LOST_GPU, ()
    own = 0.0 if gone else here.gpu
    if 0 < own < 100:
        own = min(100.0, max(0.0, own * rng.uniform(0.8, 1.1)))
        if rng.random() < 0.05:  # a look between two kernels
            own = rng.uniform(0, 10)
    if timeline.other_program and timeline.other_program[0] <= at < timeline.other_program[1]:
        own = max(own, rng.uniform(0, 4) if rng.random() < 0.05 else rng.uniform(20, 100))
    share = here.memory if here.memory is not None else timeline.trait.memory
    used = 500_000_000 if gone else int(share * GPU_BYTES)
    gpu = Gpu(timeline.gpu_index, f"GPU-{timeline.gpu_index}", "GPU", own, used, GPU_BYTES)
    if timeline.gpu_index == 0:
        return GpuReading("nvml", (gpu,), expected=True), (gpu,)
    first = Gpu(0, "GPU-0", "GPU", 0.0, 500_000_000, GPU_BYTES)
    return GpuReading("nvml", (first, gpu), expected=True), (gpu,)


def _log(timeline: Timeline, lived: _Lived, here: Stretch, at: float, over: bool) -> LogProgress | None:
    if not timeline.log:
        return None
    if timeline.log_unseen and timeline.log_unseen[0] <= at < timeline.log_unseen[1] and not over:
        problem = "training.log: cannot be read: I/O error"
        return LogProgress(here.phase, lived.steps, advances=lived.beats_seen, problem=problem)
    lived.beats_seen = lived.beats
    lines: tuple[str, ...] = ()
    if over and timeline.last_text:
        parser = LogParser()
        parser.feed(timeline.last_text)
        lines = parser.progress.last_lines
    return LogProgress(
        phase=here.phase,
        step=lived.steps,
        advances=lived.beats,
        resumed=timeline.resumed,
        model_saved=over and timeline.model_saved,
        last_lines=lines,
    )
