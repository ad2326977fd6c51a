"""Starting an attempt: whether it may begin now, from where, and with which options."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from fluxgym_watchdog.act import launch
from fluxgym_watchdog.act import script as train_script
from fluxgym_watchdog.judge import restart
from fluxgym_watchdog.observe.machine import boot_id, read_host
from fluxgym_watchdog.observe.processes import find
from fluxgym_watchdog.records import Attempt, Checkpoint, CheckpointKind, GpuReading, ProcessId, RunRecord, StartPoint
from fluxgym_watchdog.settings import Settings


def waits_for(record: RunRecord, run_folder: Path, checkpoints: Sequence[Checkpoint], gpu: GpuReading) -> str:
    """The condition that must clear before the next attempt, in words; '' where nothing is in the way."""
    sizes = [c.size_bytes for c in checkpoints if c.kind is CheckpointKind.STATE]
    return restart.not_ready(record.cause, read_host(run_folder), gpu, max(sizes, default=0))


def first_point(
    record: RunRecord, checkpoints: Sequence[Checkpoint], folder: Path, settings: Settings, chosen: str | None
) -> StartPoint | None:
    """Where the next attempt goes on; None where it cannot."""
    return next(iter(restart.start_points(record, checkpoints, folder, settings, chosen)), None)


def ahead_of(point: StartPoint, record: RunRecord, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The stamps of the checkpoints that hold a later step than a starting point."""
    return tuple(
        c.stamp for c in checkpoints if (restart.absolute_step(c, record.steps_per_epoch) or 0) > point.first_step
    )


def begins_anew(trainer: ProcessId) -> bool:
    """Whether a trainer that something else started trains from nothing, as its command line tells."""
    process = find(trainer)
    try:
        words = process.cmdline() if process is not None else []
    except psutil.Error:
        return False  # then older checkpoints may be its own: nothing is thrown away on a guess
    return not any(w.split("=")[0] in ("--resume", "--network_weights") for w in words)


def planned(record: RunRecord, point: StartPoint, run_folder: Path, began_at: float, *, fresh: bool) -> Attempt:
    """The attempt as it is recorded before anything is started: who takes over in between must know of it."""
    return Attempt(
        len(record.attempts) + 1,
        began_at,
        launch.log_size(run_folder),
        point.first_step,
        point.first_step,
        fresh=fresh or (record.attempt is None and point.checkpoint is None),
        resumed_from=point.checkpoint,
        boot_id=boot_id(),
    )


def start(
    attempt: Attempt, point: StartPoint, run_folder: Path, cwd: Path, script: train_script.Script, settings: Settings
) -> tuple[Attempt, subprocess.Popen[bytes]]:
    """Starts a planned attempt; returns it with what is known now, and the process to reap. Raises OSError."""
    saving = launch.saving_options(script, save_states=settings.save_states, keep_states=settings.keep_states)
    content = train_script.with_options(script, [*saving, *point.options])
    banner = f"[FluxGym Watchdog] attempt {attempt.number}, {point.text}"
    started = launch.launch(run_folder, cwd, attempt.number, content, banner, os.environ)
    attempt = replace(attempt, process=started.id, log_offset=started.log_offset, files_since=started.files_since)
    return attempt, started.process
