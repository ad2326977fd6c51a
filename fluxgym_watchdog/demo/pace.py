"""How fast the stand-in trainer goes, and the GPU that it pretends to use while it goes."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

SIMULATED_GPU_VARIABLE = "FLUXGYM_WATCHDOG_SIMULATED_GPU"
REPORT_INTERVAL_S = 0.5
MEMORY_TOTAL_BYTES = 24 * 1024**3


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that each part of a training takes, from the environment (`DEMO_STEP_SECONDS` and so on)."""

    step_s: float = 0.15
    load_s: float = 1.5
    save_s: float = 0.05
    sample_s: float = 0.5
    end_s: float = 0.3

    @classmethod
    def from_environment(cls) -> Pace:
        return cls(
            step_s=_seconds("DEMO_STEP_SECONDS", cls().step_s),
            load_s=_seconds("DEMO_LOAD_SECONDS", cls().load_s),
            save_s=_seconds("DEMO_SAVE_SECONDS", cls().save_s),
            sample_s=_seconds("DEMO_SAMPLE_SECONDS", cls().sample_s),
            end_s=_seconds("DEMO_END_SECONDS", cls().end_s),
        )


class SimulatedGpu:
    """Passes the time, and meanwhile writes what a GPU would show into the file that
    `FLUXGYM_WATCHDOG_SIMULATED_GPU` names, replaced atomically about twice a second. A trainer that hangs passes no
    time here, so its file grows stale: that is how a reader sees 0 %. Without the variable nothing is written."""

    def __init__(self) -> None:
        named = os.environ.get(SIMULATED_GPU_VARIABLE)
        self._file = Path(named) if named else None
        self._reported_at = -REPORT_INTERVAL_S
        self._noise = random.Random(os.getpid())

    def work(self, seconds: float, *, training: bool = True) -> None:
        """Take `seconds` of the clock, busy if `training`, else loading."""
        until = time.monotonic() + seconds
        while True:
            self._report(training)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, REPORT_INTERVAL_S))

    def _report(self, training: bool) -> None:
        now = time.monotonic()
        if self._file is None or now - self._reported_at < REPORT_INTERVAL_S:
            return
        self._reported_at = now
        utilization = min(100, max(90, round(self._noise.gauss(97, 1.5)))) if training else self._noise.randint(90, 94)
        memory_gib = self._noise.gauss(19.6, 0.05) if training else self._noise.gauss(9.0, 0.3)
        reading = {
            "at": time.time(),
            "pid": os.getpid(),
            "name": "Simulated GPU",
            "utilization_percent": utilization,
            "memory_used_bytes": int(memory_gib * 1024**3),
            "memory_total_bytes": MEMORY_TOTAL_BYTES,
            "temperature_c": round(self._noise.gauss(66 if training else 52, 1)),
            "power_w": round(self._noise.gauss(385 if training else 160, 8), 1),
            "power_limit_w": 450,
        }
        written = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        written.write_text(json.dumps(reading), encoding="utf-8")
        written.replace(self._file)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    return float(text) if text else default
