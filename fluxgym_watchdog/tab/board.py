"""The one board that all pages look at: which runs there are, what each part shows, and what has changed for a page."""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab import plots, series, tables, view
from fluxgym_watchdog.tab.feed import Feed
from fluxgym_watchdog.tab.seen import Seen

SPANS: dict[str, float | None] = {"15 min": 900.0, "1 h": 3600.0, "6 h": 21600.0, "all": None}
"""The ranges to choose, in seconds; None: everything."""

FEEDS = 6
"""So many runs are kept read; the one not looked at for longest makes room."""

NAMES_S = 4.0
"""The list of runs is made anew after so many seconds."""

PARTS = ("card", "gpu", "training", "timeline", "checkpoints", "log", "host")
"""The parts that are HTML, in the order they are sent."""


@dataclass(frozen=True, slots=True)
class Show:
    """What a page shows: its run (None: there is none), the runs to pick from, the HTML of each part, the controls."""

    name: str | None
    names: tuple[str, ...]
    parts: dict[str, str]
    auto_resume: bool = True
    may_switch: bool = False
    may_stop: bool = False
    may_resume: bool = False


@dataclass(slots=True)
class _Drawn:
    """A run's plots as drawn last, and for what; drawing is what costs, and all pages share it."""

    key: tuple[object, ...]
    gpu: str
    training: str


class Board:
    """Everything that the pages read, and the requests that they leave."""

    def __init__(
        self,
        outputs: Path,
        settings: Settings,
        find_runs: Callable[[Path], list[Path]],
        clock: Callable[[], float] = time.time,
        problem: Callable[[], str] = lambda: "",
    ) -> None:
        self._outputs = outputs
        self._settings = settings
        self._find_runs = find_runs
        self._clock = clock
        self._watchdogs_problem = problem
        self._lock = threading.Lock()
        self._feeds: OrderedDict[Path, Feed] = OrderedDict()
        self._drawn: dict[tuple[Path, str], _Drawn] = {}
        self._runs: dict[str, Path] = {}
        self._runs_at = 0.0
        self._problem = ""

    def show(self, wanted: str | None, span: str, *, follow: bool = False) -> Show:
        """What a page that wants to see a run is shown; the newest run where there is none of that name.

        With `follow` (nobody has picked the run) the newest run takes over as soon as the shown one is not live.
        """
        with self._lock:
            now, note = self._clock(), view.note(self._watchdogs_problem())
            runs = self._found(now)
            if not runs:
                blank = dict.fromkeys(PARTS, "") | {"card": note + view.nothing(self._problem)}
                return Show(None, (), blank)
            name = wanted if wanted in runs else next(iter(runs))
            seen = self._feed(runs[name]).look(self._settings, now)
            if follow and name != (newest := next(iter(runs))) and not seen.live:
                name, seen = newest, self._feed(runs[newest]).look(self._settings, now)
            drawn = self._plots(runs[name], seen, span, now)
            return Show(
                name=name,
                names=tuple(runs),
                parts={
                    "card": note + view.card(seen, series.pace(seen.samples), now),
                    "gpu": drawn.gpu,
                    "training": drawn.training,
                    "timeline": tables.timeline(seen.events),
                    "checkpoints": tables.checkpoints(seen),
                    "log": tables.log(seen.log),
                    "host": view.host(seen),
                },
                auto_resume=seen.auto_resume(self._settings),
                may_switch=seen.record is not None,
                may_stop=seen.may_stop(),
                may_resume=seen.may_resume(),
            )

    def ask(self, name: str | None, kind: str, **values: str | bool) -> str:
        """Leaves a request for a run; says in plain words why it could not, or nothing.

        The name, and a checkpoint's, come from the browser: they are looked up, never used as a path.
        """
        with self._lock:
            self._runs_at = 0.0
            folder = self._found(self._clock()).get(name or "")
            if folder is None:
                return "There is no such run any more."
            seen = self._feed(folder).look(self._settings, self._clock())
            checkpoint = values.get("checkpoint")
            known = [
                c.name for c in (seen.status.checkpoints if seen.status else ()) if tables.resumable(c, seen.record)
            ]
            if checkpoint is not None and checkpoint not in known:
                return "There is no such state to go on from any more."
            if kind == "stop" and not seen.may_stop():
                return "This run is not training."
            if kind == "resume" and not seen.may_resume():
                return "This run cannot go on: it is training, has finished, or was never started."
            try:
                Store(folder).request(kind, **values)
            except OSError as error:
                return f"The request could not be written: {error}"
            return ""

    def _found(self, now: float) -> dict[str, Path]:
        if not 0 <= now - self._runs_at < NAMES_S:
            self._problem = ""
            try:
                self._runs = {folder.name: folder for folder in self._find_runs(self._outputs)}
            except FileNotFoundError:
                self._runs = {}  # FluxGym makes the folder with the first run
            except OSError as error:
                self._runs, self._problem = {}, f"The outputs folder cannot be read: {error}"
            self._runs_at = now
        return self._runs

    def _feed(self, folder: Path) -> Feed:
        feed = self._feeds.pop(folder, None) or Feed(folder)
        self._feeds[folder] = feed
        while len(self._feeds) > FEEDS:
            dropped, _ = self._feeds.popitem(last=False)
            self._drawn = {key: drawn for key, drawn in self._drawn.items() if key[0] != dropped}
        return feed

    def _plots(self, folder: Path, seen: Seen, span: str, now: float) -> _Drawn:
        samples = seen.samples
        fresh = seen.live and not seen.stale
        end = now if fresh or not samples else samples[-1].at
        shown = series.window(samples, SPANS.get(span, SPANS["15 min"]), end)
        every_s = min(10.0, shown.bucket_s / 2)
        status = seen.status
        newest = samples[-1].at if samples else 0.0
        source = (status.gpu_source, status.gpu_problem, len(status.gpus)) if status else None
        key = (newest // every_s, shown.start // every_s, len(seen.events), seen.events[-1:], source)
        drawn = self._drawn.get((folder, span))
        if drawn is None or drawn.key != key:
            idle = self._settings.gpu_threshold
            drawn = _Drawn(
                key,
                plots.gpu_panel(samples, seen.events, shown, status, idle),
                plots.training_panel(samples, seen.events, shown),
            )
            self._drawn[folder, span] = drawn
        return drawn


Sent = dict[str, str]
"""What a page has been sent, as marks: the parts by their text, and what its user chose."""


def news(show: Show, sent: Sent) -> tuple[set[str], Sent]:
    """The names of what a page must be sent, and what it will then have been sent.

    Names are those of the parts, and picker, auto_resume, stop and resume.
    """
    marks = {part: f"{zlib.crc32(text.encode('utf-8', 'replace')):x}.{len(text)}" for part, text in show.parts.items()}
    marks["picker"] = repr((show.name, show.names))
    marks["auto_resume"] = f"{show.name} {show.auto_resume} {show.may_switch}"
    marks["stop"] = str(show.may_stop)
    marks["resume"] = str(show.may_resume)
    changed = {name for name, mark in marks.items() if sent.get(name) != mark}
    return changed, {**sent, **marks, "run": show.name or ""}
