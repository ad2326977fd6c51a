"""A tiny trainer with the real accelerate and the real torch: what resuming exactly is proved with.

It follows sd-scripts' train_network.py (branch sd3, 3265f2e) in its options, names, order of saving, output and
arithmetic, the flaws included, and shares none of that with the stand-in of the demo. Only the network and the pictures
are toys.

The network counts its own optimizer steps in a buffer, by a hook inside the optimizer. So the count is part of the
weights: it is saved and restored with them, by whatever way, and cannot say anything but how many steps these weights
are made of. Each executed step goes as a line `pid epoch count` into the file that `DEMO_STEPS_FILE` names.

The file that `E2E_ORDER` names may hold an order `PLACE STEP`: at that place, in that step or later, this process
stops itself once (as by SIGSTOP) and waits for what the test will do. Places: `step`; `late` (a step, after a good many
of this attempt); `ending` (the final state is saved, the final weights are not); `weights` (in the middle of a file of
them); and the name of a state's file, in whose middle it stops.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fluxgym_watchdog.demo.console import Console
from fluxgym_watchdog.demo.options import batches_per_epoch, parse

WIDTH = 64
DIGIT = 128
"""The step count is kept as two digits to this base, small enough to stay whole in bfloat16."""
PRECISIONS = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LATE_STEPS = 25


class Pictures(Dataset):  # type: ignore[type-arg]
    """As many tensors as there are pictures with repeats; a worker takes a moment for each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pause_s = float(os.environ.get("E2E_STEP_SECONDS", "0"))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensor:
        time.sleep(self._pause_s)
        return torch.randn(WIDTH, generator=torch.Generator().manual_seed(number))


class Network(nn.Module):
    """A low-rank pair of matrices that knows how many optimizer steps it has gone through."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(WIDTH, rank, bias=False)
        self.up = nn.Linear(rank, WIDTH, bias=False)
        self.register_buffer("trained", torch.zeros(2))

    def forward(self, batch: Tensor) -> Tensor:
        return self.up(self.down(batch))

    @property
    def steps(self) -> int:
        high, low = (int(digit) for digit in self.trained)
        return high * DIGIT + low

    def count_step(self, *_: object) -> None:
        high, low = divmod(self.steps + 1, DIGIT)
        self.trained.copy_(torch.tensor([high, low]))

    def load_weights(self, file: str) -> None:
        self.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})

    def save_weights(self, file: Path, dtype: torch.dtype | None) -> None:
        tensors = {name: tensor.detach().to(dtype or tensor.dtype) for name, tensor in self.state_dict().items()}
        if ordered("weights", self.steps):
            written = save(tensors)
            file.write_bytes(written[: len(written) // 2])
            stand_still()
        save_file(tensors, str(file), {"ss_network_dim": str(self.down.out_features)})


class Log(logging.Handler):
    """All log lines, accelerate's own ones too, laid out as sd-scripts has them laid out."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.info(record.getMessage(), f"{record.filename}:{record.lineno}", record.levelname)


log = logging.getLogger(__name__)


