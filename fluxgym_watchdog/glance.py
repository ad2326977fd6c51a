"""What can be known of a run without supervising it: for the command line, and for runs that were never watched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fluxgym_watchdog import starting
from fluxgym_watchdog.act.script import ScriptError, read
from fluxgym_watchdog.fluxgym.runs import NotARun, script_of
from fluxgym_watchdog.judge import resume, saves
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.machine import read_host
from fluxgym_watchdog.records import Checkpoint, RunRecord, Saves, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store


@dataclass(frozen=True, slots=True)
class Glance:
    """One look. `watched` says whether there is a record; without one `record` holds what files and script tell.

    `finished`: the final weights are there, and nothing more is asked for. `problem` is why a record or script cannot
    be used.
    """

    record: RunRecord
    watched: bool
    status: Status | None
    checkpoints: tuple[Checkpoint, ...]
    saves: Saves
    finished: bool
    problem: str = ""

    @property
    def step(self) -> int:
        """The step of the run that it has reached."""
        if self.status is not None:
            return self.status.step
        if self.record.attempt is not None:
            return self.record.attempt.last_step
        return max((c.step or 0 for c in self.checkpoints if c.sound), default=0)


def glance(run_folder: Path, settings: Settings) -> Glance:
    """Looks at a run's folder once and changes nothing. Raises nothing for what cannot be read: `problem` says it."""
    store = Store(run_folder)
    found, problem = store.read_record()
    record = found or RunRecord(run_folder.name, auto_resume=settings.auto_resume)
    what, script_problem = _given(run_folder)
    reader = CheckpointReader(what.output_dir, what.output_name)
    record = replace(record, **starting.informed(record, what, reader))  # type: ignore[arg-type]
    checkpoints, final_at = reader.read(), reader.final_weights_at()
    placed = resume.placed(checkpoints, record, what.asked)
    status = store.read_status()
    step = status.step if status is not None else max((c.step or 0 for c in placed if c.sound), default=0)
    record_for_saves = starting.estimated(record, what)
    pace_s = starting.usual_pace_s(record, run_folder)
    host = read_host(run_folder)
    seen = saves.foresee(record_for_saves, what.asked, step, placed, host, settings, pace_s)
    finished = resume.nothing_left(record, checkpoints, final_at, what.asked)
    return Glance(record, found is not None, status, placed, seen, finished, problem or script_problem)


def _given(run_folder: Path) -> tuple[starting.Given, str]:
    cwd = run_folder.parent.parent
    try:
        script = script_of(run_folder)
        content = script.read_bytes()
        return starting.given(content, read(content, batch=script.suffix == ".bat"), cwd, run_folder), ""
    except (NotARun, ScriptError, OSError) as error:
        return starting.given(b"", None, cwd, run_folder), str(error)
