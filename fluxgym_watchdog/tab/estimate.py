"""How long a run still takes: a robust median of its steps, with saving, sampling and loading counted in. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluxgym_watchdog.records import Attempt, RunState, Status
from fluxgym_watchdog.tab.history import History
from fluxgym_watchdog.tab.series import Pace

_COUNTED = frozenset({RunState.STARTING, RunState.TRAINING, RunState.WAITING})
"""States in which the training will go on by itself; of one that is stuck or stopped nobody knows."""


@dataclass(frozen=True, slots=True)
class Left:
    """The time that a run still takes in seconds, as of the last look: the median, and a likely range."""

    seconds: float
    low_s: float
    high_s: float


def left(
    state: RunState, status: Status, pace: Pace | None, history: History, attempts: Sequence[Attempt]
) -> Left | None:
    """What is left of a run in this state, or None where nothing can be said."""
    if state not in _COUNTED or not status.total_steps:
        return None
    if pace is None and not status.seconds_per_step:
        return None
    of_step = pace or Pace(*[status.seconds_per_step or 0.0] * 3)
    before = 0.0
    attempt = attempts[-1] if attempts else None
    if state is RunState.WAITING:
        before = max(0.0, (status.next_start_at or status.at) - status.at) + loading_s(history, attempts)
    elif attempt is not None and status.step <= attempt.first_step:
        before = max(0.0, loading_s(history, attempts) - (status.at - attempt.started_at))
    steps = max(0, status.total_steps - status.step)
    low, median, high = (
        before + steps * (s + of_step.pauses_s) for s in (of_step.low_s, of_step.median_s, of_step.high_s)
    )
    return Left(median, low, high)


def loading_s(history: History, attempts: Sequence[Attempt]) -> float:
    """What the attempts so far took until their first step, in seconds: the median; 0 where none got there."""
    at, step = history.column("at"), history.column("step")
    took = []
    for attempt in attempts:
        end = attempt.ended_at or np.inf
        stepped = at[(at >= attempt.started_at) & (at < end) & (step > attempt.first_step)]
        if len(stepped):
            took.append(float(stepped[0]) - attempt.started_at)
    return statistics.median(took) if took else 0.0
