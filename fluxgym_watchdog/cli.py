"""The command line: the same watchdog without any UI."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fluxgym_watchdog import __version__, cli_shows
from fluxgym_watchdog.act.script import LOOKED_FOR, NotUnderstood, ScriptError
from fluxgym_watchdog.act.script import read as read_script
from fluxgym_watchdog.cli_shows import run_folder_of, say, settings_of
from fluxgym_watchdog.fluxgym.runs import NotARun, expected_script, fluxgym_of, script_of
from fluxgym_watchdog.glance import Glance, glance
from fluxgym_watchdog.journal import LEVELS
from fluxgym_watchdog.judge.resume import may_be_chosen
from fluxgym_watchdog.records import LIVE_STATES, RunRecord, RunState
from fluxgym_watchdog.settings import SettingsError, with_values
from fluxgym_watchdog.store import Held, Store
from fluxgym_watchdog.watchdog import Watchdog

FINISHED, USAGE, GAVE_UP, DO_NOT_RETRY, STOPPED = 0, 2, 33, 93, 130
FOLLOW_EVERY_S = 0.3
EVENTS_FOLLOWED = 100_000
log = logging.getLogger("fluxgym_watchdog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 usage, 33 gave up, 93 do not retry, 130 stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    try:
        return int(options.command(options))
    except (ScriptError, NotARun, SettingsError) as error:
        print(f"fluxgym-watchdog: {error}", file=sys.stderr)  # noqa: T201 - the answer to a usage error
    except OSError as error:
        print(f"fluxgym-watchdog: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
    return USAGE


def run(options: argparse.Namespace) -> int:
    """Starts a train script under watch and stays with it to the end."""
    script = _script(options.script)
    if _nothing_to_do(glance(script.parent, settings_of(script.parent))) and not options.from_beginning:
        say(f"{script.parent} is finished. To train it again from the beginning: --from-beginning")
        return FINISHED
    begin = lambda watchdog: watchdog.train(script)  # noqa: E731
    return _supervise(Store(script.parent), options, begin, _interrupts(), ends_training=True)


def resume(options: argparse.Namespace) -> int:
    """Goes on with a run from its newest sound checkpoint."""
    script = _script(script_of(run_folder_of(options.folder)))
    store = Store(script.parent)
    seen = glance(script.parent, settings_of(script.parent))
    if seen.finished and _nothing_to_do(seen) and not options.checkpoint:
        say(f"{script.parent} is finished: there is nothing left to train.")
        return FINISHED
    if options.checkpoint:
        _refuse_choice(script.parent, options.checkpoint, seen)
    begin = lambda watchdog: watchdog.resume(script, options.checkpoint)  # noqa: E731
    return _supervise(store, options, begin, _interrupts(), ends_training=True)


def _nothing_to_do(seen: Glance) -> bool:
    """Whether a run has finished, and its record knows it, or there is none."""
    return seen.record.state is RunState.FINISHED or (seen.finished and seen.record.state not in LIVE_STATES)


def _refuse_choice(run_folder: Path, name: str, seen: Glance) -> None:
    """Raises NotARun for a checkpoint that cannot be gone on from, or not now."""
    found = next((c for c in seen.checkpoints if c.name == name), None)
    if found is None:
        raise NotARun(f"{run_folder}: no checkpoint {name!r}; see: python -m fluxgym_watchdog checkpoints")
    if not may_be_chosen(found):
        raise NotARun(f"{run_folder}: {name} cannot be gone on from: {found.reason or found.aside}")
    if seen.record.state in LIVE_STATES and Store(run_folder).is_held():
        raise NotARun(
            f"{run_folder}: is {seen.record.state.value}; to go back, stop it first: python -m fluxgym_watchdog stop"
        )


def watch(options: argparse.Namespace) -> int:
    """Takes over a training that is running, or waits for one, and stays with it to the end."""
    folder = run_folder_of(options.output_dir)
    try:
        script = _script(options.train_script or script_of(folder))
    except NotARun as error:
        raise NotARun(f"{error}; if its script lies elsewhere, name it with --train-script") from error
    store = Store(folder)
    say(f"Watching {folder}, auto-resume {'on' if options.auto_resume else 'off'}.")
    interrupt, waiting = _interrupts(), False

    def begin(watchdog: Watchdog) -> Store | None:
        nonlocal waiting
        while not interrupt.is_set():
            found = watchdog.watch(script, folder)
            record, _ = store.read_record()
            if found is not None or (record is not None and record.state is RunState.FINISHED):
                return found
            if not waiting:
                say(f"No training writes into {folder} at the moment; waiting for one.")
            waiting = True
            interrupt.wait(options.check_interval)
        return None

    return _supervise(store, options, begin, interrupt, ends_training=False)


def stop(options: argparse.Namespace) -> int:
    """Stops a run's training, whoever supervises it."""
    folder = run_folder_of(options.folder)
    store, asked = Store(folder), False
    while True:
        watchdog = _watchdog(folder, options)
        try:
            if watchdog.watch(expected_script(folder), folder, strict=False) is None:
                break
            watchdog.end(folder.name)
            asked = True
            while watchdog.supervises(folder.name):
                watchdog.tick(time.monotonic())
                time.sleep(watchdog.pause_s)
            break
        except Held:
            if not asked:
                store.request("stop")
            asked = True
            time.sleep(FOLLOW_EVERY_S)
            if not store.pending_requests() and _over(store):
                break
        finally:
            watchdog.stop()
    record, _ = store.read_record()
    if asked and record is not None and record.state is RunState.FAILED:
        say(f"{folder}: {record.reason}.")
        return GAVE_UP
    say(f"{folder}: stopped." if asked else f"{folder}: no training is running.")
    return 0


