"""The GPUs: simulated where a demo says so, else through NVML, else through nvidia-smi, else honestly none."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

from fluxgym_watchdog.observe.background import Background
from fluxgym_watchdog.observe.nvidia_smi import Run, ask_nvidia_smi
from fluxgym_watchdog.observe.nvml import GpuAnswer, Nvml, load_pynvml
from fluxgym_watchdog.records import Gpu, GpuReading

SIMULATED = "FLUXGYM_WATCHDOG_SIMULATED_GPU"
"""Environment variable that names the file into which the demo's trainer writes what its GPU would do."""

NVML_WAIT_S = 1.0
"""How long one reading waits for NVML, which answers in milliseconds unless the driver hangs."""

NVML_RETRY_S = 10.0
"""Where no GPU was ever read there is most likely no driver; one that comes later is still found."""
NVML_EVERY_S = 1.0
"""Runs that are looked at in the same second share one answer; a driver's own averages are hardly newer."""

SHARED_S = 0.1
"""Runs that are looked at one after the other, in one tick, share one reading."""

NVML_FRESH_S = 3.0
SMI_EVERY_S = 5.0
SMI_STALE_S = 20.0
"""How old an answer may be to count as now; nvidia-smi is asked every 5 s and may take 10."""

HANGING_S = 12.0
"""A question without an answer for longer than nvidia-smi may take means a hung driver."""

STALE_S = 1.5
"""After this many seconds without news a simulated GPU is idle."""


class GpuReader:
    """Reads all GPUs; made to be called at every tick, it never raises and never waits longer than NVML_WAIT_S.

    NVML and nvidia-smi are asked in threads of their own: with a hung driver both can block for ever.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        load_nvml: Callable[[], Any] = load_pynvml,
        run: Run = subprocess.run,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        start: Callable[[Callable[[], None]], None] | None = None,
        nvml_wait_s: float = NVML_WAIT_S,
    ) -> None:
        """All arguments are for tests: `load_nvml` gives the module pynvml, `run` is subprocess.run, `start` runs a
        function in the background."""
        self._environ = os.environ if environ is None else environ
        self._clock, self._wall_clock = clock, wall_clock
        self._nvml_wait_s = nvml_wait_s
        self._nvml = Background(Nvml(load_nvml, clock).read, clock, start, "NVML")
        self._smi = Background(lambda: ask_nvidia_smi(run), clock, start, "nvidia-smi")
        self._expected = False
        self._reading: tuple[float, GpuReading] | None = None

    def read(self) -> GpuReading:
        """All GPUs now, with where the reading comes from, and why nothing is seen if so."""
        now = self._clock()
        if self._reading is None or not 0 <= now - self._reading[0] < SHARED_S:
            self._reading = now, self._read()
        return self._reading[1]

    def _read(self) -> GpuReading:
        simulated = self._environ.get(SIMULATED, "")
        if simulated:
            self._expected = True
            gpu, problem = read_simulated(Path(simulated), self._wall_clock())
            return GpuReading("simulated", (gpu,), problem, expected=True)
        by_nvml = self._ask_nvml()
        if by_nvml.gpus:
            return self._seen("nvml", by_nvml)
        by_smi = self._ask_smi()
        if by_smi.gpus:
            return self._seen("nvidia-smi", by_smi)
        return GpuReading(problem=f"{by_nvml.problem}; {by_smi.problem}", expected=self._expected)

    def _seen(self, source: str, answer: GpuAnswer) -> GpuReading:
        self._expected = True
        return GpuReading(source, answer.gpus, answer.problem, expected=True)

    def _ask_nvml(self) -> GpuAnswer:
        # One thread that hangs is enough to know; while it does, nothing is gained by waiting for it again.
        already_late = self._nvml.waiting_s > self._nvml_wait_s
        last = self._nvml.answer()
        every_s = NVML_EVERY_S if last is None or last.gpus or self._expected else NVML_RETRY_S
        self._nvml.ask(every_s)
        answer = self._nvml.answer(0.0 if already_late else self._nvml_wait_s)
        if answer is not None and self._nvml.waiting_s == 0 and self._nvml.age_s <= max(NVML_FRESH_S, every_s):
            return answer
        return GpuAnswer(problem=_no_answer("NVML", self._nvml.waiting_s))

    def _ask_smi(self) -> GpuAnswer:
        self._smi.ask(SMI_EVERY_S)
        answer = self._smi.answer()
        if answer is not None and self._smi.age_s <= SMI_STALE_S:
            return answer
        return GpuAnswer(problem=_no_answer("nvidia-smi", self._smi.waiting_s))


def _no_answer(source: str, waiting_s: float) -> str:
    if waiting_s < HANGING_S:
        return f"{source} has not answered yet"
    return f"{source} has given no answer for {waiting_s:.0f} s: the driver hangs (a reboot is the only cure)"


def gpus_of_run(reading: GpuReading, pids: Collection[int], visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a training uses, as far as can be told.

    Those on which one of its processes holds memory; else those that its CUDA_VISIBLE_DEVICES names (`visible`, by
    index or by the beginning of a UUID; None where it is not set; empty or -1 hides all); else all. Two limits: inside
    a container the driver tells the host's pids, and CUDA may number the GPUs differently from the driver unless
    CUDA_DEVICE_ORDER=PCI_BUS_ID is set.
    """
    held = tuple(gpu for gpu in reading.gpus if any(pid in gpu.processes for pid in pids))
    if held or visible is None:
        return held or reading.gpus
    names = [name.strip() for name in visible.split(",")]
    if names[0] in ("", "-1"):
        return ()
    named = tuple(gpu for gpu in reading.gpus if any(_is_named(gpu, name) for name in names))
    return named or reading.gpus


