"""The pulse of a run: when it last advanced, when it last showed life, and how long its normal silences are.

Progress is the heartbeat: a step or a caching count rose, a phase was reached, a checkpoint was written. Signs of
life (a busy GPU, CPU time or disk use of the tree) are weaker: a spinning process has them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fluxgym_watchdog.records import Phase, ProcessId, Role, Snapshot
from fluxgym_watchdog.settings import Settings

CPU_LIFE = 0.05
"""Share of one core, over a tick, that counts as a sign of life; a hung tree measures 0 %."""
IO_LIFE_BYTES_PER_S = 100_000
"""Read and written bytes a second that count as disk use; a bar's redraws (90 bytes a step) stay far below."""
UNSEEN_LIMIT_S = 15.0
UNSEEN_TICKS = 5
"""A longer gap between two looks (suspended machine, frozen thread) was not watched and does not count as silence."""
DISK_WAITS = (
    *("request_wait", "fuse", "nfs", "rpc_wait", "cifs", "smb", "p9_", "ceph", "autofs"),
    *("folio_wait", "page_bit", "io_schedule", "balance_dirty", "wait_for_partner"),
)
"""Kernel functions in which a process waits for a disk: a network disk that stands still for minutes comes back."""
PIPE_WAITS = ("pipe_write",)
"""Where a trainer hangs whose output nobody reads: there is no way back, its reader is gone."""
FORGETTING = 0.9
"""What is usual follows the newest gaps: after 22 ordinary ones a recovered hiccup counts a tenth."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What judgement remembers from tick to tick. All times are monotonic seconds.

    `advanced_at`: the last progress. `worked_at`: the last CPU time or disk use of the tree; `gpu_busy_at`: the last
    busy GPU, which may be another program's work; `moved_at`: the last disk use; `waited_at`: when it was last seen
    waiting for a disk, or might have been; `stopped_since`: since when, without a break, a process is stopped or the
    trainer waits in a pipe that nobody reads (None: none is). `look` is the last look, with the settings it was judged
    by, and `before` the pulse at the look before it, without its own `before`.

    By phase: `gaps` counts the silences that this attempt has shown, `usual` is how long the newest of them were at
    most, `longest` the longest ever, earlier attempts included; in seconds. `usage` holds each process's CPU seconds
    and I/O bytes at the last look.
    """

    seen_at: float
    advanced_at: float
    worked_at: float
    gpu_busy_at: float
    moved_at: float
    waited_at: float
    phase: Phase = Phase.UNKNOWN
    beat: tuple[object, ...] = ()
    stopped_since: float | None = None
    gaps: Mapping[str, int] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)
    longest: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[ProcessId, tuple[float, int]] = field(default_factory=dict)
    look: tuple[Snapshot, Settings] | None = None
    before: Pulse | None = None


def begin(snapshot: Snapshot, learned: Mapping[str, float]) -> Pulse:
    """The pulse at the first look at an attempt; `learned` is `longest` of the run's earlier attempts."""
    at = snapshot.monotonic_at
    pulse = Pulse(at, at, at, at, at, at, longest=learned)
    stopped_since = at if _cannot_go_on(snapshot) else None
    return replace(
        pulse, phase=_phase(snapshot), beat=_beat(snapshot), usage=_usage(snapshot), stopped_since=stopped_since
    )


def listen(pulse: Pulse, snapshot: Snapshot, settings: Settings) -> Pulse:
    """The pulse after one more look."""
    now = snapshot.monotonic_at
    elapsed = now - pulse.seen_at
    # What nobody could see is no silence, and must not be learned as a normal one.
    unseen = elapsed if snapshot.log is not None and snapshot.log.problem else _unseen(elapsed, settings)
    usage = _usage(snapshot)
    cpu_s, io_bytes = _spent(pulse.usage, usage)
    watched = max(elapsed, 1e-3)
    moves = io_bytes / watched >= IO_LIFE_BYTES_PER_S
    works = moves or cpu_s / watched >= CPU_LIFE
    beat = _beat(snapshot)
    advanced = beat != pulse.beat
    stopped_since = now if pulse.stopped_since is None else pulse.stopped_since + unseen
    heard = _learn(pulse, now - pulse.advanced_at - unseen) if advanced else pulse
    return Pulse(
        seen_at=now,
        advanced_at=now if advanced else pulse.advanced_at + unseen,
        worked_at=now if works else pulse.worked_at + unseen,
        gpu_busy_at=now if _gpu_busy(snapshot, settings) else pulse.gpu_busy_at + unseen,
        moved_at=now if moves else pulse.moved_at + unseen,
        waited_at=now if moves or _may_wait_for_disk(snapshot, idle=not works) else pulse.waited_at + unseen,
        phase=_phase(snapshot),
        beat=beat,
        stopped_since=stopped_since if _cannot_go_on(snapshot) else None,
        gaps=heard.gaps,
        usual=heard.usual,
        longest=heard.longest,
        usage=usage,
        look=(snapshot, settings),
        before=replace(pulse, before=None),
    )