def _supervise(
    store: Store,
    options: argparse.Namespace,
    begin: Callable[[Watchdog], Store | None],
    interrupt: threading.Event,
    *,
    ends_training: bool,
) -> int:
    """Stays with a run to its end: as its supervisor, or as an onlooker while another process is that."""
    name = store.run_folder.name
    while True:
        watchdog = _watchdog(store.run_folder, options)
        try:
            if begin(watchdog) is None:
                return STOPPED if interrupt.is_set() else _exit_code(store.read_record()[0])
            if options.auto_resume or options.command is not resume:  # resuming keeps the run's own switch
                watchdog.set_auto_resume(name, options.auto_resume)
            return _stay(watchdog, name, interrupt, ends_training=ends_training)
        except Held:
            say(f"{store.run_folder} is already supervised by another process; showing what happens.")
        finally:
            watchdog.stop()
        _follow(store, interrupt)
        if interrupt.is_set():
            return STOPPED
        if _over(store):
            return _exit_code(store.read_record()[0])
        say("The process that supervised this run is gone; going on in its place.")


def _stay(watchdog: Watchdog, name: str, interrupt: threading.Event, *, ends_training: bool) -> int:
    """Ticks until the run is over. Ctrl+C ends a training of ours, and only the watching of somebody else's."""
    while watchdog.supervises(name):
        watchdog.tick(time.monotonic())
        watchdog.pause(interrupt)
        if interrupt.is_set():
            if not ends_training:
                return STOPPED
            interrupt.clear()
            watchdog.end(name)
    return _exit_code(watchdog.record(name))


def _follow(store: Store, interrupt: threading.Event) -> None:
    """Shows a run's timeline while somebody else supervises it."""
    shown = len(store.read_events(EVENTS_FOLLOWED))
    while True:
        held = store.is_held()
        events = store.read_events(EVENTS_FOLLOWED)
        for event in events[shown:]:
            log.log(LEVELS.get(event.tone, logging.INFO), "%s", event.text)
        shown = len(events)
        if not held or interrupt.wait(FOLLOW_EVERY_S):
            return


def _interrupts() -> threading.Event:
    """Ctrl+C as a flag: as an exception it could fall between starting a process and writing that down."""
    interrupted = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    return interrupted


def _over(store: Store) -> bool:
    record, _ = store.read_record()
    return record is not None and record.state not in LIVE_STATES and record.state is not RunState.CRASHED


def _exit_code(record: RunRecord | None) -> int:
    if record is None:
        return GAVE_UP
    if record.state is RunState.FINISHED:
        return FINISHED
    if record.state is RunState.STOPPED:
        return STOPPED
    return DO_NOT_RETRY if record.retry is False else GAVE_UP


def _watchdog(run_folder: Path, options: argparse.Namespace) -> Watchdog:
    settings = settings_of(run_folder)
    given = {key: value for key in _SETTINGS if (value := getattr(options, key, None)) is not None}
    settings = with_values(settings, given, "command line")
    auto_resume = bool(getattr(options, "auto_resume", settings.auto_resume))
    return Watchdog(run_folder.parent, replace(settings, auto_resume=auto_resume), all_runs=False)


