"""The trainer's own Python: which one it is, and which versions it has, without importing anything heavy here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from fluxgym_watchdog.observe.processes import find
from fluxgym_watchdog.records import ProcessId

PACKAGES = ("accelerate", "torch")
LIMIT_S = 60.0
"""Reading two package descriptions takes a moment, from a network volume some seconds."""
_ASK = f"""
import importlib.metadata as metadata, json
found = {{}}
for name in {PACKAGES!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def python_of(trainer: ProcessId) -> str:
    """The Python that a living trainer runs in, as it was called; '' where that cannot be told."""
    process = find(trainer)
    try:
        words = process.cmdline() if process is not None else []
    except psutil.Error:
        return ""
    return words[0] if words and Path(words[0]).is_absolute() else ""


def python_behind(launcher: str, environ: Mapping[str, str], cwd: Path) -> str:
    """The Python that a training command's first word will run, '' where that cannot be told.

    `accelerate` names it in its first line; on Windows it is a program beside python.exe.
    """
    path = environ.get("PATH", os.defpath)
    found = shutil.which(launcher, path=path) or shutil.which(str(cwd / launcher))
    if found is None:
        return ""
    program = Path(found)
    if program.stem.lower().startswith("python"):
        return found
    if program.suffix.lower() == ".exe":
        beside = program.with_name("python.exe")
        above = program.parent.parent / "python.exe"  # a Python without an environment: Scripts\ lies below it
        return next((str(p) for p in (beside, above) if p.is_file()), "")
    try:
        with program.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace").splitlines()[:2]
    except OSError:
        return ""
    # Where the path is too long for a first line, pip writes a shell's line that executes it.
    for pattern, line in zip(
        (r"#!\s*(/\S*python[\d.]*)\b", r"'''exec'\s+[\"']?(/.*?python[\d.]*)[\"']?\s"), head, strict=False
    ):
        if (named := re.match(pattern, line)) and Path(named[1]).is_file():
            return named[1]
    return ""


def versions(python: str, environ: Mapping[str, str], cwd: Path, run: Run = subprocess.run) -> dict[str, str]:
    """The versions of accelerate and torch that a Python would import; what it does not say is left out."""
    if not python:
        return {}
    try:
        answer = run(
            [python, "-c", _ASK],
            **{"capture_output": True, "text": True, "check": True, "timeout": LIMIT_S},
            **{"env": dict(environ), "cwd": cwd, "stdin": subprocess.DEVNULL},
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
