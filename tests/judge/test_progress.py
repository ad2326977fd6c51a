"""What counts as progress, as life and as silence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxgym_watchdog.judge import progress
from fluxgym_watchdog.judge.progress import IO_LIFE_BYTES_PER_S
from fluxgym_watchdog.records import FindingKind, Phase, Process, ProcessId, ProcessTree, Role
from tests.judge.builders import state
from tests.judge.looks import INTERVAL_S, Watch


def silence(watch: Watch) -> float:
    return watch.pulse.seen_at - watch.pulse.advanced_at


def test_a_count_that_rises_is_progress_and_a_gap_is_learned() -> None:
    watch = Watch()
    watch.pass_time(20)
    watch.advance()
    watch.look(INTERVAL_S)
    assert silence(watch) == 0
    assert watch.pulse.longest == {"training": pytest.approx(22)}
    assert watch.pulse.gaps == {"training": 1}


def test_a_new_or_rewritten_checkpoint_is_progress_and_a_pruned_one_is_not() -> None:
    watch = Watch(checkpoints=(state(1), state(2)))
    watch.pass_time(20, checkpoints=(state(2),))
    assert silence(watch) == 20
    watch.pass_time(INTERVAL_S, checkpoints=(state(2), state(3)))
    assert silence(watch) == 0


def test_a_gap_belongs_to_the_phase_in_which_it_was() -> None:
    watch = Watch(Phase.LOADING)
    watch.pass_time(100)
    watch.advance()
    watch.pass_time(INTERVAL_S, phase=Phase.CACHING_LATENTS)
    assert watch.pulse.longest == {"loading": pytest.approx(102)}


@pytest.mark.parametrize("unwatched", [20.0, 600.0, 30000.0])
def test_time_that_nobody_watched_is_no_silence(unwatched: float) -> None:
    watch = Watch().steps(20)
    watch.pass_time(10)
    assert watch.look(unwatched).kind is FindingKind.HEALTHY
    assert silence(watch) == pytest.approx(10 + INTERVAL_S)
    watch.advance()
    watch.look(INTERVAL_S)
    assert watch.pulse.longest["training"] < 20


def test_a_late_look_is_still_silence() -> None:
    watch = Watch()
    watch.look(14.0)
    assert silence(watch) == 14.0


def test_an_unreadable_log_teaches_no_long_gap() -> None:
    watch = Watch().steps(20)
    longest = watch.pulse.longest
    watch.pass_time(3600, log_readable=False)
    watch.advances += 1000
    watch.pass_time(INTERVAL_S, log_readable=True)
    assert watch.pulse.longest == longest


def test_signs_of_life_are_told_apart() -> None:
    watch = Watch()
    began = watch.now
    watch.pass_time(10, cpu=0.04, io=0.9 * IO_LIFE_BYTES_PER_S, gpu=4.9)
    pulse = watch.pulse
    assert (pulse.worked_at, pulse.gpu_busy_at, pulse.moved_at) == (began, began, began)
    watch.pass_time(10, cpu=0.06)
    assert (watch.pulse.worked_at, watch.pulse.moved_at) == (watch.now, began)
    watch.pass_time(10, cpu=0.0, io=2 * IO_LIFE_BYTES_PER_S)
    assert watch.pulse.moved_at == watch.now
    watch.pass_time(10, io=0.0, gpu=5.0)
    assert watch.pulse.gpu_busy_at == watch.now
    assert watch.pulse.worked_at == watch.now - 10


def test_an_outlier_is_forgotten_in_what_is_usual_but_not_in_the_longest() -> None:
    watch = Watch().steps(10)
    watch.pass_time(100)
    watch.advance()
    watch.look(INTERVAL_S)
    watch.steps(50)
    assert watch.pulse.usual["training"] == pytest.approx(INTERVAL_S)
    assert watch.pulse.longest["training"] > 100


def test_a_new_process_does_not_make_old_cpu_time_look_new() -> None:
    watch = Watch()
    watch.pass_time(2, cpu_s=5.0)  # fewer CPU seconds than before: a worker ended
    assert watch.pulse.worked_at < watch.now


def test_a_process_counts_from_its_second_look() -> None:
    watch = Watch(Phase.LOADING)
    began = watch.now
    for cpu_s, works in ((600.0, False), (600.0, False), (602.0, True)):
        watch.now += INTERVAL_S
        stray = Process(ProcessId(14, 1.0), 1, Role.OTHER, "python", "sleeping", cpu_s, 10**10, 0)
        seen = watch.snapshot()
        seen = replace(seen, tree=ProcessTree((*seen.tree.processes, stray)))
        watch.pulse = progress.listen(watch.pulse, seen, watch.settings)
        assert watch.pulse.worked_at == (watch.now if works else began)
        assert watch.pulse.moved_at == began
