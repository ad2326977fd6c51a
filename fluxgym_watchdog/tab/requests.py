"""What a page asks for → a request for whoever supervises the run, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fluxgym_watchdog.settings import Settings, SettingsError, save
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab import evidence, preferences
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.words import many


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of what a page asked for: why it was not done, or what was; a file for the page to keep."""

    problem: str = ""
    done: str = ""
    file_name: str = ""
    file: bytes = b""


def answer(store: Store, seen: Seen, kind: str, value: object) -> Answer:
    """The answer to one wish for one run. `value` comes from the browser: it is compared, and never used."""
    asks = {
        "stop": _stop,
        "resume": _resume,
        "switch": _switch,
        "delete": _delete,
        "delete-older": _delete_older,
        "saves": _saves,
        "evidence": _evidence,
    }
    if kind not in asks:
        return Answer(f"{str(kind)[:40]!r} is nothing that can be asked for.")
    try:
        return asks[kind](store, seen, value)
    except OSError as error:
        return Answer(f"The request could not be written: {error}" if kind != "evidence" else f"Not readable: {error}")


def changed_settings(root: Path, values: Mapping[object, object]) -> tuple[Answer, Settings | None]:
    """Changes settings in watchdog.yaml; all settings as they are then, None where nothing was changed."""
    try:
        settings = save(root, preferences.changed({str(key): value for key, value in values.items()}))
    except SettingsError as error:
        return Answer(str(error)), None
    except OSError as error:
        return Answer(f"The settings cannot be written: {error}"), None
    return Answer(done="Saved. In use from the next look on."), settings


def _stop(store: Store, seen: Seen, _: object) -> Answer:
    if not seen.may_stop():
        return Answer("This run is not training.")
    store.request("stop")
    return Answer(done="Asked to stop.")


def _resume(store: Store, seen: Seen, name: object) -> Answer:
    if not seen.may_resume():
        return Answer("This run cannot go on: it is training, has finished, or was never started.")
    if name is None:
        store.request("resume")
        return Answer(done="Asked to resume.")
    chosen = next((c.name for c in seen.checkpoints if c.name == name and seen.resumable(c)), None)
    if chosen is None:
        return Answer("There is no such state to go on from any more.")
    store.request("resume", checkpoint=chosen)
    return Answer(done="Asked to resume from the chosen state.")


def _switch(store: Store, seen: Seen, wanted: object) -> Answer:
    if seen.record is None:
        return Answer("This run has not been trained under the watchdog yet.")
    store.request("switch", auto_resume=wanted is True)
    return Answer()


def _delete(store: Store, seen: Seen, stamp: object) -> Answer:
    return _deleted(store, [c.stamp for c in seen.deletable() if c.stamp == stamp])


def _delete_older(store: Store, seen: Seen, stamp: object) -> Answer:
    """All that may go and is not newer than the state of that stamp: what came since was not in the question."""
    states = seen.unneeded()
    newest = next((c for c in states if c.stamp == stamp), None)
    if newest is None:
        return _deleted(store, [])
    return _deleted(store, [c.stamp for c in states if c.saved_at <= newest.saved_at])


def _deleted(store: Store, stamps: list[str]) -> Answer:
    if not stamps:
        return Answer("There is no such state any more, or it is needed.")
    store.request("delete", checkpoints=stamps)
    return Answer(done=f"Asked to delete {many(len(stamps), 'state')}.")


def _saves(store: Store, seen: Seen, wanted: object) -> Answer:
    if wanted not in ("closer", "keep") or not (seen.status and seen.status.saves and seen.status.saves.offer):
        return Answer("There is no such question any more.")
    store.request("saves", closer=wanted == "closer")
    return Answer(done="From the next attempt on." if wanted == "closer" else "It stays as the script says.")


def _evidence(store: Store, seen: Seen, at: object) -> Answer:
    event = next((e for e in reversed(seen.events) if e.evidence and f"{e.at:.3f}" == at), None)
    if event is None:
        return Answer("There is no such line on the timeline any more.")
    safe_name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in seen.name)
    return Answer(file_name=f"{safe_name}-{event.kind}-{event.at:.0f}.zip", file=evidence.packed(store, event))
