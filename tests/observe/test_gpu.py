"""The GPUs, by small stand-ins for what this machine may lack: NVML, nvidia-smi and a driver that hangs."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxgym_watchdog.observe.gpu import SIMULATED, GpuReader, gpus_of_run, read_simulated
from fluxgym_watchdog.observe.nvml import Nvml, check_pynvml
from fluxgym_watchdog.records import Gpu, GpuReading


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class NVMLError(Exception):
    pass


def nvml_error(name: str) -> NVMLError:
    error: NVMLError = type(f"NVMLError_{name}", (NVMLError,), {})(name)
    return error


class FakeNvml:
    """NVIDIA's module with `count` GPUs; `errors` maps a function's name, or (name, GPU), to what it raises."""

    NVMLError = NVMLError
    __file__ = "pynvml.py"

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.errors: dict[object, Exception] = {}
        self.inits = 0
        self.name: str | bytes = "NVIDIA Test 24GB"
        self.reasons: object = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(handle: int = 0, *_: object) -> Any:
            for key in (name, (name, handle)):
                if key in self.errors:
                    raise self.errors[key]
            return getattr(self, f"_{name.removeprefix('nvmlDeviceGet').removeprefix('nvml')}")(handle)

        return call

    def _Init(self, _: int) -> None:  # noqa: N802
        self.inits += 1

    def _Shutdown(self, _: int) -> None:  # noqa: N802
        pass

    def _Count(self, _: int) -> int:  # noqa: N802
        return self.count

    def _HandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def _MemoryInfo(self, _: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=4 * 1024**3, total=24 * 1024**3)

    def _UtilizationRates(self, index: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=90 - index)

    def _EnforcedPowerLimit(self, _: int) -> int:  # noqa: N802
        return 350_000

    def _PowerManagementLimit(self, _: int) -> int:  # noqa: N802
        return 360_000

    def _PowerUsage(self, _: int) -> int:  # noqa: N802
        return 210_500

    def _Temperature(self, _: int) -> int:  # noqa: N802
        return 61

    def _CurrentClocksThrottleReasons(self, _: int) -> object:  # noqa: N802
        return self.reasons

    def _UUID(self, index: int) -> str:  # noqa: N802
        return f"GPU-{index}0000000"

    def _Name(self, _: int) -> str | bytes:  # noqa: N802
        return self.name

    def _ComputeRunningProcesses(self, _: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=70, usedGpuMemory=1000), SimpleNamespace(pid=71, usedGpuMemory=None)]

    def _GraphicsRunningProcesses(self, _: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=70, usedGpuMemory=1200), SimpleNamespace(pid=72, usedGpuMemory=2**64 - 1)]


SMI_LINE = "0, GPU-aa, NVIDIA Test, 97, 4096, 24576, 61, 210.50, 350.00\n"


class FakeSmi:
    """subprocess.run that answers as nvidia-smi does."""

    def __init__(self, text: str = SMI_LINE, code: int = 0, error: Exception | None = None) -> None:
        self.text, self.code, self.error = text, code, error
        self.calls = 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if self.error:
            raise self.error
        if "--query-compute-apps" in command[1]:
            return subprocess.CompletedProcess(command, 0, "GPU-aa, 70, 2048\nGPU-aa, 71, [N/A]\n", "")
        self.calls += 1
        return subprocess.CompletedProcess(command, self.code, self.text, "")


def no_nvml() -> Any:
    raise ImportError("the Python package nvidia-ml-py is not installed")


def reader(
    nvml: FakeNvml | None = None,
    smi: FakeSmi | None = None,
    clock: Clock | None = None,
    environ: dict[str, str] | None = None,
) -> GpuReader:
    return GpuReader(
        environ=environ or {},
        load_nvml=(lambda: nvml) if nvml else no_nvml,
        run=smi or FakeSmi(error=FileNotFoundError()),
        clock=clock or Clock(),
        wall_clock=lambda: 5000.0,
        start=lambda run: run(),
    )


# NVML


def test_nvml_tells_all() -> None:
    found = reader(FakeNvml(2)).read()
    assert (found.source, found.problem, found.expected) == ("nvml", "", True)
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert found.gpus[0] == Gpu(
        index=0,
        uuid="GPU-00000000",
        name="NVIDIA Test 24GB",
        utilization_percent=90.0,
        memory_used_bytes=4 * 1024**3,
        memory_total_bytes=24 * 1024**3,
        temperature_c=61.0,
        power_w=210.5,
        power_limit_w=350.0,
        processes={70: 1200, 71: 0, 72: 0},
    )


def test_nvml_is_initialised_once() -> None:
    nvml = FakeNvml()
    gpus = reader(nvml)
    for _ in range(5):
        gpus.read()
    assert nvml.inits == 1


def test_runs_looked_at_in_the_same_second_share_one_reading() -> None:
    nvml, clock = FakeNvml(), Clock()
    gpus = reader(nvml, clock=clock)
    first = gpus.read()
    nvml.count = 2
    clock.now += 0.9
    assert gpus.read() == first
    clock.now += 0.1
    assert len(gpus.read().gpus) == 2


def test_old_versions_give_bytes() -> None:
    nvml = FakeNvml()
    nvml.name = b"NVIDIA Old\xff"
    assert reader(nvml).read().gpus[0].name == "NVIDIA Old\ufffd"


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization_percent"),
        ("nvmlDeviceGetMemoryInfo", "memory_used_bytes"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
    ],
)
@pytest.mark.parametrize("error", [nvml_error("NotSupported"), nvml_error("Unknown"), AttributeError("old version")])
def test_a_single_value_may_be_missing(function: str, field: str, error: Exception) -> None:
    nvml = FakeNvml()
    nvml.errors[function] = error
    (gpu,) = reader(nvml).read().gpus
    assert getattr(gpu, field) is None
    assert gpu.name == "NVIDIA Test 24GB"


def test_the_other_power_limit_is_taken() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetEnforcedPowerLimit"] = nvml_error("NotSupported")
    assert reader(nvml).read().gpus[0].power_limit_w == 360.0


def test_a_lost_driver_is_tried_again_after_growing_pauses() -> None:
    nvml, clock = FakeNvml(), Clock()
    gpus = reader(nvml, clock=clock)
    gpus.read()
    nvml.errors["nvmlDeviceGetHandleByIndex"] = nvml_error("Uninitialized")
    tries = []
    for _ in range(60):
        clock.now += 1
        found = gpus.read()
        assert not found.gpus
        assert found.expected
        assert "Uninitialized" in found.problem
        tries.append(nvml.inits)
    assert 4 <= tries[-1] <= 6
    nvml.errors.clear()
    clock.now += 120
    assert gpus.read().source == "nvml"


@pytest.mark.parametrize("name", ["GpuIsLost", "Unknown", "DriverNotLoaded"])
def test_a_driver_that_fails_altogether_is_a_problem(name: str) -> None:
    nvml = FakeNvml()
    for function in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"):
        nvml.errors[function] = nvml_error(name)
    found = reader(nvml).read()
    assert found.gpus == ()
    assert name in found.problem


def test_one_lost_gpu_does_not_hide_the_others() -> None:
    nvml, clock = FakeNvml(2), Clock()
    gpus = reader(nvml, clock=clock)
    nvml.errors["nvmlDeviceGetHandleByIndex", 1] = nvml_error("GpuIsLost")
    for _ in range(20):
        clock.now += 1
        found = gpus.read()
        assert [gpu.index for gpu in found.gpus] == [0]
        assert "GPU 1" in found.problem
    assert 2 <= nvml.inits <= 4
    nvml.errors.clear()
    clock.now += 120
    assert (len(gpus.read().gpus), gpus.read().problem) == (2, "")


def test_the_wrong_package_is_refused_with_what_to_do() -> None:
    retired = SimpleNamespace(__file__="/venv/pynvml/__init__.py", __path__=["/venv/pynvml"])
    with pytest.raises(ImportError, match="pip uninstall -y pynvml"):
        check_pynvml(retired)
    with pytest.raises(ImportError, match="lacks nvmlInit"):
        check_pynvml(SimpleNamespace(__file__="pynvml.py"))
    check_pynvml(FakeNvml())


def test_a_module_that_breaks_in_any_way_is_reported() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlInit"] = OSError("libnvidia-ml.so.1: file too short")
    assert "file too short" in reader(nvml).read().problem


# nvidia-smi


def test_nvidia_smi_tells_all() -> None:
    found = reader(smi=FakeSmi()).read()
    assert (found.source, found.expected) == ("nvidia-smi", True)
    assert found.gpus == (
        Gpu(0, "GPU-aa", "NVIDIA Test", 97.0, 4 * 1024**3, 24 * 1024**3, 61.0, 210.5, 350.0, {70: 2 * 1024**3, 71: 0}),
    )


@pytest.mark.parametrize("value", ["[N/A]", "[Not Supported]", "ERR!", "[Unknown Error]", "", "nan", "-1"])
def test_values_that_nvidia_smi_does_not_tell(value: str) -> None:
    smi = FakeSmi(f"0, GPU-aa, Odd, Name, {', '.join([value] * 6)}\n1, GPU-bb, B, 1, 2, 3, 4, 5, 6\nnonsense\n")
    odd, other = reader(smi=smi).read().gpus
    assert odd == Gpu(0, "GPU-aa", "Odd, Name", None, processes={70: 2 * 1024**3, 71: 0})
    assert other.utilization_percent == 1.0


def test_nvidia_smi_is_asked_every_five_seconds_at_most() -> None:
    smi, clock = FakeSmi(), Clock()
    gpus = reader(smi=smi, clock=clock)
    for _ in range(10):
        gpus.read()
        clock.now += 1
    assert smi.calls == 2


@pytest.mark.parametrize(
    ("smi", "words"),
    [
        (FakeSmi(error=FileNotFoundError()), "nvidia-smi was not found"),
        (FakeSmi(error=subprocess.TimeoutExpired("nvidia-smi", 10)), "the driver hangs"),
        (FakeSmi(error=PermissionError("denied")), "denied"),
        (FakeSmi("Unable to determine the device handle: GPU is lost\n", 15), "exit code 15: Unable to determine"),
        (FakeSmi("No devices were found\n"), "No devices were found"),
    ],
)
def test_nvidia_smi_that_fails_says_so(smi: FakeSmi, words: str) -> None:
    found = reader(smi=smi).read()
    assert (found.source, found.gpus, found.expected) == ("none", (), False)
    assert words in found.problem
    assert "nvidia-ml-py is not installed" in found.problem


def test_a_driver_that_hangs_never_hangs_the_reader() -> None:
    clock = Clock()
    open_questions: list[Callable[[], None]] = []
    gpus = GpuReader({}, no_nvml, FakeSmi(), clock, start=open_questions.append, nvml_wait_s=0)
    assert "has not answered yet" in gpus.read().problem
    clock.now += 30
    found = gpus.read()
    assert "NVML has given no answer for 30 s" in found.problem
    assert "nvidia-smi has given no answer for 30 s" in found.problem
    assert len(open_questions) == 2, "no second question is asked of a driver that hangs"


def test_a_thread_of_its_own_asks() -> None:
    asked = threading.Event()

    def load() -> Any:
        asked.set()
        return FakeNvml()

    gpus = GpuReader({}, load, FakeSmi(error=FileNotFoundError()))
    while gpus.read().source != "nvml":
        assert asked.wait(10)


# simulated


def simulated(path: Path, **changes: object) -> None:
    said: dict[str, object] = {
        "at": 5000.0,
        "pid": os.getpid(),
        "utilization_percent": 88,
        "memory_used_bytes": 9_000,
        "memory_total_bytes": 24_000,
        "temperature_c": 70,
        "power_w": 300,
        "power_limit_w": 350,
    }
    path.write_text(json.dumps(said | changes))


def test_a_simulated_gpu_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    simulated(path)
    found = reader(FakeNvml(), environ={SIMULATED: str(path)}).read()
    (gpu,) = found.gpus
    assert (found.source, found.problem) == ("simulated", "")
    assert "simulated" in gpu.name
    assert (gpu.utilization_percent, gpu.memory_used_bytes, gpu.processes) == (88.0, 9_000, {os.getpid(): 9_000})


def test_old_news_mean_an_idle_simulated_gpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    simulated(path, at=4998.0)
    gpu, _ = read_simulated(path, 5000.0)
    assert (gpu.utilization_percent, gpu.memory_used_bytes) == (0.0, 9_000)
    simulated(path, at=4998.0, pid=2**22 + 12345)
    gpu, _ = read_simulated(path, 5000.0)
    assert (gpu.utilization_percent, gpu.memory_used_bytes, gpu.processes) == (0.0, 0, {})


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"at": "x", "pid": NaN}', "[" * 100_000])
def test_a_simulated_gpu_with_a_broken_file_is_idle(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gpu.json"
    assert read_simulated(path, 1.0)[0].utilization_percent == 0.0
    path.write_text(text)
    assert read_simulated(path, 1.0)[0].utilization_percent == 0.0


# which GPUs


A, B = Gpu(0, "GPU-aaaa1111", "A", 1.0, processes={5: 100}), Gpu(1, "GPU-bbbb2222", "B", 2.0, processes={6: 0})
BOTH = GpuReading("nvml", (A, B))


@pytest.mark.parametrize(
    ("pids", "visible", "expected"),
    [
        ([5], None, (A,)),
        ([6, 7], "0", (B,)),
        ([5, 6], "0", (A, B)),
        ([7], None, (A, B)),
        ([7], "1", (B,)),
        ([7], "1, 0", (A, B)),
        ([7], "GPU-bbbb", (B,)),
        ([7], "MIG-12345", (A, B)),
        ([7], "9", (A, B)),
        ([7], "GPU-", (A, B)),
        ([], "", ()),
        ([], "-1", ()),
    ],
)
def test_the_gpus_of_a_run(pids: list[int], visible: str | None, expected: tuple[Gpu, ...]) -> None:
    assert gpus_of_run(BOTH, pids, visible) == expected


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (0, ""),
        (0x1 | 0x2, ""),  # idle, and clocks that somebody has set
        (0x4, "by its power limit"),
        (0x4 | 0x20, "by its heat"),
        (0x40, "by its heat"),
        (0x80 | 0x8, "by its power supply"),
        (0x8, "by its hardware: heat, power supply or a fast trigger"),
        (None, ""),
    ],
)
def test_why_a_gpu_is_slowed(reasons: object, words: str) -> None:
    nvml = FakeNvml()
    nvml.reasons = reasons
    assert Nvml(lambda: nvml, time.monotonic).read().gpus[0].slowed == words


def test_a_driver_that_does_not_tell_why_is_no_error() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetCurrentClocksThrottleReasons"] = NVMLError(3)
    (gpu,) = Nvml(lambda: nvml, time.monotonic).read().gpus
    assert gpu.slowed == ""
    assert gpu.utilization_percent == 90
