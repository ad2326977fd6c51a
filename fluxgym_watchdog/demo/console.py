"""What the stand-in trainer says: log lines laid out as rich does it, and progress bars redrawn as tqdm does it."""

from __future__ import annotations

import math
import os
import sys
import time
import unicodedata

TIME_COLUMN = 20
LEVEL_COLUMN = 9
REDRAW_INTERVAL_S = 0.1
"""tqdm does not redraw a bar more often than this, unless the text behind the bar is set."""
BAR_CELLS = 10
EIGHTHS = " ▏▎▍▌▋▊▉█"


class Console:
    """stdout for plain lines, stderr for log lines; both unbuffered, so that their order in one file is the real one.

    A log line is laid out in `COLUMNS` columns (80 without that variable): the time if it changed, the level, the
    message wrapped in its column, the source at the right edge. Long paths are cut in the middle of a word, which is
    why nobody should look for paths in such a log without a wide `COLUMNS`.
    """

    def __init__(self) -> None:
        self._columns = int(os.environ.get("COLUMNS") or 80)
        self._last_time = ""

    def line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def info(self, message: str, source: str, level: str = "INFO") -> None:
        """Log `message`; `source` is the `file.py:line` shown at the right."""
        now = time.strftime("%Y-%m-%d %H:%M:%S ")
        shown_time, self._last_time = ("" if now == self._last_time else now), now
        width = max(8, self._columns - TIME_COLUMN - LEVEL_COLUMN - 1 - len(source))
        first, *rest = wrap(message, width)
        rows = [f"{shown_time:{TIME_COLUMN}}{level:{LEVEL_COLUMN}}{_padded(first, width)} {source}"]
        rows += [" " * (TIME_COLUMN + LEVEL_COLUMN) + _padded(text, width) + " " * (1 + len(source)) for text in rest]
        sys.stderr.write("\n".join(rows) + "\n")
        sys.stderr.flush()

    def warning(self, message: str, source: str) -> None:
        self.info(message, source, "WARNING")


class Bar:
    """A progress bar on stderr that is redrawn over itself with a carriage return and never ends its line before
    `close`: whatever is written next is glued to it."""

    def __init__(self, total: int, label: str = "") -> None:
        self.total = total
        self.count = 0
        self._label = f"{label}: " if label else ""
        self._behind = ""
        self._started = time.monotonic()
        self._drawn_at = self._started
        self._drawn_length = 0
        self.draw()

    def advance(self) -> None:
        self.count += 1
        if time.monotonic() - self._drawn_at >= REDRAW_INTERVAL_S:
            self.draw()

    def show_loss(self, average: float) -> None:
        self._behind = f", avr_loss={average:.3g}"
        self.draw()

    def draw(self) -> None:
        self._drawn_at = time.monotonic()
        text = self._text(self._drawn_at - self._started)
        sys.stderr.write("\r" + text.ljust(self._drawn_length))
        sys.stderr.flush()
        self._drawn_length = len(text)

    def close(self) -> None:
        self.draw()
        sys.stderr.write("\n")
        sys.stderr.flush()

    def _text(self, elapsed_s: float) -> str:
        share = self.count / self.total if self.total > 0 else 0.0
        pace, left = "?it/s", "?"
        if self.count and elapsed_s > 0:
            rate = self.count / elapsed_s
            pace = f"{rate:5.2f}it/s" if rate >= 1 else f"{1 / rate:5.2f}s/it"
            left = _interval((self.total - self.count) / rate)
        return (
            f"{self._label}{share * 100:3.0f}%|{_bar(share)}| {self.count}/{self.total} "
            f"[{_interval(elapsed_s)}<{left}, {pace}{self._behind}]"
        )


def wrap(text: str, width: int) -> list[str]:
    """`text` broken into rows of at most `width` terminal cells: between words, and inside a word longer than that."""
    rows: list[str] = []
    for paragraph in text.split("\n"):
        row = ""
        for word in paragraph.split(" "):
            joined = f"{row} {word}" if row else word
            if _cells(joined) <= width:
                row = joined
                continue
            if row:
                rows.append(row)
            rest = word
            while _cells(rest) > width:
                end = len(rest)
                while _cells(rest[:end]) > width:
                    end -= 1
                rows.append(rest[:end])
                rest = rest[end:]
            row = rest
        rows.append(row)
    return rows


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))


def _bar(share: float) -> str:
    eighths = math.floor(max(0.0, min(1.0, share)) * BAR_CELLS * 8)
    full, part = divmod(eighths, 8)
    return (EIGHTHS[-1] * full + (EIGHTHS[part] if full < BAR_CELLS else "")).ljust(BAR_CELLS)


def _interval(seconds: float) -> str:
    minutes, second = divmod(int(max(0.0, seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute:02d}:{second:02d}"
