"""What can be known of a run without supervising it: for the command line, and for runs that were never watched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fluxgym_watchdog.act.script import ScriptError, read
from fluxgym_watchdog.fluxgym.runs import NotARun, script_of
from fluxgym_watchdog.given import Given, estimated, given, informed, usual_pace_s
from fluxgym_watchdog.judge import resume, saves
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.machine import read_host
from fluxgym_watchdog.records import Checkpoint, RunRecord, Saves, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store


@dataclass(frozen=True, slots=True)
class Glance:
    """One look. `watched` says whether there is a record; without one `record` holds what files and script tell.

    `step` is what it has reached. `finished`: the final weights are there, and nothing more is asked for. `problem` is
    why a record or script cannot be used.
    """

    record: RunRecord
    watched: bool
    status: Status | None
    step: int
    checkpoints: tuple[Checkpoint, ...]
    saves: Saves
    finished: bool
    problem: str = ""


def glance(run_folder: Path, settings: Settings) -> Glance:
    """Looks at a run's folder once and changes nothing. Raises nothing for what cannot be read: `problem` says it."""
    store = Store(run_folder)
    found, problem = store.read_record()
    record = found or RunRecord(run_folder.name, auto_resume=settings.auto_resume)
    what, script_problem = _given(run_folder)
    reader = CheckpointReader(what.output_dir, what.output_name, what.asked.save_model_as)
    record = replace(record, **informed(record, what, reader))  # type: ignore[arg-type]
    checkpoints, final_at = reader.read(), reader.final_weights_at()
    placed = resume.placed(checkpoints, record, what.asked)
    status = store.read_status()
    saved = max((c.step or 0 for c in placed if c.sound), default=0)
    reached = record.attempt.last_step if record.attempt else saved
    step = status.step if status is not None else reached
    guessed, pace_s = estimated(record, what), usual_pace_s(record, run_folder)
    seen = saves.foresee(guessed, what.asked, step, placed, read_host(what.output_dir), settings, pace_s)
    finished = resume.nothing_left(record, checkpoints, final_at, what.asked)
    return Glance(record, found is not None, status, step, placed, seen, finished, problem or script_problem)


def _given(run_folder: Path) -> tuple[Given, str]:
    cwd = run_folder.parent.parent
    try:
        script = script_of(run_folder)
        content = script.read_bytes()
        return given(content, read(content, batch=script.suffix == ".bat"), cwd, run_folder), ""
    except (NotARun, ScriptError, OSError) as error:
        return given(b"", None, cwd, run_folder), str(error)
