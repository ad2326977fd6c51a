"""The table of legal moves: one test per edge, and every move that is not in it raises."""

from __future__ import annotations

from itertools import product

import pytest

from fluxgym_watchdog.judge.lifecycle import TRANSITIONS, IllegalMove, move
from fluxgym_watchdog.records import LIVE_STATES, RunState
from fluxgym_watchdog.records import RunState as S

EDGES = [(a, b) for a, targets in TRANSITIONS.items() for b in targets]
MISSING = [(a, b) for a, b in product(RunState, RunState) if (a, b) not in EDGES]
DESIGNED = [
    (S.IDLE, S.STARTING),
    (S.STARTING, S.TRAINING),
    (S.TRAINING, S.SUSPECT),
    (S.SUSPECT, S.TRAINING),
    (S.SUSPECT, S.STALLED),
    (S.STALLED, S.STOPPING),
    (S.STOPPING, S.WAITING),
    (S.WAITING, S.STARTING),
    (S.TRAINING, S.FINISHED),
    (S.TRAINING, S.CRASHED),
    (S.CRASHED, S.WAITING),
    *((live, end) for live, end in product(LIVE_STATES, (S.STOPPED, S.FAILED))),
]
"""The graph that the documentation draws."""


def name(edge: tuple[RunState, RunState]) -> str:
    return f"{edge[0].value}-{edge[1].value}"


@pytest.mark.parametrize("edge", EDGES, ids=name)
def test_a_legal_move(edge: tuple[RunState, RunState]) -> None:
    assert move(*edge) is edge[1]


@pytest.mark.parametrize("edge", MISSING, ids=name)
def test_an_illegal_move_raises_and_names_both_states(edge: tuple[RunState, RunState]) -> None:
    with pytest.raises(IllegalMove, match=f"from {edge[0].value} to {edge[1].value}"):
        move(*edge)


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(RunState)


@pytest.mark.parametrize("edge", DESIGNED, ids=name)
def test_the_documented_graph_is_contained(edge: tuple[RunState, RunState]) -> None:
    """Directly, or through waiting (where every start passes) or stopping (where processes are ended)."""
    state, to = edge
    through = [between for between in (S.WAITING, S.STOPPING) if between in TRANSITIONS[state]]
    assert to in TRANSITIONS[state] or any(to in TRANSITIONS[between] for between in through)


def test_a_finished_run_is_never_started_by_itself() -> None:
    """Only `waiting`, which a user's resume enters, leads on; no judgement moves a finished run."""
    assert not TRANSITIONS[S.FINISHED] & {S.STARTING, S.STOPPING, S.STALLED, S.SUSPECT, S.CRASHED}


@pytest.mark.parametrize("state", list(RunState))
def test_no_state_is_a_dead_end(state: RunState) -> None:
    reached = {state}
    while more := {to for found in reached for to in TRANSITIONS[found]} - reached:
        reached |= more
    assert S.TRAINING in reached
