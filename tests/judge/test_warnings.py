"""What is said, and never acted on."""

from __future__ import annotations

import math
from dataclasses import replace

from fluxgym_watchdog.judge.warnings import warnings
from fluxgym_watchdog.records import Gpu, GpuReading, Host, Phase
from tests.judge.looks import Watch

HOST = Host(int(64e9), int(30e9), 0, 0, int(500e9), int(100e9))


def said(watch: Watch, paces_s: tuple[float, ...] = (), **changes: object) -> tuple[str, ...]:
    return warnings(watch.pulse, replace(watch.snapshot(), **changes), paces_s)  # type: ignore[arg-type]


def with_processes(processes: dict[int, int]) -> dict[str, object]:
    gpu = Gpu(0, "GPU-0", "GPU", 90.0, int(20e9), int(24e9), processes=processes)
    return {"gpu": GpuReading("nvml", (gpu,), expected=True), "run_gpus": (gpu,)}


def test_a_healthy_run_is_not_warned_about() -> None:
    assert said(Watch().steps(20), (2.0,) * 20, host=HOST) == ()


def test_another_programs_model_on_the_gpu() -> None:
    (text,) = said(Watch(), **with_processes({12: int(15e9), 99: int(8e9)}))
    assert "pid 99" in text and "8 GB" in text
    assert said(Watch(), **with_processes({12: int(15e9), 99: int(1e9)})) == ()
    assert said(Watch(), **with_processes({4711: int(15e9)})) == ()  # in a container our own pid has another number


def test_memory_that_spills_in_the_first_step() -> None:
    watch = Watch(Phase.FIRST_STEP, memory=0.99, gpu=100.0, cpu=1.0)
    watch.pass_time(300)
    assert said(watch) == ()
    watch.pass_time(400)
    assert "moves memory into RAM" in said(watch)[0]


def test_memory_that_spills_between_steps() -> None:
    watch = Watch(memory=0.99).steps(20)
    watch.pass_time(4, gpu=100.0)
    assert said(watch, (2.0,) * 20) == ()
    assert "moves memory into RAM" in said(watch, (*(2.0,) * 20, 30.0))[0]
    assert said(Watch(memory=0.8, gpu=100.0), (*(2.0,) * 20, 30.0)) == ()


def test_loss_that_is_no_number() -> None:
    watch = Watch()
    log = watch.snapshot().log
    assert log is not None
    assert "not a number" in said(watch, log=replace(log, loss=math.nan))[0]


def test_memory_that_runs_out() -> None:
    assert "RAM" in said(Watch(), host=replace(HOST, memory_available_bytes=int(1e9)))[0]
