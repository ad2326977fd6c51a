"""When a run is stalled, and when it only looks so."""

from __future__ import annotations

import pytest

from fluxgym_watchdog.judge.stall import LEAST_PATIENCE_S, duration
from fluxgym_watchdog.records import FindingKind, Phase
from fluxgym_watchdog.settings import Settings
from tests.judge.looks import INTERVAL_S, Watch

TICK = 2 * INTERVAL_S
EARLY = (Phase.IMPORTS, Phase.DOWNLOAD, Phase.LOADING, Phase.CACHING_LATENTS, Phase.CACHING_TEXT)
SPINNING = {"cpu": 0.95, "status": "running", "wchan": ""}


def within(found: float, expected: float) -> bool:
    return expected <= found <= expected + TICK


@pytest.mark.parametrize("phase", list(Phase))
def test_outer_rule_holds_in_every_phase(phase: Phase) -> None:
    assert Watch(phase, has_log=phase is not Phase.UNKNOWN).found_after() <= 300 + TICK


@pytest.mark.parametrize("phase", list(Phase))
def test_stopped_process_is_found_in_every_phase(phase: Phase) -> None:
    watch = Watch(phase, has_log=phase is not Phase.UNKNOWN, status="stopped", wchan="")
    assert within(watch.found_after(), LEAST_PATIENCE_S)
    assert "is stopped" in watch.finding.text or phase is Phase.UNKNOWN


def test_stopped_worker_beside_a_working_trainer_is_no_hang() -> None:
    watch = Watch(Phase.FIRST_STEP, worker_status="stopped", cpu=1.0, gpu=90.0)
    assert watch.pass_time(280).kind is FindingKind.HEALTHY


@pytest.mark.parametrize("stop", [{"status": "stopped"}, {"worker_status": "stopped"}, {"wchan": "anon_pipe_write"}])
def test_patience_with_a_stopped_process_begins_when_it_stops(stop: dict[str, object]) -> None:
    watch = Watch(Phase.LOADING)
    assert watch.pass_time(104).kind is FindingKind.HEALTHY
    assert watch.pass_time(INTERVAL_S, **stop).kind is FindingKind.HEALTHY
    assert within(watch.found_after(), LEAST_PATIENCE_S)
    assert watch.kinds[-2] is FindingKind.SUSPECT


def test_a_process_that_is_stopped_now_and_then_is_not_stopped() -> None:
    watch = Watch(Phase.LOADING)
    for _ in range(3):
        watch.pass_time(40, status="stopped")
        watch.pass_time(INTERVAL_S, status="sleeping")
    assert FindingKind.STALLED not in watch.kinds


def test_pipe_that_nobody_reads_is_found_at_once() -> None:
    assert within(Watch(has_log=False, wchan="anon_pipe_write").found_after(), LEAST_PATIENCE_S)


@pytest.mark.parametrize("life", [{"gpu": 100.0, **SPINNING}, SPINNING, {"gpu": 60.0}])
def test_between_steps_neither_cpu_nor_gpu_excuses(life: dict[str, object]) -> None:
    watch = Watch().steps(20)
    watch.pass_time(2, **life)
    assert watch.found_after() <= LEAST_PATIENCE_S + TICK


def test_patience_grows_with_the_pace_of_the_run() -> None:
    assert within(Watch().steps(10, every_s=20).found_after(), 6 * 20)
    assert within(Watch(gpu=90.0).steps(10, every_s=40).found_after(), 10 * 40)


def test_steps_that_several_things_make_slow_are_no_hang() -> None:
    watch = Watch().steps(15, every_s=280)
    assert watch.pass_time(1900, gpu=90.0).kind is not FindingKind.STALLED
    assert within(watch.found_after() + 1900, 10 * 280)


def test_spinning_with_an_idle_gpu_is_no_slow_step() -> None:
    watch = Watch().steps(10, every_s=120)
    watch.pass_time(2, **SPINNING)
    assert watch.found_after() <= 300 + TICK


def test_first_slow_steps_teach_nothing_yet() -> None:
    watch = Watch().steps(3)
    assert watch.pass_time(200, gpu=100.0, cpu=1.0).kind is not FindingKind.STALLED


