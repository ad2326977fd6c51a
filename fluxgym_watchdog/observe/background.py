"""Asks something that may hang, without hanging with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Background(Generic[Answer]):
    """Puts one question at a time in a thread of its own.

    A driver that hangs keeps that one thread, in the kernel and beyond any signal; the asker goes on and can say for
    how long no answer has come. The question itself must not raise.
    """

    def __init__(
        self,
        question: Callable[[], Answer],
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] | None = None,
        name: str = "asking",
    ) -> None:
        """`start` runs a function in the background; tests may run it at once, or never. `name` is the thread's."""
        self._question = question
        self._clock = clock
        self._start = start or (lambda run: threading.Thread(target=run, name=name, daemon=True).start())
        self._answered = threading.Event()
        self._answered.set()
        self._answer: tuple[float, Answer] | None = None
        self._asked_at = -float("inf")

    def ask(self, every_s: float = 0.0) -> None:
        """Asks, unless the last question is still open or was asked less than `every_s` seconds ago."""
        now = self._clock()
        if self._answered.is_set() and now - self._asked_at >= every_s:
            self._asked_at = now
            self._answered.clear()
            try:
                self._start(self._run)
            except RuntimeError:  # no more threads: as good as no answer
                self._answered.set()

    def answer(self, wait_s: float = 0.0) -> Answer | None:
        """The newest answer, after waiting at most `wait_s` seconds for the open question; None before the first."""
        self._answered.wait(wait_s)
        return self._answer[1] if self._answer else None

    @property
    def is_open(self) -> bool:
        """Whether a question is under way. Where none is and there is no answer, it could not even be asked."""
        return not self._answered.is_set()

    @property
    def waiting_s(self) -> float:
        """For how many seconds the open question has had no answer; 0 where none is open."""
        return 0.0 if self._answered.is_set() else max(0.0, self._clock() - self._asked_at)

    @property
    def age_s(self) -> float:
        """How old the newest answer is, in seconds; infinite before the first."""
        return self._clock() - self._answer[0] if self._answer else float("inf")

    def _run(self) -> None:
        try:
            answer = self._question()
            self._answer = (self._clock(), answer)
        finally:
            self._answered.set()