def _take_requests(run_folder: Path) -> None:
    """Answers the requests that wait for a run, unless another process supervises it."""
    watchdog = Watchdog(run_folder.parent, settings_of(run_folder), all_runs=False)
    try:
        watchdog.take_requests(run_folder, cli_shows.QUIET_REQUESTS)
    except Held:
        pass  # its holder takes them
    finally:
        watchdog.stop()


def _script(path: Path) -> Path:
    path = path.absolute()
    try:
        read_script(path.read_bytes(), batch=path.suffix == ".bat")
    except NotUnderstood:
        pass  # it is started as it stands; the watchdog says that it cannot be resumed, and why
    except ScriptError as error:
        raise ScriptError(f"{path}: {error}") from error
    except OSError as error:
        raise ScriptError(f"{path}: {error.strerror or error}; looked for {LOOKED_FOR}") from error
    fluxgym_of(path.parent)
    return path


_SETTINGS = {
    "check_interval": (float, "SECONDS", "time between two looks"),
    "stuck_threshold": (float, "SECONDS", "no progress, idle GPUs, no CPU or disk use for this long is stuck"),
    "gpu_threshold": (float, "PERCENT", "a GPU under this utilisation is idle"),
    "max_restarts": (int, "N", "restarts in a row without a new checkpoint, then give up"),
    "backoff": (float, "SECONDS", "wait before the first restart, doubling with each further one"),
    "backoff_max": (float, "SECONDS", "the longest wait before a restart"),
    "stop_grace": (float, "SECONDS", "time between asking a training to end and killing it"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fluxgym-watchdog", description="Keeps FluxGym trainings alive.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(take_requests=_take_requests)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        text = (does.__doc__ or "").strip()
        added = commands.add_parser(name, help=text.rstrip("."), description=text)
        added.set_defaults(command=does)
        return added

    def supervising(added: argparse.ArgumentParser, **defaults: float) -> None:
        added.add_argument("--auto-resume", action="store_true", help="heal the run; without it: detect and explain")
        for key, (kind, unit, text) in _SETTINGS.items():
            added.add_argument(
                f"--{key.replace('_', '-')}", type=kind, metavar=unit, help=text, default=defaults.get(key)
            )

    added = command("run", run)
    added.add_argument("script", type=Path, metavar="outputs/NAME/train.sh")
    added.add_argument("--from-beginning", action="store_true", help="train a finished run again")
    supervising(added)
    added = command("resume", resume)
    added.add_argument("folder", type=Path, metavar="outputs/NAME")
    added.add_argument("--from", dest="checkpoint", metavar="CHECKPOINT", help="a checkpoint's name")
    supervising(added)
    added = command("watch", watch)
    added.add_argument("--output-dir", type=Path, required=True, metavar="outputs/NAME")
    added.add_argument("--train-script", type=Path, metavar="outputs/NAME/train.sh")
    supervising(added, check_interval=30.0, stuck_threshold=300.0, gpu_threshold=5.0)
    added = command("stop", stop)
    added.add_argument("folder", type=Path, metavar="outputs/NAME")
    added = command("saves", cli_shows.saves)
    added.add_argument("folder", type=Path, metavar="outputs/NAME")
    choice = added.add_mutually_exclusive_group()
    choice.add_argument("--closer", action="store_true", help="save as often as is offered, from the next start on")
    choice.add_argument("--as-script", action="store_true", help="save as the train script says, and do not ask again")
    added.add_argument("--json", action="store_true", help="as JSON")
    added = command("prune", cli_shows.prune)
    added.add_argument("folder", type=Path, metavar="outputs/NAME")
    added.add_argument("--yes", action="store_true", help="delete without asking")
    added = command("explain", cli_shows.explain_log)
    added.add_argument("log", type=Path, metavar="LOG")
    added.add_argument("--exit-code", type=int, metavar="N", help="how the training's shell ended, if you know")
    added.add_argument("--json", action="store_true", help="as JSON")
    for name, does, default in (
        ("list", cli_shows.list_runs, Path()),
        ("status", cli_shows.status, None),
        ("checkpoints", cli_shows.checkpoints, None),
    ):
        added = command(name, does)
        added.add_argument(
            "folder",
            type=Path,
            nargs="?" if default else None,
            default=default,
            metavar="FOLDER" if default else "outputs/NAME",
        )
        added.add_argument("--json", action="store_true", help="as JSON")
    return parser
