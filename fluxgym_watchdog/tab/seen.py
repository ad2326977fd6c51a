"""Everything that was read of one run, and what its controls may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluxgym_watchdog.glance import Glance
from fluxgym_watchdog.judge import saves
from fluxgym_watchdog.judge.resume import may_be_chosen
from fluxgym_watchdog.records import LIVE_STATES, Checkpoint, CheckpointKind, Event, RunRecord, RunState, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.tab.history import EMPTY, History

STALE_TICKS = 3
STALE_LEAST_S = 20.0
"""A status is stale after so many ticks, but not before so many seconds: one tick may have to stop a training."""

_RESUMABLE = frozenset({RunState.STALLED, RunState.WAITING, RunState.STOPPED, RunState.FAILED, RunState.CRASHED})


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was read of one run.

    `stale`: it should be watched and has not been looked at for too long; `held`: somebody holds its lock all the same
    (looked up only where it is stale). `log` is what training.log ends with, `log_now` its unfinished last line.
    `folder_bytes` is the size of the run's folder (looked up only where it has finished). `at_rest` is a look at the
    folder of a run that was never watched, or whose train script was changed since it has finished.
    """

    name: str
    record: RunRecord | None = None
    problem: str = ""
    status: Status | None = None
    events: Sequence[Event] = ()
    history: History = EMPTY
    requests: Sequence[Mapping[str, Any]] = ()
    log: Sequence[str] = ()
    log_now: str = ""
    folder_bytes: int | None = None
    at_rest: Glance | None = None
    stale: bool = False
    held: bool = False

    @property
    def state(self) -> RunState:
        """The run's state; idle where it has no record yet."""
        return self.record.state if self.record else RunState.IDLE

    @property
    def live(self) -> bool:
        """Whether somebody should be supervising the run now."""
        return self.state in LIVE_STATES

    def pending(self, kind: str) -> Mapping[str, Any] | None:
        """The newest request of a kind that has not been taken yet."""
        return next((r for r in reversed(self.requests) if r.get("kind") == kind), None)

    def auto_resume(self, settings: Settings) -> bool:
        """What the switch shows: the value asked for, else the run's, else the setting."""
        if asked := self.pending("switch"):
            return bool(asked.get("auto_resume"))
        return self.record.auto_resume if self.record else settings.auto_resume

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints that the last tick saw, or a look at the folder of a run that nobody watches."""
        if self.at_rest is not None:
            return self.at_rest.checkpoints
        return self.status.checkpoints if self.status else ()

    def resumable(self, checkpoint: Checkpoint) -> bool:
        """Whether the training can be sent back to this checkpoint."""
        return checkpoint.kind is CheckpointKind.STATE and may_be_chosen(checkpoint)

    def deletable(self) -> list[Checkpoint]:
        """The states that may be deleted, the newest first, less those for which something was asked already."""
        asked = {stamp for request in self.requests for stamp in _stamps(request)}
        resume = self.pending("resume") or {}
        found = saves.deletable(self._record, self.checkpoints)
        return [c for c in found if c.stamp not in asked and c.name != resume.get("checkpoint")]

    def unneeded(self) -> list[Checkpoint]:
        """Of those, what can go without a thought."""
        prunable = {c.stamp for c in saves.prunable(self._record, self.checkpoints)}
        return [c for c in self.deletable() if c.stamp in prunable]

    @property
    def _record(self) -> RunRecord:
        return self.record or RunRecord(self.name)

    @property
    def asks_for_more(self) -> bool:
        """Whether the run has finished and its train script, changed since, asks for more than that."""
        return self.state is RunState.FINISHED and self.at_rest is not None and not self.at_rest.finished

    def may_stop(self) -> bool:
        """Whether Stop would do anything."""
        return self.live and not self.pending("stop")

    def may_resume(self) -> bool:
        """Whether Resume would do anything: the training has not finished, and is over, stuck or unwatched.

        One that was never watched needs a checkpoint to go on from; one that has finished, a train script that asks for
        more.
        """
        if self.pending("resume"):
            return False
        if self.at_rest is not None:
            return not self.at_rest.finished and any(may_be_chosen(c) for c in self.checkpoints)
        return self.state in _RESUMABLE or (self.stale and not self.held)


def is_stale(state: RunState, status: Status | None, now: float) -> bool:
    """Whether a run that should be watched has not been looked at for too long, by its own watchdog's interval."""
    if state not in LIVE_STATES:
        return False
    return status is None or now - status.at > max(STALE_LEAST_S, STALE_TICKS * status.interval_s)


def _stamps(request: Mapping[str, Any]) -> Sequence[str]:
    stamps = request.get("checkpoints")
    return (
        [s for s in stamps if isinstance(s, str)]
        if request.get("kind") == "delete" and isinstance(stamps, list)
        else []
    )
