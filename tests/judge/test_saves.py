"""How much work hangs on a save, whether the next ones fit, and what may go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxgym_watchdog.judge.resume import placed
from fluxgym_watchdog.judge.saves import deletable, foresee, in_bytes, offer_in_words, options_of, prunable
from fluxgym_watchdog.records import Asked, Checkpoint, Host, RunRecord, RunState, SaveOffer, Saves
from fluxgym_watchdog.settings import Settings
from tests.judge.builders import NOW, attempt, final_state, record, state, step_state, weights

SETTINGS = Settings()
MB = 10**6
FLUXGYM = Asked(epochs=16, save_every_epochs=4, rank=4, optimizer="adamw8bit")
LONG = record(steps_per_epoch=100, total_steps=1600)


def host(free: int) -> Host:
    return Host(32 * 10**9, 16 * 10**9, 0, 0, 10**12, free)


def seen(
    run: RunRecord = LONG,
    asked: Asked = FLUXGYM,
    step: int = 0,
    found: tuple[Checkpoint, ...] = (),
    free: int | None = None,
    pace_s: float | None = None,
    settings: Settings = SETTINGS,
) -> Saves:
    machine = host(free) if free is not None else None
    return foresee(run, asked, step, placed(found, run, asked), machine, settings, pace_s)


# work at risk


def test_what_is_at_risk_is_counted_from_the_newest_sound_state() -> None:
    whole, broken = state(4, 400), state(8, 800, sound=False, reason="optimizer.bin is missing")
    found = seen(step=850, found=(whole, broken), pace_s=2.0)
    assert (found.since_steps, found.since_s) == (450, 900.0)
    assert (found.every_steps, found.most_s, found.next_in_steps) == (400, 800.0, 350)


def test_a_state_that_lies_ahead_is_no_safety() -> None:
    ahead, here = state(8, 800), state(4, 400)
    assert seen(step=450, found=(ahead, here)).since_steps == 50
    left = replace(LONG, quarantined=(here.stamp,))
    assert seen(left, step=450, found=(here,)).since_steps == 450


@pytest.mark.parametrize(
    ("asked", "every"),
    [
        (FLUXGYM, 400),
        (Asked(epochs=16), 1600),  # only its end is saved
        (Asked(epochs=16, save_every_epochs=20), 1600),
        (Asked(epochs=16, save_every_steps=50), 50),
        (Asked(epochs=16, save_every_epochs=1, save_every_steps=250), 100),
        (Asked(epochs=16, save_every_steps=50, accumulation=2), 1600),  # those states cannot be gone on from
    ],
)
def test_the_interval_between_two_states(asked: Asked, every: int) -> None:
    assert seen(replace(LONG, accumulation=asked.accumulation), asked).every_steps == every


def test_without_states_only_the_weights_need_room() -> None:
    found = seen(settings=replace(SETTINGS, save_states=False), free=150 * MB)
    assert (found.next_bytes, found.fits) == (40 * MB, True)


def test_without_states_there_is_no_interval() -> None:
    off = replace(SETTINGS, save_states=False)
    assert seen(settings=off).every_steps is None
    assert seen(asked=replace(FLUXGYM, saves_states=True), settings=off).every_steps == 400


def test_step_saves_count_from_where_the_attempt_does() -> None:
    run = replace(LONG, attempts=(attempt(1, counted_from=100),))
    assert seen(run, Asked(epochs=16, save_every_steps=40), step=130).next_in_steps == 10


def test_nothing_is_said_of_time_without_a_pace() -> None:
    found = seen(step=100)
    assert (found.since_s, found.most_s, found.offer) == (None, None, None)


# the offer


def test_closer_saves_are_offered_where_too_much_is_at_risk() -> None:
    found = seen(pace_s=3.0)
    assert found.offer == SaveOffer(
        "--save_every_n_epochs",
        every=3,
        steps=300,
        most_s=900.0,
        more_files=2,
        more_bytes=2 * 40 * MB,
    )
    assert offer_in_words(found) == (
        "Up to 20 min 0 s of work (400 steps) can be lost between two saves. "
        "Saving every 3 epochs would risk 15 min 0 s, for 2 more files, about 80 MB"
    )
    assert seen(pace_s=2.0).offer is None  # 13 min


def test_within_an_epoch_where_even_one_is_too_long() -> None:
    found = seen(pace_s=20.0)
    assert found.offer is not None
    assert (found.offer.option, found.offer.every, found.offer.most_s) == ("--save_every_n_steps", 40, 800.0)
    assert (found.offer.more_files, found.offer.more_bytes) == (4, 2 * (40 + 120) * MB)
    assert options_of(found.offer) == (
        *("--save_every_n_steps", "40", "--save_last_n_steps", "40", "--save_last_n_steps_state", "40"),
    )


def test_with_accumulated_gradients_whole_epochs_are_the_closest() -> None:
    run = replace(LONG, accumulation=2)
    found = seen(run, replace(FLUXGYM, accumulation=2), pace_s=20.0)
    assert found.offer is not None
    assert (found.offer.option, found.offer.every) == ("--save_every_n_epochs", 1)
    assert seen(run, replace(FLUXGYM, accumulation=2, save_every_epochs=1), pace_s=20.0).offer is None


@pytest.mark.parametrize("answer", [True, False])
def test_an_offer_that_was_answered_is_not_made_again(answer: bool) -> None:
    assert seen(replace(LONG, closer_saves=answer), pace_s=3.0).offer is None


def test_the_interval_that_was_chosen_counts() -> None:
    run = replace(LONG, save_options=("--save_every_n_epochs", "1"), closer_saves=True)
    assert seen(run, pace_s=3.0).every_steps == 100


# room on the disk


def test_the_next_save_is_known_to_fit_or_not() -> None:
    assert seen().fits is None
    assert seen(free=10**10).fits
    found = seen(free=100 * MB)
    assert (found.fits, found.next_bytes, found.estimated) == (False, 160 * MB, True)
    assert "does not fit" in found.warning
    assert "about 160 MB" in found.warning
    assert "100 MB are free" in found.warning


def test_a_warning_comes_two_saves_ahead() -> None:
    sizes = (
        state(4, 400, size_bytes=300 * MB),
        state(8, 800, size_bytes=300 * MB),
        weights(8, size_bytes=100 * MB),
    )
    assert seen(step=850, found=sizes, free=600 * MB).warning == ""
    found = seen(step=850, found=sizes, free=540 * MB)
    assert found.fits
    assert "not for the one after it" in found.warning
    # While fewer states are there than are kept, each save adds one.
    first = seen(step=450, found=(sizes[0], sizes[2]), free=840 * MB)
    assert "not for the one after it" in first.warning
    assert seen(step=450, found=(sizes[0], sizes[2]), free=860 * MB).warning == ""


def test_what_may_go_is_named_with_its_size() -> None:
    old = state(1, 100, size_bytes=119 * MB)
    found = seen(step=850, found=(old, state(4, 400), state(8, 800)), free=MB)
    assert "What may go: x-000001-state (119 MB); samples" in found.warning
    assert "states of finished runs" in seen(free=MB).warning


@pytest.mark.parametrize(
    ("optimizer", "size"), [("adamw8bit", 160), ("adafactor", 160), ("AdamW", 276), ("", 276), ("Lion", 160)]
)
def test_the_size_of_a_save_is_estimated_from_the_rank(optimizer: str, size: int) -> None:
    assert seen(asked=replace(FLUXGYM, optimizer=optimizer)).next_bytes == size * MB
    assert seen(asked=replace(FLUXGYM, optimizer=optimizer, rank=8)).next_bytes == 2 * size * MB


def test_where_no_size_is_known_a_nearly_full_disk_is_still_said() -> None:
    unknown = replace(FLUXGYM, rank=None)
    assert seen(asked=unknown, free=10**10).warning == ""
    assert "nearly full" in seen(asked=unknown, free=10**9).warning


# what may go


def stamps(found: tuple[Checkpoint, ...]) -> list[str]:
    return [c.name for c in found]


def placed_in(run: RunRecord, *found: Checkpoint) -> tuple[Checkpoint, ...]:
    return placed(found, run, Asked(epochs=6))


def test_the_two_newest_that_can_be_gone_on_from_are_needed() -> None:
    found = (state(1, 40), state(2, 80), state(3, 120), state(4, 160, sound=False, reason="is cut off"), weights(1))
    run = record(state=RunState.STOPPED, quarantined=(state(3, 120).stamp,))
    assert stamps(prunable(run, placed_in(run, *found))) == ["x-000004-state", "x-000003-state"]
    assert stamps(deletable(run, placed_in(run, *found))) == ["x-000004-state", "x-000003-state", "x-000001-state"]


def test_what_may_be_being_written_or_read_is_left_alone() -> None:
    half = state(4, 160, sound=False, reason="is cut off")
    run = record(state=RunState.TRAINING, attempts=(attempt(1), attempt(2, resumed_from=state(2, 80).stamp)))
    found = placed_in(run, state(1, 40), state(2, 80), state(3, 120), half)
    assert stamps(deletable(run, found)) == ["x-000001-state"]
    assert deletable(run, placed_in(run, half)) == ()
    assert prunable(run, found) == ()


def test_a_finished_run_needs_no_state() -> None:
    run = record(state=RunState.FINISHED)
    found = (state(4, 160), state(5, 200), final_state(6, 240, saved_at=NOW + 9), step_state(3, 20), weights(5))
    assert len(prunable(run, placed_in(run, *found))) == 4
    longer = replace(run, total_steps=320)  # train.sh asks for more since: one of them will be gone on from
    assert "x-state" not in stamps(prunable(longer, placed(found, longer, Asked(epochs=8))))


def test_what_is_needed_is_what_a_restart_takes_not_the_newest_file() -> None:
    """A folder that was copied has its times in the order of copying."""
    run = record(state=RunState.STOPPED)
    found = placed_in(run, state(1, 40, saved_at=NOW + 9), state(2, 80, saved_at=NOW + 1), state(3, 120, saved_at=NOW))
    assert stamps(deletable(run, found)) == ["x-000001-state", "x-000002-state"]
    assert stamps(prunable(run, found)) == ["x-000001-state"]


def test_a_final_state_that_only_lacks_its_weights_is_needed() -> None:
    run = record(state=RunState.CRASHED)
    found = placed_in(run, state(5, 200), final_state(6, 240, saved_at=NOW + 9))
    assert stamps(deletable(run, found)) == ["x-000005-state"]


def test_sizes_in_words() -> None:
    assert [in_bytes(n) for n in (0, 999_999, 119 * MB, 2_100 * MB)] == ["0 B", "999999 B", "119 MB", "2.1 GB"]


def test_the_state_that_its_user_chose_is_never_deleted() -> None:
    found = (state(1, 40), state(2, 80), state(3, 120))
    for live in (RunState.WAITING, RunState.STOPPED):
        run = record(state=live, chosen_next=found[0].name)
        assert [c.name for c in deletable(run, placed(found, run, Asked(epochs=6)))] == [found[1].name]
