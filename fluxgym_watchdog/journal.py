"""What a supervised run leaves in writing: its record, its timeline, its samples, and what the last tick saw.

A disk that cannot be written to must not disturb the training: it is said once, and again when it works.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

from fluxgym_watchdog.observe.evidence import gather
from fluxgym_watchdog.records import (
    Checkpoint,
    Event,
    Finding,
    FindingKind,
    Phase,
    RunRecord,
    RunState,
    Sample,
    Saves,
    Snapshot,
    Status,
)
from fluxgym_watchdog.store import Store

SAMPLE_EVERY_S = 2.0
PACE_STEPS = 40
"""Seconds per step are the median over about so many looks in which a step was made."""
UNWRITTEN_EVENTS = 200
"""How many lines of the timeline are kept for a disk that cannot be written to at the moment."""
GATHERING_LIMIT_S = 45.0
"""A closer look that takes longer is not waited for: a hung training must be ended."""
WATCHED = frozenset({RunState.STARTING, RunState.TRAINING, RunState.SUSPECT, RunState.STALLED, RunState.STOPPING})
"""States in which the processes last seen may still be there."""
LEVELS = {"bad": logging.ERROR, "act": logging.WARNING}


class Journal:
    """Keeps one run's record, and writes what happens to the store and to the log of this program."""

    def __init__(self, store: Store, record: RunRecord, clock: Callable[[], float]) -> None:
        self.record = record
        self.problem = ""
        self._store, self._clock = store, clock
        self._logger = logging.getLogger(f"fluxgym_watchdog.run.{record.name}")
        self._paces: deque[tuple[float, int]] = deque(maxlen=PACE_STEPS)
        self._warned: set[str] = set()
        self._gathering: threading.Thread | None = None
        self._gathering_since = 0.0
        self._sampled_at = float("-inf")
        self._unwritten: deque[Event] = deque(maxlen=UNWRITTEN_EVENTS)
        self._record_written = self._samples_written = self._status_written = True

    def change(self, **changes: Any) -> None:
        """Changes the record, and writes it if it became another."""
        if any(getattr(self.record, name) != value for name, value in changes.items()):
            self.record = record = replace(self.record, **changes)
            self._record_written = self._write(lambda: self._store.write_record(record))

    def change_attempt(self, **changes: Any) -> None:
        """Changes the newest attempt in the record."""
        attempt = self.record.attempt
        if attempt is not None:
            self.change(attempts=(*self.record.attempts[:-1], replace(attempt, **changes)))

    def tell(self, kind: str, text: str, tone: str = "info", evidence: Mapping[str, object] | None = None) -> None:
        """Puts a line on the timeline and on the console."""
        attempt = self.record.attempt
        event = Event(self._clock(), kind, text, tone, attempt.number if attempt else 0, evidence or {})
        self._logger.log(LEVELS.get(tone, logging.INFO), "%s", text)
        self._unwritten.append(event)
        self._write_events()

    def new_attempt(self) -> None:
        """Forgets the pace and the warnings of the attempt before."""
        self._paces.clear()
        self._warned.clear()

    def warn(self, texts: Iterable[str]) -> None:
        """Puts warnings on the timeline, each once an attempt."""
        for text in texts:
            self.tell_once(text, "warning", text)

    def tell_once(self, what: str, kind: str, text: str) -> None:
        """Puts a line on the timeline, unless one about the same was put there in this attempt."""
        if what not in self._warned:
            self._warned.add(what)
            self.tell(kind, text, "act")

    def gather(self, snapshot: Snapshot) -> str:
        """Begins a closer look in the background, since it takes seconds; returns the name of its folder."""
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(self._clock()))
        self._gathering_since = time.monotonic()
        self._gathering = threading.Thread(target=self._gather, args=(name, snapshot), daemon=True)
        self._gathering.start()
        return f"evidence/{name}"

    @property
    def gathering(self) -> bool:
        """Whether a closer look is under way: the processes that it looks at are still needed."""
        if self._gathering is None or not self._gathering.is_alive():
            return False
        return time.monotonic() - self._gathering_since < GATHERING_LIMIT_S

    @property
    def paces_s(self) -> tuple[float, ...]:
        """The newest seconds per step, the newest last."""
        return tuple((t1 - t0) / (s1 - s0) for (t0, s0), (t1, s1) in pairwise(self._paces))

    @property
    def pace_s(self) -> float | None:
        """The usual seconds per step in this attempt."""
        paces_s = self.paces_s
        return median(paces_s) if paces_s else None

    def _gather(self, name: str, snapshot: Snapshot) -> None:
        try:
            self._store.write_evidence(name, gather(snapshot))
        except Exception:  # the edge of a thread: the training's fate does not hang on its evidence
            self._logger.exception("The evidence could not be gathered.")

    def sample(self, snapshot: Snapshot, step: int) -> None:
        """Adds the tick to samples.csv, at most every two seconds."""
        if not self._paces or step > self._paces[-1][1]:
            self._paces.append((snapshot.monotonic_at, step))
        if snapshot.monotonic_at - self._sampled_at < SAMPLE_EVERY_S:
            return
        self._sampled_at = snapshot.monotonic_at
        loss = snapshot.log.loss if snapshot.log else None
        own = {p.id.pid for p in snapshot.tree.processes}
        rows = [
            Sample(
                snapshot.at,
                g.index,
                g.utilization_percent,
                g.memory_used_bytes,
                g.memory_total_bytes,
                g.temperature_c,
                g.power_w,
                g.power_limit_w,
                step,
                loss,
                sum(used for pid, used in g.processes.items() if pid in own) or None,
            )
            for g in snapshot.gpu.gpus
        ]
        empty = Sample(snapshot.at, -1, None, None, None, None, None, None, step, loss)
        self._samples_written = self._write(lambda: self._keep(rows or [empty]))

    def _keep(self, samples: list[Sample]) -> None:
        if problem := self._store.append_samples(samples):
            self.tell("problem", problem, "bad")

    def status(
        self,
        snapshot: Snapshot | None,
        finding: Finding,
        step: int,
        silence_s: float,
        problem: str,
        checkpoints: tuple[Checkpoint, ...],
        saves: Saves | None,
        interval_s: float,
    ) -> None:
        """Writes what this tick saw into status.json; `checkpoints` are placed (judge.resume)."""
        self._catch_up()
        record, progress = self.record, snapshot.log if snapshot else None
        attempt = record.attempt
        seen = Status(
            at=self._clock(),
            state=record.state,
            finding=finding.kind,
            text=record.reason or finding.text,
            phase=progress.phase if progress else Phase.UNKNOWN,
            attempt=attempt.number if attempt else 0,
            step=step,
            total_steps=record.total_steps,
            epoch=progress.epoch if progress else None,
            epochs=progress.epochs if progress else None,
            loss=progress.loss if progress else None,
            seconds_per_step=self.pace_s,
            heartbeat_at=self._clock() - silence_s if snapshot else None,
            count=progress.count if progress else 0,
            count_total=progress.count_total if progress else None,
            processes=len(snapshot.tree.processes) if snapshot and record.state in WATCHED else 0,
            gpu_source=snapshot.gpu.source if snapshot else "none",
            gpus=snapshot.gpu.gpus if snapshot else (),
            checkpoints=checkpoints,
            host=snapshot.host if snapshot else None,
            saves=saves,
            interval_s=interval_s,
            next_start_at=record.next_start_at,
            problem=" ".join(p for p in (problem, self.problem, _blindness(finding)) if p),
            gpu_problem=snapshot.gpu.problem if snapshot and not snapshot.gpu.gpus else "",
        )
        self._status_written = self._write(lambda: self._store.write_status(seen))

    def checkpoints(self, found: tuple[Checkpoint, ...]) -> None:
        """Writes which checkpoints are there now, for whoever looks at a run that is not looked at any more."""
        self._write(lambda: self._store.write_checkpoints(found))

    def _catch_up(self) -> None:
        """Writes what could not be written before, and says so when all of it is."""
        if not self._record_written:
            record = self.record
            self._record_written = self._write(lambda: self._store.write_record(record))
        self._write_events()
        caught_up = self._record_written and self._samples_written and self._status_written and not self._unwritten
        if self.problem and caught_up:
            self._logger.warning("Writing to %s works again.", self._store.folder)
            self.problem = ""

    def _write_events(self) -> None:
        while self._unwritten:
            event = self._unwritten[0]
            if not self._write(lambda e=event: self._store.append_event(e)):  # type: ignore[misc]
                break
            self._unwritten.popleft()

    def _write(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            if not self.problem:
                self._logger.error("Cannot write to %s: %s. The training is not disturbed.", self._store.folder, error)
            self.problem = f"Cannot write to {self._store.folder}: {error}."
            return False
        return True


def _blindness(finding: Finding) -> str:
    return f"The watchdog {finding.text}." if finding.kind is FindingKind.BLIND else ""
