"""A training's output as text: splitting it, cleaning it, finding progress bars in it.

tqdm redraws a bar with a carriage return alone, and whatever is written next is glued to it; rich colours its lines,
adds links, and wraps them at the terminal's width. So text is split at CR and LF alike, cleaned of escape sequences,
and searched, never matched from a line's start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PIECE_LIMIT = 65_536
"""Characters after which a piece without an end is cut, so that no output can fill the memory."""


ShownLine = tuple[str, "str | None"]
"""A line as it is shown, and the label of the bar in it; None for a line that is no bar's."""


class Splitter:
    """Splits text that comes in any chunks at CR and LF; `rest` is the piece that has not ended yet."""

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """The pieces that ended with this text, without their ends, without empty ones."""
        *ended, rest = _END.split(self.rest + text)
        while len(rest) > PIECE_LIMIT:
            ended.append(rest[:PIECE_LIMIT])
            rest = rest[PIECE_LIMIT:]
        self.rest = rest
        return [cut for piece in ended for cut in _cut(piece)]


@dataclass(frozen=True, slots=True)
class Bar:
    """One redraw of a progress bar.

    `label` is the text before it ("steps:", "" for an unnamed bar). `count` and `total` are what it shows, with k, M
    and G as thousands, millions and so on; `total` is None for a bar that does not know its end. `tail` is what stands
    in its brackets: the bar's own clock, rate and loss.
    """

    label: str
    count: int
    total: int | None
    tail: str

    @property
    def counts_steps(self) -> bool:
        """Whether this is the bar of training steps; sampling and validation draw bars of their own."""
        return self.label.endswith("steps:") and not self.label.endswith("validation steps:")


def clean(piece: str) -> str:
    """The piece without colours, links, cursor moves and control characters, and without blanks at its end."""
    return _CONTROL.sub("", _ESCAPE.sub("", piece)).rstrip()


def bars_and_text(cleaned: str) -> list[Bar | str]:
    """What a cleaned piece holds, in order: bars, and the text that was glued to them."""
    parts: list[Bar | str] = []
    at = 0
    for found in _BAR.finditer(cleaned):
        before = cleaned[at : found.start()]
        label = before.strip()
        # A bar's name is short, on one line with it, and ends in a colon: anything else was glued to it.
        if label and not label.endswith(":"):
            parts.append(before)
            label = ""
        parts.append(
            Bar(
                label=label,
                count=_number(found["count"] or found["count_alone"]),
                total=_number(found["total"]) if found["total"] else None,
                tail=found["tail"],
            )
        )
        at = found.end()
    if cleaned[at:].strip():
        parts.append(cleaned[at:])
    return parts


def display_lines(pieces: Iterable[str]) -> list[ShownLine]:
    """The pieces as lines to show, each with its bar's label, or None for a line that is no bar's.

    Text glued to a bar becomes a line of its own. The gap that rich leaves before a source's name on a wide terminal
    is closed.
    """
    lines: list[ShownLine] = []
    for piece in pieces:
        cleaned = clean(piece)
        ends = [found.end() for found in _BAR.finditer(cleaned)]
        at = 0
        for end in [*ends, len(cleaned)]:
            line = cleaned[at:end].rstrip()
            if line.strip():
                label = next((part.label for part in bars_and_text(line) if isinstance(part, Bar)), None)
                lines.append((_WIDE_GAP.sub("  ", line), label))
            at = end
    return lines


def keep_newest(lines: list[ShownLine], line: str, label: str | None, limit: int) -> None:
    """Adds a line to the newest `limit` ones; of a bar that is being redrawn only the newest redraw stays."""
    if label is not None:
        for at in range(len(lines) - 1, -1, -1):
            if lines[at][1] is None:
                break
            if lines[at][1] == label:
                del lines[at]
                break
    lines.append((line, label))
    del lines[:-limit]


_END = re.compile(r"[\r\n]")
_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|\x1b?$)"  # links (OSC 8), window titles
    r"|\x1b\[[0-?]*[ -/]*(?:[@-~]|$)"  # colours, cursor moves
    r"|\x1b(?:[()][0-9A-B]?|[ -~]|$)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_WIDE_GAP = re.compile(r"(?<=\S) {20,}(?=\S)")
_BAR = re.compile(
    r"(?:"
    r"\d{1,3}%\|[^|]*\| *(?P<count>\d[\d.]*[kMGTP]?)i?B?/(?P<total>\d[\d.]*[kMGTP]?)i?B?"
    r"|(?<![\d.\w])(?P<count_alone>\d[\d.]*[kMGTP]?)(?:it|B|iB)"
    r") \[(?P<tail>\d[^\[\]]*)\]"
)
_SCALE = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


def _cut(piece: str) -> Iterable[str]:
    return (piece[at : at + PIECE_LIMIT] for at in range(0, len(piece), PIECE_LIMIT))


def _number(shown: str) -> int:
    digits, scale = (shown[:-1], _SCALE[shown[-1]]) if shown[-1] in _SCALE else (shown, 1)
    try:
        return round(float(digits) * scale)
    except (ValueError, OverflowError):  # "1.2.3", or hundreds of digits: no bar of tqdm's
        return 0