def _learn(pulse: Pulse, silence: float) -> Pulse:
    phase = pulse.phase.value
    usual = max(silence, FORGETTING * pulse.usual.get(phase, 0.0))
    longest = max(silence, pulse.longest.get(phase, 0.0))
    return replace(
        pulse,
        gaps={**pulse.gaps, phase: pulse.gaps.get(phase, 0) + 1},
        usual={**pulse.usual, phase: usual},
        longest={**pulse.longest, phase: longest} if longest != pulse.longest.get(phase) else pulse.longest,
    )


def _unseen(elapsed: float, settings: Settings) -> float:
    limit = max(UNSEEN_LIMIT_S, UNSEEN_TICKS * settings.check_interval)
    return elapsed - settings.check_interval if elapsed > limit else 0.0


def _phase(snapshot: Snapshot) -> Phase:
    return snapshot.log.phase if snapshot.log else Phase.UNKNOWN


def _beat(snapshot: Snapshot) -> tuple[object, ...]:
    # A checkpoint that vanishes (the trainer prunes) is no progress; a new or rewritten one is.
    newest = max((c.saved_at for c in snapshot.checkpoints), default=0.0)
    if snapshot.log is not None:
        return (snapshot.log.advances, newest, snapshot.final_weights_at)
    # Without a log, what the trainer writes (its bar, into a pipe or terminal that is not ours) tells that it goes on.
    written = tuple((p.id, p.write_bytes) for p in snapshot.tree.processes if p.role is Role.TRAINER)
    return (written, newest, snapshot.final_weights_at)


def _usage(snapshot: Snapshot) -> dict[ProcessId, tuple[float, int]]:
    return {p.id: (p.cpu_s or 0.0, (p.read_bytes or 0) + (p.write_bytes or 0)) for p in snapshot.tree.processes}


def _spent(
    before: Mapping[ProcessId, tuple[float, int]], usage: Mapping[ProcessId, tuple[float, int]]
) -> tuple[float, int]:
    # A process that is new to us counts from its second look: it may bring the totals of a long life.
    cpu_s, io_bytes = 0.0, 0
    for process in usage.keys() & before.keys():
        (cpu_now, io_now), (cpu_before, io_before) = usage[process], before[process]
        cpu_s += cpu_now - cpu_before
        io_bytes += io_now - io_before
    return cpu_s, io_bytes


def _cannot_go_on(snapshot: Snapshot) -> bool:
    return any(
        p.status == "stopped" or (p.role is Role.TRAINER and any(wait in p.wchan for wait in PIPE_WAITS))
        for p in snapshot.tree.processes
    )


def _may_wait_for_disk(snapshot: Snapshot, *, idle: bool) -> bool:
    # Where the kernel does not tell what a process waits for (Windows, some containers), an idle tree may wait for it.
    processes = [p for p in snapshot.tree.processes if p.role in (Role.TRAINER, Role.WORKER)]
    if any(p.wchan for p in processes):
        told = any(wait in p.wchan for p in processes for wait in DISK_WAITS)
    else:
        told = idle
    return told or any(p.status == "disk-sleep" for p in processes)


def _gpu_busy(snapshot: Snapshot, settings: Settings) -> bool:
    return any(
        g.utilization_percent is not None and g.utilization_percent >= settings.gpu_threshold for g in snapshot.run_gpus
    )
