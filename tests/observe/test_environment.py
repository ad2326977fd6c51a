"""Which Python a training runs in, and what it says of its packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluxgym_watchdog.observe.environment import python_behind, python_of, versions
from fluxgym_watchdog.observe.processes import identify

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="first lines and permissions are POSIX's")


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "import nothing"]))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ("#!{python}",),
        ("#! {python} -s",),
        ("#!/bin/sh", "'''exec' {python} \"$0\" \"$@\"", "' '''"),
        ("#!/bin/sh", '\'\'\'exec\' "{python}" "$0" "$@"', "' '''"),
    ],
)
def test_a_launcher_names_its_python_in_its_first_lines(tmp_path: Path, lines: tuple[str, ...]) -> None:
    python = program(tmp_path / "env" / "bin" / "python3.10")
    program(tmp_path / "env" / "bin" / "accelerate", *(line.format(python=python) for line in lines))
    environ = {"PATH": str(tmp_path / "env" / "bin")}
    assert python_behind("accelerate", environ, tmp_path) == str(python)
    assert python_behind(str(tmp_path / "env" / "bin" / "accelerate"), {"PATH": ""}, tmp_path) == str(python)
    assert python_behind("env/bin/accelerate", {"PATH": ""}, tmp_path) == str(python)


def test_a_python_is_its_own(tmp_path: Path) -> None:
    python = program(tmp_path / "python")
    assert python_behind("python", {"PATH": str(tmp_path)}, tmp_path) == str(python)


@pytest.mark.parametrize(
    "first", ["#!/usr/bin/env python3", "#!/bin/bash", "", "#!/gone/bin/python", "\x7fELF\x02\x01"]
)
def test_what_does_not_tell_is_not_guessed(tmp_path: Path, first: str) -> None:
    program(tmp_path / "accelerate", first)
    assert python_behind("accelerate", {"PATH": str(tmp_path)}, tmp_path) == ""
    assert python_behind("not-there", {"PATH": str(tmp_path)}, tmp_path) == ""


def test_versions_are_asked_of_that_python(tmp_path: Path) -> None:
    for name, version in (("accelerate", "0.33.0"), ("torch", "2.6.0+cu124")):
        described = tmp_path / f"{name}-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert versions(sys.executable, environ, tmp_path) == {"accelerate": "0.33.0", "torch": "2.6.0+cu124"}


def test_a_python_that_does_not_answer_says_nothing(tmp_path: Path) -> None:
    assert versions("", os.environ, tmp_path) == {}
    assert versions(str(tmp_path / "gone"), os.environ, tmp_path) == {}
    silent = program(tmp_path / "silent", "#!/bin/sh", "exit 3")
    assert versions(str(silent), os.environ, tmp_path) == {}
    talks = program(tmp_path / "talks", "#!/bin/sh", "echo '[1]'; exit 0")
    assert versions(str(talks), os.environ, tmp_path) == {}


def test_a_living_trainer_tells_its_python(tmp_path: Path) -> None:
    waits = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        identity = identify(waits.pid)
        assert identity is not None
        assert python_of(identity) == sys.executable
    finally:
        waits.communicate(b"\n")
    assert python_of(identity) == ""
