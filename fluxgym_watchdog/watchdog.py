"""The watchdog: for each run, each tick, observe, judge, act and record. One thread, or none (the command line)."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxgym_watchdog.act.script import ScriptError
from fluxgym_watchdog.fluxgym.runs import NotARun, expected_script, find_runs, fluxgym_of
from fluxgym_watchdog.observe.gpu import GpuReader
from fluxgym_watchdog.observe.processes import find_trainers
from fluxgym_watchdog.records import LIVE_STATES, RunRecord, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Held, Store
from fluxgym_watchdog.supervision import Supervision

log = logging.getLogger("fluxgym_watchdog")

REQUESTS_EVERY_S = 2.0
"""However far apart the looks are, what a user asks for is taken up within so many seconds."""
RECOVER_EVERY_S = 10.0
"""How often runs are looked for whose supervisor has gone while we were here."""
DELETIONS_S = 600.0
"""How long a command stays for the deletions that it asked for; what it leaves is cleared when the run is taken up."""
LOCK_PATIENCE_S = 10.0
"""A look takes milliseconds. Who waits longer than this for one to end starts the training without us."""


class Watchdog:
    """Supervises the runs under one outputs folder.

    `tick(now)` does everything once; `start` and `stop` run it in a daemon thread. All of its methods may be called
    from any thread. With `all_runs` it also takes up requests for runs that nobody supervises, and runs that were under
    way when their supervisor, the container or the machine ended. `problem` is what a look at its page should show.
    """

    def __init__(
        self,
        outputs: Path,
        settings: Settings,
        *,
        gpu: GpuReader | None = None,
        clock: Callable[[], float] = time.time,
        all_runs: bool = True,
    ) -> None:
        self.outputs, self.settings = outputs, settings
        self.problem = ""
        self._failures: dict[str, str] = {}
        self._gpu, self._clock, self._all_runs = gpu or GpuReader(), clock, all_runs
        self._runs: dict[str, Supervision] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ending = False
        self._recovered_at = float("-inf")
        self._found: list[Path] = []
        self._ended: dict[str, RunRecord] = {}
        self._thread: threading.Thread | None = None

    # the thread

    def start(self) -> None:
        """Begins to tick in a daemon thread; does nothing if it already does."""
        with self._lock:
            if self._thread is None:
                self._ending = False
                self._thread = threading.Thread(target=self._loop, name="fluxgym-watchdog", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ends the thread and gives every run's lock back. Trainings go on."""
        self._ending = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            for name in list(self._runs):
                self._drop(name)

    def _loop(self) -> None:
        while not self._ending:
            try:
                self.tick(time.monotonic())
            except Exception as error:  # the last edge: the thread outlives whatever the edges below let through
                self.problem = f"The watchdog failed: {error}"
                log.exception("%s", self.problem)
            self.pause(self._wake)
            self._wake.clear()

    def pause(self, wake: threading.Event) -> None:
        """Waits for the next tick: until it is due, something was asked for, or `wake` is set."""
        due = time.monotonic() + self.pause_s
        while not wake.is_set() and (left_s := due - time.monotonic()) > 0:
            if wake.wait(min(left_s, REQUESTS_EVERY_S)):
                break
            if left_s > REQUESTS_EVERY_S and self._asked_for_something():  # else the tick, which is due, looks itself
                break

    def _asked_for_something(self) -> bool:
        with self._lock:
            stores = [supervision.store for supervision in self._runs.values()]
            stores += [Store(folder) for folder in self._found if folder.name not in self._runs]
        return any(store.pending_requests() for store in stores)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next tick, in seconds."""
        with self._lock:
            return min([s.pause_s for s in self._runs.values()], default=self.settings.check_interval)

    # one tick

    def tick(self, now: float) -> None:
        """Looks at every supervised run once, at monotonic time `now`; never raises for the sake of one run."""
        with self._lock:
            for name, supervision in list(self._runs.items()):
                self._guarded(name, lambda s=supervision: self._tick_run(s, now))  # type: ignore[misc]
            if self._all_runs:
                self._guarded("outputs", lambda: self._look_around(now))

    def _tick_run(self, supervision: Supervision, now: float) -> None:
        for request in supervision.store.take_requests():
            self._answer(supervision, request, now)
        if not supervision.done:
            supervision.tick(now)
        supervision.degrade("")
        if supervision.done:
            self._drop(supervision.run_folder.name)

    def _answer(self, supervision: Supervision, request: Mapping[str, Any], now: float) -> None:
        if request["kind"] == "stop":
            supervision.stop(now)
        elif request["kind"] == "resume":
            chosen = request.get("checkpoint")
            supervision.resume(now, chosen if isinstance(chosen, str) else None)
        elif request["kind"] == "switch":
            supervision.switch(request.get("auto_resume") is True)
        elif request["kind"] == "saves":
            supervision.answer_offer(request.get("closer") is True)
        elif request["kind"] == "delete":
            named = request.get("checkpoints")
            supervision.delete([n for n in named if isinstance(n, str)] if isinstance(named, list) else [])

    def _look_around(self, now: float) -> None:
        recover = now - self._recovered_at >= RECOVER_EVERY_S
        if recover:
            self._recovered_at, self._found = now, []
            with contextlib.suppress(FileNotFoundError):  # FluxGym makes outputs/ at the first start
                self._found = find_runs(self.outputs)
        for folder in self._found:
            if folder.name not in self._runs:
                store = Store(folder)
                if recover or store.pending_requests():
                    self._guarded(folder.name, lambda s=store: self._take_up(s, now, recover))  # type: ignore[misc]

    def _take_up(self, store: Store, now: float, recover: bool) -> None:
        record, _ = store.read_record()
        interrupted = recover and record is not None and _interrupted(record)
        if not interrupted and not store.pending_requests():
            return
        try:
            supervision = self._supervise(store, expected_script(store.run_folder), strict=False)
        except Held:
            return  # its holder takes the requests
        with self._dropped_on_error(store.run_folder.name):
            if _interrupted(supervision.record):
                supervision.adopt(now)
        self._tick_run(supervision, now)

    def _guarded(self, what: str, step: Callable[[], None]) -> None:
        """The thread's edge: an error of ours is logged and shown, and never ends the watch over the other runs."""
        supervision = self._runs.get(what)
        try:
            step()
            if self._failures.pop(what, "") == self.problem:
                self.problem = next(iter(self._failures.values()), "")
        except Exception as error:  # the edge of the thread
            problem = f"The watchdog failed at {what}: {error}"
            if problem != self._failures.get(what):
                log.exception("%s", problem)
            self._failures[what] = self.problem = problem
            if supervision is not None:
                try:
                    supervision.degrade(f"Watching is degraded: {error}")
                except Exception:  # it cannot even be shown
                    log.exception("%s, which cannot be shown", problem)

    # taking a run up

    def train(self, script: Path) -> Store:
        """Starts the training of a run from nothing, or joins the one that is live.

        Raises Held (another process supervises it), ScriptError, NotARun, OSError; then nothing was started.
        """
        return self._begin(script, lambda s, now: s.begin(now))

    def resume(self, script: Path, chosen: str | None = None) -> Store:
        """Goes on with a run from its newest sound checkpoint, or the chosen one. Raises like `train`."""
        return self._begin(script, lambda s, now: s.resume(now, chosen), over_the_dead=True)

    def watch(self, script: Path, output_dir: Path, *, strict: bool = True) -> Store | None:
        """Takes over a training that is already running; None where none is. Raises like `train`.

        Without `strict` also one whose script cannot be used: it can be watched and stopped, not started again.
        """
        with self._lock:
            store = Store(output_dir)
            record, _ = store.read_record()
            live = record is not None and record.state in LIVE_STATES
            if not live and not find_trainers(output_dir, None, fluxgym_of(script.parent), or_launchers=True):
                return None
            supervision = self._supervise(store, script, strict=strict)
            with self._dropped_on_error(output_dir.name):
                strangers = supervision.strangers()
                if not supervision.done:
                    supervision.adopt(time.monotonic())
                elif strangers:
                    supervision.take_over(strangers)
                else:
                    self._drop(output_dir.name)
                    return None
            return store

    def take_requests(self, run_folder: Path, kinds: Collection[str]) -> None:
        """Answers what waits for a run that nobody supervises: requests of kinds that neither start nor stop anything.

        Raises Held, OSError.
        """
        with self._lock:
            supervision = self._supervise(Store(run_folder), expected_script(run_folder), strict=False)
            try:
                for request in supervision.store.take_requests(kinds):
                    self._answer(supervision, request, time.monotonic())
                supervision.books.wait_for_deletions(DELETIONS_S)
            finally:
                self._drop(run_folder.name)

    def record(self, name: str) -> RunRecord | None:
        """The record of a run that this watchdog supervises or has supervised to its end, written or not."""
        with self._lock:
            supervision = self._runs.get(name)
            return supervision.record if supervision is not None else self._ended.get(name)

    def end(self, name: str) -> None:
        """Stops the training of a supervised run, as its user's request would."""
        with self._lock:
            supervision = self._runs.get(name)
            if supervision is not None:
                supervision.stop(time.monotonic())

    def supervises(self, name: str) -> bool:
        """Whether the run of that name is under this watchdog."""
        with self._lock:
            return name in self._runs

    def set_auto_resume(self, name: str, auto_resume: bool) -> None:
        """Sets a supervised run's switch without a word on its timeline if it stands so already."""
        with self._lock:
            supervision = self._runs.get(name)
            if supervision is not None and supervision.record.auto_resume != auto_resume:
                supervision.switch(auto_resume)

    def use(self, settings: Settings) -> None:
        """Goes on under other settings, from the next look on."""
        with self._lock:
            self.settings = settings
            for supervision in self._runs.values():
                supervision.settings = settings
        self._wake.set()

    def _begin(
        self, script: Path, begin: Callable[[Supervision, float], None], *, over_the_dead: bool = False
    ) -> Store:
        """Begins as asked, unless the run is under way: then that is taken over.

        `over_the_dead`: also where its record calls it live, but nothing of it is left; else such a run is taken up as
        at the start of FluxGym, by its own switch.
        """
        if not self._lock.acquire(timeout=LOCK_PATIENCE_S):
            raise TimeoutError(f"the watchdog has been busy for {LOCK_PATIENCE_S:.0f} s; does a disk not answer?")
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            folder = script.parent
            joined = self._runs.get(folder.name)
            if joined is not None and not joined.done:
                return joined.store
            if joined is not None:
                self._drop(folder.name)
            store, now = Store(folder), time.monotonic()
            supervision = self._supervise(store, script)
            with self._dropped_on_error(folder.name):
                store.take_requests()  # left for an earlier training
                strangers = supervision.strangers()
                if over_the_dead and not supervision.done and not supervision.anything_alive:
                    supervision.close()
                if not supervision.done:
                    supervision.adopt(now)
                elif strangers:
                    supervision.take_over(strangers)  # a second one would write into the same folder
                else:
                    begin(supervision, now)
            self._wake.set()
            return store

    @contextlib.contextmanager
    def _dropped_on_error(self, name: str) -> Iterator[None]:
        """Whoever asked for a run and gets an error starts it otherwise: then it must not start here as well."""
        try:
            yield
        except BaseException:
            if name in self._runs:
                self._drop(name)
            raise

    def _supervise(self, store: Store, script: Path, *, strict: bool = True) -> Supervision:
        root = fluxgym_of(script.parent)
        store.lock()
        try:
            supervision = Supervision(store, script, root, self.settings, self._gpu, self._clock, strict=strict)
        except (ScriptError, NotARun, OSError):
            store.unlock()
            raise
        self._runs[store.run_folder.name] = supervision
        return supervision

    def _drop(self, name: str) -> None:
        supervision = self._runs.pop(name)
        self._ended[name] = supervision.record
        supervision.store.unlock()


def _interrupted(record: RunRecord) -> bool:
    """Whether a run that nobody supervises was under way.

    A crash that may be retried passes through `crashed` for an instant only: there its supervisor died, or its switch
    was turned on since.
    """
    crashed = record.state is RunState.CRASHED and record.auto_resume and record.retry is not False
    return record.state in LIVE_STATES or crashed
