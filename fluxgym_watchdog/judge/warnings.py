"""What a run's owner should know although nothing must be done about it: warnings, never a reason to stop a run.

Each is a function from a look to a sentence, or ''. They are listed in `WARNINGS`, each with the reason for its rule.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

from fluxgym_watchdog.judge.progress import Pulse
from fluxgym_watchdog.judge.stall import LEARNED_AFTER_GAPS, spills
from fluxgym_watchdog.records import Phase, Snapshot

HOG_SHARE = 0.2
"""A desktop and a browser hold up to a tenth of a GPU's memory; a fifth is another model."""
SLOW_FACTOR = 4.0
"""Steps vary by buckets and throttling up to 2.5 times; four times the median is another state of the machine."""
FIRST_STEP_LATE_S = 600.0
"""A first step takes seconds to two minutes; ten minutes at a busy GPU were reported only with memory spilling."""
LOW_MEMORY_SHARE = 0.03


def warnings(pulse: Pulse, snapshot: Snapshot, paces_s: Iterable[float] = ()) -> tuple[str, ...]:
    """All that should be said at this look, in plain words; the same words as long as the same is wrong.

    `paces_s` are the newest seconds per step, the newest last (empty where they are not kept).
    """
    paces = tuple(paces_s)
    return tuple(text for warn in WARNINGS if (text := warn(pulse, snapshot, paces)))


def gpu_hog(_: Pulse, snapshot: Snapshot, __: tuple[float, ...]) -> str:
    """Another program's model on the same GPU: it slows every step and is the usual reason for memory running out.

    Only where the driver tells processes apart and knows ours: in a container it tells the host's pids.
    """
    ours = {p.id.pid for p in snapshot.tree.processes}
    for gpu in snapshot.run_gpus:
        if not ours & set(gpu.processes) or not gpu.memory_total_bytes:
            continue
        others = {pid: used for pid, used in gpu.processes.items() if pid not in ours}
        pid, used = max(others.items(), key=lambda found: found[1], default=(0, 0))
        if used >= HOG_SHARE * gpu.memory_total_bytes:
            gigabytes = round(used / 1e9)
            return f"Another program (pid {pid}) holds about {gigabytes} GB of GPU {gpu.index}: it slows the training."
    return ""


def spilling(pulse: Pulse, snapshot: Snapshot, paces: tuple[float, ...]) -> str:
    """Video memory spilling into RAM (Windows drivers): GPU 100 %, memory full, steps far above the run's own median.

    FluxGym issues 249, 426: no step for 45 to 60 minutes. A restart meets the same memory, so nothing is stopped.
    """
    if not spills(pulse, snapshot):
        return ""
    silence = pulse.seen_at - pulse.advanced_at
    slow_first = pulse.phase is Phase.FIRST_STEP and silence >= FIRST_STEP_LATE_S
    slow_steps = False
    if pulse.phase is Phase.TRAINING and len(paces) > LEARNED_AFTER_GAPS:
        slow_steps = max(paces[-1], silence) >= SLOW_FACTOR * statistics.median(paces[:-1])
    if slow_first or slow_steps:
        return (
            "Video memory is full and the GPU is busy, but steps take far too long: the driver moves memory into RAM. "
            "A restart would not help; a smaller VRAM preset, resolution or batch size, or fewer other programs would."
        )
    return ""


def not_a_number(_: Pulse, snapshot: Snapshot, __: tuple[float, ...]) -> str:
    """The trainer goes on with a loss of NaN, and trains nothing (sd-scripts issues 1464, 1846)."""
    if snapshot.log is not None and snapshot.log.loss is not None and math.isnan(snapshot.log.loss):
        return "The loss is not a number: nothing is learned any more. Lower the learning rate, or train in bf16."
    return ""


def low_memory(_: Pulse, snapshot: Snapshot, __: tuple[float, ...]) -> str:
    """The kernel ends the trainer when RAM and swap run out (FluxGym issues 78, 417)."""
    host = snapshot.host
    if host is None:
        return ""
    free = host.memory_available_bytes + host.swap_total_bytes - host.swap_used_bytes
    if free < LOW_MEMORY_SHARE * host.memory_total_bytes:
        return "RAM and swap are nearly used up: the system may end the training. Close other programs."
    return ""


WARNINGS: tuple[Callable[[Pulse, Snapshot, tuple[float, ...]], str], ...] = (
    gpu_hog,
    spilling,
    not_a_number,
    low_memory,
)
