"""The machine under a training: memory, swap, disk, and which boot it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from fluxgym_watchdog.observe import procfs
from fluxgym_watchdog.records import Host


def read_host(folder: Path) -> Host | None:
    """Memory, swap and the disk that holds `folder` (or will: it need not exist yet). None where they cannot be read.

    Memory is the machine's: a container's own limit is not looked at. Never raises.
    """
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        total, available, swap_total, swap_used = procfs.read_memory() or _memory()
        disk = shutil.disk_usage(there)
    except (OSError, psutil.Error, RuntimeError, ValueError):
        return None
    return Host(
        memory_total_bytes=total,
        memory_available_bytes=available,
        swap_total_bytes=swap_total,
        swap_used_bytes=swap_used,
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
    )


def boot_id() -> str:
    """What names this boot of this machine or container: a process id with its create time is one only within it.

    On Linux the kernel's boot id, and the start of process 1 in clock ticks since boot, because a restarted container
    keeps its machine's boot id. Elsewhere the hour of the boot: what the system tells of it wanders by seconds.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return _boot_hour()
    try:
        # Field 22 of proc(5); the name in the second field may hold blanks and brackets.
        first = Path("/proc/1/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return boot
    return f"{boot}/{first}"


def _boot_hour() -> str:
    try:
        return f"boot-hour-{round(psutil.boot_time() / 3600)}"
    except (OSError, psutil.Error, RuntimeError):
        return "boot-unknown"


def _memory() -> tuple[int, int, int, int]:
    memory = psutil.virtual_memory()
    try:
        swap = psutil.swap_memory()
    except (OSError, psutil.Error, RuntimeError):  # no swap file, or performance counters switched off on Windows
        return memory.total, memory.available, 0, 0
    return memory.total, memory.available, swap.total, swap.used
