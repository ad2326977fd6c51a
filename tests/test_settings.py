"""watchdog.yaml: what is accepted, and what is said about what is not."""

from __future__ import annotations

import math
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fluxgym_watchdog.settings import FILE_NAME, Settings, SettingsError, dump, load, save, with_values


def loaded(folder: Path, text: str | bytes) -> Settings:
    (folder / FILE_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    return load(folder)


def said(folder: Path, text: str | bytes) -> str:
    with pytest.raises(SettingsError) as error:
        loaded(folder, text)
    assert str(error.value).startswith(f"{folder / FILE_NAME}: ")
    return str(error.value).removeprefix(f"{folder / FILE_NAME}: ")


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n"])
def test_what_is_not_said_has_its_default(tmp_path: Path, text: str) -> None:
    assert load(tmp_path) == Settings()
    assert loaded(tmp_path, text) == Settings()


def test_what_is_said_is_heeded(tmp_path: Path) -> None:
    found = loaded(tmp_path, "auto_resume: off\ncheck_interval: 30\ngpu_threshold: 7.5\nmax_restarts: 0\n")
    assert found == Settings(auto_resume=False, check_interval=30.0, gpu_threshold=7.5, max_restarts=0)
    assert type(found.check_interval) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chek_interval: 3", "unknown key 'chek_interval' = 3; allowed keys: auto_resume, check_interval, stuck_thres"),
        ("5: true", "unknown key 5 = True; allowed keys: auto_resume"),
        ("auto_resume: 1", "auto_resume = 1; allowed: true or false"),
        ("auto_resume: 'yes'", "auto_resume = 'yes'; allowed: true or false"),
        ("auto_resume:", "auto_resume = None; allowed: true or false"),
        ("check_interval: fast", "check_interval = 'fast'; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: true", "check_interval = True; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: [2]", "check_interval = [2]; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: 0", "check_interval = 0; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: 3601", "check_interval = 3601; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: .nan", "check_interval = nan; allowed: a number from 0.05 to 3600 s"),
        ("check_interval: .inf", "check_interval = inf; allowed: a number from 0.05 to 3600 s"),
        ("gpu_threshold: 101", "gpu_threshold = 101; allowed: a number from 0 to 100 %"),
        ("max_restarts: 2.5", "max_restarts = 2.5; allowed: a whole number from 0 to 1000"),
        ("max_restarts: -1", "max_restarts = -1; allowed: a whole number from 0 to 1000"),
        ("keep_states: 0", "keep_states = 0; allowed: a whole number from 1 to 1000"),
        ("- check_interval", "expected lines of 'key: value', found list"),
        ("check_interval", "expected lines of 'key: value', found str"),
        ("check_interval: [", "is not valid YAML: "),
        ("\tcheck_interval: 2", "is not valid YAML: "),
        ("x: !!python/object:os.system {}", "is not valid YAML: "),
        ("{[]: 3}", "is not valid YAML: "),
        (b"check_interval: \xff\xfe", "cannot be read: "),
        (b"check_interval: \0", "is not valid YAML: "),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert said(tmp_path, text).startswith(message)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(SettingsError, match=f"{re.escape(str(tmp_path / FILE_NAME))}: cannot be read: "):
        load(tmp_path)


def test_the_command_line_is_named_as_the_source() -> None:
    with pytest.raises(SettingsError, match=r"^--max-restarts: max_restarts = -1; allowed: a whole number"):
        with_values(Settings(), {"max_restarts": -1}, "--max-restarts")


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda f: f.name)
def test_both_bounds_of_a_setting_are_allowed_and_its_default_lies_between(setting: Any) -> None:
    low, high = setting.metadata["low"], setting.metadata["high"]
    if isinstance(setting.default, bool):
        return
    assert math.isfinite(high)
    for value in (low, setting.default, high):
        assert getattr(with_values(Settings(), {setting.name: value}, "test"), setting.name) == value


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda f: f.name)
def test_every_key_is_documented(setting: Any) -> None:
    text = setting.metadata["text"]
    assert len(text) > 20
    line = next(line for line in dump(Settings()).splitlines() if text in line)
    assert line.startswith("# ")
    assert "; default " in line
    if isinstance(setting.default, float):
        assert setting.metadata["unit"] in ("s", "%", "min")
        assert f"[{setting.metadata['unit']}]" in line


def test_defaults_read_as_people_write_them() -> None:
    text = dump(Settings())
    for line in ("auto_resume: true", "check_interval: 2", "stuck_threshold: 300", "max_restarts: 3"):
        assert f"\n{line}\n" in text


def any_value(setting: Any) -> st.SearchStrategy[Any]:
    low, high = setting.metadata["low"], setting.metadata["high"]
    if isinstance(setting.default, bool):
        return st.booleans()
    return st.integers(low, high) if isinstance(setting.default, int) else st.floats(low, high)


@hypothesis_settings(deadline=None)
@given(st.fixed_dictionaries({f.name: any_value(f) for f in fields(Settings)}))
def test_what_was_dumped_is_loaded(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    settings = replace(Settings(), **values)
    assert loaded(tmp_path_factory.getbasetemp(), dump(settings)) == settings


def test_every_file_that_was_written_by_hand_is_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / FILE_NAME).write_text(f"max_restarts: {number}  # mine\n", encoding="utf-8")
        save(tmp_path, {"backoff": 20 + number})
    kept = [tmp_path / f"{FILE_NAME}.bak", *(tmp_path / f"{FILE_NAME}.bak-{n}" for n in (2, 3))]
    assert [path.read_text(encoding="utf-8") for path in kept] == [f"max_restarts: {n}  # mine\n" for n in (1, 2, 3)]


@pytest.mark.skipif(os.name != "posix", reason="making a link needs rights on Windows")
def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "settings.yaml"
    real.write_text("max_restarts: 5\n", encoding="utf-8")
    (tmp_path / FILE_NAME).symlink_to(real)
    save(tmp_path, {"backoff": 20})
    assert (tmp_path / FILE_NAME).is_symlink()
    assert "max_restarts: 5" in real.read_text(encoding="utf-8")
