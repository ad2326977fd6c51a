"""The GPUs as the program nvidia-smi tells them, where NVML cannot be used."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from fluxgym_watchdog.observe.nvml import GpuAnswer
from fluxgym_watchdog.records import Gpu

TIMEOUT_S = 10.0
"""How long one nvidia-smi may take; without persistence mode two seconds are normal."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def ask_nvidia_smi(run: Run) -> GpuAnswer:
    """Runs nvidia-smi and reads its answer. Never raises, but takes as long as nvidia-smi does (see TIMEOUT_S)."""
    try:
        done = _run(run, f"--query-gpu={','.join(_FIELDS)}")
    except FileNotFoundError:
        return GpuAnswer(problem="nvidia-smi was not found (it comes with the NVIDIA driver)")
    except subprocess.TimeoutExpired:
        return GpuAnswer(problem=f"nvidia-smi gave no answer in {TIMEOUT_S:g} s: the driver hangs")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return GpuAnswer(problem=f"nvidia-smi could not be run: {error}")
    said = " ".join((done.stdout or "").split() + (done.stderr or "").split())[:300]
    if done.returncode:
        return GpuAnswer(problem=f"nvidia-smi failed with exit code {done.returncode}: {said or 'no message'}")
    processes = _processes(run)
    gpus = tuple(gpu for row in _rows(done.stdout) if (gpu := _gpu(row, processes)))
    return GpuAnswer(gpus, "" if gpus else f"nvidia-smi told of no GPU: {said or 'no output'}")


_FIELDS = (
    "index",
    "uuid",
    "name",
    "utilization.gpu",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)


def _run(run: Run, query: str) -> subprocess.CompletedProcess[str]:
    return run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows no console may flash up
    )


def _rows(text: str) -> list[list[str]]:
    return [[value.strip() for value in line.split(",")] for line in (text or "").splitlines()]


def _gpu(row: list[str], processes: dict[str, dict[int, int]]) -> Gpu | None:
    if len(row) < len(_FIELDS) or not row[0].isdigit():
        return None
    index, uuid = int(row[0]), row[1]
    utilization, used, total, temperature, power, limit = (_number(value) for value in row[-6:])
    return Gpu(
        index=index,
        uuid=uuid,
        name=", ".join(row[2:-6]),
        utilization_percent=utilization,
        memory_used_bytes=_mebibytes(used),
        memory_total_bytes=_mebibytes(total),
        temperature_c=temperature,
        power_w=power,
        power_limit_w=limit,
        processes=processes.get(uuid, {}),
    )


def _processes(run: Run) -> dict[str, dict[int, int]]:
    """GPU memory in bytes by GPU uuid and pid; empty where it cannot be told, which is no problem worth a word."""
    try:
        done = _run(run, "--query-compute-apps=gpu_uuid,pid,used_memory")
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    found: dict[str, dict[int, int]] = {}
    for row in _rows(done.stdout) if not done.returncode else []:
        if len(row) == 3 and row[1].isdigit():
            found.setdefault(row[0], {})[int(row[1])] = _mebibytes(_number(row[2])) or 0
    return found


def _number(shown: str) -> float | None:
    """A value, or None for [N/A], [Not Supported], ERR! and their kin."""
    try:
        value: Any = float(shown)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None  # "nan" and "inf" are numbers to float()


def _mebibytes(value: float | None) -> int | None:
    return None if value is None else round(value * 1024**2)
