"""Paths of a train script that was written elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxgym_watchdog.observe.paths import missing_paths, relocated


def test_paths_that_are_not_here_are_named(tmp_path: Path) -> None:
    (tmp_path / "ae.sft").touch()
    (tmp_path / "loras").mkdir()
    named = {
        "--ae": f"{tmp_path}/ae.sft",
        "--clip_l": f"{tmp_path}/gone/clip.safetensors",
        "--t5xxl": "models/t5.safetensors",  # wherever the script has gone to
        "--pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
        "--output_dir": f"{tmp_path}/loras/new",
    }
    assert missing_paths(named) == {"--clip_l": f"{tmp_path}/gone/clip.safetensors"}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_is_not_ours_to_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert list(missing_paths({"--ae": f"{tmp_path}/closed/models/ae.sft"})) == ["--ae"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "outputs" / "renamed"
    run.mkdir(parents=True)
    (tmp_path / "models" / "vae").mkdir(parents=True)
    (tmp_path / "models" / "vae" / "ae.sft").touch()
    (run / "dataset.toml").touch()
    return run


@pytest.mark.parametrize(("old", "sep"), [("/old/fluxgym", "/"), ("D:\\fluxgym", "\\")])
def test_a_fluxgym_that_was_moved_is_found_at_its_new_place(tmp_path: Path, run: Path, old: str, sep: str) -> None:
    missing = {
        "--ae": sep.join((old, "models", "vae", "ae.sft")),
        "--clip_l": sep.join((old, "models", "clip", "clip_l.safetensors")),
        "--dataset_config": sep.join((old, "outputs", "cat", "dataset.toml")),
        "--output_dir": sep.join((old, "outputs", "cat")),
    }
    assert relocated(missing, tmp_path, run) == {
        "--ae": str(tmp_path / "models" / "vae" / "ae.sft"),
        "--dataset_config": str(run / "dataset.toml"),
        "--output_dir": str(run),
    }


def test_a_run_folder_that_was_renamed_is_where_its_script_lies(tmp_path: Path, run: Path) -> None:
    named = {"--output_dir": f"{tmp_path}/outputs/cat", "--dataset_config": f"{tmp_path}/outputs/cat/dataset.toml"}
    assert relocated(missing_paths(named), tmp_path, run) == {
        "--output_dir": str(run),
        "--dataset_config": str(run / "dataset.toml"),
    }
    (tmp_path / "outputs" / "cat").mkdir()
    assert list(missing_paths(named)) == ["--dataset_config"]


@pytest.mark.parametrize(
    "missing",
    [
        {"--ae": "/old/fluxgym/models/vae/ae.sft"},  # a disk that is not mounted: this one may be another file
        {"--ae": "/models/vae/ae.sft", "--output_dir": "/old/fluxgym/outputs/cat"},
        {"--ae": "/old/fluxgym2/models/vae/ae.sft", "--output_dir": "/old/fluxgym/outputs/cat"},
    ],
)
def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_it(
    tmp_path: Path, run: Path, missing: dict[str, str]
) -> None:
    assert "--ae" not in relocated(missing, tmp_path, run)


def test_a_folder_for_loras_that_is_not_fluxgym_s_tells_nothing(tmp_path: Path, run: Path) -> None:
    assert relocated({"--output_dir": "/mnt/loras/cat"}, tmp_path, run) == {}
