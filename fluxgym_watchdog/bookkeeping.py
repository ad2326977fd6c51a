"""What a run's record learns of its length and its checkpoints, and what its owner is told about saves and room."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fluxgym_watchdog.act import prune
from fluxgym_watchdog.attempt import AttemptWatch
from fluxgym_watchdog.given import Given, estimated, informed, usual_pace_s
from fluxgym_watchdog.journal import Journal
from fluxgym_watchdog.judge import resume, saves
from fluxgym_watchdog.observe.background import Background
from fluxgym_watchdog.observe.checkpoints import CheckpointReader
from fluxgym_watchdog.observe.environment import python_of, versions
from fluxgym_watchdog.observe.machine import read_host
from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    CheckpointKind,
    Host,
    Role,
    RunRecord,
    Saves,
    Snapshot,
    StartPoint,
    name_in,
)
from fluxgym_watchdog.settings import Settings

PACES_TO_TRUST = 8
"""The first steps are the slow ones: before so many were seen, how long one takes is what earlier runs have told."""


class Books:
    """Keeps the parts of one run's record that are about its length, its checkpoints and their saves."""

    def __init__(
        self,
        run_folder: Path,
        cwd: Path,
        journal: Journal,
        given: Given,
        checkpoints: CheckpointReader,
    ) -> None:
        self._run_folder, self._cwd, self._journal, self._given = run_folder, cwd, journal, given
        self._checkpoints = checkpoints
        self._versions: Background[dict[str, str]] | None = None
        self._said_of_script = False
        self._clearing = Background(lambda: prune.clear(given.output_dir), name="deleting")
        self._placed: tuple[tuple[Checkpoint, ...], RunRecord, tuple[Checkpoint, ...]] | None = None

    def place(self, found: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        """Checkpoints with their absolute steps; what was placed last is kept, since there may be thousands."""
        known, record = self._placed, self._journal.record
        if known is None or known[0] != found or known[1] is not record:
            self._placed = known = (found, record, resume.placed(found, record, self._given.asked))
        return known[2]

    def hindrance(self, name: str) -> str:
        """Why the training cannot go on from the checkpoint of that name; '' where it can."""
        found = next((c for c in self.place(self._checkpoints.read()) if c.name == name), None)
        if found is None:
            return "there is no such checkpoint"
        return "" if resume.may_be_chosen(found) else found.reason or found.aside

    # while it trains

    def learn(self, snapshot: Snapshot, watch: AttemptWatch) -> None:
        """Keeps what the next attempt, or the next supervisor, must know."""
        if self._journal.record.attempt is None:
            return
        if snapshot.log is not None and snapshot.log.steps_per_epoch:
            self._learn_length(snapshot, self._journal.record.attempt, snapshot.log.steps_per_epoch)
        self._learn_python(snapshot)
        known = {line.stamp for line in self._journal.record.ledger}  # a supervisor before this one may have seen them
        if new := tuple(c for c in watch.new_checkpoints() if c.stamp not in known):
            self._enter(new, snapshot.checkpoints)

    def _learn_length(self, snapshot: Snapshot, attempt: Attempt, per_epoch: int) -> None:
        record, seen = self._journal.record, snapshot.log
        total = seen.total_steps if seen else None
        known = record.steps_per_epoch
        if known not in (None, per_epoch):
            text = f"An epoch has {per_epoch} steps now, before it had {known}: the dataset was changed"
            self._journal.tell("dataset", f"{text}. Steps are counted anew.", "act")
            self._journal.change(ledger=(), furthest_step=0)
        if attempt.renumbered and total is not None:
            total += attempt.counted_from or 0
        accumulation = seen.accumulation if seen else None
        self._journal.change(
            steps_per_epoch=per_epoch, total_steps=total or record.total_steps, accumulation=accumulation
        )
        if attempt.epochs_before and attempt.counted_from != attempt.epochs_before * per_epoch:
            begun = attempt.epochs_before * per_epoch
            self._journal.change_attempt(counted_from=begun, first_step=begun)

    def _learn_python(self, snapshot: Snapshot) -> None:
        """Which Python trains, and whether its versions can load the states that they save: before that is needed."""
        if not self._journal.record.interpreter:
            trainer = next((p for p in snapshot.tree.processes if p.role is Role.TRAINER), None)
            python = python_of(trainer.id) if trainer else ""
            self._journal.change(interpreter=python)
            if python:
                self._versions = Background(lambda: versions(python, os.environ, self._cwd))
                self._versions.ask()
        if self._versions is not None and (answer := self._versions.answer()) is not None:
            self._versions = None
            self.heed(answer)

    def heed(self, found: Mapping[str, str]) -> None:
        """Remembers the environment variables without which these versions could not be resumed."""
        record = self._journal.record
        new = tuple(cure for cure in resume.cures(found) if cure not in record.cures)
        if new:
            self._journal.change(cures=(*record.cures, *new))
            pair = " with ".join(f"{name} {version}" for name, version in found.items())
            text = f"{pair} cannot load all of a state that it saves. The watchdog resumes with {' '.join(new)}"
            self._journal.tell("cure", f"{text}; updating accelerate is the better cure.", "act")

    def _enter(self, new: tuple[Checkpoint, ...], there: Sequence[Checkpoint]) -> None:
        """Puts what was just written into the ledger, and takes out what is no longer there."""
        record = self._journal.record
        for checkpoint in sorted(new, key=lambda c: c.saved_at):
            if checkpoint.kind is CheckpointKind.STATE:
                self._journal.tell("checkpoint", f"Saved {checkpoint.name}. It is sound.", "ok")
        lines = [resume.ledger_line(c, record.attempt, record.steps_per_epoch) for c in new if record.attempt]
        still = {c.stamp for c in there}
        ledger = (*record.ledger, *(line for line in lines if line is not None))
        self._journal.change(ledger=tuple(line for line in ledger if line.stamp in still))
        for line in lines:
            if line is not None and line.step is None:
                name = name_in(line.stamp)
                text = f"{name}: its own files and this attempt's count do not agree on its step; it is not used."
                self._journal.tell("problem", text, "bad")
        furthest = max((c.step or 0 for c in self.place(new)), default=0)
        if furthest > self._journal.record.furthest_step:
            self._journal.change(furthest_step=furthest, restarts=0)

    def foresee(self, snapshot: Snapshot, found: Sequence[Checkpoint], step: int, settings: Settings) -> Saves:
        """What hangs on the next saves of a run that stands at `step`."""
        paces_s = self._journal.paces_s
        pace_s = self._journal.pace_s if len(paces_s) >= PACES_TO_TRUST else self._journal.record.pace_s
        return saves.foresee(self._journal.record, self._given.asked, step, found, snapshot.host, settings, pace_s)

    def warn(self, seen: Saves) -> None:
        """Says what is wrong with the next saves, each once an attempt."""
        if seen.warning:
            about = "no room" if seen.fits is False else "little room"
            self._journal.tell_once(about, "warning", seen.warning)
        if seen.offer:
            self._journal.change(offered=seen.offer)
            how = f"choose so in the Watchdog tab, or: python -m fluxgym_watchdog saves {self._run_folder} --closer"
            self._journal.tell_once("risk", "risk", f"{saves.offer_in_words(seen)}; {how}.")

    # before it starts

    def say_before(self, point: StartPoint, settings: Settings) -> None:
        """What its owner should know before an attempt begins; takes the closer saves that the settings ask for."""
        record = self._journal.record
        if record.unresumable:
            text = f"This run is watched, but cannot be resumed: {record.unresumable}."
            self._journal.tell("unresumable", text, "act")
        if not self._said_of_script:
            self._said_of_script = True
            self._say_of_script()
        if point.renumbered:
            text = "Epochs count from 1 again in this attempt, and so do the names of what it saves: older files of the"
            self._journal.tell("renumbered", f"{text} same names are written over.", "act")
        found = self.place(self._checkpoints.read() if point.checkpoint else ())
        seen = self._before(point.first_step, found, read_host(self._given.output_dir), settings)
        if seen.offer and settings.closer_saves:
            chosen = saves.options_of(seen.offer)
            self._journal.change(save_options=chosen)
            text = f"{saves.offer_in_words(seen)}: done, as the setting closer_saves says ({' '.join(chosen)})."
            self._journal.tell("saves", text)
            seen = replace(seen, offer=None)
        self.warn(seen)

    def _say_of_script(self) -> None:
        """What is odd about the train script on this machine: said once, not at every attempt."""
        given = self._given
        if given.places:
            moved = ", ".join(f"{option} {place}" for option, place in given.places.items())
            self._journal.tell("paths", f"Paths of the train script are not on this machine; instead: {moved}.", "act")
        if lost := {option: path for option, path in given.missing.items() if option not in given.places}:
            named = ", ".join(f"{option} {path}" for option, path in lost.items())
            self._journal.tell("paths", f"The train script names what is not on this machine: {named}.", "act")
        if given.silent:
            text = "The train script sends the training's output into a file of its own: only checkpoints, GPU, CPU and"
            self._journal.tell("silent", f"{text} disk tell how it is, and patience is longer.", "act")
        if given.no_images:
            named = ", ".join(given.no_images)
            self._journal.tell("paths", f"{given.dataset} names folders that are not on this machine: {named}.", "act")

    def leave_behind(self, point: StartPoint) -> None:
        """Sets aside what is not of the training that the user went back to."""
        quarantined, ledger = resume.going_back(self._journal.record, point, self.place(self._checkpoints.read()))
        self._journal.change(quarantined=quarantined, ledger=ledger, furthest_step=point.first_step)

    # at the user's word

    def answer_offer(self, closer: bool, step: int, settings: Settings) -> None:
        """Takes the user's answer to an offer of closer saves; it holds from the next attempt on."""
        if not closer:
            self._journal.change(closer_saves=False, save_options=())
            self._journal.tell("saves", "Saves come as the train script says.")
            return
        offer = self._journal.record.offered
        if offer is None:
            offer = self._before(step, self.place(self._checkpoints.read()), None, settings).offer
        if offer is None:
            text = "No closer saves can be offered, or how long a step takes is not known yet. Nothing was changed."
            self._journal.tell("saves", text, "act")
            return
        chosen = saves.options_of(offer)
        self._journal.change(closer_saves=True, save_options=chosen)
        self._journal.tell("saves", f"Saves will come closer from the next start on: {' '.join(chosen)}.")

    def delete(self, stamps: Sequence[str]) -> None:
        """Deletes the states with these stamps; tells what was deleted, and what was not and why."""
        self._journal.change(**informed(self._journal.record, self._given, self._checkpoints))
        found = {c.stamp: c for c in self.place(self._checkpoints.read())}
        may_go = saves.deletable(self._journal.record, tuple(found.values()))
        for stamp in dict.fromkeys(stamps):
            checkpoint, name = found.get(stamp), name_in(stamp)
            if checkpoint is None:
                text = f"{name} was not deleted: it is not there any more, or was written again since."
                self._journal.tell("delete", text, "act")
            elif checkpoint not in may_go:
                self._journal.tell("delete", f"{name} was not deleted: this run may go on from it.", "act")
            else:
                self._delete(checkpoint)
        self.clear_leftovers()

    def clear_leftovers(self) -> None:
        """Frees the space of deleted states, in the background."""
        if prune.doomed(self._given.output_dir):
            self._clearing.ask()

    def wait_for_deletions(self, limit_s: float) -> None:
        """For a process that ends: returns when nothing is being deleted any more, or after so long."""
        self._clearing.answer(limit_s)

    def _delete(self, checkpoint: Checkpoint) -> None:
        size = saves.in_bytes(checkpoint.size_bytes)
        try:
            prune.doom(self._given.output_dir, checkpoint)
        except (prune.CannotDelete, OSError) as error:
            self._journal.tell("delete", f"{checkpoint.name} was not deleted: {error}", "bad")
        else:
            self._journal.tell("delete", f"Deleted {checkpoint.name} ({size}), as was asked for.")

    # small parts

    def _before(self, step: int, found: Sequence[Checkpoint], host: Host | None, settings: Settings) -> Saves:
        """What will hang on the saves of an attempt that has not begun, by what other trainings have told."""
        record = estimated(self._journal.record, self._given)
        pace_s = usual_pace_s(record, self._run_folder)
        if record.closer_saves is not False:  # a choice that was made is looked at anew, not taken for the script's
            record = replace(record, closer_saves=None)
        return saves.foresee(record, self._given.asked, step, found, host, settings, pace_s)
