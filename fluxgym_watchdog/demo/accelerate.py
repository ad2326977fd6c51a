"""A stand-in for the `accelerate` command: `accelerate launch [options] script.py [arguments]` runs the script.

It waits for it, and when the script fails it raises the CalledProcessError whose text is all that a log tells about a
signal. Whatever the script's exit code, its own is 1 then.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

USAGE = "usage: accelerate launch [options] script.py [arguments]"
SWITCHES = frozenset(
    {"--multi_gpu", "--cpu", "--quiet", "-q", "--debug", "--use_deepspeed", "--use_fsdp", "--same_network"}
)
"""Launch options that take no value; every other one takes one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `launch`. Exits with 2 if no script is named; raises CalledProcessError if the script fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] != "launch":
        raise SystemExit(USAGE)
    command = [sys.executable, *script_and_arguments(given[1:])]
    if len(command) == 1:
        sys.stderr.write(f"{USAGE}\nno script was named\n")
        raise SystemExit(2)
    if not any(option.startswith("--num_processes") for option in given):
        sys.stderr.write("`--num_processes` was not passed to `accelerate launch`; its default 1 is used.\n")
        sys.stderr.flush()
    with subprocess.Popen(command) as process:
        code = process.wait()
    if code != 0:
        raise subprocess.CalledProcessError(returncode=code, cmd=command)


def script_and_arguments(given: Sequence[str]) -> list[str]:
    """What follows the launch options: the first word that is neither an option nor an option's value, and the rest."""
    at = 0
    while at < len(given) and given[at].startswith("-"):
        at += 1 if given[at] in SWITCHES or "=" in given[at] else 2
    return list(given[at:])


if __name__ == "__main__":
    main()
