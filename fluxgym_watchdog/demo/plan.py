"""Where a training starts and how long it is: sd-scripts' arithmetic, with its flaw.

The flaw: a state remembers the step counted from the start of its own attempt, and resuming takes that number for an
absolute one. `--resume` alone is therefore right once, and starts at a too early epoch the second time.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from fluxgym_watchdog.demo.console import Console


@dataclass(frozen=True, slots=True)
class Plan:
    """Epochs are counted from 0 here, as in the loop; what is printed counts from 1."""

    batches_per_epoch: int
    accumulation: int
    steps_per_epoch: int
    total_steps: int
    epochs: int
    first_epoch: int = 0
    skipped_batches: int = 0

    @property
    def first_step(self) -> int:
        """Value of the attempt's step counter before its first step."""
        return self.skipped_batches

    @property
    def bar_total(self) -> int:
        return self.total_steps - self.skipped_batches


def length(options: argparse.Namespace, batches_per_epoch: int) -> Plan:
    """The whole training, from its first step."""
    accumulation = options.gradient_accumulation_steps
    steps_per_epoch = math.ceil(batches_per_epoch / accumulation)
    total = options.max_train_steps
    if options.max_train_epochs is not None:
        total = options.max_train_epochs * steps_per_epoch
    epochs = math.ceil(total / steps_per_epoch)
    return Plan(batches_per_epoch, accumulation, steps_per_epoch, total, epochs)


def start_at(whole: Plan, options: argparse.Namespace, steps_from_state: int | None, console: Console) -> Plan:
    """The part that this attempt trains. Raises AssertionError if the start lies behind the end."""
    initial_step = 0
    if options.initial_epoch is not None or options.initial_step is not None:
        if steps_from_state is not None:
            console.warning(
                "steps from the state is ignored because initial_step is specified", "train_network.py:1236"
            )
        if options.initial_step is not None:
            initial_step = options.initial_step
        else:
            initial_step = (options.initial_epoch - 1) * whole.steps_per_epoch
    elif steps_from_state is not None:
        initial_step = steps_from_state
    if initial_step <= 0:
        return whole
    if whole.total_steps <= initial_step:
        raise AssertionError(
            f"max_train_steps should be greater than initial step: {whole.total_steps} vs {initial_step}"
        )
    if not options.skip_until_initial_step:
        return _starting(whole, initial_step // whole.steps_per_epoch, 0)
    console.info(f"skipping {initial_step} steps", "train_network.py:1265")
    batches = initial_step * whole.accumulation
    # Batches divided by steps: upstream's second flaw, it skips too many epochs when gradients are accumulated.
    first_epoch = batches // whole.steps_per_epoch
    for epoch in range(first_epoch):
        console.info(
            f"skipping epoch {epoch + 1} because initial_step (multiplied) is {batches}", "train_network.py:1342"
        )
        batches -= whole.batches_per_epoch
    return _starting(whole, first_epoch, batches)


def _starting(whole: Plan, first_epoch: int, skipped_batches: int) -> Plan:
    return Plan(
        whole.batches_per_epoch,
        whole.accumulation,
        whole.steps_per_epoch,
        whole.total_steps,
        whole.epochs,
        first_epoch,
        skipped_batches,
    )
