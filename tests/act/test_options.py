"""What a training command's options say, and which are added."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxgym_watchdog.act import options
from fluxgym_watchdog.act.script import read
from fluxgym_watchdog.records import Asked


def script(text: str) -> options.Script:
    return read(f"accelerate launch x_train_network.py {text}\n".encode())


def test_what_fluxgym_s_script_asks_for() -> None:
    found = options.asked(
        script(
            "--max_train_epochs 16 --save_every_n_epochs 4 --network_dim 4 --optimizer_type adamw8bit "
            "--save_precision bf16 --save_model_as safetensors --lr_scheduler constant_with_warmup"
        )
    )
    assert found == Asked(
        epochs=16,
        save_every_epochs=4,
        rank=4,
        optimizer="adamw8bit",
        lr_scheduler="constant_with_warmup",
        save_precision="bf16",
    )
    assert found.total_steps(100) == 1600
    assert found.total_steps(None) is None


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("--max_train_steps 500", 500),
        ("--max_train_steps 500 --max_train_epochs 2", 80),
        ("", 1600),  # the trainer's default
        ("--max_train_steps $STEPS", None),
        ("--max_train_epochs '`echo 3`'", None),
        ("--max_train_epochs 1e3", None),
    ],
)
def test_the_steps_asked_for(text: str, total: int | None) -> None:
    assert options.asked(script(text)).total_steps(40) == total


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", ["--save_state", "--save_last_n_epochs_state", "2"]),
        ("--save_state", []),
        ("--save_last_n_epochs 3", ["--save_state"]),
        ("--save_last_n_epochs_state 3", ["--save_state"]),
        ("--save_last_n_steps_state 3", ["--save_state"]),
    ],
)
def test_states_are_saved_and_the_script_s_own_wishes_kept(text: str, added: list[str]) -> None:
    assert options.saving(options.asked(script(text)), save_states=True, keep_states=2) == added
    assert options.saving(options.asked(script(text)), save_states=False, keep_states=2) == []


def test_paths_that_are_not_here_are_named(tmp_path: Path) -> None:
    (tmp_path / "ae.sft").touch()
    (tmp_path / "loras").mkdir()
    found = options.missing_paths(
        script(
            f"--ae {tmp_path}/ae.sft --clip_l {tmp_path}/gone/clip.safetensors --t5xxl models/t5.safetensors "
            f"--pretrained_model_name_or_path black-forest-labs/FLUX.1-dev --output_dir {tmp_path}/loras/new "
            "--dataset_config $HERE/dataset.toml"
        ),
        tmp_path,
    )
    assert found == {"--clip_l": f"{tmp_path}/gone/clip.safetensors", "--t5xxl": "models/t5.safetensors"}


def test_a_fluxgym_that_was_moved_is_found_at_its_new_place(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "renamed"
    run.mkdir(parents=True)
    (tmp_path / "models" / "vae").mkdir(parents=True)
    (tmp_path / "models" / "vae" / "ae.sft").touch()
    (run / "dataset.toml").touch()
    missing = {
        "--ae": "/old/fluxgym/models/vae/ae.sft",
        "--clip_l": "D:\\fluxgym\\models\\clip\\clip_l.safetensors",
        "--dataset_config": "/old/fluxgym/outputs/cat/dataset.toml",
        "--output_dir": "/old/fluxgym/outputs/cat",
    }
    assert options.relocated(missing, tmp_path, run) == {
        "--ae": str(tmp_path / "models" / "vae" / "ae.sft"),
        "--dataset_config": str(run / "dataset.toml"),
        "--output_dir": str(run),
    }


def test_a_run_folder_that_was_renamed_is_where_its_script_lies(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "dog"
    run.mkdir(parents=True)
    missing = options.missing_paths(script(f"--output_dir {tmp_path}/outputs/cat"), tmp_path)
    assert options.relocated(missing, tmp_path, run) == {"--output_dir": str(run)}
    (tmp_path / "outputs" / "cat").mkdir()
    assert options.missing_paths(script(f"--output_dir {tmp_path}/outputs/cat"), tmp_path) == {}


def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_it(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "cat"
    run.mkdir(parents=True)
    (tmp_path / "ae.sft").touch()
    assert options.relocated({"--ae": "/old/models/ae.sft", "--output_dir": "/mnt/loras/cat"}, tmp_path, run) == {}
