"""Real trainings of the stand-in trainer, for tests: laid out, started, looked at, and cleaned up without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from fluxgym_watchdog.act.launch import RUN_VARIABLE, run_mark
from fluxgym_watchdog.demo import create_fluxgym
from fluxgym_watchdog.observe.processes import ProcessReader, find, find_by_environment, find_trainers
from fluxgym_watchdog.records import Process, Role, RunRecord, RunState
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 90.0
SEARCH_PAUSE_S = 0.2
"""Between two searches through all processes of the machine, which take a while themselves."""
TEST_VARIABLE = "FLUXGYM_WATCHDOG_TEST"
"""Marks every process that a test starts, and all that come from it, with the test's folder."""
QUICK = ("--check-interval", "0.2", "--stuck-threshold", "2.5", "--backoff", "0.1", "--stop-grace", "1")
QUICK_SETTINGS = Settings(check_interval=0.1, stuck_threshold=3, backoff=0.1, stop_grace=1)
"""The same for a watchdog in the test's own process."""
PARKED = ("--stuck-threshold", "120")
"""For a training that `stop@N` holds at a step until the test goes on: nobody must call that a hang."""
FAST = {
    "DEMO_LOAD_SECONDS": "0",
    "DEMO_STEP_SECONDS": "0.005",
    "DEMO_SAVE_SECONDS": "0",
    "DEMO_SAMPLE_SECONDS": "0",
    "DEMO_END_SECONDS": "0",
}


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.05) -> Any:
    """Waits for a condition and returns its value; fails with `what` was waited for."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(pause_s)
    return found


def tick_until(watchdog: Watchdog, condition: Callable[[], Any], what: str) -> Any:
    """Ticks with the real clock until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"ticked in vain for: {what}"
        watchdog.tick(time.monotonic())
        time.sleep(0.05)
    return found


