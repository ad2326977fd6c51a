"""The tab's bench runs, and its pages are sent what a browser would be."""

from __future__ import annotations

from pathlib import Path

from tests.bench import tab


def test_a_few_ticks_of_the_bench(tmp_path: Path) -> None:
    found = tab._ticks(tab.World(tmp_path / "outputs", seed=1), ticks=16)
    assert str(found["parts sent where nothing changed"]).startswith("0 ")
    assert "met" in str(found["at all: bytes a tick"])
    assert str(found["looks computed before any page was open"]).startswith("0 ")
