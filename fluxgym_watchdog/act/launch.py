"""Starts a training in a way that cannot hang on us: a session of its own, output appended to a file, never a pipe.

A reader that goes away (a closed browser tab, a killed FluxGym) leaves a piped trainer blocked in its next print for
ever. A file takes whatever comes, and whoever wants to see it follows the file.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxgym_watchdog.observe import processes
from fluxgym_watchdog.records import ProcessId

LOG_NAME = "training.log"
RUN_VARIABLE = processes.RUN_VARIABLE

# The shell around the script writes the exit code to a file: whoever supervises when the training ends may not be
# the process that started it.
_POSIX_WRAPPER = 'bash "$1"; code=$?; echo "$code" >"$2.part" && mv "$2.part" "$2"; exit "$code"'


@dataclass(frozen=True, slots=True)
class Launch:
    """What was started: the process to wait for, and where in training.log and since when its output comes.

    `files_since` is the start by the clock of the file system.
    """

    process: subprocess.Popen[bytes]
    id: ProcessId | None
    log_offset: int
    files_since: float


def launch(run_folder: Path, cwd: Path, number: int, content: bytes, banner: str, environ: Mapping[str, str]) -> Launch:
    """Writes attempt `number`'s script and starts it. Raises OSError where a file cannot be written or run."""
    folder = run_folder / ".watchdog"
    folder.mkdir(exist_ok=True)  # no parents: a run that was deleted must not come back
    log_path = run_folder / LOG_NAME
    if log_path.exists() and not log_path.is_file():
        raise OSError(errno.EINVAL, "is not a file", str(log_path))
    attempt_script = folder / f"attempt-{number}{'.bat' if os.name == 'nt' else '.sh'}"
    attempt_script.write_bytes(content)
    files_since = attempt_script.stat().st_mtime  # before the start: nothing behind it may raise
    exit_file(run_folder, number).unlink(missing_ok=True)
    with log_path.open("ab") as log:
        log.write(f"{banner}\n".encode())
        log.flush()
        offset = log.tell()  # before the start: the training shares this file's position
        process = subprocess.Popen(
            _command(attempt_script, exit_file(run_folder, number)),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(environ, run_folder),
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        return Launch(process, processes.identify(process.pid), offset, files_since)


def log_size(run_folder: Path) -> int:
    """How long training.log is, in bytes; 0 where it cannot be read."""
    try:
        return (run_folder / LOG_NAME).stat().st_size
    except OSError:
        return 0


def exit_file(run_folder: Path, number: int) -> Path:
    """Where the exit code of attempt `number` is written when it ends."""
    return run_folder / ".watchdog" / f"attempt-{number}.exit"


def read_exit_code(run_folder: Path, number: int) -> int | None:
    """The exit code that attempt `number` left; None while it runs, or if it was killed with its shell."""
    try:
        return int(exit_file(run_folder, number).read_text())
    except (OSError, ValueError):
        return None


def environment(environ: Mapping[str, str], run_folder: Path) -> dict[str, str]:
    """The training's environment: the given one, with output that is not wrapped, not held back, and in UTF-8."""
    return {
        **environ,
        "COLUMNS": "400",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        RUN_VARIABLE: run_mark(run_folder),
    }


def run_mark(run_folder: Path) -> str:
    """What RUN_VARIABLE holds for a run, whichever link led to its folder."""
    return os.path.realpath(run_folder)


def _command(attempt_script: Path, exit_path: Path) -> Sequence[str]:
    if sys.platform == "win32":
        return ["cmd", "/v:on", "/c", f'call "{attempt_script}" & echo !errorlevel!>"{exit_path}" & exit !errorlevel!']
    return ["/bin/sh", "-c", _POSIX_WRAPPER, "fluxgym-watchdog", str(attempt_script), str(exit_path)]
