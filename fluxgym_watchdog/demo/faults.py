"""Failures on order. `DEMO_FAULTS=hang@85,crash@150` makes the stand-in hang in step 85 and crash in step 150.

A place is a step, counted from the first step of the run over all attempts, or the name of a phase (loading, caching,
saving, sampling, ending; weights: between the final state and the final weights). A fault fires at the beginning of its
step: that step is not executed. Each order fires once over all attempts: fired ones are remembered in the file
`DEMO_FAULTS_DONE` (default: .demo-faults-done in the current folder). An order written twice fires twice, in two
attempts.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fluxgym_watchdog.demo.workers import Workers

PHASES = ("loading", "caching", "saving", "sampling", "weights", "ending")
SPOILED_FILE = "optimizer.bin"
"""The file in whose middle a save is spoiled or stands still."""
WINDOWS_ACCESS_VIOLATION = -1073741819


class OutOfMemoryError(RuntimeError):
    """Shown in a traceback under the name that torch gives it."""

    __module__ = "torch.cuda"


class Faults:
    """The orders of this training and the harm they do."""

    def __init__(self, orders: list[str], done_file: Path) -> None:
        for order in orders:
            kind, _, place = order.partition("@")
            if kind not in HARM or not (place.isdigit() or place in PHASES):
                raise SystemExit(
                    f"DEMO_FAULTS: {order!r} is no fault. Write KIND@PLACE, KIND one of {', '.join(HARM)}, "
                    f"PLACE a step or one of {', '.join(PHASES)}."
                )
        self._orders = orders
        self._done_file = done_file
        self.workers: Workers | None = None
        self.loss_is_nan = False
        self.next_state: Callable[[], None] | None = None

    @classmethod
    def from_environment(cls) -> Faults:
        orders = [order.strip() for order in os.environ.get("DEMO_FAULTS", "").split(",") if order.strip()]
        return cls(orders, Path(os.environ.get("DEMO_FAULTS_DONE") or ".demo-faults-done").absolute())

    def at(self, place: int | str) -> None:
        """Fire what is ordered for this place and has not fired yet."""
        due = [order for order in dict.fromkeys(self._orders) if order.partition("@")[2] == str(place)]
        for order in due:
            fired = self._done_file.read_text(encoding="utf-8").split() if self._done_file.exists() else []
            if fired.count(order) < self._orders.count(order):
                with self._done_file.open("a", encoding="utf-8") as file:
                    file.write(f"{order}\n")
                HARM[order.partition("@")[0]](self)

    def disturb_saving(self, file_name: str) -> None:
        """Called in the middle of writing each file of a state."""
        if file_name != SPOILED_FILE:
            return
        self.at("saving")
        if self.next_state is not None:
            harm, self.next_state = self.next_state, None
            harm()


def _hang(_: Faults) -> NoReturn:
    while True:
        time.sleep(3600)


def _busy(_: Faults) -> NoReturn:
    while True:
        pass


def _stop(_: Faults) -> None:
    if sys.platform == "win32":
        _hang(_)
    else:
        os.kill(os.getpid(), signal.SIGSTOP)


def _stop_worker(faults: Faults) -> None:
    if sys.platform == "win32" or faults.workers is None or not faults.workers.pids:
        _hang(faults)
    else:
        os.kill(faults.workers.pids[0], signal.SIGSTOP)
        faults.workers.fetch(0)


def _crash(_: Faults) -> NoReturn:
    raise RuntimeError(
        "CUDA error: unspecified launch failure\n"
        "CUDA kernel errors might be asynchronously reported at some other API call."
    )


def _out_of_memory(_: Faults) -> NoReturn:
    raise OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 72.00 MiB. GPU 0 has a total capacity of 23.99 GiB of which 0 bytes "
        "is free. Of the allocated memory 22.85 GiB is allocated by PyTorch, and 312.43 MiB is reserved by PyTorch "
        "but unallocated."
    )


def _die(_: Faults) -> None:
    if sys.platform == "win32":
        os._exit(1)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _segfault(_: Faults) -> None:
    if sys.platform == "win32":
        os._exit(WINDOWS_ACCESS_VIOLATION)
    else:
        os.kill(os.getpid(), signal.SIGSEGV)


def _nan(faults: Faults) -> None:
    faults.loss_is_nan = True


def _disk_full(faults: Faults) -> None:
    faults.next_state = _no_space


def _no_space() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _half_state(faults: Faults) -> None:
    faults.next_state = lambda: _die(faults)


def _ignore_term(faults: Faults) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang(faults)


def _stray(faults: Faults) -> NoReturn:
    if sys.platform != "win32" and os.fork() == 0:
        os.setsid()
    _hang(faults)


HARM: dict[str, Callable[[Faults], None]] = {
    "hang": _hang,  # sleeps for ever, 0 % CPU
    "busy": _busy,  # spins for ever, 100 % CPU
    "stop": _stop,  # stopped (state T) until somebody continues it
    "stop_worker": _stop_worker,  # waits for ever for a stopped worker
    "crash": _crash,  # RuntimeError, exit 1
    "oom": _out_of_memory,  # out of video memory, exit 1
    "kill": _die,  # killed, as by the kernel when memory runs out
    "segv": _segfault,  # crashes in native code
    "nan": _nan,  # trains on with a loss of nan
    "disk_full": _disk_full,  # the next state is half written, exit 1
    "half_state": _half_state,  # killed in the middle of the next state
    "ignore_term": _ignore_term,  # hangs, and only KILL helps
    "stray": _stray,  # leaves a child in a session of its own, and hangs
}
