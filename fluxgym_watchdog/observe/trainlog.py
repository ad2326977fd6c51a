"""Follows a training's log file while it is written: for judgement (LogFollower) and for a reader (TextFollower).

The trainer's output is appended to the file by the operating system; nothing here ever blocks or slows the trainer.
"""

from __future__ import annotations

import codecs
import math
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from fluxgym_watchdog.observe.logparser import LogParser
from fluxgym_watchdog.observe.logtext import ShownLine, Splitter, display_lines
from fluxgym_watchdog.records import LogProgress

__all__ = ["LogFollower", "LogParser", "TextFollower"]

POLL_LIMIT_BYTES = 1_048_576
"""The most that one poll reads, so that a poll takes a bounded time; a training writes about 250 bytes a step."""
BACKLOG_LIMIT_BYTES = 4 * POLL_LIMIT_BYTES
"""Of more the middle is left out: what counts is what the training says now, and a tick must not take minutes."""


class LogFollower:
    """Reads what an attempt wrote into its log since the last poll, and says how far the training has come."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """`offset` is where in the file the attempt's part begins, in bytes."""
        self._file = _Appended(path, offset, BACKLOG_LIMIT_BYTES)
        self._parser = LogParser()
        self._progress = self._parser.progress

    def poll(self, everything: bool = False) -> LogProgress:
        """What the log says by now; reads at most 1 MiB, or 4 if `everything` is asked for. Never raises OSError.

        A file that shrank or was replaced is read again from its start, `advances` counting on. A file that is not
        there yet is no problem; one that was read before and is gone is.
        """
        new_bytes = 0
        while True:
            news = self._file.read(POLL_LIMIT_BYTES)
            if news.restarted:
                self._parser = LogParser(self._parser.progress.advances)
            self._parser.feed(news.text)
            new_bytes += news.new_bytes
            if not everything or not news.more or news.problem:
                break
        if new_bytes or news.restarted:
            self._progress = self._parser.progress
        return replace(self._progress, new_bytes=new_bytes, size_bytes=news.size_bytes, problem=news.problem)


class TextFollower:
    """Reads a log's new lines for whoever looks at it: each redraw of a bar is a line of its own, without colours."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """`offset` is where in the file to begin, in bytes."""
        self._file = _Appended(path, offset)
        self._splitter = Splitter()

    def poll(self) -> list[ShownLine]:
        """The lines completed since the last poll, of at most 1 MiB of text. Never raises OSError."""
        news = self._file.read(POLL_LIMIT_BYTES)
        if news.restarted:
            self._splitter = Splitter()
        return display_lines(self._splitter.feed(news.text))

    def rest(self) -> list[ShownLine]:
        """The last line, which nothing has ended yet, once nothing more will come."""
        rest, self._splitter = self._splitter.rest, Splitter()
        return display_lines([rest])


@dataclass(frozen=True, slots=True)
class _News:
    text: str = ""
    new_bytes: int = 0
    size_bytes: int = 0
    more: bool = False
    restarted: bool = False
    problem: str = ""


_TAIL_BYTES = 64


class _Appended:
    """Reads what is appended to a file, as text.

    The bytes before the place reached are remembered and compared: a file that was replaced is known by its content,
    since inode numbers are not stable on every network volume and a truncated file may have grown again.
    """

    def __init__(self, path: Path, offset: int, backlog_limit: float = math.inf) -> None:
        """After the first read, of a backlog of more than `backlog_limit` bytes only the end is read."""
        self._path, self._backlog_limit = path, backlog_limit
        self._offset = offset
        self._tail = b""
        self._decoder = _decoder()
        self._size = 0
        self._seen = offset > 0  # something stands before our part, so the file was there

    def read(self, limit: int) -> _News:
        try:
            news = self._read(limit)
        except FileNotFoundError:
            if not self._seen:
                return _News()
            return _News(size_bytes=self._size, problem=f"{self._path}: was there before and is gone")
        except OSError as error:
            reason = error.strerror or str(error)
            return _News(size_bytes=self._size, problem=f"{self._path}: cannot be read: {reason}")
        self._seen = True
        self._size = news.size_bytes
        return news

    def _read(self, limit: int) -> _News:
        if not stat.S_ISREG(os.stat(self._path).st_mode):  # noqa: PTH116 - opening a pipe would block
            return _News(problem=f"{self._path}: is no regular file")
        with self._path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            restarted = size < self._offset
            if not restarted and self._tail:
                file.seek(self._offset - len(self._tail))
                restarted = file.read(len(self._tail)) != self._tail
            if restarted:
                self._offset, self._tail, self._decoder = 0, b"", _decoder()
            elif self._tail and size - self._offset > self._backlog_limit:
                self._offset, self._decoder = size - int(self._backlog_limit), _decoder()
            file.seek(self._offset)
            found = file.read(max(0, min(limit, size - self._offset)))
        self._offset += len(found)
        self._tail = (self._tail + found)[-_TAIL_BYTES:]
        return _News(
            text=self._decoder.decode(found),
            new_bytes=len(found),
            size_bytes=max(size, self._offset),
            more=self._offset < size,
            restarted=restarted,
        )


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
