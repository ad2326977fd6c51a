"""Everything that was read of one run, and what its controls may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluxgym_watchdog.records import LIVE_STATES, Event, RunRecord, RunState, Sample, Status
from fluxgym_watchdog.settings import Settings

STALE_TICKS = 3
STALE_LEAST_S = 20.0
"""A status is stale after so many ticks, but not before so many seconds: one tick may have to stop a training."""

_RESUMABLE = frozenset({RunState.STALLED, RunState.WAITING, RunState.STOPPED, RunState.FAILED, RunState.CRASHED})


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was read of one run.

    `stale`: it should be watched and has not been looked at for too long; `held`: somebody holds its lock all the same
    (looked up only where it is stale).
    """

    name: str
    record: RunRecord | None = None
    problem: str = ""
    status: Status | None = None
    events: Sequence[Event] = ()
    samples: Sequence[Sample] = ()
    requests: Sequence[Mapping[str, Any]] = ()
    log: Sequence[str] = ()
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

    def may_stop(self) -> bool:
        """Whether Stop would do anything."""
        return self.live and not self.pending("stop")

    def may_resume(self) -> bool:
        """Whether Resume would do anything: the training has not finished, and is over, stuck or unwatched."""
        return (self.state in _RESUMABLE or (self.stale and not self.held)) and not self.pending("resume")


def is_stale(state: RunState, status: Status | None, settings: Settings, now: float) -> bool:
    """Whether a run that should be watched has not been looked at for too long."""
    limit_s = max(STALE_LEAST_S, STALE_TICKS * settings.check_interval)
    return state in LIVE_STATES and (status is None or now - status.at > limit_s)
