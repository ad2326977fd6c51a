"""Looks at a living run for the tests of the pulse: a run is told in words, the clock is fixed."""

from __future__ import annotations

from typing import Any

from fluxgym_watchdog.judge import progress, stall
from fluxgym_watchdog.judge.progress import Pulse
from fluxgym_watchdog.records import (
    Checkpoint,
    Finding,
    FindingKind,
    Gpu,
    GpuReading,
    LogProgress,
    Phase,
    Process,
    ProcessId,
    ProcessTree,
    Role,
    Snapshot,
)
from fluxgym_watchdog.settings import Settings

INTERVAL_S = 2.0


class Watch:
    """A run under watch. `pass_time` plays seconds of it and returns the last finding; attributes say what is seen."""

    def __init__(self, phase: Phase = Phase.TRAINING, learned: dict[str, float] | None = None, **seen: Any) -> None:
        self.settings = Settings(check_interval=INTERVAL_S)
        self.now, self.advances, self.cpu_s, self.io_bytes, self.written = 1000.0, 1, 10.0, 10_000, 100
        self.phase, self.cpu, self.io, self.gpu = phase, 0.0, 0.0, 0.0
        self.status, self.wchan, self.worker_status, self.worker_wchan = "sleeping", "futex_do_wait", "sleeping", ""
        self.log_readable = self.has_log = self.gpu_readable = True
        self.gpu_expected = True
        self.memory = 0.5
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.kinds: list[FindingKind] = []
        for name, value in seen.items():
            setattr(self, name, value)
        self.pulse: Pulse = progress.begin(self.snapshot(), learned or {})
        self.finding = stall.judge(self.pulse, self.snapshot(), self.settings)

    def pass_time(self, seconds: float, **seen: Any) -> Finding:
        """Plays seconds of silence."""
        for name, value in seen.items():
            setattr(self, name, value)
        for _ in range(max(1, round(seconds / INTERVAL_S))):
            self.look(INTERVAL_S)
        return self.finding

    def look(self, elapsed: float) -> Finding:
        """One look, `elapsed` seconds after the one before."""
        self.now += elapsed
        self.cpu_s += self.cpu * elapsed
        self.io_bytes += int(self.io * elapsed)
        snapshot = self.snapshot()
        self.pulse = progress.listen(self.pulse, snapshot, self.settings)
        self.finding = stall.judge(self.pulse, snapshot, self.settings)
        self.kinds.append(self.finding.kind)
        return self.finding

    def steps(self, count: int, every_s: float = 2.0) -> Watch:
        """Plays steps, with a busy GPU."""
        gpu, self.gpu = self.gpu, 95.0
        for _ in range(count):
            for _ in range(round(every_s / INTERVAL_S) - 1):
                self.look(INTERVAL_S)
            self.advance()
            self.look(INTERVAL_S)
        self.gpu = gpu
        return self

    def advance(self) -> None:
        """A sign of progress, seen at the next look."""
        self.advances += 1
        self.written += 90

    def found_after(self, at_most_s: float = 20_000) -> float:
        """How many seconds of silence it takes until the run is stalled."""
        began = self.now
        while self.now - began < at_most_s:
            if self.look(INTERVAL_S).kind is FindingKind.STALLED:
                return self.now - began
        raise AssertionError(f"not stalled within {at_most_s} s")

    def snapshot(self) -> Snapshot:
        """What is seen now."""
        trainer = Process(
            ProcessId(12, 1.0),
            11,
            Role.TRAINER,
            "python",
            self.status,
            self.cpu_s,
            self.io_bytes,
            self.written,
            wchan=self.wchan,
        )
        worker = Process(
            ProcessId(13, 1.0), 12, Role.WORKER, "python", self.worker_status, 0.0, 0, 0, wchan=self.worker_wchan
        )
        log = None
        if self.has_log:
            problem = "" if self.log_readable else "training.log: cannot be read"
            log = LogProgress(phase=self.phase, step=self.advances, advances=self.advances, problem=problem)
        gpu = Gpu(0, "GPU-0", "GPU", self.gpu, int(self.memory * 24e9), int(24e9))
        reading = GpuReading("nvml", (gpu,), expected=True) if self.gpu_readable else None
        reading = reading or GpuReading(problem="no GPU", expected=self.gpu_expected)
        return Snapshot(
            self.now, self.now, ProcessTree((trainer, worker)), log, reading, reading.gpus, self.checkpoints
        )
