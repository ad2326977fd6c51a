"""One run under watch: at each tick observe, judge, act, record."""

from __future__ import annotations

import errno
import random
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from fluxgym_watchdog import starting
from fluxgym_watchdog.act import launch
from fluxgym_watchdog.act import script as train_script
from fluxgym_watchdog.act.script import NotUnderstood, ScriptError
from fluxgym_watchdog.act.stop import Stop, StopPhase
from fluxgym_watchdog.attempt import AttemptWatch
from fluxgym_watchdog.bookkeeping import Books
from fluxgym_watchdog.fluxgym.runs import SCRIPT_NAMES
from fluxgym_watchdog.given import Given, given, informed
from fluxgym_watchdog.journal import Journal
from fluxgym_watchdog.judge import restart, resume
from fluxgym_watchdog.judge.lifecycle import move
from fluxgym_watchdog.judge.stall import AFTER_THE_END
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.observe.machine import boot_id
from fluxgym_watchdog.observe.processes import (
    ProcessReader,
    find_by_environment,
    find_trainers,
    with_wait_channels,
)
from fluxgym_watchdog.records import (
    LIVE_STATES,
    Attempt,
    Decision,
    DecisionKind,
    Finding,
    FindingKind,
    ProcessId,
    RunRecord,
    RunState,
    Snapshot,
    name_in,
)
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.starting import Finish, Go, Refuse, Start, Wait
from fluxgym_watchdog.store import FOLDER, Store

QUICK_TICK_S = 0.3
"""Between two looks while something of ours is under way (a stop, a start): it should not wait for the next tick."""
SAVE_PROGRESS_EVERY_S = 60.0
LINE_LETTERS = 1000
"""So much of each of the last lines goes onto the timeline, which must stay small enough to be read at every look."""


