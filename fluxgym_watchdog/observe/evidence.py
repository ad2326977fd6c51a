"""What a closer look at a silent training shows, as text files for people: stacks, processes, GPUs, machine, output."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fluxgym_watchdog.observe.processes import with_wait_channels
from fluxgym_watchdog.records import Process, Role, Snapshot

STACKS_LIMIT_S = 15.0
"""A dump takes seconds on a machine that swaps; a longer one hangs."""
ALL_STACKS_LIMIT_S = 30.0
"""For all processes together: a run with eight workers must not hold its evidence back for two minutes."""
KERNEL_LOG_LIMIT_BYTES = 512_000
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def gather(
    snapshot: Snapshot, run: Runner = subprocess.run, clock: Callable[[], float] = time.monotonic
) -> dict[str, str]:
    """File name → text. Takes seconds where py-spy is installed; what cannot be read says why in its place."""
    processes = with_wait_channels(snapshot.tree.processes)
    return {
        "processes.txt": _processes(processes),
        "stacks.txt": _stacks(processes, run, clock),
        "gpu.txt": _gpu(snapshot),
        "machine.txt": _machine(snapshot),
        "last-lines.txt": "\n".join(snapshot.log.last_lines) if snapshot.log else "It writes no log that can be read.",
    }


def _processes(processes: tuple[Process, ...]) -> str:
    rows = [f"{'pid':>8} {'parent':>8} {'role':<9} {'state':<12} {'CPU s':>9} {'RAM MB':>8}  waits in"]
    for p in processes:
        cpu = "?" if p.cpu_s is None else f"{p.cpu_s:.1f}"
        ram = "?" if p.rss_bytes is None else f"{p.rss_bytes / 1e6:.0f}"
        rows.append(
            f"{p.id.pid:>8} {p.parent_pid:>8} {p.role.value:<9} {p.status:<12} {cpu:>9} {ram:>8}  {p.wchan or '?'}"
        )
    return "\n".join(rows)


def _stacks(processes: tuple[Process, ...], run: Runner, clock: Callable[[], float]) -> str:
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        return "py-spy is not installed, so the Python stacks cannot be shown: pip install 'fluxgym-watchdog[evidence]'"
    parts = []
    asked_at = clock()
    # The trainer first: it is the one that the time must be enough for.
    for p in sorted(processes, key=lambda p: p.role is not Role.TRAINER):
        if p.role not in (Role.TRAINER, Role.WORKER):
            continue
        left_s = asked_at + ALL_STACKS_LIMIT_S - clock()
        if left_s <= 0:
            parts.append("The other processes were not asked: there was no time left.")
            break
        # --nonblocking: a dump must not pause a training that may be healthy.
        command = [program, "dump", "--nonblocking", "--pid", str(p.id.pid)]
        try:
            done = run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=min(STACKS_LIMIT_S, left_s),
                check=False,
            )
            text = done.stdout or done.stderr.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            text = f"py-spy did not answer: {error}"
        parts.append(f"== {p.role.value} {p.id.pid}\n{text}")
    return "\n\n".join(parts) or "No Python process of this training is alive."


def _gpu(snapshot: Snapshot) -> str:
    if not snapshot.gpu.gpus:
        return f"No GPU can be read: {snapshot.gpu.problem}\n\n{_kernel_messages()}"
    own = {p.id.pid for p in snapshot.tree.processes}
    rows = [f"read through {snapshot.gpu.source}"]
    for g in snapshot.gpu.gpus:
        used, total = (g.memory_used_bytes or 0) / 1e9, (g.memory_total_bytes or 0) / 1e9
        rows.append(f"GPU {g.index} {g.name}: {g.utilization_percent} %, {used:.1f} of {total:.1f} GB")
        for pid, memory in g.processes.items():
            whose = "of this training" if pid in own else "not of this training"
            rows.append(f"    process {pid}: {memory / 1e9:.1f} GB, {whose}")
    return "\n".join(rows) + f"\n\n{_kernel_messages()}"


def _kernel_messages() -> str:
    """The NVIDIA driver's Xid messages: what it calls an error of the GPU. Readable by root alone on most machines."""
    found: list[str] = []
    try:
        with contextlib.closing(_Kernel()) as kernel:
            found = [line for line in kernel.lines() if "NVRM" in line or "Xid" in line]
    except OSError as error:
        return f"The kernel's messages cannot be read here ({error.strerror or error})."
    return "\n".join(found[-20:]) or "No message of the NVIDIA driver in the kernel's log."


class _Kernel:
    """The kernel's message buffer; each read gives one message, and none is waited for."""

    def __init__(self) -> None:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))

    def lines(self) -> list[str]:
        lines, size = [], 0
        while size < KERNEL_LOG_LIMIT_BYTES:
            try:
                message = os.read(self._file, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # overwritten while it was read; the next one follows
            if not message:
                break
            size += len(message)
            lines.append(message.decode("utf-8", "replace").partition(";")[2].strip())
        return lines

    def close(self) -> None:
        os.close(self._file)


def _machine(snapshot: Snapshot) -> str:
    host = snapshot.host
    if host is None:
        return "The machine's memory and disk cannot be read."
    return "\n".join(
        [
            f"RAM   {host.memory_available_bytes / 1e9:.1f} of {host.memory_total_bytes / 1e9:.1f} GB available",
            f"swap  {host.swap_used_bytes / 1e9:.1f} of {host.swap_total_bytes / 1e9:.1f} GB used",
            f"disk  {host.disk_free_bytes / 1e9:.1f} of {host.disk_total_bytes / 1e9:.1f} GB free",
        ]
    )
