"""The demo's stand-in trainer whose weights have an age: how many optimizer steps they are made of.

The stand-in trains nothing, so its steps are numbered by where it believes itself to be. The age is carried by the
states and weights themselves, and cannot be wrong. Each attempt writes a line `pid age` into the file that
`BENCH_AGES_FILE` names when it begins; the steps that it executes are in `DEMO_STEPS_FILE`, as always.
"""

from __future__ import annotations

import os
from pathlib import Path

from fluxgym_watchdog.demo.options import parse
from fluxgym_watchdog.demo.trainer import Training


class AgingTraining(Training):
    """One attempt."""

    _age = 0

    def _resume(self) -> int | None:
        options = self._options
        if options.resume:
            self._age = int((Path(options.resume) / "age").read_text())
        elif options.network_weights:
            self._age = int(Path(f"{options.network_weights}.age").read_text())
        with Path(os.environ["BENCH_AGES_FILE"]).open("a") as file:
            file.write(f"{os.getpid()} {self._age}\n")
        return super()._resume()

    def _train_step(self, epoch: int, bar: object) -> None:
        self._age += 1
        super()._train_step(epoch, bar)  # type: ignore[arg-type]

    def _save_state(self, message: str, name: str, epoch: int) -> None:
        super()._save_state(message, name, epoch)
        (self._output / name / "age").write_text(str(self._age))

    def _save_weights(self, name: str, epoch: int) -> None:
        super()._save_weights(name, epoch)
        (self._output / f"{name}.age").write_text(str(self._age))


if __name__ == "__main__":
    AgingTraining(parse()).run()