class Supervision:
    """Supervises one run while holding its lock.

    Whoever makes one has locked the store, calls one of `begin`, `resume`, `adopt` and `take_over`, then `tick` until
    `done`. Nothing here blocks for longer than it takes to read small files. With `strict` it raises ScriptError for
    what is no train script and OSError for one that cannot be read; without, the run can still be watched and stopped,
    only not started. A script that trains but is not understood is started as it stands, and never resumed.
    """

    def __init__(
        self,
        store: Store,
        script: Path,
        cwd: Path,
        settings: Settings,
        gpu: GpuReader,
        clock: Callable[[], float] = time.time,
        *,
        strict: bool = True,
    ) -> None:
        self.store, self.run_folder, self.cwd, self.settings = store, store.run_folder, cwd, settings
        self.problem = ""
        self._gpu, self._clock = gpu, clock
        self._given, self._script_problem, unresumable = self._read_script(script, strict=strict)
        record, problem = store.read_record()
        if store.unread:  # a new record would replace one that may be read the next time
            raise OSError(errno.EIO, problem, str(store.folder / "run.json"))
        fallback = RunRecord(self.run_folder.resolve().name, auto_resume=settings.auto_resume)
        record = replace(record or fallback, script=script.name, unresumable=unresumable)
        self._journal = Journal(store, record, clock)
        if problem:
            self._journal.tell("problem", problem, "bad")
        if self.record.name != self.run_folder.resolve().name:
            self._forget_origin()
        what = self._given
        self._checkpoints = CheckpointReader(what.output_dir, what.output_name, what.asked.save_model_as)
        self.books = Books(self.run_folder, cwd, self._journal, self._given, self._checkpoints)
        self.books.clear_leftovers()
        self._watch = self._watch_attempt(ProcessReader())
        self._stop: Stop | None = None
        self._start: Start | None = None
        self._saved_at = float("-inf")
        self._start_due = 0.0
        self._waits = ""
        self._asked = False
        self._gathered = ""

    def _read_script(self, script: Path, *, strict: bool) -> tuple[Given, str, str]:
        """What is started, why it cannot be, and why it cannot be resumed."""
        content = b""
        try:
            content = script.read_bytes()
            read = train_script.read(content, batch=script.suffix == ".bat")
            found = given(content, read, self.cwd, self.run_folder)
            _refuse_foreign_folder(script, found.output_dir, self.run_folder)
        except NotUnderstood as error:
            unresumable = f"{script.name} is not understood: {error}"
            return given(content, None, self.cwd, self.run_folder), "", unresumable
        except (ScriptError, OSError) as error:
            if strict:
                raise
            nothing = given(content, None, self.cwd, self.run_folder)
            return nothing, f"the train script cannot be used: {error}", ""
        hidden = [name for name in ("--output_dir", "--output_name") if read.hides(name)]
        unresumable = f"{script.name}: {hidden[0]} is not plain text, so its states cannot be found" if hidden else ""
        return found, "", unresumable

    @property
    def record(self) -> RunRecord:
        """The run's record as it stands."""
        return self._journal.record

    @property
    def done(self) -> bool:
        """Whether there is nothing more to supervise."""
        return self.record.state not in LIVE_STATES

    @property
    def pause_s(self) -> float:
        """How long to wait before the next tick, in seconds."""
        quick = self.record.state in (RunState.STOPPING, RunState.STARTING, RunState.WAITING) and not self._waits
        return min(QUICK_TICK_S, self.settings.check_interval) if quick else self.settings.check_interval

    # how it begins

    def begin(self, now: float) -> None:
        """Starts the training from nothing, as FluxGym's Start does."""
        none_yet = {"steps_per_epoch": None, "total_steps": None, "accumulation": None, "offered": None}
        if self.record.closer_saves is None:  # not chosen for this run: what the settings ask for is asked anew
            self._journal.change(save_options=())
        nothing = {"learned": {}, "quarantined": (), "ledger": (), "furthest_step": 0}
        self._journal.change(fresh_next=True, chosen_next=None, **none_yet, **nothing)
        self._start_soon(now)

    @property
    def anything_alive(self) -> bool:
        """Whether any process of the run is left, whoever started it."""
        return bool(self._marked() or self.strangers())

    def close(self) -> None:
        """Closes an attempt that the record calls live, and of which nothing is left."""
        self._let_go()

    def adopt(self, now: float) -> None:
        """Takes over a run that its record calls live, from a supervisor that is gone.

        Its processes are told by their environment or their --output_dir. The recorded pid alone is not believed: the
        folder may be a copy, and the process the original's.
        """
        roots = self._marked()
        strangers, attempt = self.strangers(), self.record.attempt
        if strangers and not roots and (attempt is None or attempt.supervised):
            self._let_go()
            self.take_over(strangers)
            return
        self._watch = self._watch_attempt(ProcessReader([*roots, *strangers]))
        if self.record.state is RunState.WAITING and roots:
            # Its launch could not be recorded: what lives is that attempt.
            self._move(RunState.STARTING)
            self._move(RunState.TRAINING)
        elif self.record.state is RunState.WAITING:
            wait = max((self.record.next_start_at or 0.0) - self._clock(), 0.0)
            self._start_due = now + min(wait, 2 * self.settings.backoff_max)
        elif self.record.state is RunState.STOPPING:
            self._stop = self._new_stop(now)
        elif self.record.state is not RunState.TRAINING:
            self._move(RunState.TRAINING)
        self._journal.tell("adopted", "Watching this run again; nobody did since the watchdog ended.")

    def strangers(self) -> list[ProcessId]:
        """The trainers that write into this run's folder and that its record does not explain.

        What a launch of ours has left behind is explained, unless the record was lost.
        """
        explained = set(self._marked()) if self.record.attempts else set()
        name = self._given.output_name if self._given.script is not None else None
        mark = launch.run_mark(self.run_folder)
        found = find_trainers(self._given.output_dir, name, self.cwd, mark, or_launchers=True)
        return [p for p in found if p not in explained]

    def take_over(self, trainers: Collection[ProcessId]) -> None:
        """Watches a training that something else started. Its output cannot be read: its files and GPUs must tell."""
        first = min(trainers)
        attempt = Attempt(
            len(self.record.attempts) + 1,
            min(p.create_time for p in trainers),
            process=first,
            fresh=starting.begins_anew(first),
            boot_id=boot_id(),
            supervised=False,
        )
        self._move(RunState.TRAINING, restarts=0, attempts=(*self.record.attempts, attempt))
        self._watch = self._watch_attempt(ProcessReader(trainers))
        text = f"Watching a training that something else started (pid {first.pid}); its output cannot be read."
        self._journal.tell("taken over", text)

    # each tick

    def tick(self, now: float) -> None:
        """Looks once at the run, at monotonic time `now`, and does what follows."""
        if self.record.state is RunState.STOPPING:
            self._continue_stop(now)
        elif self.record.state is RunState.WAITING:
            if now >= self._start_due and self._cleared(now):
                self._prepare()
        elif not self.done:
            self._look(now)
        self._show()

    def _show(self) -> None:
        watch, seen = self._watch, self._watch.snapshot
        found = self.books.place(seen.checkpoints if seen else self._checkpoints.read())
        saves = self.books.foresee(seen, found, watch.step, self.settings) if seen else None
        if saves is not None and self.record.state in (RunState.TRAINING, RunState.SUSPECT):
            self.books.warn(saves)
        interval_s = self.settings.check_interval
        self._journal.status(seen, watch.finding, watch.step, watch.silence_s, self.problem, found, saves, interval_s)

    def _look(self, now: float) -> None:
        before = self._watch.finding
        snapshot, finding = self._watch.look(now, self._clock(), self.record, self.settings)
        if not snapshot.tree.training_alive and self._found_more(snapshot):
            return
        if self.record.state is RunState.STARTING and snapshot.tree.training_alive:
            self._move(RunState.TRAINING)
        self.books.learn(snapshot, self._watch)
        self._journal.sample(snapshot, self._watch.step)
        self._journal.warn(self._watch.warnings(self._journal.paces_s))
        decisive = finding.kind in (FindingKind.FINISHED, FindingKind.CRASHED, FindingKind.STALLED)
        if decisive or now - self._saved_at >= SAVE_PROGRESS_EVERY_S:
            self._save_progress(now)
        self._follow(finding, before, snapshot, now)

    def _found_more(self, snapshot: Snapshot) -> bool:
        """Takes up what came from the launch but is not of its tree: a script may end before its training does."""
        known = {p.id for p in snapshot.tree.processes}
        strays = [p for p in self._marked() if p not in known]
        self._watch.processes.add(strays)
        return bool(strays)

    def _save_progress(self, now: float) -> None:
        self._saved_at = now
        self._journal.change_attempt(last_step=self._watch.step)
        self._journal.change(learned=self._watch.learned, pace_s=self._journal.pace_s or self.record.pace_s)

    def _follow(self, finding: Finding, before: Finding, snapshot: Snapshot, now: float) -> None:
        state = self.record.state
        whole = finding.kind is FindingKind.CRASHED and self._all_trained(snapshot)
        decision = restart.decide(self.record, finding, self.settings, random.random(), all_trained=whole)
        if finding.kind in (FindingKind.FINISHED, FindingKind.CRASHED):
            self._end(finding, snapshot)
            self._act(decision, now)
        elif finding.kind is FindingKind.STALLED:
            if state is not RunState.STALLED:
                self._move(RunState.STALLED, reason=finding.text, cause="hang", retry=True, advice="")
                self._asked = False
                self._journal.tell("stalled", f"Training stuck: {finding.text}.", "bad", self._evidence(snapshot))
            if not self._journal.gathering and not (decision.kind is DecisionKind.ASK and self._asked):
                self._act(decision, now)
        elif finding.kind is FindingKind.SUSPECT and state is RunState.TRAINING:
            self._move(RunState.SUSPECT)
            self._watch.processes.add(())  # the next look shall see children that came since the last scan
            self._journal.tell("suspect", f"Looking closer: {finding.text}.", "act", self._evidence(snapshot))
        elif finding.kind is FindingKind.HEALTHY and state in (RunState.SUSPECT, RunState.STALLED):
            self._move(RunState.TRAINING, reason="", cause="", retry=None)
            self._gathered = ""
            self._journal.tell("recovered", "The training goes on by itself.", "ok")
        elif finding.kind is FindingKind.BLIND and before.kind is not FindingKind.BLIND:
            self._journal.tell("blind", f"The watchdog {finding.text}.", "bad")

    def _end(self, finding: Finding, snapshot: Snapshot) -> None:
        outcome = finding.cause or finding.kind.value
        self._journal.change_attempt(ended_at=self._clock(), exit_code=snapshot.tree.exit_code, outcome=outcome)
        if finding.kind is FindingKind.FINISHED:
            self._move(RunState.FINISHED, reason="", cause="", advice="", retry=None)
            self._journal.tell("finished", f"Finished: {finding.text}.", "ok")
        else:
            told = {"reason": finding.text, "cause": finding.cause, "advice": finding.advice, "retry": finding.retry}
            self._move(RunState.CRASHED, **told)
            text = f"Training crashed: {finding.text}. {finding.advice}".rstrip()
            self._journal.tell("crashed", text, "bad", self._evidence(snapshot, closely=False))

    # acting

    def _act(self, decision: Decision, now: float) -> None:
        if decision.quarantine:
            self._journal.change(quarantined=(*self.record.quarantined, *decision.quarantine))
            names = ", ".join(name_in(stamp) for stamp in decision.quarantine)
            self._journal.tell("quarantined", f"Set aside, not deleted: {names}.", "act")
        if decision.cure:
            self._journal.change(cures=(*self.record.cures, decision.cure))
            self._journal.tell("cure", f"From now on the training is started with {decision.cure}.", "act")
        if decision.kind is DecisionKind.GIVE_UP:
            self._journal.change(reason=decision.text)
            self._begin_stop(now, RunState.FAILED)
        elif decision.kind in (DecisionKind.STOP_AND_RESTART, DecisionKind.RESTART):
            self._start_due = now + decision.delay_s
            due = self._clock() + decision.delay_s
            self._journal.change(next_start_at=due, restarts=self.record.restarts + 1)
            self._begin_stop(now, RunState.WAITING)
        elif decision.kind is DecisionKind.COMPLETE:
            self._start_due = now
            self._begin_stop(now, RunState.WAITING)
        elif decision.kind is DecisionKind.STOP_AND_FINISH:
            self._begin_stop(now, RunState.FINISHED)
        elif decision.kind is DecisionKind.ASK:
            self._asked = True
            text = "Auto-resume is off, so nothing is done."
            if self.record.retry is not False:
                text += " Resume goes on from the newest checkpoint."
            self._journal.change(advice=f"{self.record.advice} {text}".strip())
            self._journal.tell("ask", text, "act")

    # at the user's word

    def stop(self, now: float) -> None:
        """Ends the training and starts nothing."""
        self._journal.tell("request", "Stop was asked for.")
        if self.record.state is RunState.STOPPING:
            self._journal.change(stopping_for=RunState.STOPPED)
        elif self.record.state is RunState.WAITING:
            self._settle(RunState.STOPPED)
        elif not self.done:
            nothing_left = self._watch.finding.cause == AFTER_THE_END
            self._begin_stop(now, RunState.FINISHED if nothing_left else RunState.STOPPED)

    def resume(self, now: float, chosen: str | None = None) -> None:
        """Goes on from the newest sound checkpoint, or from the one of that name; leaves a training alone."""
        state = self.record.state
        if state in (RunState.STARTING, RunState.TRAINING, RunState.SUSPECT):
            self._journal.tell("request", f"Resume was asked for, but the run is {state.value}: stop it first.")
            return
        self._journal.change(**informed(self.record, self._given, self._checkpoints))
        found, final_at = self._checkpoints.read(), self._checkpoints.final_weights_at()
        if chosen is None and resume.nothing_left(self.record, found, final_at, self._given.asked):
            self._journal.tell("request", "Resume was asked for, but the run is finished: nothing is left to train.")
            if state is not RunState.FINISHED:
                self._start_soon(now)  # which finds that out, and puts it on record
            return
        if chosen is not None and (hindrance := self.books.hindrance(chosen)):
            self._journal.tell("request", f"Resume from {chosen} was asked for. It cannot be: {hindrance}.", "act")
            return
        self._journal.tell("request", "Resume was asked for.")
        self._start_due = now
        self._journal.change(chosen_next=chosen)
        if state is RunState.STALLED:
            self._journal.change(restarts=0)
            nothing_left = self._watch.finding.cause == AFTER_THE_END and chosen is None
            self._begin_stop(now, RunState.FINISHED if nothing_left else RunState.WAITING)
        elif self.done or state is RunState.WAITING:
            self._start_soon(now)

    def switch(self, auto_resume: bool) -> None:
        """Turns this run's auto-resume on or off. Off also calls off a restart that was decided by itself."""
        self._journal.change(auto_resume=auto_resume)
        self._journal.tell("switch", f"Auto-resume is {'on' if auto_resume else 'off'} now.")
        if not auto_resume and self.record.restarts:
            if self.record.stopping_for is RunState.WAITING:
                self._journal.change(stopping_for=RunState.STOPPED)
            elif self.record.state is RunState.WAITING:
                self._settle(RunState.STOPPED)

    def answer_offer(self, closer: bool) -> None:
        """Takes the user's answer to an offer of closer saves."""
        self.books.answer_offer(closer, self._watch.step, self.settings)

    def delete(self, stamps: Sequence[str]) -> None:
        """Deletes the states with these stamps, unless something trains here that nobody supervises."""
        trainers = self.strangers() + self._marked() if self.done else []
        if trainers:
            text = f"Nothing was deleted: a training that is not watched (pid {trainers[0].pid}) may be writing states."
            self._journal.tell("delete", text, "act")
            return
        self.books.delete(stamps)
        self._journal.checkpoints(self.books.place(self._checkpoints.read()))

    def degrade(self, problem: str) -> None:
        """Shows a failure of the watchdog itself, or with '' that it is over."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            self._journal.tell("problem", problem, "bad")
        self._show()

    # stopping and starting

    def _begin_stop(self, now: float, then: RunState) -> None:
        if self._watch.snapshot is None:  # just taken over: how far the training has come is not known yet
            self._watch.look(now, self._clock(), self.record, self.settings)
        self._move(RunState.STOPPING, stopping_for=then)
        self._watch.processes.add(())  # looks for children that came since the last scan
        self._stop = self._new_stop(now)
        self._continue_stop(now)

    def _new_stop(self, now: float) -> Stop:
        attempt, processes = self.record.attempt, self._watch.processes
        ours = attempt is not None and attempt.supervised and attempt.process is not None
        return Stop(
            find_all=lambda: [
                *(p.id for p in processes.read(time.monotonic())),
                *self._marked(),
            ],
            on_gpu=lambda: {pid for gpu in self._gpu.read().gpus for pid in gpu.processes},
            group=attempt.process.pid if ours and attempt and attempt.process else None,
            grace_s=self.settings.stop_grace,
            began_at=now,
        )

    def _continue_stop(self, now: float) -> None:
        stop = self._stop = self._stop or self._new_stop(now)
        phase = stop.advance(now)
        self._watch.exit_code()  # reaps it
        if phase is StopPhase.UNKILLABLE:
            self._give_up_killing(stop)
        elif phase is StopPhase.DONE:
            if stop.asked:
                number = "1 process" if len(stop.asked) == 1 else f"{len(stop.asked)} processes"
                self._journal.tell("stopped", f"Stopped {number} of the training; all are gone.", "act")
            self._settle(self.record.stopping_for or RunState.STOPPED)

    def _give_up_killing(self, stop: Stop) -> None:
        pids = ", ".join(str(p.pid) for p in stop.left)
        reason = f"process {pids} cannot be ended: it sleeps in the kernel (driver or disk); a reboot may help"
        self._journal.change(reason=reason, retry=True)
        self._settle(RunState.FAILED)

    def _settle(self, state: RunState) -> None:
        self._stop = self._start = None
        self._waits = ""
        attempt = self.record.attempt
        if attempt is not None and attempt.ended_at is None:
            self._journal.change_attempt(
                ended_at=self._clock(), last_step=self._watch.step, outcome=self.record.cause or state.value
            )
        self._move(state, stopping_for=None, next_start_at=self.record.next_start_at if not self.done else None)
        if state is RunState.FINISHED:
            self._journal.change(reason="", cause="", retry=None, next_start_at=None)
            self._journal.tell("finished", "Finished: the final weights are saved.", "ok")
        elif state is RunState.FAILED:
            self._journal.change(next_start_at=None)
            self._journal.tell("failed", f"Given up: {self.record.reason}.", "bad")
        elif state is RunState.STOPPED:
            self._journal.change(next_start_at=None)
            self._journal.tell("stopped", "The training is stopped. Resume goes on from the newest checkpoint.")

    def _start_soon(self, now: float) -> None:
        self._start, self._start_due = None, now
        if self.record.state is not RunState.WAITING:
            self._move(RunState.WAITING)
        self._journal.change(restarts=0, reason="", cause="", advice="", retry=None, next_start_at=self._clock())

    def _cleared(self, now: float) -> bool:
        """Ends what an earlier attempt left behind: a stopped data loader worker stays for ever."""
        if self._stop is None and not (self.record.attempts and self._marked()):
            return True
        self._watch.processes.add(())
        self._stop = self._stop or self._new_stop(now)
        phase = self._stop.advance(now)
        if phase is StopPhase.UNKILLABLE:
            self._give_up_killing(self._stop)
        elif phase is StopPhase.DONE:
            self._stop = None
        return phase is StopPhase.DONE

    def _prepare(self) -> None:
        """Does the next step towards an attempt, and begins it when all is ready."""
        if self._script_problem or (self.record.unresumable and not self.record.fresh_next):
            self._give_up_starting(self._script_problem or f"it cannot be resumed: {self.record.unresumable}")
            return
        if not self.record.fresh_next:
            self._journal.change(**informed(self.record, self._given, self._checkpoints))
        if self._start is None:
            checkpoints, gpu = self._checkpoints, self._gpu
            self._start = Start(self.run_folder, self.cwd, self._given, checkpoints, gpu)
        step = self._start.advance(self.record, self.settings)
        if isinstance(step, Wait):
            if step.text and not self._waits:
                self._journal.tell("waiting", f"{step.text[0].upper()}{step.text[1:]}.", "act")
            self._waits = step.text
            return
        self._start, self._waits = None, ""
        strangers = self.strangers()
        if strangers:  # two trainers would write into one folder
            self._let_go()
            self.take_over(strangers)
        elif isinstance(step, Refuse):
            self._give_up_starting(step.reason)
        elif isinstance(step, Finish):
            if step.text:
                self._journal.tell("completed", step.text, "ok")
            self._settle(RunState.FINISHED)
        else:
            self._launch(step)

    def _launch(self, go: Go) -> None:
        fresh, before, point = self.record.fresh_next, self.record.attempt, go.point
        if self.record.chosen_next:
            self.books.leave_behind(point)
        self._journal.new_attempt()
        self.books.say_before(point, self.settings)
        self.books.heed(go.versions)
        attempt = starting.planned(self.record, point, self.run_folder, self._clock(), fresh=fresh)
        self._move(
            RunState.STARTING,
            **{"next_start_at": None, "reason": "", "cause": "", "advice": "", "retry": None},
            **{"fresh_next": False, "chosen_next": None},
            attempts=(*self.record.attempts, attempt),
        )
        if self._journal.problem:
            # Nobody could take this attempt over: who comes next would start another one beside it.
            self._give_up_starting(f"the attempt cannot be recorded: {self._journal.problem.rstrip('.')}", retry=True)
            return
        try:
            attempt, process = starting.start(
                attempt, point, self.run_folder, self.cwd, self._given, self.settings, self.record
            )
        except OSError as error:
            self._give_up_starting(f"the training cannot be started: {error}", retry=True)
            return
        self._journal.change(attempts=(*self.record.attempts[:-1], attempt))
        self._gathered = ""
        self._watch = self._watch_attempt(ProcessReader([attempt.process] if attempt.process else []), process)
        if before is None or fresh:
            self._journal.tell("started", f"Training began (attempt {attempt.number}, {point.text}).")
        else:
            again = max(0, before.last_step - point.first_step)
            text = f"Attempt {attempt.number} goes on {point.text}; {again} steps to train again."
            self._journal.tell("resumed", text, "ok")

    def _give_up_starting(self, reason: str, *, retry: bool = False) -> None:
        self._journal.change(reason=reason, retry=retry, fresh_next=False, chosen_next=None)
        self._settle(RunState.FAILED)

    # small parts

    def _all_trained(self, snapshot: Snapshot) -> bool:
        asked, at = self._given.asked, snapshot.final_weights_at
        return resume.to_complete(self.record, snapshot.checkpoints, at, asked) is not None

    def _evidence(self, snapshot: Snapshot, *, closely: bool = True) -> dict[str, object]:
        """What was seen, for the timeline. A silence is looked at closely, in the background, once."""
        if closely and not self._gathered:
            self._gathered = self._journal.gather(snapshot)
        return {"folder": self._gathered, **_evidence(snapshot)} if self._gathered else _evidence(snapshot)

    def _marked(self) -> list[ProcessId]:
        """All processes that come from a launch of ours for this run, wherever they have gone."""
        return find_by_environment(launch.RUN_VARIABLE, launch.run_mark(self.run_folder))

    def _let_go(self) -> None:
        """Closes the attempt on record, which is not what runs now."""
        attempt = self.record.attempt
        if attempt is not None and attempt.ended_at is None:
            self._journal.change_attempt(ended_at=self._clock(), outcome="lost")
        self._journal.change(state=RunState.STOPPED, stopping_for=None, next_start_at=None)

    def _forget_origin(self) -> None:
        """The folder is a copy, or was renamed: what its record calls live is not this run's."""
        origin = self.record.name
        if not self.done:
            self._let_go()
        self._journal.change(name=self.run_folder.resolve().name)
        self._journal.tell("copied", f"This folder was copied or renamed from {origin}; its history came along.")

    def _move(self, to: RunState, **changes: object) -> None:
        self._journal.change(state=move(self.record.state, to), **changes)

    def _watch_attempt(self, processes: ProcessReader, popen: subprocess.Popen[bytes] | None = None) -> AttemptWatch:
        attempt = self.record.attempt
        silent = self._given.silent
        return AttemptWatch(self.run_folder, attempt, processes, self._checkpoints, self._gpu, popen, silent=silent)


def _refuse_foreign_folder(script: Path, output_dir: Path, run_folder: Path) -> None:
    """Raises ScriptError for a script copied from another run, into whose folder it would go on writing."""
    another = output_dir.resolve() != run_folder.resolve()
    if another and any((output_dir / name).exists() for name in (FOLDER, *SCRIPT_NAMES)):
        raise ScriptError(
            f"{script}: its --output_dir is another run's folder, {output_dir}; expected {run_folder}. "
            "Was the folder copied? Then correct the script."
        )


def _evidence(snapshot: Snapshot) -> dict[str, object]:
    return {
        "processes": [
            {"pid": p.id.pid, "role": p.role.value, "state": p.status, "cpu_s": p.cpu_s, "waits_in": p.wchan}
            for p in with_wait_channels(snapshot.tree.processes)
        ],
        "exit_code": snapshot.tree.exit_code,
        "gpus": [{"index": g.index, "utilization_percent": g.utilization_percent} for g in snapshot.run_gpus],
        "last_lines": [line[:LINE_LETTERS] for line in snapshot.log.last_lines[-10:]] if snapshot.log else [],
    }
