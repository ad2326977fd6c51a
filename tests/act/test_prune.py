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
    prune.doom(tmp_path, state(1, 40))
    assert not (tmp_path / "x-000001-state").exists()
    assert len(prune.doomed(tmp_path)) == 1
    prune.clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x-000002-state"]


def test_what_is_no_state_folder_of_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x-000001-state").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x-000002-state").touch()
    (tmp_path / "x-000002.safetensors").touch()
    for checkpoint in (state(1, 40), state(2, 80), weights(2), state(3, 120)):
        with pytest.raises(prune.CannotDelete):
            prune.doom(tmp_path, checkpoint)
    prune.clear(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_deletion_that_was_killed_is_finished_by_the_next_one(tmp_path: Path) -> None:
    for _ in range(2):  # the same name, written and deleted again
        (tmp_path / "x-000001-state").mkdir()
        prune.doom(tmp_path, state(1, 40))
    (tmp_path / f"{prune.DOOMED}1-x-000002-state").symlink_to(tmp_path)
    prune.clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"{prune.DOOMED}1-x-000002-state"]
    prune.clear(tmp_path / "gone")
