"""Run folders for the overhead bench: a training to start, ended ones, and copies of a live one."""

from __future__ import annotations

import shutil
from pathlib import Path

from fluxgym_watchdog.records import Attempt, RunRecord, RunState
from fluxgym_watchdog.store import Store

_SCRIPT = """accelerate launch \\
  --mixed_precision bf16 \\
  --num_cpu_threads_per_process 1 \\
  sd-scripts/flux_train_network.py \\
  --save_model_as safetensors \\
  --max_data_loader_n_workers 2 \\
  --max_train_epochs 400 \\
  --save_every_n_epochs 1 \\
  --dataset_config "{run}/dataset.toml" \\
  --output_dir "{run}" \\
  --output_name {name} \\
  --loss_type l2 \\"""
_DATASET = """[general]
shuffle_caption = false
[[datasets]]
resolution = 512
batch_size = 1
  [[datasets.subsets]]
  image_dir = "{folder}/datasets/demo-lora"
  class_tokens = 'dmo'
  num_repeats = 10
"""


def run_folder(folder: Path, name: str) -> Path:
    """Makes a run that can be started under a FluxGym folder; its script."""
    run = folder / "outputs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "dataset.toml").write_text(_DATASET.format(folder=folder))
    (run / "train.sh").write_text(_SCRIPT.format(run=run, name=name))
    return run / "train.sh"


def ended_run(folder: Path, name: str) -> None:
    """Makes a run that has finished."""
    script = run_folder(folder, name)
    attempt = Attempt(1, 1.0, ended_at=2.0, exit_code=0, outcome="finished", last_step=240)
    Store(script.parent).write_record(RunRecord(name, RunState.FINISHED, script="train.sh", attempts=(attempt,)))


def copy_files(source: Path, target: Path) -> None:
    """Copies a run's log and its checkpoints, under the other run's name."""
    shutil.copy(source / "training.log", target)
    for path in source.glob(f"{source.name}-*"):
        copied = target / path.name.replace(source.name, target.name)
        if path.is_dir():
            shutil.copytree(path, copied, copy_function=shutil.copy2)
        else:
            shutil.copy2(path, copied)
