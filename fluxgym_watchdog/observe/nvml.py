"""NVML through NVIDIA's bindings: the module `pynvml` of the package nvidia-ml-py. Its quirks live here only.

Known quirks: a retired package of the name `pynvml` shadows the module; old versions give bytes for names; any single
value may be unsupported on a given GPU; after a driver reset every call fails until NVML is initialised again; inside a
container the pids are the host's.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fluxgym_watchdog.records import Gpu

INSTALL = "pip install nvidia-ml-py"
FIRST_PAUSE_S = 4.0
LONGEST_PAUSE_S = 120.0


@dataclass(frozen=True, slots=True)
class GpuAnswer:
    """What one question to a driver gave: the GPUs that answered, and what was wrong."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def load_pynvml() -> Any:
    """The module `pynvml` of nvidia-ml-py. Raises ImportError whose message says what to install."""
    try:
        module = importlib.import_module("pynvml")
    except ModuleNotFoundError as error:
        raise ImportError(f"the Python package nvidia-ml-py is not installed ({INSTALL})") from error
    check_pynvml(module)
    return module


def check_pynvml(module: Any) -> None:
    """Refuses another package of that name, with what to do. Raises ImportError."""
    missing = [name for name in (*_NEEDED, "NVMLError") if not hasattr(module, name)]
    if missing or hasattr(module, "__path__"):  # NVIDIA's is one file, the retired one a package
        found = getattr(module, "__file__", None) or "an unknown place"
        lacks = f" and lacks {missing[0]}" if missing else ""
        raise ImportError(
            f"the module pynvml at {found} is not NVIDIA's{lacks}: it is the retired package `pynvml` or too old "
            f"(pip uninstall -y pynvml, then pip install --force-reinstall nvidia-ml-py)"
        )


class Nvml:
    """Reads all GPUs; initialises NVML once, and again after errors, each time after a longer pause."""

    def __init__(self, load: Callable[[], Any], clock: Callable[[], float]) -> None:
        """`load` gives the module pynvml or raises ImportError."""
        self._load = load
        self._clock = clock
        self._module: Any = None
        self._initialised = False
        self._pause_s = FIRST_PAUSE_S
        self._retry_at: float | None = None
        self._problem = ""

    def read(self) -> GpuAnswer:
        """All GPUs that can be read now. Never raises; a GPU that fell off the bus is named in `problem`."""
        if self._retry_at is not None:
            if self._clock() >= self._retry_at:
                self._shut_down()
            elif not self._initialised:
                return GpuAnswer(problem=self._problem)
        try:
            if self._module is None:
                self._module = self._load()
            if not self._initialised:
                self._module.nvmlInit()
                self._initialised = True
            return self._read_all()
        except ImportError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - ctypes and a broken driver can raise anything; it is reported
            problem = self._words(error)
        self._retry_later(problem)
        self._shut_down()
        return GpuAnswer(problem=problem)

    def _read_all(self) -> GpuAnswer:
        gpus: list[Gpu] = []
        problems: list[str] = []
        for index in range(self._module.nvmlDeviceGetCount()):
            try:
                gpus.append(self._read_one(index))
            except self._module.NVMLError as error:
                problems.append(f"GPU {index}: {self._words(error)}")
        if not gpus and not problems:
            problems.append("NVML finds no GPU")
        if problems:
            # A GPU that came back is seen only by an NVML that was initialised anew; until then the others are read.
            self._retry_later("; ".join(problems))
            return GpuAnswer(tuple(gpus), self._problem)
        self._pause_s, self._retry_at = FIRST_PAUSE_S, None
        return GpuAnswer(tuple(gpus))

    def _read_one(self, index: int) -> Gpu:
        handle = self._module.nvmlDeviceGetHandleByIndex(index)
        errors: list[Exception] = []

        def value(name: str, *args: Any) -> Any:
            return self._value(errors, name, handle, *args)

        memory = value("nvmlDeviceGetMemoryInfo")
        utilization = value("nvmlDeviceGetUtilizationRates")
        if memory is None and utilization is None:
            # One value may be unknown for good on a healthy GPU; not both of these.
            for error in errors:
                if type(error).__name__ == "NVMLError_Unknown":
                    raise error
        limit = value("nvmlDeviceGetEnforcedPowerLimit")
        if limit is None:
            limit = value("nvmlDeviceGetPowerManagementLimit")
        power = value("nvmlDeviceGetPowerUsage")
        temperature = value("nvmlDeviceGetTemperature", 0)  # 0: NVML_TEMPERATURE_GPU
        processes = (
            *(value("nvmlDeviceGetComputeRunningProcesses") or ()),
            *(value("nvmlDeviceGetGraphicsRunningProcesses") or ()),
        )
        return Gpu(
            index=index,
            uuid=_text(value("nvmlDeviceGetUUID")),
            name=_text(value("nvmlDeviceGetName")) or "GPU of unknown name",
            utilization_percent=None if utilization is None else float(utilization.gpu),
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_c=None if temperature is None else float(temperature),
            power_w=None if power is None else power / 1000,  # NVML counts milliwatts
            power_limit_w=None if limit is None else limit / 1000,
            processes=_used_by(processes),
            slowed=_slowed(value("nvmlDeviceGetCurrentClocksThrottleReasons")),
        )

    def _value(self, errors: list[Exception], name: str, *args: Any) -> Any:
        """What the function of that name gives; None where the driver, or this version of the module, does not tell."""
        try:
            return getattr(self._module, name)(*args)
        except self._module.NVMLError as error:
            if type(error).__name__ in _LOST:
                raise
            errors.append(error)
        except (AttributeError, TypeError, ValueError) as error:
            errors.append(error)
        return None

    def _retry_later(self, problem: str) -> None:
        self._problem = problem
        if self._retry_at is None or self._clock() >= self._retry_at:
            self._retry_at = self._clock() + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)

    def _shut_down(self) -> None:
        if self._initialised:
            self._initialised = False
            with contextlib.suppress(self._module.NVMLError, OSError):  # what is lost cannot be shut down either
                self._module.nvmlShutdown()

    def _words(self, error: Exception) -> str:
        advice = _ADVICE.get(type(error).__name__, "")
        return f"NVML: {error}{f' ({advice})' if advice else ''}"


