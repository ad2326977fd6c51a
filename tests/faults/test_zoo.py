"""Every way to hang or die that was measured on real trainings: each is found, cleared and healed, for real."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fluxgym_watchdog.act.launch import RUN_VARIABLE
from fluxgym_watchdog.records import Role, RunState
from tests.trainings import PARKED, Herd, Training, finished_exactly, until

BLOCKING = '''\
"""The stand-in trainer, {where} of which once reads a file that never answers, as on a network disk that is gone."""
import os
from fluxgym_watchdog.demo import trainer, workers

unblocked = {where}

def blocked(*arguments):
    try:
        os.mkdir({once!r})
        open({fifo!r}).read()
    except FileExistsError:
        pass
    unblocked(*arguments)

{where} = blocked
if __name__ == "__main__":
    trainer.main()
'''


class TestHangs:
    @pytest.mark.parametrize("batch", [("hang", "busy", "stop_worker"), ("stop", "ignore_term", "stray")])
    def test_is_found_cleared_and_healed(self, herd: Herd, batch: tuple[str, ...]) -> None:
        for training, started in [herd.start(f"{fault}@50") for fault in batch]:
            finished_exactly(training, started)
            assert len(training.events("stalled")) == 1
            assert [a.first_step for a in training.record.attempts] == [0, 40]
            assert ("is stopped" in training.events("stalled")[0]) == training.fault.startswith("stop")

    def test_in_a_phase_without_steps(self, herd: Herd) -> None:
        for training, started in [herd.start(f"hang@{phase}") for phase in ("loading", "caching", "saving", "ending")]:
            assert started.ends() == 0, started.output
            assert len(training.events("stalled")) == 1
            assert training.lineage == list(range(1, 81))
            training.nothing_left()

    def test_a_pause_that_ends_is_no_hang(self, short_training: Training) -> None:
        started = short_training.run("--stuck-threshold", "8", faults="stop@50")
        until(lambda: short_training.events("suspect"), "suspicion")
        short_training.go_on()
        finished_exactly(short_training, started)
        assert short_training.events("recovered")
        assert len(short_training.record.attempts) == 1

    @pytest.mark.parametrize("where", ["workers._serve", "trainer.Training._cache"])
    def test_a_file_read_that_never_returns(self, short_training: Training, where: str) -> None:
        fifo, once = short_training.root / "fifo", short_training.root / "once"
        os.mkfifo(fifo)
        stub = short_training.root / "sd-scripts" / "flux_train_network.py"
        stub.write_text(BLOCKING.format(fifo=str(fifo), once=str(once), where=where))
        started = short_training.run()
        finished_exactly(short_training, started)
        assert once.is_dir()
        assert len(short_training.events("stalled")) == 1

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="wait channels are Linux's")
    def test_a_pipe_that_nobody_reads(self, short_training: Training) -> None:
        """What FluxGym does when its page is closed: the trainer blocks once the pipe is full."""
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        subprocess.Popen(
            ["bash", str(short_training.script)],
            cwd=short_training.root,
            env=short_training.environment(),
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
        )
        os.close(write_end)
        started = short_training.supervise("watch", "--output-dir", str(short_training.run_folder))
        assert started.ends() == 0, started.output
        os.close(read_end)
        stalled = next(e for e in short_training.store.read_events() if e.kind == "stalled")
        channels = [p["waits_in"] for p in stalled.evidence["processes"]]  # type: ignore[attr-defined]
        if any(channels):
            assert any("pipe_write" in c for c in channels), channels
        assert sorted(set(short_training.lineage)) == list(range(1, 81))
        short_training.nothing_left()


class TestDeaths:
    def test_by_each_signal(self, herd: Herd) -> None:
        causes = {"KILL": "host_memory", "TERM": "killed", "SEGV": "cuda_error", "ABRT": "cuda_error"}
        runs = {name: herd.start("stop@50", *PARKED) for name in causes}
        for name, (training, _) in runs.items():
            trainer = training.parked()
            trainer.send_signal(getattr(signal, f"SIG{name}"))
            if trainer.is_running():
                trainer.send_signal(signal.SIGCONT)  # a stopped process heeds only KILL
        for name, (training, started) in runs.items():
            finished_exactly(training, started)
            assert training.record.attempts[0].outcome == causes[name]
            assert not training.events("stalled"), "a death is seen at once, not as silence"

    def test_of_a_worker(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        short_training.trainer().children()[0].kill()
        short_training.go_on()
        finished_exactly(short_training, started)
        assert short_training.record.attempts[0].outcome == "worker_died"

    def test_with_a_stopped_worker_left_behind(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        trainer = short_training.trainer()
        trainer.children()[0].send_signal(signal.SIGSTOP)
        trainer.kill()
        finished_exactly(short_training, started)

    def test_of_everything_at_once(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        os.killpg(os.getpgid(short_training.trainer().pid), signal.SIGKILL)
        finished_exactly(short_training, started)
        assert len(short_training.record.attempts) == 2


class TestBrokenStates:
    def test_truncated_while_hung(self, training: Training) -> None:
        started = training.run(*PARKED, faults="stop@85")
        training.parked()
        optimizer = training.run_folder / "demo-lora-000002-state" / "optimizer.bin"
        optimizer.write_bytes(optimizer.read_bytes()[:100])
        training.trainer().kill()
        finished_exactly(training, started)
        assert [a.first_step for a in training.record.attempts] == [0, 40]

    def test_killed_in_the_middle_of_a_save(self, training: Training) -> None:
        started = training.run(faults="half_state@85")
        finished_exactly(training, started)
        assert [a.first_step for a in training.record.attempts] == [0, 80]

    def test_a_loss_that_is_no_number_is_said_and_nothing_is_done(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="nan@20,stop@50")
        short_training.parked()
        until(lambda: any("loss is not a number" in t for t in short_training.events("warning")), "the warning")
        short_training.go_on()
        finished_exactly(short_training, started)
        (attempt,) = short_training.record.attempts
        assert (attempt.exit_code, attempt.outcome) == (0, "finished")
        for kind in ("stopped", "stalled", "crashed", "resumed"):
            assert not short_training.events(kind), "going on from a broken state cannot help"


class TestKilledWrappers:
    @pytest.mark.parametrize("victims", [("bash",), ("launcher",), ("bash", "launcher", "sh")])
    def test_the_training_goes_on_and_is_judged_at_its_end(
        self, short_training: Training, victims: tuple[str, ...]
    ) -> None:
        started = short_training.run(*PARKED, faults="stop@20")
        trainer = short_training.parked()
        launcher, bash, shell = trainer.parents()[:3]
        named = {"bash": bash, "launcher": launcher, "sh": shell}
        for victim in victims:
            named[victim].kill()
        short_training.go_on()
        finished_exactly(short_training, started)
        assert len(short_training.record.attempts) == 1
        assert {pid for pid, _ in short_training.executed} == {trainer.pid}

    def test_a_crash_after_it_is_healed(self, short_training: Training) -> None:
        started = short_training.run(*PARKED, faults="stop@20,crash@50")
        short_training.parked()
        short_training.of_role(Role.LAUNCHER).kill()
        short_training.go_on()
        finished_exactly(short_training, started)
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]


class TestKilledWatchdog:
    def test_the_training_goes_on_and_is_taken_over(self, short_training: Training) -> None:
        first = short_training.run(*PARKED, faults="stop@20,hang@50")
        trainer = short_training.parked()
        first.signal(signal.SIGKILL)
        first.ends()
        assert trainer.is_running()
        second = short_training.run()
        until(lambda: short_training.events("adopted"), "it to be taken over")
        short_training.go_on()
        finished_exactly(short_training, second)
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_it_ends_while_nobody_watches(self, short_training: Training) -> None:
        first = short_training.run(*PARKED, faults="stop@20")
        short_training.parked()
        first.signal(signal.SIGKILL)
        first.ends()
        short_training.go_on()
        final = short_training.run_folder / "demo-lora.safetensors"
        until(lambda: final.exists() and not short_training.tree(), "the end of the training")
        second = short_training.run()
        assert second.ends() == 0
        assert short_training.state is RunState.FINISHED
        assert [s for _, s in short_training.executed] == list(range(1, 81)), "nothing was trained again"

    def test_everything_is_killed(self, short_training: Training) -> None:
        first = short_training.run(*PARKED, faults="stop@50")
        short_training.parked()
        first.signal(signal.SIGKILL)
        for process in short_training.tree():
            os.kill(process.id.pid, signal.SIGKILL)
        first.ends()
        second = short_training.run()
        finished_exactly(short_training, second)
        assert [a.first_step for a in short_training.record.attempts] == [0, 40]

    def test_killed_while_stopping(self, short_training: Training) -> None:
        first = short_training.run("--stop-grace", "30", faults="ignore_term@50")
        until(lambda: short_training.state is RunState.STOPPING, "the stop")
        first.signal(signal.SIGKILL)
        first.ends()
        finished_exactly(short_training, short_training.run())


def test_a_stray_without_its_training_is_cleared_before_a_start(short_training: Training, tmp_path: Path) -> None:
    """A process of an ended attempt that left its session is found by its environment, whatever it is."""
    short_training.run().ends()
    stray = psutil.Popen(
        ["sleep", "300"],
        env=short_training.environment(**{RUN_VARIABLE: str(short_training.run_folder)}),
        start_new_session=True,
    )
    started = short_training.run("--from-beginning")
    assert started.ends() == 0
    assert stray.wait(10) == -signal.SIGTERM