@pytest.mark.parametrize(
    "wait",
    [
        {"status": "disk-sleep", "wchan": "rpc_wait_bit_killable"},
        {"worker_wchan": "request_wait_answer", "wchan": "unix_stream_read_generic"},
        {"worker_status": "disk-sleep"},
        {"wchan": "", "worker_wchan": ""},
    ],
)
def test_a_disk_that_stands_still_has_longer_and_the_step_after_it_too(wait: dict[str, object]) -> None:
    watch = Watch().steps(20)
    assert watch.pass_time(280, **wait).kind is FindingKind.SUSPECT
    back = {"status": "running", "worker_status": "sleeping", "wchan": "", "worker_wchan": "pipe_read"}
    assert watch.pass_time(40, cpu=1.0, gpu=90.0, **back).kind is FindingKind.SUSPECT
    watch.advance()
    assert watch.look(2.0).kind is FindingKind.HEALTHY


def test_a_disk_that_is_gone_is_found_even_if_another_program_masks_it() -> None:
    watch = Watch().steps(20)
    watch.pass_time(2, status="disk-sleep", gpu=80.0)
    assert watch.found_after() <= 300 + LEAST_PATIENCE_S + TICK


def test_suspect_comes_before_stalled() -> None:
    watch = Watch().steps(20)
    watch.found_after()
    kinds = watch.kinds[20:]
    first = kinds.index(FindingKind.SUSPECT)
    assert FindingKind.STALLED not in kinds[:first]
    assert kinds[-2] is FindingKind.SUSPECT


def test_suspect_comes_first_also_where_looks_are_rare() -> None:
    watch = Watch(Phase.LOADING)
    watch.settings = Settings(check_interval=400)
    assert watch.look(400).kind is FindingKind.SUSPECT
    assert watch.look(400).kind is FindingKind.STALLED


def test_suspect_comes_first_also_where_patience_shrinks_at_once() -> None:
    watch = Watch(memory=0.99).steps(20)
    assert watch.pass_time(600, gpu=100.0, cpu=1.0).kind is FindingKind.HEALTHY
    assert watch.pass_time(INTERVAL_S, memory=0.5).kind is FindingKind.SUSPECT
    assert watch.pass_time(INTERVAL_S).kind is FindingKind.STALLED


def test_suspect_comes_first_also_where_the_settings_change() -> None:
    watch = Watch(Phase.LOADING)
    assert watch.pass_time(100).kind is FindingKind.HEALTHY
    watch.settings = Settings(check_interval=INTERVAL_S, stuck_threshold=20)
    assert watch.look(INTERVAL_S).kind is FindingKind.SUSPECT
    assert watch.look(INTERVAL_S).kind is FindingKind.STALLED


@pytest.mark.parametrize("phase", EARLY)
def test_cpu_excuses_silence_in_early_phases_up_to_its_limit(phase: Phase) -> None:
    watch = Watch(phase, **SPINNING)
    assert watch.pass_time(1700).kind is not FindingKind.STALLED
    assert within(watch.now - 1000 + watch.found_after(), 1800)


@pytest.mark.parametrize("phase", [*EARLY, Phase.SAVING, Phase.ENDING])
def test_moving_bytes_excuse_silence_for_two_hours(phase: Phase) -> None:
    watch = Watch(phase, cpu=0.1, io=1e6)
    assert watch.pass_time(7000).kind is not FindingKind.STALLED
    assert within(watch.now - 1000 + watch.found_after(), 7200)


def test_cpu_has_its_whole_limit_after_the_last_byte() -> None:
    watch = Watch(Phase.LOADING, cpu=0.1, io=1e6)
    watch.pass_time(3000)
    assert watch.pass_time(1000, io=0.0, cpu=1.0).kind is not FindingKind.STALLED


@pytest.mark.parametrize("phase", [*EARLY, Phase.SAVING, Phase.ENDING])
def test_another_programs_gpu_load_masks_nothing_where_the_run_uses_none(phase: Phase) -> None:
    assert within(Watch(phase, gpu=90.0).found_after(), 300)


def test_caching_that_counts_is_known_after_some_counts() -> None:
    watch = Watch(Phase.CACHING_LATENTS).steps(12)
    watch.pass_time(2, **SPINNING)
    assert watch.found_after() <= 300 + TICK


