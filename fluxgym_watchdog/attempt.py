"""One attempt under watch: look at it, and judge what is seen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from fluxgym_watchdog.act.launch import LOG_NAME, read_exit_code
from fluxgym_watchdog.judge import crash, progress, stall
from fluxgym_watchdog.judge.warnings import warnings
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.observe.processes import ProcessReader
from fluxgym_watchdog.observe.run import RunObserver
from fluxgym_watchdog.observe.trainlog import LogFollower
from fluxgym_watchdog.records import Attempt, Checkpoint, Finding, FindingKind, RunRecord, Snapshot
from fluxgym_watchdog.settings import Settings


class AttemptWatch:
    """Follows one attempt. `popen` is the process to reap if it was started here; `snapshot` is what was seen last.

    `silent`: its script sends the output elsewhere, so there is no log to judge by.
    """

    def __init__(
        self,
        run_folder: Path,
        attempt: Attempt | None,
        processes: ProcessReader,
        checkpoints: CheckpointReader,
        gpu: GpuReader,
        popen: subprocess.Popen[bytes] | None = None,
        *,
        silent: bool = False,
    ) -> None:
        self.processes = processes
        self.finding = Finding(FindingKind.HEALTHY, "")
        self.snapshot: Snapshot | None = None
        self._run_folder, self._attempt, self._popen = run_folder, attempt, popen
        self._pulse: progress.Pulse | None = None
        self._seen_checkpoints: set[str] = set()
        self._looked = False
        log = None
        if attempt is not None and attempt.supervised and not silent:
            log = LogFollower(run_folder / LOG_NAME, attempt.log_offset)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._observer = RunObserver(run_folder, processes, log, checkpoints, gpu, self.exit_code, visible)

    def look(self, now: float, clock: float, record: RunRecord, settings: Settings) -> tuple[Snapshot, Finding]:
        """Looks once, at monotonic time `now` which is `clock` on the wall, and judges."""
        if record.attempt is not None and self._attempt is not None and record.attempt.number == self._attempt.number:
            self._attempt = record.attempt  # where it began may have become known
        self.snapshot = snapshot = self._observer.look(now, clock, settings.check_interval)
        if self._pulse is None:
            self._pulse = progress.begin(snapshot, record.learned)
        else:
            self._pulse = progress.listen(self._pulse, snapshot, settings)
        if snapshot.tree.training_alive:
            self.finding = stall.judge(self._pulse, snapshot, settings)
        else:
            self.finding = crash.judge_end(snapshot, self._files_since)
        return snapshot, self.finding

    def exit_code(self) -> int | None:
        """How the attempt's top process ended; None while it runs, or where nobody knows. Reaps it."""
        code = self._popen.poll() if self._popen is not None else None
        if code is None and self._attempt is not None and self._attempt.supervised:
            code = read_exit_code(self._run_folder, self._attempt.number)
        return code

    def new_checkpoints(self) -> list[Checkpoint]:
        """The sound checkpoints that this attempt has written since this was asked last."""
        found = [c for c in self.snapshot.checkpoints if c.sound] if self.snapshot else []
        new = [c for c in found if c.stamp not in self._seen_checkpoints]
        self._seen_checkpoints |= {c.stamp for c in new}
        # What was not there at the first look is this attempt's, also if the clock has been set back since.
        launched_here, self._looked = self._popen is not None and self._looked, True
        return [c for c in new if launched_here or c.saved_at >= self._files_since]

    def warnings(self, paces_s: Iterable[float]) -> tuple[str, ...]:
        """What its owner should know although nothing must be done; `paces_s` are the newest seconds per step."""
        return warnings(self._pulse, self.snapshot, paces_s) if self._pulse and self.snapshot else ()

    @property
    def _files_since(self) -> float:
        return (self._attempt.files_since or self._attempt.started_at) if self._attempt else 0.0

    @property
    def step(self) -> int:
        """The step of the run, over all attempts, that this one has reached."""
        if self._attempt is None:
            return 0
        seen = self.snapshot.log if self.snapshot else None
        return self._attempt.first_step + seen.step if seen is not None else self._attempt.last_step

    @property
    def silence_s(self) -> float:
        """Seconds since it last advanced."""
        return self._pulse.seen_at - self._pulse.advanced_at if self._pulse else 0.0

    @property
    def learned(self) -> dict[str, float]:
        """The longest normal silence by phase, in seconds."""
        return dict(self._pulse.longest) if self._pulse else {}
