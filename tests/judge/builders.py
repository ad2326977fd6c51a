"""Builders of records with a fixed now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluxgym_watchdog.records import (
    Attempt,
    Checkpoint,
    CheckpointKind,
    GpuReading,
    LogProgress,
    Phase,
    ProcessTree,
    RunRecord,
    Snapshot,
)

NOW = 1_700_000_000.0


def log(lines: Sequence[str] = (), step: int = 85, **changes: Any) -> LogProgress:
    phase = Phase.TRAINING if step else Phase.LOADING
    return LogProgress(**{"phase": phase, "step": step, "last_lines": tuple(lines), **changes})


def ended(seen: LogProgress | None, exit_code: int | None = 1, final_weights_at: float | None = None) -> Snapshot:
    """An attempt of which nothing is left."""
    tree = ProcessTree((), exit_code)
    return Snapshot(1000.0, NOW, tree, seen, GpuReading(), final_weights_at=final_weights_at)


def state(epoch: int | None = 2, step: int = 80, **changes: Any) -> Checkpoint:
    """An epoch's state; `step` is what its train_state.json says."""
    return Checkpoint(
        **{
            "name": f"x-{epoch or 0:06d}-state",
            "kind": CheckpointKind.STATE,
            "saved_at": NOW + (epoch or 0),
            "size_bytes": 1000,
            "sound": True,
            "epoch": epoch,
            "attempt_step": step,
            **changes,
        }
    )


def step_state(epoch: int, step: int, **changes: Any) -> Checkpoint:
    return state(epoch, step, **{"name": f"x-step{step:08d}-state", "step_in_name": step, **changes})


def final_state(epoch: int, step: int, **changes: Any) -> Checkpoint:
    return state(epoch, step, **{"name": "x-state", "final": True, **changes})


def weights(epoch: int = 2, **changes: Any) -> Checkpoint:
    name = f"x-{epoch:06d}.safetensors"
    return state(epoch, **{"name": name, "kind": CheckpointKind.WEIGHTS, "attempt_step": None, **changes})


def attempt(number: int = 1, **changes: Any) -> Attempt:
    return Attempt(**{"number": number, "started_at": NOW - 1000 + number, "fresh": number == 1, **changes})


def record(**changes: Any) -> RunRecord:
    return RunRecord(
        **{
            "name": "x",
            "attempts": (attempt(),),
            "steps_per_epoch": 40,
            "total_steps": 240,
            "accumulation": 1,
            **changes,
        }
    )
