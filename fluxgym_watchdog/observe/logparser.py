"""What the trainer's output says: phases, steps, epochs, loss. Pure: text in, LogProgress out.

The wording is that of kohya-ss/sd-scripts, branch sd3 (`train_network.py`, `library/train_util.py`). It is searched
for with all blanks left out, because rich wraps messages anywhere at the terminal's width.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from fluxgym_watchdog.observe.logtext import Bar, Splitter, bars_and_text, clean, display_lines, keep_newest
from fluxgym_watchdog.records import LogProgress, Phase

LAST_LINES = 40
"""How many lines are kept for whoever explains an end."""


class LogParser:
    """Follows one attempt's output; what it says so far does not depend on the chunks it came in."""

    def __init__(self, advances: int = 0) -> None:
        """`advances` is where to count on from, for a log that is read again from its start."""
        self._splitter = Splitter()
        self._said = _Said(advances=advances)

    def feed(self, text: str) -> None:
        """Takes text that follows what was fed before."""
        for piece in self._splitter.feed(text):
            self._said.hear(piece)

    @property
    def progress(self) -> LogProgress:
        """What the output says so far, its unfinished last line included; sizes and `problem` are the reader's."""
        said = self._said
        if self._splitter.rest:
            said = copy.copy(said)
            said.lines = list(said.lines)
            said.counts = dict(said.counts)
            said.hear(self._splitter.rest)
        per_epoch = said.batches_per_epoch
        if per_epoch is not None and said.accumulation:
            per_epoch = math.ceil(per_epoch / said.accumulation)
        shared = {name: getattr(said, name) for name in _SHARED}
        return LogProgress(**shared, steps_per_epoch=per_epoch, last_lines=tuple(line for line, _ in said.lines))


BEFORE_TRAINING = (Phase.IMPORTS, Phase.DOWNLOAD, Phase.LOADING, Phase.CACHING_LATENTS, Phase.CACHING_TEXT)


@dataclass(slots=True)
class _Said:
    phase: Phase = Phase.IMPORTS
    step: int = 0
    bar_total: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    batches_per_epoch: int | None = None
    accumulation: int | None = None
    loss: float | None = None
    count: int = 0
    count_total: int | None = None
    advances: int = 0
    resumed: bool = False
    model_saved: bool = False
    message: str = ""
    message_heeded: bool = True
    counts: dict[tuple[str, int | None], int] = field(default_factory=dict)
    lines: list[tuple[str, str | None]] = field(default_factory=list)

    def hear(self, piece: str) -> None:
        cleaned = clean(piece)
        for part in bars_and_text(cleaned):
            if not isinstance(part, Bar):
                self._hear_text(part)
            elif part.counts_steps:
                self._hear_steps(part)
            else:
                self._hear_count(part)
        for line, label in display_lines([piece]):
            keep_newest(self.lines, line, label, LAST_LINES)

    def enter(self, phase: Phase) -> bool:
        """Moves to a phase; a phase reached is an advance."""
        if phase is self.phase:
            return False
        self.phase = phase
        self.count, self.count_total = 0, None
        self.counts = {}
        self.advances += 1
        return True

    def announce(self, phase: Phase) -> None:
        """Moves to a phase because of an announced checkpoint, which is an advance in any case."""
        if self.phase is Phase.ENDING:
            phase = Phase.ENDING
        if not self.enter(phase):
            self.advances += 1

    # bars

    def _hear_steps(self, bar: Bar) -> None:
        if bar.total is not None:
            self.bar_total = bar.total
        if loss := _LOSS.search(bar.tail):
            self.loss = _float(loss[1], self.loss)
        if bar.count > self.step:
            self.step = bar.count
            self.count, self.count_total = 0, None
            if not self.enter(Phase.TRAINING):
                self.advances += 1
            return
        self.step = bar.count
        if self.phase in BEFORE_TRAINING:  # where stdout is buffered, `running training` comes late
            self.enter(Phase.FIRST_STEP)

    def _hear_count(self, bar: Bar) -> None:
        if self.phase in (Phase.IMPORTS, Phase.LOADING) and _DOWNLOAD.search(bar.label):
            self.enter(Phase.DOWNLOAD)
        # Downloads run side by side and redraw in turns: each bar is compared with itself.
        key = (bar.label, bar.total)
        if bar.count > self.counts.get(key, 0):
            self.advances += 1
        if len(self.counts) < 256 or key in self.counts:
            self.counts[key] = bar.count
        self.count, self.count_total = bar.count, bar.total

    # text

    def _hear_text(self, text: str) -> None:
        if header := _RICH_HEADER.search(text):
            self._hear_plain(text[: header.start()])
            self.message, self.message_heeded = "", False
            self._hear_message(text[header.end() :])
        elif _RICH_CONTINUED.match(text):
            self._hear_message(text)
        else:
            self.message_heeded = True
            self._hear_plain(text)

    def _hear_message(self, text: str) -> None:
        if self.message_heeded:
            return
        self.message = (self.message + _squeezed(_SOURCE.sub("", text)))[:1000]
        for mark, act in _MARKS:
            if self.message.startswith(mark):
                self.message_heeded = True
                act(self, text)
                return

    def _hear_plain(self, text: str) -> None:
        if "prompt:" in text:  # the user's own words
            return
        if epoch := _EPOCH.search(text):
            self._begin_epoch(int(epoch[1]), int(epoch[2]))
        for pattern, name in _COUNTERS:
            if found := pattern.search(text):
                setattr(self, name, int(found[1]))
                return
        squeezed = _squeezed(text)
        found_at = [
            (squeezed.index(mark), act)
            for mark, act in _MARKS
            if (squeezed.endswith(mark) if act is _model_saved else mark in squeezed)  # a folder may have any name
        ]
        if found_at:
            _, act = min(found_at, key=lambda found: found[0])
            act(self, text)

    def _begin_epoch(self, epoch: int, epochs: int) -> None:
        if self.epochs is not None and epochs != self.epochs:
            return
        self.epoch, self.epochs = epoch, epochs
        if self.phase in (Phase.SAVING, Phase.SAMPLING):
            self.enter(Phase.TRAINING if self.step else Phase.FIRST_STEP)


