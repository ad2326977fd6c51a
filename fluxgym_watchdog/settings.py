"""watchdog.yaml <-> Settings. Every key is documented once, here; the tab, the command line and README read it."""

from __future__ import annotations

import math
import os
import reprlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fluxgym_watchdog.files import free_name, replace_file

FILE_NAME = "watchdog.yaml"


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the file, the key, what was found and what is allowed."""


def _setting(default: Any, text: str, unit: str = "", low: float = 0, high: float = math.inf) -> Any:
    return field(default=default, metadata={"text": text, "unit": unit, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Settings:
    """How the watchdog watches and acts. Durations are in seconds unless the text says otherwise."""

    auto_resume: bool = _setting(True, "go on by itself after a hang or a crash; off: detect, explain and ask")
    check_interval: float = _setting(2.0, "time between two looks", "s", 0.05, 3600)
    stuck_threshold: float = _setting(
        300.0, "no progress, GPUs idle, no CPU or disk use for this long is stuck in any phase", "s", 1, 86400
    )
    gpu_threshold: float = _setting(5.0, "a GPU under this utilisation is idle", "%", 0, 100)
    silent_limit: float = _setting(
        1800.0, "how long CPU or disk use alone excuses silence while loading and caching", "s", 1, 86400
    )
    max_work_at_risk: float = _setting(
        15.0, "how much work may hang on the next save; where it is more, closer saves are offered", "min", 0, 100000
    )
    closer_saves: bool = _setting(False, "accept such an offer for every new training, without being asked")
    max_restarts: int = _setting(3, "restarts in a row without a new checkpoint, then give up", "", 0, 1000)
    backoff: float = _setting(10.0, "wait before the first restart; doubles with each further one", "s", 0, 86400)
    backoff_max: float = _setting(300.0, "the longest wait before a restart", "s", 0, 86400)
    stop_grace: float = _setting(15.0, "time between asking a training to end and killing it", "s", 0, 3600)
    save_states: bool = _setting(True, "have the trainer save states, without which nothing can be resumed")
    keep_states: int = _setting(
        2, "epoch states the trainer keeps (ignored where the script sets its own)", "", 1, 1000
    )
    from_beginning: bool = _setting(True, "start from the beginning where there is nothing to resume from")


def load(folder: Path) -> Settings:
    """The settings of a FluxGym folder: defaults where watchdog.yaml is missing or silent.

    Raises SettingsError for a file that is no mapping of known keys to allowed values.
    """
    path = folder / FILE_NAME
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path}: cannot be read: it is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not valid YAML: {error}") from error
    if found is None:
        return Settings()
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: expected lines of 'key: value', found {type(found).__name__}")
    return with_values(Settings(), found, source=str(path))


def with_values(settings: Settings, values: Mapping[Any, Any], source: str) -> Settings:
    """Settings with some values changed; `source` (a file or the command line) is named in the SettingsError."""
    known = {f.name: f for f in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f"{source}: unknown key {key!r} = {value!r}; allowed keys: {', '.join(known)}")
        change: dict[str, Any] = {key: _checked(known[key], value, source)}
        settings = replace(settings, **change)
    return settings


def dump(settings: Settings) -> str:
    """The text of a watchdog.yaml with these settings, each key with its meaning as a comment."""
    lines = ["# Settings of FluxGym Watchdog. A key that is left out has its default."]
    defaults = Settings()
    for f in fields(Settings):
        unit = f" [{f.metadata['unit']}]" if f.metadata["unit"] else ""
        lines += ["", f"# {f.metadata['text']}{unit}; default {_yaml(getattr(defaults, f.name))}"]
        lines += [f"{f.name}: {_yaml(getattr(settings, f.name))}"]
    return "\n".join(lines) + "\n"


def save(folder: Path, values: Mapping[str, Any]) -> Settings:
    """Changes these values in a FluxGym folder's watchdog.yaml, and returns all settings as they are then.

    A file that somebody has written by hand is kept beside it as watchdog.yaml.bak (the next as watchdog.yaml.bak-2):
    its comments would be lost. A link is followed. Raises SettingsError where the file cannot be used as it is, or a
    value is not allowed; OSError where it cannot be written.
    """
    path = Path(os.path.realpath(folder / FILE_NAME))
    before = load(folder)
    after = with_values(before, values, source="Settings")
    if path.exists() and path.read_text(encoding="utf-8") != dump(before):
        shutil.copy2(path, free_name(path.with_name(f"{path.name}.bak")))
    replace_file(path, path.parent, dump(after))
    return after


def _checked(setting: Any, value: Any, source: str) -> bool | int | float:
    kind = type(setting.default)
    low, high, unit = setting.metadata["low"], setting.metadata["high"], setting.metadata["unit"]
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise SettingsError(f"{source}: {setting.name} = {reprlib.repr(value)}; allowed: true or false")
    whole = "a whole number" if kind is int else "a number"
    allowed = f"{whole} from {low:g} to {high:g}{' ' + unit if unit else ''}"
    right_type = isinstance(value, int) if kind is int else isinstance(value, (int, float))
    if isinstance(value, bool) or not right_type or not low <= value <= high:
        raise SettingsError(f"{source}: {setting.name} = {reprlib.repr(value)}; allowed: {allowed}")
    return kind(value)  # type: ignore[no-any-return]


def _yaml(value: bool | int | float) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(yaml.safe_dump(value)).splitlines()[0]
