"""The machine: read where it can be, None where not, and one name for one boot."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from fluxgym_watchdog.observe import procfs
from fluxgym_watchdog.observe.machine import boot_id, read_host


def test_the_machine_is_read(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert host is not None
    assert 0 < host.memory_available_bytes <= host.memory_total_bytes
    assert 0 <= host.disk_free_bytes <= host.disk_total_bytes
    assert 0 <= host.swap_used_bytes <= host.swap_total_bytes


def test_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert read_host(tmp_path / "outputs" / "猫") is not None


def test_a_machine_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("no /proc here")

    monkeypatch.setattr(procfs, "read_memory", lambda: None)
    monkeypatch.setattr(psutil, "swap_memory", refuse)
    host = read_host(tmp_path)
    assert host is not None
    assert host.swap_total_bytes == 0
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    assert read_host(tmp_path) is None


def test_a_boot_has_one_name() -> None:
    assert boot_id()
    assert boot_id() == boot_id()


def test_without_linux_the_hour_of_the_boot_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(psutil, "boot_time", lambda: 7200.4)
    assert boot_id() == "boot-hour-2"
    monkeypatch.setattr(psutil, "boot_time", lambda: 7199.6)
    assert boot_id() == "boot-hour-2"
