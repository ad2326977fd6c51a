"""What a page shows, as facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PARTS = ("card", "gpu", "training", "timeline", "checkpoints", "log", "log_now", "settings", "host")
"""The parts that are HTML, in the order they are sent."""


@dataclass(frozen=True, slots=True)
class Show:
    """What a page shows: its run (None: there is none), the runs to pick from, the HTML of each part, the controls."""

    name: str | None
    names: tuple[str, ...]
    parts: Mapping[str, str]
    auto_resume: bool = True
    may_switch: bool = False
    may_stop: bool = False
    may_resume: bool = False
