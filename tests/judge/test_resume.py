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
from fluxgym_watchdog.judge.resume import (
    EARLIER,
    NOTHING_LEFT,
    QUARANTINED,
    absolute_step,
    ahead_of,
    cures,
    going_back,
    ledger_line,
    may_be_chosen,
    nothing_left,
    placed,
    start_points,
    to_complete,
    trained_too_far,
)
from fluxgym_watchdog.records import (
    Asked,
    Attempt,
    Checkpoint,
    CheckpointKind,
    LedgerLine,
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
        (weights(6, final=True), None),  # their epoch need not have been trained to its end
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
            # By the attempt's own count, as in sd-scripts: one that was resumed passes the end.
            if counter >= plan.total_steps:
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


# placing


def by_name(run: RunRecord, *found: Checkpoint, asked: Asked = ASKED) -> dict[str, tuple[int | None, str]]:
    return {c.name: (c.step, c.aside) for c in placed(found, run, asked)}


def test_each_checkpoint_has_its_step_and_a_reason_where_it_is_passed_over() -> None:
    old, bad, last = state(1, 40, saved_at=NOW - 2000), state(2, 80), final_state(6, 240)
    broken = state(4, 160, sound=False, reason="is cut off")
    found = by_name(record(quarantined=(bad.stamp,)), old, bad, state(3, 120), broken, step_state(5, 20), last)
    assert {name: step for name, (step, _) in found.items()} == {
        "x-000001-state": 40,
        "x-000002-state": 80,
        "x-000003-state": 120,
        "x-000004-state": 160,
        "x-step00000020-state": 180,
        "x-state": 240,
    }
    assert found["x-000001-state"][1] == EARLIER
    assert found["x-000002-state"][1] == QUARANTINED
    assert found["x-000003-state"][1] == found["x-step00000020-state"][1] == ""
    assert found["x-000004-state"][1] == ""  # its own reason says it
    assert found["x-state"][1] == NOTHING_LEFT


def test_with_accumulated_gradients_a_step_state_says_why_it_is_not_used() -> None:
    found = by_name(record(accumulation=4), step_state(3, 20), step_state(3, 40, name="x-step00000040-state"))
    assert "gradients are accumulated" in found["x-step00000020-state"][1]
    assert found["x-step00000040-state"] == (120, "")  # the epoch's last step


def test_the_ledger_is_believed_over_names() -> None:
    first = attempt(1, counted_from=0)
    renumbered = attempt(2, counted_from=100, renumbered=True, first_step=100)
    later = state(1, 30, saved_at=NOW + 50)
    lines = (ledger_line(later, renumbered, 40),)
    assert lines[0] is not None
    assert (lines[0].step, lines[0].attempt) == (130, 2)
    run = record(attempts=(first, renumbered), ledger=lines, total_steps=230)
    asked = Asked(steps=230)
    assert by_name(run, later, asked=asked)[later.name] == (130, "")
    unknown = replace(run, ledger=())  # the record was lost: nothing tells from where it was counted
    assert by_name(unknown, later, asked=asked)[later.name] == (None, "at which step it was saved cannot be told")


def test_a_count_that_its_own_files_deny_is_not_used() -> None:
    odd = step_state(3, 20)  # of epoch 3, so step 100
    line = ledger_line(odd, attempt(2, counted_from=40), 40)
    assert line is not None
    assert line.step is None
    assert by_name(record(ledger=(line,)), odd)[odd.name] == (None, "at which step it was saved cannot be told")


def test_the_ledger_holds_what_was_counted_before_our_eyes() -> None:
    assert ledger_line(state(3, 40), attempt(2, counted_from=80), 40) == LedgerLine(state(3, 40).stamp, 120, 2)
    assert ledger_line(state(3, 40), attempt(2), 40) is None
    assert ledger_line(state(3, 40), attempt(2, counted_from=80), None) is None
    assert ledger_line(weights(3), attempt(2, counted_from=80), 40) is None


def test_final_weights_are_placed_only_where_whole_epochs_are_asked_for() -> None:
    final = weights(3, name="x.safetensors", final=True)
    assert by_name(record(total_steps=240), final)["x.safetensors"][0] == 120
    in_steps = by_name(record(total_steps=200), final, asked=Asked(steps=200))
    assert in_steps["x.safetensors"] == (None, "at which step it was saved cannot be told")


def test_an_empty_listing_beside_final_weights_is_no_error() -> None:
    """Two looks at a folder that is being written to."""
    assert nothing_left(RunRecord("x"), (), NOW, ASKED)


# the end


def test_a_final_state_without_its_weights_is_completed() -> None:
    last = final_state(6, 160)
    assert to_complete(record(), (state(4, 160), last), None, ASKED) == replace(last, step=240, aside=NOTHING_LEFT)
    assert to_complete(record(), (last,), last.saved_at + 1, ASKED) is None
    assert to_complete(record(), (last,), last.saved_at - 1, ASKED)  # the weights are of an earlier, shorter training


@pytest.mark.parametrize(
    "run",
    [
        record(total_steps=320),
        record(quarantined=(final_state(6, 240).stamp,)),
        record(attempts=(attempt(1, started_at=NOW + 100),)),
    ],
)
def test_what_is_not_the_end_of_this_training_is_not_completed(run: RunRecord) -> None:
    assert to_complete(run, (final_state(6, 240),), None, Asked(epochs=8)) is None


def test_a_final_state_that_is_not_sound_is_not_completed() -> None:
    broken = final_state(6, 240, sound=False, reason="optimizer.bin is cut off")
    assert to_complete(record(), (broken,), None, ASKED) is None


def test_the_end_of_a_run_that_nobody_watched_is_told_by_its_epoch() -> None:
    never = RunRecord("x")
    assert to_complete(never, (final_state(6, 240),), None, ASKED) is not None
    assert to_complete(never, (final_state(6, 240),), None, Asked(epochs=8)) is None
    assert to_complete(never, (final_state(6, 240),), None, Asked(steps=240)) is None
    found = start_points(never, (final_state(6, 240),), FOLDER, SETTINGS, Asked(epochs=8))
    assert [p.options[-2:] for p in found] == [("--initial_epoch", "7")]  # and never from the beginning


def test_weights_of_the_end_are_gone_on_from_where_more_epochs_are_asked_for() -> None:
    final = weights(6, name="x.safetensors", final=True)
    never = RunRecord("x", steps_per_epoch=40, total_steps=320)
    (found,) = start_points(never, (final,), FOLDER, SETTINGS, Asked(epochs=8))
    assert found.options == ("--network_weights", "/outputs/x/x.safetensors", "--initial_epoch", "7")
    assert found.first_step == 240


@pytest.mark.parametrize(
    ("run", "found", "asked", "done"),
    [
        (record(attempts=(attempt(1, last_step=240),)), (weights(6, final=True),), ASKED, True),
        (record(attempts=(attempt(1, last_step=239),)), (weights(6, final=True),), ASKED, True),  # by the files
        (record(attempts=(attempt(1, last_step=239),)), (weights(5, final=True),), ASKED, False),
        (record(attempts=(attempt(1, started_at=NOW + 99, last_step=240),)), (weights(6, final=True),), ASKED, False),
        (record(attempts=(attempt(1, supervised=False),)), (weights(6, final=True),), ASKED, True),
        (record(attempts=(attempt(1),)), (final_state(6, 240, saved_at=NOW + 9),), ASKED, False),
        (record(attempts=(attempt(1, last_step=240),), total_steps=320), (weights(6, final=True),), ASKED, False),
        (RunRecord("x", steps_per_epoch=40, total_steps=240), (weights(6, final=True),), ASKED, True),
        (RunRecord("x", steps_per_epoch=40, total_steps=320), (weights(6, final=True),), Asked(epochs=8), False),
        (RunRecord("x"), (weights(6, final=True), final_state(6, 240)), Asked(epochs=8), False),
        (RunRecord("x"), (replace(weights(6, final=True), epoch=None),), ASKED, True),
        (RunRecord("x"), (replace(weights(3, final=True), epoch=None), state(4, 160)), ASKED, False),
    ],
)
def test_whether_anything_is_left(run: RunRecord, found: tuple[Checkpoint, ...], asked: Asked, done: bool) -> None:
    assert nothing_left(run, found, NOW + 3 if len(found) == 2 and found[1].epoch == 4 else NOW + 6, asked) is done
    assert not nothing_left(run, found, None, asked)


# versions


@pytest.mark.parametrize(
    ("accelerate", "torch", "cured"),
    [
        ("0.33.0", "2.6.0+cu124", True),
        ("0.32.1", "2.10.0", True),
        ("0.33.0", "2.5.1", False),
        ("0.31.0", "2.6.0", True),
        ("1.0.1", "2.6.0", True),
        ("1.1.0", "2.6.0", False),
        ("1.6.0", "2.13.0", False),
        ("", "2.6.0", False),
        ("0.33.0", "unknown", False),
    ],
)
def test_versions_that_cannot_load_their_own_states(accelerate: str, torch: str, cured: bool) -> None:
    assert bool(cures({"accelerate": accelerate, "torch": torch})) is cured
    assert not cures({})


# scripts that begin somewhere of their own


def test_a_script_s_own_resume_is_not_loaded_over_the_weights() -> None:
    own = replace(ASKED, begins_within=True)
    (found, beginning) = start_points(record(), (weights(2),), FOLDER, SETTINGS, own)
    assert found.options[:4] == ("--network_weights", "/outputs/x/x-000002.safetensors", "--resume", "")
    assert (beginning.counted_from, beginning.epochs_before) == (None, None)


def test_a_script_s_own_initial_step_is_overridden_by_one() -> None:
    own = replace(ASKED, begins_within=True, sets_initial_step=True)
    found = start_points(record(), (state(2, 80),), FOLDER, SETTINGS, own)
    assert found[0].options[-3:] == ("--skip_until_initial_step", "--initial_step", "80")
    assert (found[0].counted_from, found[0].epochs_before) == (80, None)
    accumulates = start_points(record(accumulation=2), (state(2, 80),), FOLDER, SETTINGS, own)
    assert [p.checkpoint for p in accumulates] == [None]


def test_more_accumulation_than_before_is_heeded() -> None:
    found = by_name(record(accumulation=1), step_state(3, 20), asked=replace(ASKED, accumulation=2))
    assert "gradients are accumulated" in found["x-step00000020-state"][1]


# fewer steps asked for than were trained


def test_a_state_of_the_last_step_that_is_asked_for_now_completes_the_run() -> None:
    run = record(total_steps=120)
    asked = Asked(epochs=3)
    assert to_complete(run, (state(2, 80), state(3, 120)), None, asked) == replace(
        state(3, 120), step=120, aside=NOTHING_LEFT
    )
    assert to_complete(run, (state(4, 160),), None, asked) is None
    assert trained_too_far(run, (state(2, 80), state(4, 160)), asked) is not None
    assert trained_too_far(run, (state(2, 80), state(3, 120)), asked) is None


# clocks and ledgers


def test_what_was_seen_being_written_is_this_training_s_whatever_the_clock_says() -> None:
    old = state(2, 80, saved_at=NOW - 5000)
    assert by_name(record(), old)[old.name][1] == EARLIER
    assert by_name(record(ledger=(LedgerLine(old.stamp, 80, 1),)), old)[old.name] == (80, "")


def test_going_back_to_an_earlier_training_makes_it_this_one() -> None:
    own, chosen, further = state(1, 40), state(4, 160, saved_at=NOW - 6000), state(5, 200, saved_at=NOW - 5000)
    found = placed((own, chosen, further), record(), ASKED)
    assert [c.aside for c in found] == ["", EARLIER, EARLIER]
    quarantined, ledger = going_back(record(), StartPoint(chosen.stamp, 160, counted_from=160), found)
    run = record(quarantined=quarantined, ledger=ledger, attempts=(attempt(), attempt(2, first_step=160)))
    assert by_name(run, own, chosen, further) == {
        own.name: (40, QUARANTINED),
        chosen.name: (160, ""),
        further.name: (200, f"{QUARANTINED}"),
    }
    assert stamps(points(run, own, chosen, further)) == [chosen.stamp, None]


def test_where_the_earlier_state_does_not_load_the_one_before_it_is_next() -> None:
    before, chosen = state(3, 120, saved_at=NOW - 6100), state(4, 160, saved_at=NOW - 6000)
    found = placed((before, chosen), record(), ASKED)
    _, ledger = going_back(record(), StartPoint(chosen.stamp, 160, counted_from=160), found)
    run = record(quarantined=(chosen.stamp,), ledger=ledger)
    assert stamps(points(run, before, chosen)) == [before.stamp, None]


def test_who_went_back_from_the_end_is_not_finished_by_it() -> None:
    end, earlier = final_state(6, 240, saved_at=NOW), state(2, 80)
    finished = record(attempts=(attempt(last_step=240),))
    assert nothing_left(finished, (end, earlier), NOW + 1, ASKED)
    found = placed((end, earlier), finished, ASKED)
    quarantined, ledger = going_back(finished, StartPoint(earlier.stamp, 80, counted_from=80), found)
    again = attempt(2, started_at=NOW + 100, first_step=80, last_step=100)
    run = record(attempts=(attempt(last_step=240), again), quarantined=quarantined, ledger=ledger)
    assert not nothing_left(run, (end, earlier), NOW + 1, ASKED)


def test_the_end_of_an_earlier_training_can_be_chosen_by_nobody() -> None:
    (end,) = placed((final_state(6, 240, saved_at=NOW - 5000),), record(), ASKED)
    assert end.aside == f"{EARLIER}, and {NOTHING_LEFT}"
    assert not may_be_chosen(end)
    assert points(record(), end, chosen=end.name) == []


def test_going_back_by_epochs_leaves_later_epochs_behind() -> None:
    unknown = record(steps_per_epoch=None, total_steps=None)
    found = placed((state(1, 40), state(2, 80), state(3, 120)), unknown, ASKED)
    point = StartPoint(found[0].stamp, 0, counted_from=None, epochs_before=1)
    assert ahead_of(point, found) == (found[1].stamp, found[2].stamp)
