"""A stand-in for sd-scripts' flux_train_network.py that trains nothing, yet looks like it from outside.

    python -m fluxgym_watchdog.demo.trainer --output_dir outputs/x --output_name x --max_train_epochs 6 --save_state

It needs only the standard library. Its output, process tree, files, their order, exit codes and its way of resuming
are those of sd-scripts (branch sd3, 3265f2e). Environment: `DEMO_STEP_SECONDS`, `DEMO_LOAD_SECONDS`,
`DEMO_SAVE_SECONDS`, `DEMO_SAMPLE_SECONDS`, `DEMO_END_SECONDS` (pace), `DEMO_STEPS_PER_EPOCH` (without a dataset),
`DEMO_FAULTS`, `DEMO_FAULTS_DONE` (failures), `DEMO_STEPS_FILE` (one line `pid epoch step` for each step really
executed, both absolute), `FLUXGYM_WATCHDOG_SIMULATED_GPU` (the GPU to pretend).
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fluxgym_watchdog.demo.console import Bar, Console
from fluxgym_watchdog.demo.faults import Faults
from fluxgym_watchdog.demo.options import batches_per_epoch, parse
from fluxgym_watchdog.demo.pace import Pace, SimulatedGpu
from fluxgym_watchdog.demo.pictures import write_picture
from fluxgym_watchdog.demo.plan import length, start_at
from fluxgym_watchdog.demo.states import Progress, load_state, load_weights, write_state, write_weights
from fluxgym_watchdog.demo.workers import Workers

SAMPLE_STEPS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the first line of output to the last. Returns if the training ended well, raises if not."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", newline="\n")
    Training(parse(arguments)).run()


class Training:
    """One attempt."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._console = Console()
        self._pace = Pace.from_environment()
        self._gpu = SimulatedGpu()
        self._faults = Faults.from_environment()
        self._images, batches = batches_per_epoch(options.dataset_config)
        self._plan = length(options, batches)
        self._output = Path(options.output_dir)
        self._step = 0
        self._executed = 0
        self._absolute_step = 0

    def run(self) -> None:
        self._load()
        plan = self._plan
        self._console.line(
            f"override steps. steps for {plan.epochs} epochs is / 指定エポックまでのステップ数: {plan.total_steps}"
        )
        steps_from_state = self._resume()
        self._announce()
        self._plan = start_at(self._plan, self._options, steps_from_state, self._console)
        self._step = self._plan.first_step
        bar = Bar(self._plan.bar_total, "steps")
        for epoch in range(self._plan.first_epoch, self._plan.epochs):
            self._train_epoch(epoch, bar)
        self._finish(bar)

    def _load(self) -> None:
        self._gpu.work(self._pace.load_s * 0.5, training=False)
        info = self._console.info
        info(f"Loading dataset config from {self._options.dataset_config}", "train_network.py:519")
        info(f"{self._plan.batches_per_epoch} train images with repeats.", "train_util.py:2158")
        self._console.line("accelerator device: cuda")
        info("Building Flux model dev from BFL checkpoint", "flux_utils.py:107")
        self._gpu.work(self._pace.load_s * 0.2, training=False)
        self._faults.at("loading")
        info("Building CLIP-L", "flux_utils.py:254")
        info("Building AutoEncoder", "flux_utils.py:179")
        self._gpu.work(self._pace.load_s * 0.1, training=False)
        self._cache("latents", "train_util.py:1170")
        self._cache("Text Encoder outputs", "train_util.py:1350")
        self._console.line("import network module: networks.lora_flux")
        info(f"create LoRA network. base dim (rank): {self._options.network_dim}, alpha: 1", "lora_flux.py:778")
        if self._options.network_weights:
            self._executed = load_weights(Path(self._options.network_weights), self._options.network_dim)
            found = "<All keys matched successfully>"
            self._console.line(f"load network weights from {self._options.network_weights}: {found}")
        self._console.line("prepare optimizer, data loader etc.")

    def _cache(self, what: str, source: str) -> None:
        self._console.info(f"caching {what}...", source)
        bar = Bar(min(self._images, 64))
        self._faults.at("caching")
        for _ in range(bar.total):
            self._gpu.work(self._pace.load_s * 0.1 / bar.total, training=False)
            bar.advance()
        bar.close()

    def _resume(self) -> int | None:
        if not self._options.resume:
            return None
        self._console.info(f"resume training from local state: {self._options.resume}", "train_util.py:4777")
        steps, self._executed = load_state(Path(self._options.resume), self._options.network_dim, self._console)
        return steps

    def _announce(self) -> None:
        plan = self._plan
        for text in (
            "running training / 学習開始",
            f"  num train images * repeats / 学習画像の数×繰り返し回数: {plan.batches_per_epoch}",
            "  num validation images * repeats / 学習画像の数×繰り返し回数: 0",
            "  num reg images / 正則化画像の数: 0",
            f"  num batches per epoch / 1epochのバッチ数: {plan.batches_per_epoch}",
            f"  num epochs / epoch数: {plan.epochs}",
            "  batch size per device / バッチサイズ: 1",
            f"  gradient accumulation steps / 勾配を合計するステップ数 = {plan.accumulation}",
            f"  total optimization steps / 学習ステップ数: {plan.total_steps}",
        ):
            self._console.line(text)

    def _train_epoch(self, epoch: int, bar: Bar) -> None:
        plan = self._plan
        self._console.line(f"\nepoch {epoch + 1}/{plan.epochs}\n")
        if self._faults.workers is None:
            self._faults.workers = Workers(self._options.max_data_loader_n_workers)
        was = epoch if epoch > plan.first_epoch else 0
        for _ in self._faults.workers.pids:
            self._console.info(f"epoch is incremented. current_epoch: {was}, epoch: {epoch + 1}", "train_util.py:784")
        first_batch = max(0, plan.skipped_batches) if epoch == plan.first_epoch else 0
        for batch in range(first_batch, plan.batches_per_epoch):
            if (batch + 1) % plan.accumulation and batch + 1 < plan.batches_per_epoch:
                continue
            self._absolute_step = epoch * plan.steps_per_epoch + math.ceil((batch + 1) / plan.accumulation)
            if self._options.initial_step == 0:  # told to count from 1 again, whatever was trained before
                self._absolute_step += self._executed
            self._train_step(epoch, bar)
            if self._step >= plan.total_steps:
                break
        every = self._options.save_every_n_epochs
        if every and (epoch + 1) % every == 0 and epoch + 1 < plan.epochs:
            self._save_epoch(epoch + 1)

    def _train_step(self, epoch: int, bar: Bar) -> None:
        self._faults.at(self._absolute_step)
        if self._faults.workers is not None:
            self._faults.workers.fetch(self._absolute_step)
        self._gpu.work(self._pace.step_s)
        self._step += 1
        named = os.environ.get("DEMO_STEPS_FILE")
        if named:
            with Path(named).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {epoch + 1} {self._absolute_step}\n")
        bar.advance()
        self._sample(bar)
        every = self._options.save_every_n_steps
        if every and self._step % every == 0:
            self._save_step(epoch + 1)
        noise = random.Random(self._absolute_step).gauss(0, 0.01)
        loss = math.nan if self._faults.loss_is_nan else 1.1 + 0.4 * math.exp(-self._absolute_step / 120) + noise
        bar.show_loss(loss)

    def _sample(self, bar: Bar) -> None:
        every, prompts = self._options.sample_every_n_steps, self._options.sample_prompts
        if not every or not prompts or self._step % every:
            return
        info = self._console.info
        info("", "flux_train_utils.py:60")
        info(f"generating sample images at step / サンプル画像生成ステップ: {self._step}", "flux_train_utils.py:61")
        folder = self._output / "sample"
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [line.strip() for line in Path(prompts).read_text(encoding="utf-8").splitlines()]
        for number, prompt in enumerate(text for text in wanted if text and not text.startswith("#")):
            info(f"prompt: {prompt}", "flux_train_utils.py:182")
            inner = Bar(SAMPLE_STEPS)
            self._faults.at("sampling")
            for _ in range(SAMPLE_STEPS):
                self._gpu.work(self._pace.sample_s / SAMPLE_STEPS)
                inner.advance()
            inner.close()
            name = f"{self._options.output_name}_{self._step:06d}_{number:02d}.png"
            write_picture(folder / name, self._absolute_step)
        bar.draw()

    def _save_epoch(self, epoch: int) -> None:
        options, stem = self._options, f"{self._options.output_name}-"
        self._save_weights(f"{stem}{epoch:06d}.safetensors", epoch)
        if options.save_last_n_epochs:
            old = epoch - options.save_every_n_epochs * options.save_last_n_epochs
            self._remove(f"{stem}{old:06d}.safetensors")
        if options.save_state:
            self._save_state(f"saving state at epoch {epoch}", f"{stem}{epoch:06d}-state", epoch)
            kept = options.save_last_n_epochs_state or options.save_last_n_epochs
            if kept:
                self._remove(f"{stem}{epoch - options.save_every_n_epochs * kept:06d}-state")

    def _save_step(self, epoch: int) -> None:
        options, stem = self._options, f"{self._options.output_name}-step"
        self._save_weights(f"{stem}{self._step:08d}.safetensors", epoch)
        if options.save_state:
            self._save_state(f"saving state at step {self._step}", f"{stem}{self._step:08d}-state", epoch)
            kept = options.save_last_n_steps_state or options.save_last_n_steps
            if kept:
                self._remove(f"{stem}{self._older_step(kept):08d}-state")
        if options.save_last_n_steps:
            self._remove(f"{stem}{self._older_step(options.save_last_n_steps):08d}.safetensors")

    def _older_step(self, kept_steps: int) -> int:
        """The newest saved step that is more than `kept_steps` steps old: the option counts steps, not folders."""
        old = self._step - kept_steps - 1
        return max(0, old - old % int(self._options.save_every_n_steps))

    def _finish(self, bar: Bar) -> None:
        name = self._options.output_name
        if self._options.save_state or self._options.save_state_on_train_end:
            self._save_state("saving last state.", f"{name}-state", self._plan.epochs)
        self._faults.at("weights")
        self._save_weights(f"{name}.safetensors", self._plan.epochs)
        self._console.info("model saved.", "train_network.py:1729")
        bar.close()
        self._faults.at("ending")
        self._gpu.work(self._pace.end_s)

    def _save_weights(self, name: str, epoch: int) -> None:
        self._console.line(f"\nsaving checkpoint: {self._output / name}")
        write_weights(self._output / name, self._progress(epoch))

    def _save_state(self, message: str, name: str, epoch: int) -> None:
        self._console.info("", "train_util.py:5941")
        self._console.info(message, "train_util.py:5942")
        write_state(
            self._output / name,
            self._progress(epoch),
            self._console,
            pause_s=self._pace.save_s,
            disturb=self._faults.disturb_saving,
        )

    def _remove(self, name: str) -> None:
        old = self._output / name
        if old.is_dir():
            self._console.info(f"removing old state: {old}", "train_util.py:5956")
            shutil.rmtree(old)
        elif old.exists():
            self._console.line(f"removing old checkpoint: {old}")
            old.unlink()

    def _progress(self, epoch: int) -> Progress:
        plan, rank = self._plan, self._options.network_dim
        return Progress(epoch, self._step, self._absolute_step, rank, plan.batches_per_epoch, plan.accumulation)


if __name__ == "__main__":
    main()
