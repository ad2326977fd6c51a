"""Everything about one run at one tick, gathered into a Snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.gpu import GpuReader, gpus_of_run
from fluxgym_watchdog.observe.machine import read_host
from fluxgym_watchdog.observe.processes import ProcessReader
from fluxgym_watchdog.observe.trainlog import LogFollower
from fluxgym_watchdog.records import Checkpoint, Host, ProcessTree, Snapshot

HOST_EVERY_S = 5.0
"""Memory and disk change slowly; asking for them costs as much as a process."""
FILE_TICKS = 5
FILES_EVERY_S = 10.0
"""Files are looked at every so many ticks or seconds, what comes first: a checkpoint comes every few minutes."""
CHECKPOINT_DUTY = 50
"""Looking through thousands of checkpoints takes a tenth of a second: at most a fiftieth of the time goes into it."""


class RunObserver:
    """Looks at one attempt of a run: its processes, its part of the log, its files, the GPUs and the machine."""

    def __init__(
        self,
        run_folder: Path,
        processes: ProcessReader,
        log: LogFollower | None,
        checkpoints: CheckpointReader,
        gpu: GpuReader,
        exit_code: Callable[[], int | None],
        visible_gpus: str | None,
    ) -> None:
        self.processes = processes
        self._run_folder, self._log, self._checkpoints, self._gpu = run_folder, log, checkpoints, gpu
        self._exit_code, self._visible_gpus = exit_code, visible_gpus
        self._host: Host | None = None
        self._host_due = self._checkpoints_due = float("-inf")
        self._seen: tuple[Checkpoint, ...] = ()
        self._final_weights_at: float | None = None

    def look(self, now: float, clock: float, interval_s: float) -> Snapshot:
        """The snapshot at monotonic time `now`, which is `clock` on the wall; the next one comes in `interval_s`."""
        # The exit code first: a training that ends between the two reads then looks alive for one more tick, instead
        # of dead without an exit code.
        exit_code = self._exit_code()
        tree = ProcessTree(self.processes.read(now), exit_code)
        # What has ended has said its last word: all of it is read before it is judged.
        progress = self._log.poll(everything=not tree.training_alive) if self._log else None
        reading = self._gpu.read()
        every_s = min((FILE_TICKS - 0.5) * interval_s, FILES_EVERY_S)
        self._look_at_files(now, every_s, at_once=not tree.training_alive)
        return Snapshot(
            monotonic_at=now,
            at=clock,
            tree=tree,
            log=progress,
            gpu=reading,
            run_gpus=gpus_of_run(reading, [p.id.pid for p in tree.processes], self._visible_gpus),
            checkpoints=self._seen,
            final_weights_at=self._final_weights_at,
            host=self._host,
        )

    def _look_at_files(self, now: float, every_s: float, *, at_once: bool) -> None:
        if at_once or now >= self._checkpoints_due:
            begun = time.perf_counter()
            self._seen = self._checkpoints.read()
            self._final_weights_at = self._checkpoints.final_weights_at()
            took = time.perf_counter() - begun
            self._checkpoints_due = now + max(every_s, CHECKPOINT_DUTY * took)
        if now >= self._host_due:
            self._host, self._host_due = read_host(self._run_folder), now + HOST_EVERY_S
