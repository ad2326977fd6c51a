"""Which step a checkpoint holds, and how to go on from it, by the trainer's arithmetic."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fluxgym_watchdog.demo.console import Console
from fluxgym_watchdog.demo.plan import Plan, length, start_at
from fluxgym_watchdog.judge.resume import absolute_step, ledger_line, placed, start_points
from fluxgym_watchdog.records import (
    Asked,
    Attempt,
    Checkpoint,
    CheckpointKind,
    RunRecord,
    StartPoint,
)
from fluxgym_watchdog.settings import Settings
from tests.judge.builders import NOW, attempt, final_state, record, state, step_state, weights

SETTINGS = Settings()
ASKED = Asked(epochs=6)
FOLDER = PurePosixPath("/outputs/x")
STAMP = state().stamp

# where to go on from


def points(run: RunRecord, *checkpoints: Checkpoint, chosen: str | None = None, **changes: bool) -> list[StartPoint]:
    return start_points(run, checkpoints, FOLDER, replace(SETTINGS, **changes), ASKED, chosen)


def stamps(found: list[StartPoint]) -> list[str | None]:
    return [p.checkpoint for p in found]


def test_states_newest_first_then_weights_then_the_beginning() -> None:
    old, new, step, w1, w2 = state(1, 40), state(2, 80), step_state(3, 20), weights(1), weights(2)
    found = points(record(), w1, old, step, w2, new)
    assert stamps(found) == [step.stamp, new.stamp, old.stamp, w2.stamp, w1.stamp, None]
    assert [p.first_step for p in found] == [100, 80, 40, 80, 40, 0]


def test_the_options_of_each_kind() -> None:
    by_kind = points(record(), state(2, 80), step_state(3, 20), weights(2))
    assert [p.options for p in by_kind] == [
        ("--resume", "/outputs/x/x-step00000020-state", "--skip_until_initial_step", "--initial_step", "100"),
        ("--resume", "/outputs/x/x-000002-state", "--initial_epoch", "3"),
        ("--network_weights", "/outputs/x/x-000002.safetensors", "--initial_epoch", "3"),
        (),
    ]
    assert [p.text for p in by_kind] == [
        "from step 100",
        "from epoch 2 (step 80)",
        "from the weights of epoch 2 (step 80)",
        "from the beginning",
    ]


@pytest.mark.parametrize(
    "unusable",
    [
        state(3, 120, sound=False, reason="optimizer.bin is missing"),
        state(None, 120),
        state(3, 120, saved_at=NOW - 2000),  # of an earlier training
        final_state(6, 240),  # finished
        final_state(6, 160),  # finished by an attempt that began at step 80
        weights(6, final=True),
        weights(3, step_in_name=100),
        weights(3, sound=False),
        step_state(3, 0),  # nobody knows where it stands
        step_state(3, 0, attempt_step=None),
    ],
)
def test_what_cannot_be_gone_on_from(unusable: Checkpoint) -> None:
    assert stamps(points(record(), unusable, state(2, 80))) == [state(2, 80).stamp, None]


def test_a_quarantine_is_for_the_content_not_for_the_name() -> None:
    bad, older = state(3, 120), state(2, 80)
    run = record(quarantined=(bad.stamp,))
    assert stamps(points(run, bad, older)) == [older.stamp, None]
    rewritten = replace(bad, saved_at=bad.saved_at + 60)
    assert stamps(points(run, rewritten, older)) == [rewritten.stamp, older.stamp, None]


def test_a_new_training_in_an_old_folder_starts_over() -> None:
    run = record(attempts=(attempt(1), attempt(2, started_at=NOW + 100, fresh=True)))
    assert stamps(points(run, state(4, 160), state(5, 200))) == [None]
    assert stamps(points(run, state(4, 160), chosen=state(4).name)) == [state(4, 160).stamp]


def test_a_finished_training_goes_on_when_more_epochs_are_asked_for() -> None:
    longer = record(total_steps=320)
    (found, _) = points(longer, final_state(6, 160))
    assert found.first_step == 240
    assert found.options[-3:] == ("--skip_until_initial_step", "--initial_step", "240") or found.options[-2:] == (
        "--initial_epoch",
        "7",
    )


def test_without_knowing_the_total_a_final_state_is_left_alone() -> None:
    assert stamps(points(record(total_steps=None), final_state(6, 240), state(2, 80))) == [state(2, 80).stamp, None]


def test_without_knowing_the_steps_of_an_epoch_only_whole_epochs_can_be_placed() -> None:
    run = record(steps_per_epoch=None, total_steps=None)
    found = points(run, state(2, 80), state(1, 40), step_state(3, 20), final_state(6, 240), weights(3))
    assert stamps(found) == [state(2, 80).stamp, state(1, 40).stamp, weights(3).stamp, None]
    assert found[0].options == ("--resume", "/outputs/x/x-000002-state", "--initial_epoch", "3")
    assert found[0].text == "from epoch 2"


def test_with_accumulation_only_whole_epochs_are_used() -> None:
    """The trainer skips a wrong number of batches then (sd-scripts issue 2407)."""
    found = points(record(accumulation=4), step_state(3, 20), state(2, 80), weights(1))
    assert stamps(found) == [state(2, 80).stamp, weights(1).stamp, None]


def test_the_beginning_only_where_it_is_allowed() -> None:
    assert stamps(points(record(), from_beginning=True)) == [None]
    assert points(record(), from_beginning=False) == []
    assert stamps(points(record(), state(), from_beginning=False)) == [STAMP]


def test_the_one_that_the_user_chose_is_the_only_way() -> None:
    run = record(quarantined=(state(1, 40).stamp,))
    assert stamps(points(run, state(1, 40), state(2, 80), chosen="x-000001-state")) == [state(1, 40).stamp]
    assert points(run, state(2, 80), chosen="x-000009-state") == []
    assert points(run, state(2, 80, sound=False), chosen="x-000002-state") == []


# the trainer's arithmetic


@pytest.mark.parametrize(
    ("checkpoint", "step"),
    [
        (state(1, 40), 40),
        (state(3, 40), 120),  # relative to an attempt that began at step 80
        (step_state(2, 50), 50),
        (step_state(3, 20), 100),
        (step_state(2, 40), 80),  # on the epoch's last step
        (step_state(2, 80), 80),
        (final_state(6, 240), 240),
        (final_state(6, 160), 240),
        (weights(2), 80),
        (weights(6, final=True), None),
        (weights(2, step_in_name=50), None),
        (step_state(2, 0), None),
        (state(None, 80), None),
    ],
)
def test_the_absolute_step(checkpoint: Checkpoint, step: int | None) -> None:
    assert absolute_step(checkpoint, 40) == step
    assert absolute_step(checkpoint, None) is None
    assert absolute_step(checkpoint, 0) is None


def parsed(options: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--initial_epoch", type=int)
    parser.add_argument("--initial_step", type=int)
    parser.add_argument("--skip_until_initial_step", action="store_true")
    parser.add_argument("--resume")
    parser.add_argument("--network_weights")
    parser.add_argument("--max_train_steps", type=int)
    return parser.parse_args(options)


def train(
    plan: Plan, until: int | None, save_every_steps: int, at: float, offset: int
) -> tuple[list[int], list[tuple[Checkpoint, int]]]:
    """The absolute steps that one attempt executes, up to `until` of its own, and what it saves, with the truth.

    `offset` is the step at which an attempt begins whose epochs count from 1 again.
    """
    executed: list[int] = []
    saved: list[tuple[Checkpoint, int]] = []
    counter = plan.first_step
    for epoch in range(plan.first_epoch, plan.epochs):
        first = plan.skipped_batches if epoch == plan.first_epoch else 0
        for batch in range(first, plan.steps_per_epoch):
            if until is not None and len(executed) >= until:
                return executed, saved
            step = offset + epoch * plan.steps_per_epoch + batch + 1
            executed.append(step)
            counter += 1
            if save_every_steps and counter % save_every_steps == 0:
                saved.append((step_state(epoch + 1, counter, saved_at=at + len(executed) / 1000), step))
            if (
                counter >= plan.total_steps
            ):  # the attempt's own count, as in sd-scripts: a resumed one goes past the end
                break
        step = executed[-1] if executed else offset
        if epoch + 1 == plan.epochs:
            saved.append((final_state(epoch + 1, counter, saved_at=at + 1), step))
        else:
            saved.append((state(epoch + 1, counter, saved_at=at + len(executed) / 1000 + 0.0005), step))
            saved.append((weights(epoch + 1, saved_at=at + len(executed) / 1000 + 0.0004), step))
    return executed, saved


@dataclass
class Disk:
    """A run's folder and record over its attempts, and what each checkpoint really holds."""

    run: RunRecord
    found: dict[str, Checkpoint] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)

    def attempt(self, point: StartPoint) -> None:
        number = len(self.run.attempts) + 1
        begun = Attempt(
            number,
            NOW + 10 * number,
            fresh=number == 1,
            first_step=point.first_step,
            counted_from=point.counted_from,
            epochs_before=point.epochs_before,
            renumbered=point.renumbered,
            files_since=NOW + 10 * number,
        )
        self.run = replace(self.run, attempts=(*self.run.attempts, begun))

    def write(self, saved: list[tuple[Checkpoint, int]]) -> None:
        assert self.run.attempt is not None
        for checkpoint, step in saved:
            self.found[checkpoint.name] = checkpoint
            self.holds[checkpoint.stamp] = step
            line = ledger_line(checkpoint, self.run.attempt, self.run.steps_per_epoch)
            if line is not None:
                self.run = replace(self.run, ledger=(*self.run.ledger, line))


