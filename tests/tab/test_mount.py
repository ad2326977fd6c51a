"""mount(): what FluxGym's page is given, over a watchdog that has a problem of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fluxgym_watchdog
from fluxgym_watchdog import tab
from fluxgym_watchdog.settings import Settings


def test_the_tab_is_told_what_is_wrong_with_the_settings_and_with_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "watchdog.yaml").write_text("stuck_treshold: 5\n", encoding="utf-8")
    told: list[Callable[[], str]] = []
    monkeypatch.setattr(tab, "build", lambda *arguments: told.append(arguments[-2]))
    running: dict[Path, Any] = {}
    monkeypatch.setattr(fluxgym_watchdog, "_running", running)
    fluxgym_watchdog.mount(tmp_path)
    (problem,) = told
    watchdog, _ = running[tmp_path]
    try:
        assert "stuck_treshold" in problem()
        assert problem().endswith("The defaults are used.")
        watchdog.problem = "The watchdog failed at x."
        assert "stuck_treshold" in problem()
        assert problem().endswith("The watchdog failed at x.")
        watchdog.problem = ""
        assert problem().endswith("The defaults are used.")
    finally:
        watchdog.stop()


def test_settings_that_were_changed_in_the_page_are_in_use_and_the_files_problem_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "watchdog.yaml").write_text("stuck_treshold: 5\n", encoding="utf-8")
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tab, "build", lambda *arguments: given.append(arguments))
    running: dict[Path, Any] = {}
    monkeypatch.setattr(fluxgym_watchdog, "_running", running)
    fluxgym_watchdog.mount(tmp_path)
    *_, problem, use = given[0]
    watchdog, _ = running[tmp_path]
    try:
        use(Settings(stuck_threshold=120.0))
        assert watchdog.settings == Settings(stuck_threshold=120.0)
        assert problem() == ""
    finally:
        watchdog.stop()
