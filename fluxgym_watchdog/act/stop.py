"""Ends a training's processes, and proves that they are gone. The only place that signals a process.

Processes are addressed by identity (pid and create time). A process group is signalled only if we made it: a training
that FluxGym itself started shares FluxGym's group, and killing that kills FluxGym. Nothing is found by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum

import psutil

from fluxgym_watchdog.observe.processes import find
from fluxgym_watchdog.records import Process, ProcessId

UNKILLABLE_AFTER_S = 30.0
"""A process that is still there so long after KILL sleeps in the kernel (state D): only the driver or disk wakes it."""
GPU_RELEASE_LIMIT_S = 60.0
"""The driver frees a dead process's memory within seconds; longer than this and its bookkeeping is wrong."""


class StopPhase(str, Enum):
    """How far a stop has come."""

    ASKED = "asked to end"
    KILLED = "killed"
    UNKILLABLE = "cannot be killed"
    RELEASING = "gone, GPU memory not yet free"
    DONE = "gone"


@dataclass(slots=True)
class Stop:
    """One stop in progress, moved on by `advance` once a tick; it never blocks.

    `find_all` returns every process of the run that lives now: the tree, and strays that left it. `on_gpu` returns the
    pids that hold GPU memory. `group` is the process group that we made for the attempt, or None. `asked` fills with
    the processes that were signalled; `left` are those still there.
    """

    find_all: Callable[[], Iterable[Process | ProcessId]]
    on_gpu: Callable[[], Collection[int]]
    group: int | None
    grace_s: float
    began_at: float
    phase: StopPhase = StopPhase.ASKED
    killed_at: float | None = None
    gone_at: float | None = None
    asked: set[ProcessId] = field(default_factory=set)
    left: tuple[ProcessId, ...] = ()

    def advance(self, now: float) -> StopPhase:
        """Does the next step at monotonic time `now`. DONE: every process is gone and its GPU memory is free."""
        self.left = self._find_left()
        if not self.left:
            self.gone_at = now if self.gone_at is None else self.gone_at
            held = {p.pid for p in self.asked} & set(self.on_gpu())
            waited_long = now - self.gone_at >= GPU_RELEASE_LIMIT_S
            self.phase = StopPhase.RELEASING if held and not waited_long else StopPhase.DONE
        elif now - self.began_at < self.grace_s:
            fresh = [p for p in self.left if p not in self.asked]
            self.asked.update(fresh)
            _signal(fresh, self.group, signal.SIGTERM)
            if os.name != "nt":
                _signal(fresh, self.group, signal.SIGCONT)  # a stopped process heeds TERM only once it goes on
        else:
            self.killed_at = now if self.killed_at is None else self.killed_at
            self.asked.update(self.left)
            _signal(self.left, self.group, getattr(signal, "SIGKILL", signal.SIGTERM))
            stuck = now - self.killed_at >= UNKILLABLE_AFTER_S
            self.phase = StopPhase.UNKILLABLE if stuck else StopPhase.KILLED
        return self.phase

    def _find_left(self) -> tuple[ProcessId, ...]:
        identities = {p.id if isinstance(p, Process) else p for p in self.find_all()}
        return tuple(sorted(p for p in identities if find(p) is not None))


def _signal(processes: Collection[ProcessId], group: int | None, number: int) -> None:
    alone = [p for p in processes if group is None or _group_of(p) != group]
    if group is not None and len(alone) < len(processes):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone meanwhile; advance() reports who is left
            os.killpg(group, number)
    for identity in alone:
        process = find(identity)
        if process is not None and identity.pid != os.getpid():
            with contextlib.suppress(psutil.Error):  # gone meanwhile, or not permitted; likewise
                process.send_signal(number)


def _group_of(identity: ProcessId) -> int | None:
    if os.name == "nt" or find(identity) is None:
        return None
    try:
        return os.getpgid(identity.pid)
    except (ProcessLookupError, PermissionError):
        return None
