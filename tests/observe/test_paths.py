"""Paths of a train script that was written elsewhere."""

from __future__ import annotations

from pathlib import Path

from fluxgym_watchdog.observe.paths import missing_paths, relocated


def test_paths_that_are_not_here_are_named(tmp_path: Path) -> None:
    (tmp_path / "ae.sft").touch()
    (tmp_path / "loras").mkdir()
    named = {
        "--ae": f"{tmp_path}/ae.sft",
        "--clip_l": f"{tmp_path}/gone/clip.safetensors",
        "--t5xxl": "models/t5.safetensors",
        "--pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
        "--output_dir": f"{tmp_path}/loras/new",
    }
    found = missing_paths(named, tmp_path)
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
    assert relocated(missing, tmp_path, run) == {
        "--ae": str(tmp_path / "models" / "vae" / "ae.sft"),
        "--dataset_config": str(run / "dataset.toml"),
        "--output_dir": str(run),
    }


def test_a_run_folder_that_was_renamed_is_where_its_script_lies(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "dog"
    run.mkdir(parents=True)
    missing = missing_paths({"--output_dir": f"{tmp_path}/outputs/cat"}, tmp_path)
    assert relocated(missing, tmp_path, run) == {"--output_dir": str(run)}
    (tmp_path / "outputs" / "cat").mkdir()
    assert missing_paths({"--output_dir": f"{tmp_path}/outputs/cat"}, tmp_path) == {}


def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_it(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "cat"
    run.mkdir(parents=True)
    (tmp_path / "ae.sft").touch()
    assert relocated({"--ae": "/old/models/ae.sft", "--output_dir": "/mnt/loras/cat"}, tmp_path, run) == {}
