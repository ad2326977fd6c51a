"""An installer that is killed, as by SIGKILL, at the nth change that it makes in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXIT = 86
"""The exit code of one that was killed; else it has come to its end."""

_KILLED = """
import os, sys
left, events, folder, install_py = int(sys.argv[1]), sys.argv[2].split(), sys.argv[3], sys.argv[4]
def at_each_change(event, arguments):
    global left
    opened_to_write = event == "open" and "open" in events and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if (opened_to_write or (event in events and event != "open")) and folder in str(arguments[0]):
        left -= 1
        if left < 0:
            os._exit(86)
sys.path.insert(0, install_py)
sys.dont_write_bytecode = True
import install
sys.addaudithook(at_each_change)
sys.exit(install.main([folder, "--yes", *sys.argv[5:]]))
"""


def killed_at(
    change: int, events: str, folder: Path, checkout: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs the installer of a checkout on a folder; it dies at that change (from 0), by Python's audit `events`."""
    command = [sys.executable, "-c", _KILLED, str(change), events, str(folder), str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, EXIT), done.stderr
    return done