class Training:
    """One attempt, from the options to the saved model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._output = Path(options.output_dir)
        self._accumulation: int = options.gradient_accumulation_steps
        self._current_epoch = self._current_step = self._global_step = self._executed = 0
        self._step_from_state: int | None = None

    def prepare(self) -> None:
        """Loads everything, and the state to resume from."""
        options = self._options
        set_seed(options.seed if options.seed is not None else 1)
        log.info(f"Loading dataset config from {options.dataset_config}")
        images, count = batches_per_epoch(options.dataset_config)
        self._accelerator = accelerator = Accelerator(gradient_accumulation_steps=self._accumulation, cpu=True)
        accelerator.print(f"accelerator device: {accelerator.device}")
        log.info("Building Flux model dev from BFL checkpoint")
        log.info("caching latents...")
        for _ in tqdm(range(images)):
            pass
        accelerator.print("import network module: networks.lora_flux")
        network = Network(options.network_dim)
        log.info(f"create LoRA network. base dim (rank): {options.network_dim}, alpha: 1")
        if options.network_weights:
            network.load_weights(options.network_weights)
            accelerator.print(f"load network weights from {options.network_weights}: <All keys matched successfully>")
        accelerator.print("prepare optimizer, data loader etc.")
        workers = options.max_data_loader_n_workers
        loader = DataLoader(Pictures(count), shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        self._per_epoch = math.ceil(len(loader) / self._accumulation)
        self._total = options.max_train_steps
        if options.max_train_epochs is not None:
            self._total = options.max_train_epochs * self._per_epoch
            accelerator.print(f"override steps. steps for {options.max_train_epochs} epochs is: {self._total}")
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        optimizer.register_step_post_hook(network.count_step)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._total)
        self._network, self._optimizer, self._loader, self._scheduler = accelerator.prepare(
            network, optimizer, loader, scheduler
        )
        accelerator.register_save_state_pre_hook(self._write_train_state)
        accelerator.register_load_state_pre_hook(self._read_train_state)
        torch.save = save_in_halves(self._network, torch.save)
        if options.resume:
            log.info(f"resume training from local state: {options.resume}")
            accelerator.load_state(options.resume)
        self._epochs = math.ceil(self._total / self._per_epoch)
        for line in (
            "running training / 学習開始",
            f"  num train images * repeats / 学習画像の数×繰り返し回数: {count}",
            f"  num batches per epoch / 1epochのバッチ数: {len(self._loader)}",
            f"  num epochs / epoch数: {self._epochs}",
            f"  gradient accumulation steps / 勾配を合計するステップ数 = {self._accumulation}",
            f"  total optimization steps / 学習ステップ数: {self._total}",
        ):
            accelerator.print(line)

    def run(self) -> None:
        """Trains what is left, by upstream's reckoning, and saves."""
        first_epoch, to_skip = self._start()
        self._bar = tqdm(range(self._total - to_skip), smoothing=0, desc="steps")
        for epoch in range(first_epoch, self._epochs):
            self._accelerator.print(f"\nepoch {epoch + 1}/{self._epochs}\n")
            self._current_epoch = epoch + 1
            self._train_epoch(epoch, to_skip)
            to_skip = 0
            every = self._options.save_every_n_epochs
            if every is not None and (epoch + 1) % every == 0 and epoch + 1 < self._epochs:
                self._save_epoch(epoch + 1)
        self._accelerator.end_training()
        self._finish()

    def _start(self) -> tuple[int, int]:
        """The first epoch, counted from 0, and how many of its batches are skipped; the flaws are upstream's."""
        options, step = self._options, 0
        if options.initial_step is not None or options.initial_epoch is not None:
            if self._step_from_state is not None:
                log.warning("steps from the state is ignored because initial_step is specified")
            step = options.initial_step
            if step is None:
                step = (options.initial_epoch - 1) * self._per_epoch
        elif self._step_from_state is not None:
            step = self._step_from_state
        if step <= 0:
            return 0, 0
        assert self._total > step, f"max_train_steps should be greater than initial step: {self._total} vs {step}"
        if not options.skip_until_initial_step:
            return step // self._per_epoch, 0
        log.info(f"skipping {step} steps")
        batches = step * self._accumulation
        first_epoch = batches // self._per_epoch
        batches -= first_epoch * len(self._loader)
        self._global_step = batches
        return first_epoch, batches

    def _train_epoch(self, epoch: int, to_skip: int) -> None:
        loader, accelerator = self._loader, self._accelerator
        if to_skip > 0:
            loader = accelerator.skip_first_batches(loader, to_skip)
        for batch in loader:
            self._current_step = self._global_step
            step = self._network.steps + 1
            late = self._executed >= LATE_STEPS or step == self._total
            if ordered("step", step) or (late and ordered("late", step)):
                stand_still()
            with accelerator.accumulate(self._network):
                loss = nn.functional.mse_loss(self._network(batch).float(), batch.flip(-1))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self._network.parameters(), 1.0)
                self._optimizer.step()
                self._scheduler.step()
                self._optimizer.zero_grad(set_to_none=True)
            if accelerator.sync_gradients:
                with Path(os.environ["DEMO_STEPS_FILE"]).open("a") as file:
                    file.write(f"{os.getpid()} {epoch + 1} {self._network.steps}\n")
                self._bar.update(1)
                self._executed += 1
                self._global_step += 1
                every = self._options.save_every_n_steps
                if every is not None and self._global_step % every == 0:
                    self._save_step(self._global_step)
            self._bar.set_postfix(avr_loss=loss.detach().item())
            if self._global_step >= self._total:
                break

    # saving

    def _save_epoch(self, epoch: int) -> None:
        options, stem = self._options, f"{self._options.output_name}-"
        self._save_model(f"{stem}{epoch:06d}.safetensors")
        if options.save_last_n_epochs is not None:
            old = epoch - options.save_every_n_epochs * options.save_last_n_epochs
            self._remove(f"{stem}{old:06d}.safetensors")
        if options.save_state:
            self._save_state(f"{stem}{epoch:06d}-state", f"saving state at epoch {epoch}")
            kept = options.save_last_n_epochs_state or options.save_last_n_epochs
            if kept is not None:
                self._remove(f"{stem}{epoch - options.save_every_n_epochs * kept:06d}-state")

    def _save_step(self, step: int) -> None:
        options, stem = self._options, f"{self._options.output_name}-step"
        self._save_model(f"{stem}{step:08d}.safetensors")
        if options.save_state:
            self._save_state(f"{stem}{step:08d}-state", f"saving state at step {step}")
            kept = options.save_last_n_steps_state or options.save_last_n_steps
            if kept is not None:
                self._remove(f"{stem}{self._older(step, kept):08d}-state")
        if options.save_last_n_steps is not None:
            self._remove(f"{stem}{self._older(step, options.save_last_n_steps):08d}.safetensors")

    def _older(self, step: int, kept_steps: int) -> int:
        """The newest save that is more than so many steps old: the option counts steps, not folders."""
        every: int = self._options.save_every_n_steps
        return max(0, (step - kept_steps - 1) // every * every)

    def _finish(self) -> None:
        name = self._options.output_name
        if self._options.save_state or self._options.save_state_on_train_end:
            self._save_state(f"{name}-state", "saving last state.")
        if ordered("ending", self._network.steps):
            stand_still()
        self._save_model(f"{name}.safetensors")
        log.info("model saved.")

    def _save_model(self, name: str) -> None:
        self._accelerator.print(f"\nsaving checkpoint: {self._output / name}")
        network = self._accelerator.unwrap_model(self._network)
        network.save_weights(self._output / name, PRECISIONS.get(self._options.save_precision))

    def _save_state(self, name: str, words: str) -> None:
        log.info("")
        log.info(words)
        self._accelerator.save_state(str(self._output / name))

    def _remove(self, name: str) -> None:
        old = self._output / name
        if old.is_dir():
            log.info(f"removing old state: {old}")
            shutil.rmtree(old)
        elif old.exists():
            self._accelerator.print(f"removing old checkpoint: {old}")
            old.unlink()

    def _write_train_state(self, models: object, weights: object, folder: str) -> None:
        # The step as it was at the beginning of the batch, plus one: the state is saved before the next one begins.
        said = {"current_epoch": self._current_epoch, "current_step": self._current_step + 1}
        file = Path(folder) / "train_state.json"
        log.info(f"save train state to {file} at epoch {said['current_epoch']} step {said['current_step']}")
        text = json.dumps(said)
        if ordered(file.name, self._network.steps):
            file.write_text(text[: len(text) // 2])
            stand_still()
        file.write_text(text)

    def _read_train_state(self, models: object, folder: str) -> None:
        file = Path(folder) / "train_state.json"
        if file.exists():
            said = json.loads(file.read_text())
            self._step_from_state = said["current_step"]
            log.info(f"load train state from {file}: {said}")


# standing still where a test wants it


def ordered(place: str, step: int) -> bool:
    """Whether the order is to stop here, in this step or an earlier one. An order counts once."""
    file = Path(os.environ["E2E_ORDER"])
    try:
        where, _, since = file.read_text().rpartition(" ")
    except FileNotFoundError:
        return False
    if where != place or step < int(since):
        return False
    file.unlink(missing_ok=True)
    return True


def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def save_in_halves(network: Network, real_save: Any) -> Any:
    """torch.save, as which accelerate finds it: stops in the middle of a file where that was ordered."""

    def torch_save(content: object, target: Any, *arguments: Any, **options: Any) -> None:
        if isinstance(target, (str, Path)) and ordered(Path(target).name, network.steps):
            written = io.BytesIO()
            real_save(content, written, *arguments, **options)
            Path(target).write_bytes(written.getvalue()[: written.tell() // 2])
            stand_still()
        real_save(content, target, *arguments, **options)

    return torch_save


def all_options() -> argparse.Namespace:
    """The command line's options: the stand-in knows nearly all that matter here."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--save_precision", choices=list(PRECISIONS))
    return parser.parse_known_args(namespace=parse())[0]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[Log(Console())])
    training = Training(all_options())
    training.prepare()
    training.run()