class Started:
    """A command that a test started; its output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ends(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended."""
        until(lambda: self.process.poll() is not None, f"the end of the command; so far:\n{self.output}", patience_s)
        return int(self.process.returncode)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Training:
    """A demo FluxGym folder with one run in it: 4 pictures x 10 repeats, 40 steps an epoch."""

    def __init__(self, folder: Path, name: str = "demo-lora", epochs: int = 6) -> None:
        self.root, self.name, self.epochs = folder, name, epochs
        self.run_folder = folder / "outputs" / name
        self.script = self.run_folder / "train.sh"
        self.store = Store(self.run_folder)
        self.fault = ""
        self._count = 0
        create_fluxgym(folder)
        self.lay_out()

    def lay_out(self, *options: str) -> None:
        """Writes the run as FluxGym does: the last line ends in a backslash, without a newline."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        config = self.run_folder / "dataset.toml"
        config.write_text(
            "[general]\nshuffle_caption = false\n[[datasets]]\nresolution = 512\nbatch_size = 1\n"
            f"  [[datasets.subsets]]\n  image_dir = '{self.root}/datasets/demo-lora'\n"
            "  class_tokens = 'dmo'\n  num_repeats = 10\n"
        )
        lines = [
            "accelerate launch",
            "--mixed_precision bf16",
            "--num_cpu_threads_per_process 1",
            "sd-scripts/flux_train_network.py",
            "--max_data_loader_n_workers 2",
            f"--max_train_epochs {self.epochs}",
            "--save_every_n_epochs 1",
            f'--dataset_config "{config}"',
            f'--output_dir "{self.run_folder}"',
            f"--output_name {self.name}",
            *options,
            "--loss_type l2",
        ]
        self.script.write_text("".join(f"{line} \\\n  " for line in lines).rstrip("\n "))

    # starting

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DEMO_", "FLUXGYM_WATCHDOG"))}
        return {
            **kept,
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            **FAST,
            "DEMO_FAULTS_DONE": str(self.root / ".demo-faults-done"),
            "DEMO_STEPS_FILE": str(self.root / "steps.txt"),
            TEST_VARIABLE: str(self.root),
            **variables,
        }

    def start(self, command: list[str], **variables: str) -> Started:
        """Starts a command in the FluxGym folder, in a session of its own."""
        self._count += 1
        log = self.root / f"command-{self._count}.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, log)

    def cli(self, *arguments: str, **variables: str) -> Started:
        """Starts `fluxgym-watchdog ARGUMENTS`."""
        return self.start([sys.executable, "-m", "fluxgym_watchdog", *arguments], **variables)

    def run(self, *options: str, faults: str = "", auto_resume: bool = True, **variables: str) -> Started:
        """Starts `fluxgym-watchdog run outputs/NAME/train.sh`, quick enough for a test."""
        return self.supervise(
            "run", f"outputs/{self.name}/train.sh", *options, faults=faults, auto_resume=auto_resume, **variables
        )

    def supervise(self, *arguments: str, faults: str = "", auto_resume: bool = True, **variables: str) -> Started:
        """Starts run, resume or watch with quick settings."""
        command, *rest = arguments
        self.fault = faults
        switch = ["--auto-resume"] if auto_resume else []
        return self.cli(command, *switch, *QUICK, *rest, DEMO_FAULTS=faults, **variables)

    def plain(self, **variables: str) -> Started:
        """Starts the train script as something else than the watchdog would: by bash."""
        return self.start(["bash", str(self.script)], **variables)

    def ask(self, *arguments: str) -> Any:
        """The answer of a command with --json."""
        started = self.cli(*arguments, "--json")
        assert started.ends() == 0, started.output
        return json.loads(started.output)

    # looking

    @property
    def record(self) -> RunRecord:
        return until(lambda: self.store.read_record()[0], "run.json")

    @property
    def state(self) -> RunState | None:
        record, _ = self.store.read_record()
        return record.state if record else None

    def events(self, kind: str) -> list[str]:
        """The texts on the timeline of one kind."""
        return [e.text for e in self.store.read_events() if e.kind == kind]

    @property
    def executed(self) -> list[tuple[int, int]]:
        """Pid and absolute number of each step executed so far, in order, over all attempts."""
        file = self.root / "steps.txt"
        if not file.exists():
            return []
        rows = [line.split() for line in file.read_text().splitlines()]
        return [(int(row[0]), int(row[2])) for row in rows if len(row) == 3]

    def reach(self, step: int) -> None:
        """Waits until a step has been executed."""
        until(lambda: any(s >= step for _, s in self.executed), f"step {step}")

    @property
    def lineage(self) -> list[int]:
        """The steps that the final weights are made of: each attempt's up to where the next one began."""
        by_trainer: dict[int, list[int]] = {}
        for pid, step in self.executed:
            by_trainer.setdefault(pid, []).append(step)
        trainers = list(by_trainer.values())
        kept = []
        for steps, following in zip(trainers, [*trainers[1:], [sys.maxsize]], strict=True):
            kept += [s for s in steps if s < following[0]]
        return kept

    def trainer(self) -> psutil.Process:
        """The trainer that writes into this run's folder, once there is one."""
        found = until(lambda: find_trainers(self.run_folder, None, self.root), "a trainer", pause_s=SEARCH_PAUSE_S)
        return until(lambda: find(found[0]), "the trainer's process")

    def parked(self) -> psutil.Process:
        """The trainer, once a `stop@N` has stopped it."""
        trainer = self.trainer()
        until(lambda: trainer.status() == psutil.STATUS_STOPPED, "the trainer to stop")
        return trainer

    def go_on(self) -> None:
        """Lets a stopped trainer go on."""
        self.trainer().send_signal(signal.SIGCONT)

    def tree(self) -> tuple[Process, ...]:
        """The living processes that come from a launch of ours for this run."""
        return ProcessReader(self.marked()).read(0.0)

    def marked(self) -> list[Any]:
        return find_by_environment(RUN_VARIABLE, run_mark(self.run_folder))

    def of_role(self, role: Role) -> psutil.Process:
        """The first process of that role, once there is one."""
        found = until(lambda: [p for p in self.tree() if p.role is role], f"a {role.value}", pause_s=SEARCH_PAUSE_S)
        return until(lambda: find(found[0].id), f"the {role.value}'s process")

    def nothing_left(self) -> None:
        """Waits until no process of this run is left; data loader workers take seconds to notice."""
        until(lambda: not self.marked(), "the end of all processes of the run", 30, SEARCH_PAUSE_S)
        assert not find_trainers(self.run_folder, None, self.root)


class Herd:
    """Several trainings at once, each in a FluxGym folder of its own: most of their time they wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.members: list[Training] = []

    def start(self, faults: str, *options: str) -> tuple[Training, Started]:
        """Starts one more run of 80 steps."""
        training = Training(self._folder / f"gym-{len(self.members)}", epochs=2)
        self.members.append(training)
        return training, training.run(*options, faults=faults)


def finished_exactly(training: Training, started: Started) -> None:
    """Asserts that a command ended well, that every step was executed once in the lineage, and nothing is left."""
    code = started.ends()
    assert code == 0, f"exit {code}:\n{started.output}"
    assert training.state is RunState.FINISHED
    assert training.lineage == list(range(1, 40 * training.epochs + 1))
    assert (training.run_folder / f"{training.name}.safetensors").exists()
    training.nothing_left()


def clean_up(folder: Path) -> None:
    """Kills every process that carries the folder's mark, and waits for it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        marked = list(_marked(folder))
        for process in marked:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        if not marked:
            return
        psutil.wait_procs(marked, timeout=0.5)
    raise AssertionError(f"processes of {folder} cannot be ended")


def _marked(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(TEST_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue
