"""Everything about one run at one tick, gathered into a Snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.gpu import GpuReader, gpus_of_run
from fluxgym_watchdog.observe.machine import read_host
from fluxgym_watchdog.observe.processes import ProcessReader
from fluxgym_watchdog.observe.trainlog import LogFollower
from fluxgym_watchdog.records import Checkpoint, ProcessTree, Snapshot


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

    def look(self, now: float, clock: float) -> Snapshot:
        """The snapshot at monotonic time `now`, which is `clock` on the wall."""
        # The exit code first: a training that ends between the two reads then looks alive for one more tick, instead
        # of dead without an exit code.
        exit_code = self._exit_code()
        tree = ProcessTree(self.processes.read(now), exit_code)
        # What has ended has said its last word: all of it is read before it is judged.
        progress = self._log.poll(everything=not tree.training_alive) if self._log else None
        reading = self._gpu.read()
        return Snapshot(
            monotonic_at=now,
            at=clock,
            tree=tree,
            log=progress,
            gpu=reading,
            run_gpus=gpus_of_run(reading, [p.id.pid for p in tree.processes], self._visible_gpus),
            checkpoints=self.checkpoints(),
            final_weights_at=self._checkpoints.final_weights_at(),
            host=read_host(self._run_folder),
        )

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The run's checkpoints as they are now."""
        return self._checkpoints.read()
