"""The commands that show how runs stand, and the small things that can be asked for without training anything."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from fluxgym_watchdog.explain import explain, in_words
from fluxgym_watchdog.fluxgym.runs import NotARun, find_runs, script_of
from fluxgym_watchdog.glance import Glance, glance
from fluxgym_watchdog.judge.saves import in_bytes, offer_in_words, prunable
from fluxgym_watchdog.judge.stall import duration
from fluxgym_watchdog.records import LIVE_STATES, Checkpoint
from fluxgym_watchdog.settings import Settings, load
from fluxgym_watchdog.store import Store, plain

ASK_AGAIN_S = 0.3
ANSWER_LIMIT_S = 120.0
QUIET_REQUESTS = frozenset({"saves", "delete"})
"""What can be answered without starting or stopping anything."""


def list_runs(options: argparse.Namespace) -> int:
    """Lists the runs under a FluxGym folder."""
    outputs = options.folder / "outputs" if (options.folder / "outputs").is_dir() else options.folder
    rows = []
    for folder in find_runs(outputs):
        record, problem = Store(folder).read_record()
        seen = Store(folder).read_status()
        step = seen.step if seen else record.attempt.last_step if record and record.attempt else 0
        state = record.state.value if record else "never watched"
        total = record.total_steps if record else None
        rows.append({"name": folder.name, "state": state, "step": step, "total_steps": total, "problem": problem})
    text = [
        f"{shown(str(r['name'])):<32} {r['state']:<14} {r['step']}/{r['total_steps'] or '?'}  {r['problem']}"
        for r in rows
    ]
    return answer(options, rows, text or [f"No runs under {outputs}."])


def status(options: argparse.Namespace) -> int:
    """Shows how a run stands."""
    folder = run_folder_of(options.folder)
    seen, held = glance(folder, settings_of(folder)), Store(folder).is_held()
    if not seen.watched and not Store(folder).read_record()[1]:
        script_of(folder)  # a folder that is no run has neither
    record, last = seen.record, seen.status
    problem = seen.problem or (last.problem if last else "")
    found = {
        **plain(record),
        "step": seen.step,
        "watched": held,
        "problem": problem,
        "saves": plain(seen.saves),
        "last_look": plain(last) if last else None,
    }
    text = [f"{shown(folder.name)}: {record.state.value}, step {seen.step} of {record.total_steps or '?'}"]
    text += [f"attempt {len(record.attempts)}, auto-resume {'on' if record.auto_resume else 'off'}"]
    text += [f"{record.reason}. {record.advice}".strip()] if record.reason else []
    text += [problem] if problem else []
    text += [f"No GPU can be read: {last.gpu_problem}"] if last and last.gpu_problem else []
    text += _at_risk(seen)
    if record.state in LIVE_STATES and not held:
        text += ["Nobody watches this run at the moment."]
    return answer(options, found, text)


def checkpoints(options: argparse.Namespace) -> int:
    """Lists a run's checkpoints, the step that each holds, and whether they are sound."""
    folder = run_folder_of(options.folder)
    seen = glance(folder, settings_of(folder))
    found = [{**plain(c), "quarantined": c.stamp in seen.record.quarantined} for c in seen.checkpoints]
    text = [_line(c) for c in seen.checkpoints]
    return answer(options, found, text or [f"No checkpoints in {folder}."])


def saves(options: argparse.Namespace) -> int:
    """Shows how much work hangs on a run's saves; --closer accepts the closer interval that is offered."""
    folder = run_folder_of(options.folder)
    script_of(folder)
    if options.closer or options.as_script:
        Store(folder).request("saves", closer=bool(options.closer))
        _wait_for_answer(options, folder)
    seen = glance(folder, settings_of(folder))
    text = _at_risk(seen) or ["Nothing hangs on a save at the moment."]
    if seen.record.save_options:
        text += [f"From the next start on: {' '.join(seen.record.save_options)}."]
    if seen.saves.offer:
        text += [f"To choose that: python -m fluxgym_watchdog saves {folder} --closer"]
    return answer(options, plain(seen.saves), text)


