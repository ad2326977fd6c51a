"""A run whose `accelerate launch`, states and steps are real: tiny_train_network.py in a FluxGym-shaped folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from fluxgym_watchdog.observe.processes import find_trainers
from fluxgym_watchdog.records import RunState
from tests.e2e.tiny_train_network import PRECISIONS
from tests.trainings import SEARCH_PAUSE_S, Started, Training, until

TRAINER = Path(__file__).with_name("tiny_train_network.py")
PATIENCE_S = 180.0
"""Real torch takes seconds to import, several times that on a busy machine."""
LOOK_EVERY_S = 0.003
"""A free kill should fall anywhere in a step, not where a slow look ends."""
BATCHES_PER_EPOCH = 40
PRECISION = "bf16"
"""What FluxGym writes into its train scripts."""
SAVED = ("weights", "train_state.json", "optimizer.bin", "scheduler.bin", "random_states_0.pkl")
LOADING, RUNNING, STEP = "loading", "running", "step"
FREE = (LOADING, RUNNING)
"""Moments at which the trainer was not told to stand still: while it imports and loads, and while it trains."""
ENDS = ("ending", "weights")
TARGETS = ("trainer", "tree", "all", "supervisor")
"""What is killed: the trainer alone; everything that was launched; that and the watchdog's command; only the latter."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9: of what, and when. `place` is one of FREE or a place of tiny_train_network.py's orders."""

    target: str
    place: str
    step: int

    @property
    def order(self) -> str:
        """Where the trainer shall stand still; for a free kill only if that is late, because the machine is busy."""
        if self.place == LOADING:
            return f"{STEP} 1"
        return f"{'late' if self.place == RUNNING else self.place} {self.step}"


def plan(seed: str, count: int, total: int) -> list[Kill]:
    """Kills all along a run of `total` steps. The last one comes when the final state is saved, and its weights not."""
    rng = random.Random(seed)
    kills = []
    for step in sorted(rng.randrange(1, total) for _ in range(count - 1)):
        place = rng.choice((LOADING, RUNNING, RUNNING, RUNNING, STEP, rng.choice(SAVED), rng.choice(SAVED)))
        # What stands still and is left alone would have to be found by its silence: other tests wait for that.
        kills.append(Kill(rng.choice(TARGETS if place in FREE else TARGETS[:-1]), place, step))
    return [*kills, Kill(rng.choice(TARGETS[:-1]), rng.choice(ENDS), total)]


class RealTraining(Training):
    """Its steps, `executed` and `lineage`, are the network's own count."""

    def __init__(self, folder: Path, epochs: int = 3, *options: str, accumulation: int = 1) -> None:
        self.accumulation = accumulation
        self._options = options if accumulation == 1 else (*options, f"--gradient_accumulation_steps {accumulation}")
        self._killed: set[int] = set()
        super().__init__(folder, epochs=epochs)
        shutil.copy(TRAINER, folder / "sd-scripts" / "flux_train_network.py")

    @property
    def total(self) -> int:
        """The optimizer steps that were asked for."""
        return self.epochs * BATCHES_PER_EPOCH // self.accumulation

    def lay_out(self, *options: str) -> None:
        super().lay_out(f"--save_precision {PRECISION}", *self._options, *options)

    def environment(self, **variables: str) -> dict[str, str]:
        found = super().environment(**variables)
        return {
            **found,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "E2E_ORDER": str(self._order),
            "E2E_STEP_SECONDS": "0.02",
            "HF_HUB_OFFLINE": "1",
            **variables,
        }

    def run(self, *options: str, **variables: str) -> Started:  # type: ignore[override]
        # Kills come closer together here than any real ones: the budget is not what is tried.
        budget = ("--max-restarts", "99", "--backoff-max", "0.2", "--stuck-threshold", "20")
        return super().run(*budget, *options, **variables)

    @property
    def _order(self) -> Path:
        return self.root / "order.txt"

    # kills

    def survive(self, kills: list[Kill]) -> Started:
        """Starts the run and kills what is told; starts the command again where it was among that."""
        command = self.run()
        for kill in kills:
            print(kill, flush=True)
            self._order.write_text(kill.order)
            trainer = self._caught(kill, command)
            if kill.target in ("supervisor", "all"):
                command.process.kill()
                command.process.wait()
            if kill.target == "trainer":
                trainer.kill()
            elif kill.target in ("tree", "all"):
                os.killpg(os.getpgid(trainer.pid), signal.SIGKILL)  # at once: nobody is left to write an exit code
            if kill.target != "supervisor":
                self._killed.add(trainer.pid)
            self._order.unlink(missing_ok=True)
            if kill.target in ("supervisor", "all"):
                command = self.run()
        return command

    def _caught(self, kill: Kill, command: Started) -> psutil.Process:
        """The trainer, at the moment of its kill."""

        def alive(pids: list[int]) -> psutil.Process | None:
            assert command.process.poll() is None, f"ended before {kill}:\n{command.output}"
            left = [pid for pid in pids if pid not in self._killed]
            return psutil.Process(left[0]) if left else None

        def at_step() -> psutil.Process | None:
            reached = [pid for pid, step in self.executed[-1:] if step >= kill.step]
            return alive(reached) if self._order.exists() else listed()

        def listed() -> psutil.Process | None:
            found = find_trainers(self.run_folder, None, self.root)
            return alive([p.pid for p in found if _is_launched(p.pid)])

        if kill.place == RUNNING:
            return until(at_step, str(kill), PATIENCE_S, LOOK_EVERY_S)
        trainer = until(listed, str(kill), PATIENCE_S, SEARCH_PAUSE_S)
        if kill.place != LOADING:
            until(lambda: alive([trainer.pid]) and trainer.status() == psutil.STATUS_STOPPED, str(kill), PATIENCE_S)
        return trainer

    # the proof

    def finished_exactly(self, command: Started) -> None:
        """Asserts that the final weights are whole, equal the final state, and are made of just the steps asked for."""
        code = command.ends(PATIENCE_S)
        assert code == 0, f"exit {code}:\n{command.output}"
        assert self.state is RunState.FINISHED
        assert self.lineage == list(range(1, self.total + 1))
        state = self.run_folder / f"{self.name}-state"
        weights, whole = load_file(self.run_folder / f"{self.name}.safetensors"), load_file(state / "model.safetensors")
        assert weights.keys() == whole.keys()
        assert all(torch.equal(weights[name], whole[name].to(PRECISIONS[PRECISION])) for name in weights)
        assert torch.load(state / "scheduler.bin", weights_only=True)["last_epoch"] == self.scheduled
        optimizer = torch.load(state / "optimizer.bin", weights_only=True)["state"]
        assert {int(of_one["step"]) for of_one in optimizer.values()} == {self.scheduled}
        self.nothing_left()

    @property
    def scheduled(self) -> int:
        """The steps that optimizer and scheduler know of: those since the last start from weights, which know none."""
        anew = [a for a in self.record.attempts if a.resumed_from is None or ".safetensors@" in a.resumed_from]
        return self.total - anew[-1].first_step


def _is_launched(pid: int) -> bool:
    """Whether its launcher lives: the workers of a killed trainer look like it for some seconds."""
    try:
        parent = psutil.Process(pid).parent()
        return parent is not None and "launch" in parent.cmdline()
    except psutil.Error:
        return False