def test_sampling_is_known_only_after_two_images() -> None:
    watch = Watch(Phase.SAMPLING).steps(20)
    watch.pass_time(2, gpu=90.0, cpu=1.0)
    assert within(watch.found_after() + 2, 900)
    watch = Watch(Phase.SAMPLING).steps(50)
    watch.pass_time(2, gpu=90.0, cpu=1.0)
    assert watch.found_after() <= 300 + TICK


def test_images_are_made_on_the_gpu_so_a_busy_cpu_alone_does_not_excuse() -> None:
    assert within(Watch(Phase.SAMPLING, **SPINNING).found_after(), 300)
    assert within(Watch(Phase.SAMPLING, io=2e6, **SPINNING).found_after(), 4 * 1800)
    assert within(Watch(Phase.SAMPLING, gpu_readable=False, gpu_expected=False, **SPINNING).found_after(), 900)


def test_full_video_memory_is_slow_and_not_stuck() -> None:
    first = Watch(Phase.FIRST_STEP, memory=0.99, gpu=100.0, cpu=1.0)
    assert first.pass_time(3700).kind is not FindingKind.STALLED
    later = Watch(memory=0.99).steps(20)
    assert later.pass_time(1500, gpu=100.0, cpu=1.0).kind is not FindingKind.STALLED
    assert Watch(memory=0.9).steps(20).pass_time(100, gpu=100.0, cpu=1.0).kind is FindingKind.STALLED


def test_what_a_run_recovered_from_is_normal_for_it() -> None:
    watch = Watch().steps(20)
    assert watch.pass_time(40).kind is FindingKind.SUSPECT
    watch.advance()
    assert watch.look(2.0).kind is FindingKind.HEALTHY
    assert watch.found_after() >= 2 * 40


def test_learned_patience_is_kept_for_the_next_attempt() -> None:
    watch = Watch().steps(20)
    watch.pass_time(40)
    watch.advance()
    watch.look(2.0)
    again = Watch(learned=dict(watch.pulse.longest)).steps(10)
    assert again.found_after() >= 2 * 40


def test_unreadable_log_is_blind_and_neither_healthy_nor_stalled() -> None:
    watch = Watch().steps(20)
    assert watch.pass_time(4000, log_readable=False).kind is FindingKind.BLIND
    assert FindingKind.STALLED not in watch.kinds
    assert watch.pass_time(20, log_readable=True, gpu=90.0).kind is FindingKind.HEALTHY


def test_gpu_gone_from_view_is_blind_but_hangs_are_still_found() -> None:
    watch = Watch(gpu_readable=False)
    assert watch.steps(20).finding.kind is FindingKind.BLIND
    assert watch.found_after() <= LEAST_PATIENCE_S + TICK


def test_machine_without_a_gpu_is_not_blind() -> None:
    watch = Watch(gpu_readable=False, gpu_expected=False)
    assert watch.steps(20).finding.kind is FindingKind.HEALTHY


def test_without_a_gpu_a_slow_step_may_look_idle() -> None:
    watch = Watch(gpu_readable=False, gpu_expected=False).steps(10, every_s=200)
    assert watch.pass_time(590, wchan="").kind is not FindingKind.STALLED


def test_without_log_and_gpu_patience_is_doubled() -> None:
    assert within(Watch(has_log=False, gpu_readable=False, gpu_expected=False).found_after(), 600)


def test_without_a_log_what_the_trainer_writes_is_its_progress() -> None:
    watch = Watch(has_log=False, **SPINNING, gpu=100.0)
    for _ in range(20):
        watch.pass_time(200)
        watch.advance()
    assert FindingKind.STALLED not in watch.kinds
    assert within(watch.found_after(), 1800)


def test_shorter_threshold_shortens_everything_it_bounds() -> None:
    watch = Watch().steps(20)
    watch.settings = Settings(check_interval=2, stuck_threshold=20)
    assert watch.found_after() <= 20 + TICK


def test_durations_in_words() -> None:
    assert [duration(s) for s in (0.4, 42, 250, 7500)] == ["0.4 s", "42 s", "4 min 10 s", "2 h 5 min"]