def _is_named(gpu: Gpu, name: str) -> bool:
    if name.isdigit():
        return name == str(gpu.index)
    return len(name) > len("GPU-") and gpu.uuid.startswith(name)


def read_simulated(path: Path, now: float) -> tuple[Gpu, str]:
    """The GPU that a demo pretends to have, and what is wrong with its file. `now` is wall clock time.

    The file is JSON with at, pid, utilization_percent, memory_used_bytes, memory_total_bytes, temperature_c, power_w
    and power_limit_w. News older than 1.5 s mean an idle GPU; its memory is free once the process is gone.
    """
    problem = ""
    said: dict[str, Any] = {}
    try:
        found = json.loads(path.read_bytes())
        said = found if isinstance(found, dict) else {}
        problem = "" if said else f"{path}: is no reading of a simulated GPU"
    except FileNotFoundError:
        pass  # before the demo's first training its GPU is idle
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{path}: is no reading of a simulated GPU: {error}"
    pid = int(_number(said, "pid") or 0)
    at = _number(said, "at")
    stale = at is None or abs(now - at) > STALE_S
    gone = stale and not _is_alive(pid)
    used = 0 if gone else round(_number(said, "memory_used_bytes") or 0)
    total = _number(said, "memory_total_bytes")
    return Gpu(
        index=0,
        uuid="GPU-simulated",
        name="demo GPU (simulated)",
        utilization_percent=0.0 if stale else _number(said, "utilization_percent"),
        memory_used_bytes=used,
        memory_total_bytes=None if total is None else round(total),
        temperature_c=_number(said, "temperature_c"),
        power_w=_number(said, "power_w"),
        power_limit_w=_number(said, "power_limit_w"),
        processes={} if gone or pid <= 0 else {pid: used},
    ), problem


def _number(said: Mapping[str, Any], key: str) -> float | None:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e18 else None  # NaN fails the comparison


def _is_alive(pid: int) -> bool:
    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError, OverflowError):
        return True  # there, but not ours to look at
