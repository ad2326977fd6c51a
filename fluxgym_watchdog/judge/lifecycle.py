"""A run's life: the one table of legal moves.

idle → starting → training ⇄ suspect → stalled → stopping → waiting → starting …
training → finished | crashed → waiting → starting …      any → stopped (by the user) | failed (given up)

Every start passes through `waiting`, and whatever may still have processes is ended through `stopping`. `training` is
entered from a resting state when a training is taken over that something else started.
"""

from __future__ import annotations

from fluxgym_watchdog.records import RunState as S

TRANSITIONS: dict[S, frozenset[S]] = {
    S.IDLE: frozenset({S.WAITING, S.TRAINING}),  # training: taken over while already running
    S.STARTING: frozenset({S.TRAINING, S.CRASHED, S.FINISHED, S.STOPPING, S.FAILED}),
    S.TRAINING: frozenset({S.SUSPECT, S.STALLED, S.CRASHED, S.FINISHED, S.STOPPING}),
    S.SUSPECT: frozenset({S.TRAINING, S.STALLED, S.CRASHED, S.FINISHED, S.STOPPING}),
    S.STALLED: frozenset({S.TRAINING, S.CRASHED, S.FINISHED, S.STOPPING}),
    S.STOPPING: frozenset({S.WAITING, S.STOPPED, S.FAILED, S.FINISHED}),
    S.CRASHED: frozenset({S.STOPPING, S.WAITING, S.TRAINING}),
    S.WAITING: frozenset({S.STARTING, S.STOPPED, S.FAILED, S.FINISHED}),
    S.FINISHED: frozenset({S.WAITING, S.TRAINING}),
    S.STOPPED: frozenset({S.WAITING, S.TRAINING}),
    S.FAILED: frozenset({S.WAITING, S.TRAINING}),
}


class IllegalMove(RuntimeError):
    """A move that the table does not know: a defect of ours, never of the run."""


def move(state: S, to: S) -> S:
    """The new state. Raises IllegalMove where the table has no such edge."""
    if to not in TRANSITIONS[state]:
        raise IllegalMove(f"a run cannot go from {state.value} to {to.value}")
    return to