_NEEDED = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
)
_LOST = frozenset(
    f"NVMLError_{name}"
    for name in (
        "GpuIsLost",
        "GpuNotFound",
        "Uninitialized",
        "DriverNotLoaded",
        "LibRmVersionMismatch",
        "ResetRequired",
    )
)
_ADVICE = {
    "NVMLError_LibraryNotFound": "no NVIDIA driver is installed here, or the container was started without --gpus",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is not loaded; a reboot helps after a driver update",
    "NVMLError_LibRmVersionMismatch": "the driver was updated while loaded: reboot",
    "NVMLError_GpuIsLost": "the GPU fell off the bus: reboot; check power, heat and seating",
    "NVMLError_ResetRequired": "the GPU needs a reset: reboot",
    "NVMLError_NoPermission": "this user may not use the GPU",
}


SLOWED = (
    (0x20 | 0x40, "by its heat"),
    (0x80, "by its power supply"),
    (0x08, "by its hardware: heat, power supply or a fast trigger"),
    (0x04, "by its power limit"),
)
"""nvml.h, nvmlClocksThrottleReason…: bits of the reasons that say something about the machine, the worst first."""


def _slowed(reasons: Any) -> str:
    return next((words for bits, words in SLOWED if isinstance(reasons, int) and reasons & bits), "")


def _used_by(processes: tuple[Any, ...]) -> dict[int, int]:
    used: dict[int, int] = {}
    for process in processes:
        found = process.usedGpuMemory
        # Windows does not tell (None, or all bits set): 0 then says that some memory is held.
        known = 0 if found is None or found >= 2**63 else int(found)
        used[process.pid] = max(known, used.get(process.pid, 0))  # both lists give a process's whole memory
    return used


def _text(found: Any) -> str:
    if isinstance(found, bytes):
        return found.decode("utf-8", "replace")
    return str(found) if found is not None else ""
