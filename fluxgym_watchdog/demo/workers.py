"""The stand-in's data loader workers: forked children with the trainer's own command line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LOOK_FOR_PARENT_S = 1.0
LINGER_S = 3.0
"""Real workers notice only after some seconds that their trainer is gone, and hold its log open until then."""


class Workers:
    """Children that hand a batch to the trainer when it asks. A stopped child makes the trainer wait for ever, a
    killed one makes it raise, as with real ones."""

    def __init__(self, count: int) -> None:
        how = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        multiprocessing.set_start_method(how, force=True)
        self._children: list[tuple[BaseProcess, Connection]] = []
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            child = multiprocessing.Process(target=_serve, args=(theirs, ours, os.getpid(), how == "fork"), daemon=True)
            child.start()
            theirs.close()
            self._children.append((child, ours))

    @property
    def pids(self) -> list[int]:
        return [child.pid or 0 for child, _ in self._children]

    def fetch(self, batch: int) -> None:
        """Wait for the worker whose turn it is. Raises RuntimeError if that one is dead."""
        if not self._children:
            return
        child, connection = self._children[batch % len(self._children)]
        try:
            connection.send(batch)
            connection.recv()
        except (EOFError, OSError) as gone:
            child.join(LINGER_S)
            code = child.exitcode or 0
            if code < 0:
                name = signal.strsignal(-code)
                raise RuntimeError(f"DataLoader worker (pid {child.pid}) is killed by signal: {name}. ") from gone
            raise RuntimeError(f"DataLoader worker (pid(s) {child.pid}) exited unexpectedly") from gone


def _serve(connection: Connection, other_end: Connection, trainer_pid: int, forked: bool) -> None:
    if forked:
        other_end.close()
    while os.getppid() == trainer_pid:
        try:
            if connection.poll(LOOK_FOR_PARENT_S):
                connection.send(connection.recv())
        except (EOFError, OSError):
            break
    time.sleep(LINGER_S)
