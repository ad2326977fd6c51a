"""What happened, as marks on the plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fluxgym_watchdog.records import Event
from fluxgym_watchdog.tab.series import Window
from fluxgym_watchdog.tab.words import escape

WIDTH = 600
HEIGHT = 100
"""The size of every plot, in the units of its SVG."""

MARKS = 12
"""At most so many events are marked, the newest."""
MARK_TEXT = 100
"""A mark's text is cut off there; the timeline has all of it."""


class Marks:
    """The events of the window that are marked: troubles, what was done about them, and that it goes on."""

    _MEANINGS = (("bad", "trouble"), ("act", "the watchdog acts or warns"), ("ok", "it goes on"))

    def __init__(self, events: Sequence[Event], shown: Window) -> None:
        marked = [e for e in events if shown.start <= e.at <= shown.end and e.kind != "checkpoint"]
        self._events = [e for e in marked if e.tone in dict(self._MEANINGS)][-MARKS:]
        self._shown = shown

    def drawn(self, panel: str) -> str:
        """One group, which every plot of the panel uses."""
        marks = []
        for event in self._events:
            x = round((event.at - self._shown.start) / (self._shown.end - self._shown.start) * WIDTH)
            text = event.text if len(event.text) <= MARK_TEXT else event.text[: MARK_TEXT - 1] + "…"
            marks.append(
                f"<path class='wd-mark wd-{event.tone}' data-x='{x}' d='M{x} 0V{HEIGHT}m-3-{HEIGHT + 3}h6l-3 6z'>"
                f"<title>{escape(text)}</title></path>"
            )
        group = f"<g id='wd-marks-{panel}'>{''.join(marks)}</g>"
        return f"<svg class='wd-defs' width='0' height='0' aria-hidden='true'><defs>{group}</defs></svg>"

    def legend(self, others: Sequence[str]) -> str:
        """What the lines and the marks that are drawn mean."""
        tones = {e.tone for e in self._events}
        keys = [
            f"<span><i class='wd-key wd-tick wd-{tone}'></i>{meaning}</span>"
            for tone, meaning in self._MEANINGS
            if tone in tones
        ]
        return f"<p class='wd-legend wd-mut'>{''.join([*others, *keys])}</p>"
