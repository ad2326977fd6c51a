"""The one board that all pages look at: which runs there are, what each part shows, and what a page must be sent."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.tab import plots, preferences, requests, series, tables, view
from fluxgym_watchdog.tab.feed import Feed
from fluxgym_watchdog.tab.others import Others
from fluxgym_watchdog.tab.requests import Answer
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.show import PARTS, Drawn, Part, Show, part
from fluxgym_watchdog.tab.words import sendable

log = logging.getLogger("fluxgym_watchdog.tab")

SPANS: dict[str, float | None] = {"15 min": 900.0, "1 h": 3600.0, "6 h": 21600.0, "all": None}
"""The ranges to choose, in seconds; None: everything."""

FEEDS, WANTED_S = 6, 60.0
"""So many runs are kept read, and all that were looked at within so many seconds."""

NAMES_S = 6.0
"""The list of runs is made anew after so many seconds."""

REDRAW_S = 6.0
"""Each of the two panels of plots is drawn anew after so many seconds at the earliest, in turns with the other: over
15 min that is what two of its points stand for."""


class Board:
    """Everything that the pages read, and the requests that they leave."""

    def __init__(
        self,
        outputs: Path,
        settings: Settings,
        find_runs: Callable[[Path], list[Path]],
        clock: Callable[[], float] = time.time,
        problem: Callable[[], str] = lambda: "",
        root: Path | None = None,
        use: Callable[[Settings], None] = lambda settings: None,
    ) -> None:
        self._outputs, self._root = outputs, root or outputs.parent
        self._settings, self._use = settings, use
        self._find_runs = find_runs
        self._clock = clock
        self._watchdogs_problem = problem
        self._lock, self._scan = threading.Lock(), threading.Lock()
        self._feeds: OrderedDict[Path, Feed] = OrderedDict()
        self._drawn = Drawn()
        self._runs: dict[str, Path] = {}
        self._runs_at = 0.0
        self._problem = self._failure = ""
        self._others = Others()
        self._in_need: dict[str, str] = {}

    def show(self, wanted: str | None, span: str, *, follow: bool = False, log_scale: bool = False) -> Show:
        """What a page that wants to see a run is shown; the newest run where there is none of that name.

        With `follow` (nobody has picked the run) the newest run takes over as soon as the shown one is not live. Never
        raises: an error of ours is logged once, and shown in the card's place.
        """
        try:
            shown = self._show(wanted, span, follow=follow, log_scale=log_scale)
        except Exception as error:  # the edge of the page, which would only stand still
            failure = f"The tab failed at {wanted}: {error!r}"
            if failure != self._failure:
                log.exception("%s", failure)
            self._failure = failure
            card = part(view.note(f"{failure}. The training is watched all the same; FluxGym's console says more"))
            return Show(wanted, tuple(self._runs), dict.fromkeys(PARTS, Part()) | {"card": card})
        self._failure = ""
        return shown

    def _show(self, wanted: str | None, span: str, *, follow: bool, log_scale: bool) -> Show:
        span = span if span in SPANS else next(iter(SPANS))
        now, problem, settings = self._clock(), self._watchdogs_problem(), self._settings
        runs = self._found(now)
        with self._lock:
            form = self._drawn.part("settings", settings, lambda: preferences.form(settings))
            if not runs:
                nothing = part(view.note(problem) + view.nothing(self._problem))
                return Show(None, (), dict.fromkeys(PARTS, Part()) | {"card": nothing, "settings": form})
            newest = next(iter(runs))
            name = wanted if isinstance(wanted, str) and wanted in runs else newest
            feeds = {each: self._feed(runs[each], now) for each in {name, newest}}
            in_need = self._in_need
        if follow and name != newest:
            with feeds[name].lock:
                name = name if feeds[name].look(settings, now).live else newest
        with feeds[name].lock:
            seen = feeds[name].look(settings, now)
            others = {other: state for other, state in in_need.items() if other != name}
            above = view.note(problem) + view.others(others)
            parts = self._parts(feeds[name].drawn, seen, span, now, above, log_scale=log_scale)
        return Show(
            name=name,
            names=tuple(runs),
            parts=parts | {"settings": form},
            auto_resume=seen.auto_resume(settings),
            may_switch=seen.record is not None,
            may_stop=seen.may_stop(),
            may_resume=seen.may_resume(),
        )

    def ask(self, name: str | None, kind: str, value: object = None) -> Answer:
        """Does what a page asks for, or says in plain words why it cannot.

        All that comes from the browser, the run's name and a checkpoint's, is looked up, and never used as a path.
        """
        name, now = name if isinstance(name, str) else "", self._clock()
        folder = self._found(now).get(name) or self._found(now, anew=True).get(name)
        if folder is None or not folder.is_dir():
            return Answer("There is no such run any more.")
        with self._lock:
            feed = self._feed(folder, now)
        with feed.lock:
            return requests.answer(feed.store, feed.look(self._settings, self._clock()), kind, value)

    def change_settings(self, values: object) -> Answer:
        """Writes changed settings to watchdog.yaml and goes on with them, or says in plain words why it cannot."""
        if not isinstance(values, Mapping) or not values:
            return Answer("Nothing was changed.")
        answer, settings = requests.changed_settings(self._root, values)
        if settings is not None:
            self._settings = settings
            self._use(settings)
        return answer

    def _found(self, now: float, *, anew: bool = False) -> dict[str, Path]:
        """The runs by name. While another page looks them up, those of the last time: the disk may not answer."""
        if (anew or not 0 <= now - self._runs_at < NAMES_S) and self._scan.acquire(blocking=not self._runs):
            try:
                self._runs, self._problem = self._looked_up()
                self._in_need = self._others.in_need(self._runs)
                self._runs_at = now
            finally:
                self._scan.release()
        return self._runs

    def _looked_up(self) -> tuple[dict[str, Path], str]:
        try:
            return {sendable(folder.name): folder for folder in self._find_runs(self._outputs)}, ""
        except FileNotFoundError:
            return {}, ""  # FluxGym makes the folder with the first run
        except OSError as error:
            return {}, f"The outputs folder cannot be read: {error}"

    def _feed(self, folder: Path, now: float) -> Feed:
        feed = self._feeds.pop(folder, None) or Feed(folder)
        self._feeds[folder] = feed
        feed.wanted_at = now
        while len(self._feeds) > FEEDS and abs(now - next(iter(self._feeds.values())).wanted_at) > WANTED_S:
            self._feeds.popitem(last=False)
        return feed

    def _parts(
        self, drawn: Drawn, seen: Seen, span: str, now: float, above: str, *, log_scale: bool
    ) -> dict[str, Part]:
        """All parts that are of the run; each is made anew only when what it shows has changed, for all pages."""
        history, events, status = seen.history, seen.events, seen.status
        fresh = seen.live and not seen.stale
        newest = history.newest("at")
        end = now if fresh or newest is None else newest
        shown = series.window(history, SPANS[span], end)
        every_s = min(10.0, max(REDRAW_S, shown.bucket_s / 2))
        source = (status.gpu_source, status.gpu_problem, len(status.gpus)) if status else None
        told = (len(events), events[-1:])
        idle = self._settings.gpu_threshold
        run = (seen.record, seen.requests, seen.stale, seen.held, seen.at_rest)

        return {
            "card": drawn.part("card", (run, status, seen.problem, above), lambda: above + view.card(seen, now)),
            "gpu": drawn.part(
                f"gpu {span}",
                (end // every_s, told, source, idle),
                lambda: plots.gpu_panel(history, events, shown, status, idle),
            ),
            "training": drawn.part(
                f"training {span} {log_scale}",
                ((end + REDRAW_S / 2) // every_s, told),
                lambda: plots.training_panel(history, events, shown, log_scale=log_scale),
            ),
            "timeline": drawn.part("timeline", events, lambda: tables.timeline(events)),
            "checkpoints": drawn.part("checkpoints", (run, *_of_table(seen)), lambda: tables.checkpoints(seen)),
            "log": drawn.part("log", (seen.log, bool(seen.log_now)), lambda: tables.log(seen.log, seen.log_now)),
            "log_now": drawn.part("log_now", seen.log_now, lambda: tables.log_now(seen.log_now)),
            "host": drawn.part("host", (status, seen.live, seen.stale), lambda: view.host(seen)),
        }


def _of_table(seen: Seen) -> tuple[object, ...]:
    """What the table of checkpoints shows beside the checkpoints: it must not change with every step."""
    status = seen.status
    if status is None:
        return (seen.folder_bytes,)
    room = status.host.disk_free_bytes >> 28 if status.host else 0  # quarters of a GiB
    saves = status.saves
    saving = (saves.next_bytes, saves.fits) if saves else None
    may_go_back = seen.may_resume()
    return status.checkpoints, room, saving, may_go_back, status.step if may_go_back else None, seen.folder_bytes


Sent = dict[str, str]
"""What a page has been sent, as marks: the parts by their text, and what its user chose."""

TICK_BYTES = 9900
"""So much is sent at one look; the rest waits for the next one. The first view, and another run, come whole."""


def news(show: Show, sent: Sent) -> tuple[set[str], Sent]:
    """The names of what a page must be sent, and what it will then have been sent.

    Names are those of the parts, and picker, auto_resume, stop and resume.
    """
    marks = {name: part.mark for name, part in show.parts.items()}
    marks["picker"] = repr((show.name, show.names))
    marks["auto_resume"] = f"{show.name} {show.auto_resume} {show.may_switch}"
    marks["stop"] = str(show.may_stop)
    marks["resume"] = str(show.may_resume)
    changed = [name for name, mark in marks.items() if sent.get(name) != mark]
    whole = sent.get("run") != (show.name or "") or not sent.get("card")
    waited = {name: int(sent.get(f"waits {name}", "0")) for name in changed}
    size_bytes = 0
    now: set[str] = set()
    order = {name: place for place, name in enumerate(PARTS)}
    for name in sorted(changed, key=lambda name: (name in PARTS, -waited[name], order.get(name, 0))):
        more = show.parts.get(name, Part()).size_bytes
        if whole or not size_bytes or size_bytes + more <= TICK_BYTES:
            now.add(name)
            size_bytes += more
    later = {f"waits {name}": str(waited[name] + 1) for name in changed if name not in now}
    before = {name: mark for name, mark in sent.items() if not name.startswith("waits ")}
    return now, {**before, **{name: marks[name] for name in now}, **later, "run": show.name or ""}
