"""The bench of resuming measures what it says, and can come out badly."""

from __future__ import annotations

import sys

import pytest

from tests.bench.resume import ASKED, LAYOUTS, PROJECT, RESUME, one


@pytest.mark.skipif(sys.platform == "win32", reason="the bench is for POSIX")
def test_this_project_is_exact_where_resume_alone_trains_too_much() -> None:
    layout = next(iter(LAYOUTS))
    ours, rival = (one(1, layout, 2, rule) for rule in (PROJECT, RESUME))
    assert (ours.executed, ours.attempts) == (ASKED, 3)
    assert rival.executed == ASKED + 120
    assert ours.lost == rival.lost
