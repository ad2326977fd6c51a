"""The pulse of a run: when it last advanced, when it last showed life, and how long its normal silences are.

Progress is the heartbeat: a step or a caching count rose, a phase was reached, a checkpoint was written. Signs of
life (a busy GPU, CPU time or disk use of the tree) are weaker: a spinning process has them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fluxgym_watchdog.records import Phase, ProcessId, Snapshot
from fluxgym_watchdog.settings import Settings

CPU_LIFE = 0.05
"""Share of one core, over a tick, that counts as a sign of life; a hung tree measures 0 %."""
IO_LIFE_BYTES_PER_S = 100_000
"""Read and written bytes a second that count as disk use; idle bookkeeping stays far below."""
UNSEEN_LIMIT_S = 15.0
UNSEEN_TICKS = 5
"""A longer gap between two looks (suspended machine, frozen thread) was not watched and does not count as silence."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What judgement remembers from tick to tick. All times are monotonic seconds.

    `longest` maps a phase to its longest normal silence so far, in seconds; `gaps` counts the silences between steps
    that this attempt has shown. `usage` holds each process's CPU seconds and I/O bytes at the last look.
    """

    seen_at: float
    advanced_at: float
    lively_at: float
    phase: Phase = Phase.UNKNOWN
    beat: tuple[object, ...] = ()
    gaps: int = 0
    longest: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[ProcessId, tuple[float, int]] = field(default_factory=dict)
    reads_disk: bool = False


def begin(snapshot: Snapshot, learned: Mapping[str, float]) -> Pulse:
    """The pulse at the first look at an attempt; `learned` is what earlier attempts of the run have taught."""
    at = snapshot.monotonic_at
    pulse = Pulse(seen_at=at, advanced_at=at, lively_at=at, longest=learned)
    return replace(pulse, phase=_phase(snapshot), beat=_beat(snapshot), usage=_usage(snapshot))


def listen(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> Pulse:
    """The pulse after one more look."""
    now = snapshot.monotonic_at
    elapsed = now - pulse.seen_at
    unseen = _unseen(elapsed, settings)
    advanced_at, lively_at = pulse.advanced_at + unseen, pulse.lively_at + unseen
    cpu_s, io_bytes = _spent(pulse.usage, snapshot)
    watched = max(elapsed, 1e-3)
    reads_disk = io_bytes / watched >= IO_LIFE_BYTES_PER_S
    if reads_disk or cpu_s / watched >= CPU_LIFE or _gpu_busy(snapshot, settings):
        lively_at = now
    phase, beat, longest, gaps = _phase(snapshot), _beat(snapshot), pulse.longest, pulse.gaps
    if beat != pulse.beat:
        silence = now - advanced_at
        if silence > longest.get(pulse.phase.value, 0.0):
            longest = {**longest, pulse.phase.value: silence}
        gaps += pulse.phase is Phase.TRAINING
        advanced_at = lively_at = now
    return Pulse(now, advanced_at, lively_at, phase, beat, gaps, longest, _usage(snapshot), reads_disk)


def _unseen(elapsed: float, settings: Settings) -> float:
    limit = max(UNSEEN_LIMIT_S, UNSEEN_TICKS * settings.check_interval)
    return elapsed - settings.check_interval if elapsed > limit else 0.0


def _phase(snapshot: Snapshot) -> Phase:
    return snapshot.log.phase if snapshot.log else Phase.UNKNOWN


def _beat(snapshot: Snapshot) -> tuple[object, ...]:
    # A checkpoint that vanishes (the trainer prunes) is no progress; a new or rewritten one is.
    newest = max((c.saved_at for c in snapshot.checkpoints), default=0.0)
    return (snapshot.log.advances if snapshot.log else 0, newest, snapshot.final_weights_at)


def _usage(snapshot: Snapshot) -> dict[ProcessId, tuple[float, int]]:
    return {p.id: (p.cpu_s or 0.0, (p.read_bytes or 0) + (p.write_bytes or 0)) for p in snapshot.tree.processes}


def _spent(before: Mapping[ProcessId, tuple[float, int]], snapshot: Snapshot) -> tuple[float, int]:
    cpu_s, io_bytes = 0.0, 0
    for process, (cpu_now, io_now) in _usage(snapshot).items():
        cpu_before, io_before = before.get(process, (0.0, 0))
        cpu_s += cpu_now - cpu_before
        io_bytes += io_now - io_before
    return cpu_s, io_bytes


def _gpu_busy(snapshot: Snapshot, settings: Settings) -> bool:
    return any(
        g.utilization_percent is not None and g.utilization_percent >= settings.gpu_threshold for g in snapshot.run_gpus
    )
