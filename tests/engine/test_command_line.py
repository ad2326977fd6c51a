"""The command line, as a user runs it: processes, exit codes, what it says, and the steps that were executed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluxgym_watchdog.records import RunState
from tests.trainings import FAST, PARKED, Training, clean_up, finished_exactly, until

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - (INFO|WARNING|ERROR) - .+$")


class TestRun:
    def test_to_the_end(self, short_training: Training) -> None:
        script = short_training.script.read_bytes()
        started = short_training.run()
        finished_exactly(short_training, started)
        assert all(LINE.match(line) for line in started.output.splitlines()), started.output
        assert short_training.script.read_bytes() == script, "the user's script stays as it was written"
        assert [s for _, s in short_training.executed] == list(range(1, 81))

    def test_the_acceptance_story(self, training: Training) -> None:
        """Hang at 85, hang again after the resume, crash after that: 240 steps in all, exit 0."""
        started = training.run(faults="hang@85,hang@130,crash@200")
        finished_exactly(training, started)
        attempts = training.record.attempts
        assert [a.first_step for a in attempts] == [0, 80, 120, 160]
        assert [a.outcome for a in attempts] == ["hang", "hang", "cuda_error", "finished"]
        assert len(training.lineage) == 240
        assert {s for _, s in training.executed} == set(range(1, 241))
        assert re.search(r" - ERROR - Training stuck: no step for ", started.output)
        assert re.search(r" - ERROR - Training crashed: ", started.output)

    def test_of_a_finished_run_trains_nothing(self, short_training: Training) -> None:
        finished_exactly(short_training, short_training.run())
        again = short_training.run()
        assert again.ends() == 0
        assert "finished" in again.output
        resumed = short_training.supervise("resume", str(short_training.run_folder))
        assert resumed.ends() == 0
        assert "nothing left to train" in resumed.output
        watched = short_training.supervise("watch", "--output-dir", str(short_training.run_folder))
        assert watched.ends() == 0
        assert len(short_training.executed) == 80

    def test_without_auto_resume_a_crash_is_explained_and_nothing_is_done(self, short_training: Training) -> None:
        started = short_training.run(faults="crash@50", auto_resume=False)
        assert started.ends() == 33, started.output
        assert short_training.state is RunState.CRASHED
        assert "Training crashed: CUDA reported an error" in started.output
        assert len(short_training.record.attempts) == 1

    def test_without_auto_resume_a_hang_is_explained_and_nothing_is_touched(self, short_training: Training) -> None:
        started = short_training.run(faults="hang@50", auto_resume=False)
        until(lambda: short_training.events("ask"), "the question")
        assert short_training.state is RunState.STALLED
        assert short_training.trainer().is_running()
        short_training.store.request("switch", auto_resume=True)
        finished_exactly(short_training, started)

    def test_gives_up_after_max_restarts(self, short_training: Training) -> None:
        started = short_training.run("--max-restarts", "2", faults="crash@10,crash@10,crash@10,crash@10")
        assert started.ends() == 33, started.output
        assert short_training.state is RunState.FAILED
        assert len(short_training.record.attempts) == 3
        assert "2 restarts without a new checkpoint" in started.output
        short_training.nothing_left()

    def test_out_of_memory_at_step_0_is_not_retried(self, short_training: Training) -> None:
        started = short_training.run(faults="oom@1")
        assert started.ends() == 93, started.output
        assert len(short_training.record.attempts) == 1
        assert "video memory ran out" in started.output

    def test_bad_arguments_are_not_retried(self, short_training: Training) -> None:
        short_training.lay_out("--max_train_steps many")
        started = short_training.run()
        assert started.ends() == 93, started.output
        assert "did not accept its arguments" in started.output

    def test_ctrl_c_stops_the_training(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        started.signal(signal.SIGINT)
        assert started.ends() == 130, started.output
        assert short_training.state is RunState.STOPPED
        short_training.nothing_left()

    def test_twice_at_once_joins(self, short_training: Training) -> None:
        first = short_training.run(*PARKED, faults="stop@10,crash@50")
        short_training.parked()
        second = short_training.run()
        until(lambda: "already supervised" in second.output, "the second to join")
        short_training.go_on()
        finished_exactly(short_training, first)
        assert second.ends() == 0, second.output
        assert "Finished: " in second.output, "it shows what happens"
        assert len({pid for pid, _ in short_training.executed}) == 2, "the crash and one restart, no second training"

    def test_the_second_goes_on_when_the_first_is_killed(self, short_training: Training) -> None:
        first = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        second = short_training.run()
        until(lambda: "already supervised" in second.output, "the second to join")
        first.signal(signal.SIGKILL)  # the second finds that the trainer stands still
        finished_exactly(short_training, second)


class TestUsage:
    @pytest.mark.parametrize(
        ("content", "said"),
        [(None, "No such file"), (b"", "is empty"), (b"echo hello\n", "has no"), ("folder", "Is a directory")],
    )
    def test_a_script_that_is_none(self, short_training: Training, content: bytes | str | None, said: str) -> None:
        short_training.script.unlink()
        if isinstance(content, bytes):
            short_training.script.write_bytes(content)
        elif content:
            short_training.script.mkdir()
        started = short_training.run()
        assert started.ends() == 2
        (line,) = started.output.splitlines()
        assert str(short_training.script) in line
        assert said in line
        assert "'accelerate launch … _train_network.py' command" in line

    @pytest.mark.parametrize(
        "arguments",
        [
            ("run", "outputs/demo-lora/train.sh", "--no-such-option"),
            ("run", "outputs/demo-lora/train.sh", "--check-interval", "0"),
            ("run", "outputs/demo-lora/train.sh", "--max-restarts", "many"),
            ("resume", "outputs/nothing-here"),
            ("resume", "outputs/demo-lora", "--from", "no-such-checkpoint"),
            ("watch", "--output-dir", "outputs/nothing-here"),
            ("status", "outputs/nothing-here"),
            ("stop", "outputs/nothing-here"),
            ("checkpoints", "outputs/nothing-here"),
            (),
        ],
    )
    def test_is_told(self, short_training: Training, arguments: tuple[str, ...]) -> None:
        started = short_training.cli(*arguments)
        assert started.ends() == 2
        assert started.output.strip()
        assert "Traceback" not in started.output

    def test_a_bad_settings_file_is_named(self, short_training: Training) -> None:
        (short_training.root / "watchdog.yaml").write_text("check_intervall: 3\n")
        started = short_training.run()
        assert started.ends() == 2
        assert "watchdog.yaml: unknown key 'check_intervall'" in started.output

    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes everywhere")
    def test_a_folder_that_cannot_be_written(self, short_training: Training) -> None:
        short_training.run_folder.chmod(0o500)
        started = short_training.run()
        assert started.ends() == 2
        assert "Permission denied" in started.output
        short_training.run_folder.chmod(0o700)


class TestStopAndResume:
    def test_stop_from_another_process_then_resume_goes_on_exactly(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        stopped = short_training.cli("stop", str(short_training.run_folder))
        assert stopped.ends() == 0, stopped.output
        assert started.ends() == 130
        short_training.nothing_left()
        resumed = short_training.supervise("resume", str(short_training.run_folder))
        finished_exactly(short_training, resumed)
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_stop_of_an_orphan(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        started.signal(signal.SIGKILL)
        started.ends()
        stopped = short_training.cli("stop", str(short_training.run_folder))
        assert stopped.ends() == 0
        assert "stopped" in stopped.output
        assert short_training.state is RunState.STOPPED
        short_training.nothing_left()

    def test_stop_of_a_training_that_bash_started(self, short_training: Training) -> None:
        plain = short_training.plain(DEMO_FAULTS="stop@10")
        short_training.parked()
        stopped = short_training.cli("stop", str(short_training.run_folder))
        assert stopped.ends() == 0
        assert plain.ends() != 0
        again = short_training.cli("stop", str(short_training.run_folder))
        assert again.ends() == 0
        assert "no training is running" in again.output

    def test_stop_of_a_waiting_run(self, short_training: Training) -> None:
        started = short_training.run("--backoff", "600", "--backoff-max", "600", faults="crash@50")
        until(lambda: short_training.state is RunState.WAITING and short_training.events("crashed"), "the wait")
        assert short_training.cli("stop", str(short_training.run_folder)).ends() == 0
        assert started.ends() == 130

    def test_switched_off_while_it_waits_to_restart(self, short_training: Training) -> None:
        started = short_training.run("--backoff", "600", "--backoff-max", "600", faults="crash@50")
        until(lambda: short_training.state is RunState.WAITING and short_training.events("crashed"), "the wait")
        short_training.store.request("switch", auto_resume=False)
        assert started.ends() == 130
        assert len(short_training.record.attempts) == 1

    def test_switched_off_in_mid_run(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10,crash@50")
        short_training.parked()
        short_training.store.request("switch", auto_resume=False)
        until(lambda: short_training.events("switch"), "the switch")
        short_training.go_on()
        assert started.ends() == 33, started.output
        assert short_training.state is RunState.CRASHED

    def test_resume_while_somebody_supervises_joins(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        resumed = short_training.supervise("resume", str(short_training.run_folder))
        until(lambda: "already supervised" in resumed.output, "it to join")
        short_training.go_on()
        finished_exactly(short_training, started)
        assert resumed.ends() == 0
        assert len(short_training.record.attempts) == 1

    def test_resume_of_what_fluxgym_trained_alone(self, short_training: Training) -> None:
        """No record, no states: the weights of its last epoch are what can be gone on from."""
        plain = short_training.plain(DEMO_FAULTS="kill@50")
        assert plain.ends() == 1
        resumed = short_training.supervise("resume", str(short_training.run_folder))
        assert resumed.ends() == 0, resumed.output
        assert short_training.lineage == list(range(1, 81))

    def test_resume_of_what_fluxgym_finished_alone(self, short_training: Training) -> None:
        assert short_training.plain().ends() == 0
        resumed = short_training.supervise("resume", str(short_training.run_folder))
        assert resumed.ends() == 0
        assert "nothing left to train" in resumed.output
        assert len(short_training.executed) == 80


class TestWatch:
    def test_heals_a_training_that_bash_started(self, short_training: Training) -> None:
        short_training.plain(DEMO_FAULTS="hang@50")
        started = short_training.supervise("watch", "--output-dir", str(short_training.run_folder))
        assert started.ends() == 0, started.output
        assert short_training.state is RunState.FINISHED
        assert short_training.lineage == list(range(1, 81))
        assert "something else started" in started.output

    def test_waits_for_one_that_appears_later(self, short_training: Training) -> None:
        started = short_training.supervise(
            "watch", "--output-dir", str(short_training.run_folder), "--train-script", str(short_training.script)
        )
        until(lambda: "waiting for one" in started.output, "watch to wait")
        short_training.plain(DEMO_STEP_SECONDS="0.02")
        assert started.ends() == 0, started.output
        assert short_training.lineage == list(range(1, 81))

    def test_a_run_that_bash_trains_is_not_trained_twice(self, short_training: Training) -> None:
        short_training.plain(DEMO_FAULTS="stop@10")
        short_training.parked()
        started = short_training.run(*PARKED)
        until(lambda: short_training.events("taken over"), "it to be taken over")
        short_training.go_on()
        assert started.ends() == 0, started.output
        assert len({pid for pid, _ in short_training.executed}) == 1

    def test_ctrl_c_ends_only_the_watching(self, short_training: Training) -> None:
        plain = short_training.plain(DEMO_FAULTS="stop@10")
        short_training.parked()
        started = short_training.supervise("watch", "--output-dir", str(short_training.run_folder), *PARKED)
        until(lambda: short_training.state is RunState.TRAINING, "the watch")
        started.signal(signal.SIGINT)
        assert started.ends() == 130
        short_training.go_on()
        assert plain.ends() == 0
        assert len(short_training.executed) == 80


class TestQuestions:
    def test_are_answered_in_json(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@60")
        short_training.parked()
        until(lambda: short_training.events("checkpoint"), "a checkpoint")
        found = short_training.ask("status", str(short_training.run_folder))
        assert found["state"] == "training"
        assert found["watched"] is True
        assert found["last_look"]["step"] > 0
        (listed,) = short_training.ask("list", str(short_training.root))
        assert (listed["name"], listed["state"]) == ("demo-lora", "training")
        states = short_training.ask("checkpoints", str(short_training.run_folder))
        assert ("demo-lora-000001-state", 40, True) in [(c["name"], c["step"], c["sound"]) for c in states]
        short_training.go_on()
        finished_exactly(short_training, started)
        assert short_training.ask("status", str(short_training.run_folder))["state"] == "finished"
        for command in ("status", "checkpoints", "list"):
            folder = short_training.root if command == "list" else short_training.run_folder
            assert short_training.cli(command, str(folder)).ends() == 0

    def test_of_a_run_that_was_never_watched(self, short_training: Training) -> None:
        assert short_training.ask("status", str(short_training.run_folder))["state"] == "idle"
        assert short_training.ask("checkpoints", str(short_training.run_folder)) == []
        assert short_training.ask("list", str(short_training.root))[0]["state"] == "never watched"


class TestThingsThatVanish:
    def test_the_log(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        (short_training.run_folder / "training.log").unlink()
        until(lambda: short_training.events("blind"), "it to say that it is blind")
        short_training.go_on()
        finished_exactly(short_training, started)
        assert len(short_training.record.attempts) == 1, "a blind watcher kills nothing"

    @pytest.mark.parametrize("content", [None, b"echo changed\n"])
    def test_the_script(self, short_training: Training, content: bytes | None) -> None:
        started = short_training.run(*PARKED, faults="stop@10,crash@50")
        short_training.parked()
        if content is None:
            short_training.script.unlink()
        else:
            short_training.script.write_bytes(content)
        short_training.go_on()
        finished_exactly(short_training, started)

    @pytest.mark.parametrize("damage", [None, b"{ half"])
    def test_the_record(self, short_training: Training, damage: bytes | None) -> None:
        first = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        first.signal(signal.SIGKILL)
        first.ends()
        record = short_training.run_folder / ".watchdog" / "run.json"
        if damage is None:
            record.unlink()
        else:
            record.write_bytes(damage)
        second = short_training.run(*PARKED)
        until(lambda: short_training.state is RunState.TRAINING, "it to be taken over")
        short_training.go_on()
        assert second.ends() == 0, second.output
        assert len({pid for pid, _ in short_training.executed}) == 1, "the living training was taken over"

    def test_the_space_on_the_disk(self, short_training: Training, tmp_path: Path) -> None:
        """Our own writing fails in mid-run and works again later; the training does not notice."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
        )
        if not mounted or mounted.returncode:
            pytest.skip("no small disk can be mounted here")
        try:
            (short_training.run_folder / ".watchdog").symlink_to(disk)
            started = short_training.run(*PARKED, faults="stop@10,stop@60")
            short_training.parked()
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            until(lambda: "Cannot write to" in started.output, "it to say that it cannot write")
            short_training.go_on()
            short_training.reach(59)
            short_training.parked()
            ballast.unlink()
            until(lambda: "works again" in started.output, "it to say that it can write again")
            short_training.go_on()
            finished_exactly(short_training, started)
            assert len(short_training.record.attempts) == 1
            assert any("000001-state" in text for text in short_training.events("checkpoint")), "nothing is lost"
        finally:
            clean_up(short_training.root)
            subprocess.run(["umount", str(disk)], capture_output=True, check=False)


class TestCopies:
    def test_a_copied_run_folder_touches_nothing_of_the_original(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@10")
        short_training.parked()
        trainer = short_training.trainer()
        copy = short_training.run_folder.with_name("copy")
        shutil.copytree(short_training.run_folder, copy, ignore=shutil.ignore_patterns("*-state", "*.tmp", ".run*"))
        stopped = short_training.cli("stop", str(copy))
        assert stopped.ends() == 0
        assert "no training is running" in stopped.output
        refused = short_training.cli("resume", str(copy))
        assert refused.ends() == 2
        assert "another run's folder" in refused.output
        assert trainer.is_running()
        short_training.go_on()
        finished_exactly(short_training, started)


def test_the_module_and_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fluxgym_watchdog", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **FAST},
    )
    assert done.returncode == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.stdout)