# What a message means. Marks are without blanks; a mark acts once a message.


def _prepare(phase: Phase) -> Callable[[_Said, str], None]:
    def act(said: _Said, _: str) -> None:
        if said.phase in BEFORE_TRAINING:
            said.enter(phase)

    return act


def _resume(said: _Said, _: str) -> None:
    said.resumed = True
    if said.phase in BEFORE_TRAINING:
        said.enter(Phase.LOADING)


def _saving_weights(said: _Said, text: str) -> None:
    # In the last epoch the trainer leaves out the epoch's own weights: all but step weights are then the final ones.
    last_epoch = said.epoch is not None and said.epoch == said.epochs
    said.announce(Phase.ENDING if last_epoch and not _STEP_NAME.search(text) else Phase.SAVING)


def _saving_state(said: _Said, _: str) -> None:
    said.announce(Phase.SAVING)


def _saved_state(said: _Said, _: str) -> None:
    said.announce(Phase.TRAINING if said.step else said.phase)


def _sampling(said: _Said, _: str) -> None:
    if said.phase is not Phase.ENDING:
        said.enter(Phase.SAMPLING)


def _ending(said: _Said, _: str) -> None:
    said.announce(Phase.ENDING)


def _model_saved(said: _Said, _: str) -> None:
    if not said.model_saved:
        said.model_saved = True
        said.announce(Phase.ENDING)


_MARKS: tuple[tuple[str, Callable[[_Said, str], None]], ...] = (
    *(
        (mark, _prepare(Phase.LOADING))
        for mark in (
            "highvramisenabled",
            "Loadingdatasetconfigfrom",
            "prepareimages",
            "preparingaccelerator",
            "CheckingtheStatedict",
            "Checkingthestatedict",
            "BuildingFluxmodel",
            "BuildingCLIP-L",
            "BuildingT5",
            "BuildingAutoEncoder",
            "Loadingstatedictfrom",
            "importnetworkmodule",
            "createLoRAnetwork",
            "prepareoptimizer",
        )
    ),
    ("Downloadingstatefrom", _prepare(Phase.DOWNLOAD)),
    ("cachinglatents", _prepare(Phase.CACHING_LATENTS)),
    ("cachingTextEncoderoutputs", _prepare(Phase.CACHING_TEXT)),
    ("cachingtextencoderoutputs", _prepare(Phase.CACHING_TEXT)),
    ("resumetrainingfromlocalstate", _resume),
    ("resumetrainingfromhuggingfacestate", _resume),
    ("runningtraining", _prepare(Phase.FIRST_STEP)),
    ("savingcheckpoint:", _saving_weights),
    ("savingstateatepoch", _saving_state),
    ("savingstateatstep", _saving_state),
    ("Randomstatessavedin", _saved_state),
    ("generatingsampleimages", _sampling),
    ("savinglaststate", _ending),
    ("modelsaved.", _model_saved),
)
_COUNTERS = tuple(
    (re.compile(re.escape(words) + r"\b.*[:=]\s*(\d{1,12})\s*$"), name)
    for words, name in (
        ("num batches per epoch", "batches_per_epoch"),
        ("num epochs", "epochs"),
        ("gradient accumulation steps", "accumulation"),
        ("total optimization steps", "total_steps"),
    )
)
_SHARED = tuple(f.name for f in fields(LogProgress) if f.name in {g.name for g in fields(_Said)})
_EPOCH = re.compile(r"(?<![A-Za-z_])epoch (\d{1,9})/(\d{1,9})(?!\d)")
_LOSS = re.compile(r"avr_loss=([^\s,\]]+)")
_STEP_NAME = re.compile(r"-step\d{8,}\.\w+\s*$")
_DOWNLOAD = re.compile(
    r"(?i)\.(?:json|txt|safetensors|sft|bin|model|gguf|pth?|ckpt)\)?:$|^fetching \d+ files|^download"
)
_RICH_HEADER = re.compile(r"(?:^|[\s\]])(?:INFO|WARNING|ERROR|CRITICAL|DEBUG) {2,}|(?<= )CRITICAL ")
_RICH_CONTINUED = re.compile(r" {12,}")
_SOURCE = re.compile(r"\s+\S+\.py:\d+\s*$")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _float(shown: str, otherwise: float | None) -> float | None:
    try:
        value = float(shown)
    except ValueError:
        return otherwise
    return math.nan if math.isnan(value) else value  # one and the same NaN, so that equal progress is equal