def prune(options: argparse.Namespace) -> int:
    """Deletes the states that a run no longer needs, after naming each with its size; of a finished run all states."""
    folder = run_folder_of(options.folder)
    seen = glance(folder, settings_of(folder))
    doomed = prunable(seen.record, seen.checkpoints)
    if not doomed:
        say(f"{folder}: no state that is not needed.")
        return 0
    total = in_bytes(sum(c.size_bytes for c in doomed))
    say("\n".join([*(_line(c) for c in doomed), f"{len(doomed)} states, {total}."]))
    if not options.yes and not _confirmed(f"Delete these {len(doomed)} states ({total})? [y/N] "):
        say("Nothing was deleted.")
        return 0
    Store(folder).request("delete", checkpoints=[c.stamp for c in doomed])
    _wait_for_answer(options, folder)
    left = {c.stamp for c in glance(folder, settings_of(folder)).checkpoints}
    kept = [c for c in doomed if c.stamp in left]
    gone = in_bytes(sum(c.size_bytes for c in doomed if c.stamp not in left))
    say(f"Deleted {len(doomed) - len(kept)} states ({gone})." + (f" Not deleted: {len(kept)}." if kept else ""))
    return 1 if kept else 0


def explain_log(options: argparse.Namespace) -> int:
    """Says what a training's log tells: how far it came, how it ended, why, and what to do."""
    found = explain(options.log, options.exit_code)
    return answer(options, asdict(found), [in_words(found)])


# small parts


def run_folder_of(path: Path) -> Path:
    """The folder of a run as it was named. Raises NotARun for what is no folder."""
    if not path.is_dir():
        raise NotARun(f"{path}: is not a folder; expected a run's folder, outputs/<name>")
    return path.absolute()


def settings_of(run_folder: Path) -> Settings:
    """The settings of the FluxGym that a run belongs to. Raises SettingsError."""
    return load(run_folder.parent.parent) if run_folder.parent.name == "outputs" else Settings()


def answer(options: argparse.Namespace, found: object, text: Sequence[str]) -> int:
    """Prints what was found, as JSON where that was asked for."""
    say(json.dumps(found, indent=1) if options.json else "\n".join(text))
    return 0


def say(text: str) -> None:
    """The command line's answer."""
    print(text, flush=True)  # noqa: T201 - this is what it is for


def shown(name: str) -> str:
    """A name as a terminal may show it: control characters in it would move the cursor, or end the line."""
    return name if name.isprintable() else repr(name)


def _line(c: Checkpoint) -> str:
    saved = datetime.fromtimestamp(c.saved_at).strftime("%Y-%m-%d %H:%M:%S")
    sound = f"not sound: {c.reason}" if not c.sound else f"sound, but {c.aside}" if c.aside else "sound"
    return (
        f"{c.kind.value:<8} {shown(c.name):<40} epoch {c.epoch or '?':<4} step {c.step or '?':<6} "
        f"{in_bytes(c.size_bytes):>9}  {saved}  {sound}"
    )


def _at_risk(seen: Glance) -> list[str]:
    found, text = seen.saves, []
    if not seen.finished and found.every_steps:
        redo = f" ({duration(found.since_s)})" if found.since_s else ""
        most = f", {duration(found.most_s)} at most" if found.most_s else ""
        every = f"one comes every {found.every_steps} steps{most}"
        text += [f"{found.since_steps} steps{redo} since the last sound state; {every}."]
    text += [found.warning] if found.warning else []
    return [*text, f"{offer_in_words(found)}."] if found.offer else text


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        say("Not asked, since this is no terminal: --yes deletes them.")
        return False
    return input(question).strip().lower() in ("y", "yes")


def _wait_for_answer(options: argparse.Namespace, folder: Path) -> None:
    """Waits until the request is taken: by whoever supervises the run, or by this process if nobody does."""
    store, deadline = Store(folder), time.monotonic() + ANSWER_LIMIT_S
    while any(request["kind"] in QUIET_REQUESTS for request in store.pending_requests()):
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, "its supervisor has not answered; does FluxGym hang?", str(folder))
        options.take_requests(folder)
        time.sleep(ASK_AGAIN_S)
