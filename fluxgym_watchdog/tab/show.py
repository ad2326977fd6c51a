"""What a page shows, as facts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fluxgym_watchdog.tab.words import sendable

PARTS = ("card", "checkpoints", "timeline", "gpu", "training", "log", "log_now", "settings", "host")
"""The parts that are HTML, in the order they are sent: first what is read first."""


_PASSING = re.compile(r"(form='ago'>|form='until'>)[^'<]*")
"""What the page's script keeps up to date by itself: for that alone nothing need be sent."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part's HTML, how many bytes it takes, and a mark that is another when there is something new in it."""

    html: str = ""
    size_bytes: int = 0
    mark: str = ""


def part(html: str) -> Part:
    """The HTML as a part."""
    html = sendable(html)
    size_bytes = len(html.encode())
    passing = "form='ago'" in html or "form='until'" in html  # looked for in a moment
    lasting = (_PASSING.sub(r"\1", html) if passing else html).encode()
    return Part(html, size_bytes, f"{zlib.crc32(lasting):x}.{len(lasting)}")


class Drawn:
    """Parts as they were made last, each kept until what it shows has changed. Not safe for threads."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Part]] = {}

    def part(self, name: str, key: object, make: Callable[[], str]) -> Part:
        """The part of that name; made anew if its key is another than the last time."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            kept = self._kept[name] = (key, part(make()))
        return kept[1]


@dataclass(frozen=True, slots=True)
class Show:
    """What a page shows: its run (None: there is none), the runs to pick from, each part, the controls."""

    name: str | None
    names: tuple[str, ...]
    parts: Mapping[str, Part]
    auto_resume: bool = True
    may_switch: bool = False
    may_stop: bool = False
    may_resume: bool = False
