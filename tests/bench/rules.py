"""The three rules that are compared. Each is told the same looks and says when it would act, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fluxgym_watchdog.judge import crash, progress, restart, stall
from fluxgym_watchdog.records import Attempt, DecisionKind, FindingKind, RunRecord, RunState, Snapshot
from fluxgym_watchdog.settings import Settings


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first thing that a rule does: stop (a hang), crashed, or finished; and the cause it names."""

    at: float
    kind: str
    cause: str = ""


class Rule(Protocol):
    """A rule under test: `hear` returns its verdict at the look in which it acts, and is not called again after it."""

    name: str

    def hear(self, at: float, snapshot: Snapshot) -> Verdict | None:
        """What it does at this look; None: nothing."""


class Watchdog:
    """This project at its default settings: progress, stall, crash and restart, as a supervised attempt calls them."""

    name = "this project"

    def __init__(self) -> None:
        self.suspicions = 0
        self._settings = Settings()
        self._pulse: progress.Pulse | None = None
        self._suspect = False
        self._record: RunRecord | None = None

    def hear(self, at: float, snapshot: Snapshot) -> Verdict | None:
        if self._record is None:
            began = Attempt(1, snapshot.at)
            self._record = RunRecord("run", RunState.TRAINING, attempts=(began,))
        if self._pulse is None:
            self._pulse = progress.begin(snapshot, {})
        else:
            self._pulse = progress.listen(self._pulse, snapshot, self._settings)
        if snapshot.tree.training_alive:
            finding = stall.judge(self._pulse, snapshot, self._settings)
        else:
            finding = crash.judge_end(snapshot, self._record.attempts[0].started_at)
        decision = restart.decide(self._record, finding, self._settings, 0.0)
        suspect = finding.kind is FindingKind.SUSPECT
        self.suspicions += suspect and not self._suspect
        self._suspect = suspect
        if decision.kind is DecisionKind.STOP_AND_RESTART:
            return Verdict(at, "stop")
        if finding.kind is FindingKind.CRASHED:
            return Verdict(at, "crashed", finding.cause)
        return Verdict(at, "finished") if decision.kind is DecisionKind.FINISH else None


class Seed:
    """The script that this project grew out of, by its documents: every 30 s the first GPU of nvidia-smi; under 5 %
    starts a timer, 5 % or more clears it, an error counts as not stuck; 300 s are "stuck". It asks nothing else."""

    name = "seed rule"

    def __init__(self) -> None:
        self._next_check: float | None = None
        self._idle_since: float | None = None
        self.timer_began_at: float | None = None

    def hear(self, at: float, snapshot: Snapshot) -> Verdict | None:
        now = snapshot.monotonic_at
        if self._next_check is not None and now < self._next_check:
            return None
        self._next_check = now + 30.0
        seen = snapshot.gpu.gpus[0].utilization_percent if snapshot.gpu.gpus else None
        if seen is None or seen >= 5.0:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since, self.timer_began_at = now, at
        return Verdict(at, "stop") if now - self._idle_since >= 300.0 else None


class FixedTimeout:
    """30 minutes without progress, as the process group timeout of common trainers; a launcher sees the exit code."""

    name = "fixed 30 min"

    def __init__(self) -> None:
        self._beat: object = None
        self._since = 0.0

    def hear(self, at: float, snapshot: Snapshot) -> Verdict | None:
        if not snapshot.tree.training_alive:
            return Verdict(at, "finished" if snapshot.tree.exit_code == 0 else "crashed")
        # It sits inside the trainer, so it sees progress where no log does.
        beat = snapshot.log.advances if snapshot.log else max(p.write_bytes or 0 for p in snapshot.tree.processes)
        if beat != self._beat:
            self._beat, self._since = beat, snapshot.monotonic_at
        return Verdict(at, "stop") if snapshot.monotonic_at - self._since >= 1800.0 else None
