"""The runs beside the one that is shown: a page must not stay silent about one of them that needs a look."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from fluxgym_watchdog.records import RunState
from fluxgym_watchdog.store import FOLDER, Store
from fluxgym_watchdog.tab.words import STATES

RECENT_S = 24 * 3600.0
"""What has happened longer ago than that is no news."""


class Others:
    """The states of all runs, each read again only when its record has changed. Not safe for threads."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[int, RunState, float | None]] = {}

    def in_need(self, runs: Mapping[str, Path]) -> dict[str, str]:
        """The names of the runs that are stuck, or have failed within the last day, with their states in words."""
        states = {name: self._state(folder) for name, folder in runs.items()}
        return {name: STATES[state][0] for name, state in states.items() if state and STATES[state][1] == "bad"}

    def _state(self, run_folder: Path) -> RunState | None:
        try:
            written_ns = os.stat(f"{run_folder}/{FOLDER}/run.json").st_mtime_ns  # noqa: PTH116 - asked for every run
        except OSError:
            return None
        if time.time() - written_ns / 1e9 > RECENT_S:
            return None
        kept = self._kept.get(run_folder)
        if kept is None or kept[0] != written_ns:
            record, _ = Store(run_folder).read_record()
            ended_at = record.attempt.ended_at if record and record.attempt else None
            kept = self._kept[run_folder] = written_ns, record.state if record else RunState.IDLE, ended_at
        _, state, ended_at = kept
        return state if ended_at is None or time.time() - ended_at <= RECENT_S else None  # the folder may be a copy