def went_on(plan: Plan, options: argparse.Namespace, from_state: int | None) -> Plan:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return start_at(plan, options, from_state, Console())


@hypothesis_settings(deadline=None, max_examples=400)
@given(
    steps_per_epoch=st.integers(1, 12),
    total=st.integers(1, 60),
    by_epochs=st.booleans(),
    constant=st.booleans(),
    save_every_steps=st.integers(0, 9),
    interruptions=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 3)), max_size=6),
)
def test_after_any_interruptions_exactly_the_missing_steps_are_executed(
    steps_per_epoch: int,
    total: int,
    by_epochs: bool,
    constant: bool,
    save_every_steps: int,
    interruptions: list[tuple[int, int]],
) -> None:
    """The other side is the stand-in trainer's own arithmetic, which was written after sd-scripts'."""
    epochs = -(-total // steps_per_epoch)
    if by_epochs:
        total = epochs * steps_per_epoch
    asked = Asked(epochs if by_epochs else None, total, lr_scheduler="constant_with_warmup" if constant else "cosine")
    disk = Disk(RunRecord("x", steps_per_epoch=steps_per_epoch, total_steps=total, accumulation=1))
    point = StartPoint(None, 0)
    for until, lost in [*interruptions, (None, 0)]:
        named = parsed(point.options)
        disk.attempt(point)
        length_asked = argparse.Namespace(
            gradient_accumulation_steps=1, max_train_steps=named.max_train_steps or total, max_train_epochs=None
        )
        from_state = disk.found[PurePosixPath(named.resume).name].attempt_step if named.resume else None
        plan = went_on(length(length_asked, steps_per_epoch), named, from_state)
        offset = point.first_step if point.renumbered else 0
        at = NOW + 10 * len(disk.run.attempts)
        executed, saved = train(plan, until, save_every_steps, at, offset)
        assert executed == list(range(point.first_step + 1, point.first_step + 1 + len(executed)))
        if any(checkpoint.final for checkpoint, _ in saved):
            break
        disk.write(saved)
        for checkpoint in placed(tuple(disk.found.values()), disk.run, asked):
            if checkpoint.step is not None:
                assert checkpoint.step == disk.holds[checkpoint.stamp]
            elif checkpoint.kind is CheckpointKind.STATE:
                raise AssertionError(f"{checkpoint} was written before our eyes")
        found = start_points(disk.run, tuple(disk.found.values()), FOLDER, SETTINGS, asked)
        point = found[min(lost, len(found) - 1)]  # sometimes the best ones cannot be used
        assert point.first_step == (disk.holds[point.checkpoint] if point.checkpoint else 0)
    more = int(found_more[1]) if (found_more := re.search(r"(\d+) steps more", point.text)) else 0
    assert executed[-1] == total + more
    assert not more or not (by_epochs or constant)
