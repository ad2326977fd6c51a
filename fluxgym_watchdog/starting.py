"""Starting an attempt: whether it may begin now, from where, and with which options and environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from fluxgym_watchdog.act import launch, options
from fluxgym_watchdog.act.complete import CannotComplete, complete, describe
from fluxgym_watchdog.act.script import with_options
from fluxgym_watchdog.given import Given
from fluxgym_watchdog.judge import restart, resume, saves
from fluxgym_watchdog.observe.background import Background
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.environment import LIMIT_S, python_behind, versions
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.observe.machine import boot_id, read_host
from fluxgym_watchdog.observe.processes import find
from fluxgym_watchdog.records import (
    Asked,
    Attempt,
    Checkpoint,
    CheckpointKind,
    ProcessId,
    RunRecord,
    StartPoint,
)
from fluxgym_watchdog.settings import Settings


@dataclass(frozen=True, slots=True)
class Wait:
    """The start must wait; `text` says for what, where that is worth a word."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no way to start; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to train; `text` says what was done about it, or ''."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Go:
    """The attempt may begin at `point`; `versions` are those of the trainer's Python, as far as it was asked."""

    point: StartPoint
    versions: Mapping[str, str]


class Start:
    """One start in preparation, moved on by `advance` once a tick; it never blocks."""

    def __init__(
        self,
        run_folder: Path,
        cwd: Path,
        what: Given,
        checkpoints: CheckpointReader,
        gpu: GpuReader,
    ) -> None:
        self._run_folder, self._cwd, self._given = run_folder, cwd, what
        self._checkpoints, self._gpu = checkpoints, gpu
        self._completing: tuple[Path, Path, Background[str]] | None = None
        self._versions: Background[dict[str, str]] | None = None

    def advance(self, record: RunRecord, settings: Settings) -> Wait | Refuse | Finish | Go:
        """Does the next step for a run with that record (see `informed`)."""
        found, asked, chosen = self._checkpoints.read(), self._given.asked, record.chosen_next
        sizes = [c.size_bytes for c in found if c.kind is CheckpointKind.STATE]
        host, gpu = read_host(self._given.output_dir), self._gpu.read()
        if waits := restart.not_ready(record.cause, host, gpu, max(sizes, default=0)):
            return Wait(waits)
        if self._completing is not None:
            return self._completed(*self._completing)
        if record.fresh_next:
            return Go(resume.beginning(asked), {})
        if chosen is None:
            final_at = self._checkpoints.final_weights_at()
            if resume.nothing_left(record, found, final_at, asked):
                return Finish()
            if further := resume.trained_too_far(record, found, asked):
                asks = f"the train script asks for {record.total_steps}"
                return Refuse(
                    f"{further.name} holds step {further.step}, and {asks}: ask for more, or go on from a checkpoint"
                )
            if whole := resume.to_complete(record, found, final_at, asked):
                size = (self._given.output_dir / whole.name / "model.safetensors").stat().st_size
                if host is not None and host.disk_free_bytes < size + restart.LEAST_DISK_BYTES // 2:
                    return Wait(f"waiting for disk space to make the final weights from {whole.name}")
                self._completing = self._complete(record, whole)
                return Wait(f"making the final weights from {whole.name}")
        points = resume.start_points(record, found, self._given.output_dir, settings, asked, chosen)
        if not points:
            gone = f"it cannot be gone on from {chosen} any more: it was changed or deleted since that was asked for"
            return Refuse(gone if chosen else "there is no sound checkpoint to go on from")
        if points[0].checkpoint is None:
            return Go(points[0], {})
        answer = self._ask_versions(record)
        if answer is None:
            return Wait()
        return Go(points[0], answer)

    def _complete(self, record: RunRecord, whole: Checkpoint) -> tuple[Path, Path, Background[str]]:
        """Begins to make the final weights from the final state, in the background: there may be gigabytes to write."""
        what = self._given
        state = what.output_dir / whole.name
        target = what.output_dir / f"{what.output_name}.{what.asked.save_model_as}"
        told = self._checkpoints.trained().metadata or _told_by_script(what.asked)
        steps, epoch = whole.step or record.total_steps or 0, whole.epoch or 0
        metadata = describe(told, name=what.output_name, steps=steps, epoch=epoch)
        making = Background(lambda: _made(state, target, what.asked.save_precision, metadata), name="completing")
        making.ask()
        return state, target, making

    def _completed(self, state: Path, target: Path, making: Background[str]) -> Wait | Refuse | Finish:
        problem = making.answer()
        if making.is_open:
            return Wait(f"making the final weights from {state.name}")
        if problem is None or problem:
            problem = problem or "this process cannot start another thread"
            return Refuse(f"all steps are made and in {state.name}, but {target.name} could not be made: {problem}")
        return Finish(
            f"All steps were made, but the training ended before it wrote {target.name}: made it from {state.name}."
        )

    def _ask_versions(self, record: RunRecord) -> dict[str, str] | None:
        """The versions in the trainer's Python; None while it is being asked."""
        if self._versions is None:
            python = record.interpreter if Path(record.interpreter).exists() else ""
            if not python and self._given.script is not None:
                python = python_behind(self._given.script.words[0].text, os.environ, self._cwd)
            self._versions = Background(lambda: versions(python, os.environ, self._cwd), name="versions")
            self._versions.ask()
        if self._versions.is_open and self._versions.waiting_s < 2 * LIMIT_S:
            return None
        return self._versions.answer() or {}


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
        counted_from=point.counted_from,
        epochs_before=point.epochs_before,
        renumbered=point.renumbered,
    )


def start(
    attempt: Attempt, point: StartPoint, run_folder: Path, cwd: Path, what: Given, settings: Settings, record: RunRecord
) -> tuple[Attempt, subprocess.Popen[bytes]]:
    """Starts a planned attempt; returns it with what is known now, and the process to reap. Raises OSError."""
    content = what.content
    if what.script is not None:
        saving = options.saving(what.asked, save_states=settings.save_states, keep_states=settings.keep_states)
        if not any(a.fresh for a in record.attempts):
            saving = saving[:1]  # begun by something else: what it has kept was kept on purpose
        added = [
            *saving,
            *saves.heeded(what.asked, record.save_options),
            *options.with_paths(what.places),
            *point.options,
        ]
        content = with_options(what.script, added)
    banner = f"[FluxGym Watchdog] attempt {attempt.number}, {point.text}"
    variables = dict(cure.split("=", 1) for cure in record.cures)
    started = launch.launch(run_folder, cwd, attempt.number, content, banner, {**os.environ, **variables})
    attempt = replace(attempt, process=started.id, log_offset=started.log_offset, files_since=started.files_since)
    return attempt, started.process


def _made(state: Path, target: Path, precision: str, metadata: Mapping[str, str]) -> str:
    """Makes the final weights; returns why it could not, or ''."""
    try:
        complete(state, target, precision, metadata)
    except (CannotComplete, OSError) as error:
        return str(error)
    except (ImportError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _told_by_script(asked: Asked) -> dict[str, str]:
    return {} if asked.rank is None else {"ss_network_dim": str(asked.rank)}
