"""States are deleted one by one and by name; nothing else ever is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxgym_watchdog.act import prune
from tests.judge.builders import state, weights


def test_a_state_folder_is_deleted_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("x-000001-state", "x-000002-state"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "optimizer.bin").touch()
    prune.delete_state(tmp_path, state(1, 40))
    assert [p.name for p in tmp_path.iterdir()] == ["x-000002-state"]


def test_what_is_no_state_folder_of_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x-000001-state").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x-000002-state").touch()
    (tmp_path / "x-000002.safetensors").touch()
    for checkpoint in (state(1, 40), state(2, 80), weights(2), state(3, 120)):
        with pytest.raises(prune.CannotDelete):
            prune.delete_state(tmp_path, checkpoint)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_deletion_that_was_killed_leaves_no_checkpoint_and_is_finished_by_the_next(tmp_path: Path) -> None:
    half = tmp_path / f"{prune.DOOMED}x-000001-state"
    half.mkdir()
    (half / "optimizer.bin").touch()
    (tmp_path / "x-000001-state").mkdir()
    prune.clear_leftovers(tmp_path)
    prune.delete_state(tmp_path, state(1, 40))
    assert list(tmp_path.iterdir()) == []
