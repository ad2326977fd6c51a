"""--doctor: each thing that is known to keep trainings from being watched or resumed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import app_files
import pytest

FINE = {
    "python": "3.10.12",
    "gradio": "4.44.1",
    "starlette": "0.50.0",
    "accelerate": "1.6.0",
    "torch": "2.13.0+cpu",
    "numpy": "1.26.4",
    "psutil": "7.0",
    "pyyaml": "6.0",
}


def marks(installer: ModuleType, **versions: str | None) -> list[tuple[str, str]]:
    given = {name: version for name, version in (FINE | versions).items() if version is not None}
    return list(installer._judge_versions(Path("python"), given))


def test_what_fluxgym_itself_installs_is_fine(installer: ModuleType) -> None:
    assert {mark for mark, _ in marks(installer)} == {"ok"}


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"python": "3.9.1"}, "Python is 3.9.1"),
        ({"gradio": "5.50.0"}, "Start button does not work from 5.44 on"),
        ({"gradio": "6.31.0"}, "does not start on Gradio 6"),
        ({"gradio": None}, "gradio is missing"),
        ({"starlette": "1.2"}, "starlette is 1.2: Gradio 4.44.1 does not start with it"),
        ({"psutil": None}, "psutil is missing"),
        ({"torch": None}, "torch missing"),
    ],
)
def test_what_is_in_the_way_is_said_with_what_to_do(
    installer: ModuleType, versions: dict[str, str | None], said: str
) -> None:
    (bad,) = [what for mark, what in marks(installer, **versions) if mark == "bad"]
    assert said in bad


@pytest.mark.parametrize(("accelerate", "torch"), [("0.33.0", "2.5.1"), ("1.15.0", "2.13.0")])
def test_combinations_that_resume_are_fine(installer: ModuleType, accelerate: str, torch: str) -> None:
    assert {mark for mark, _ in marks(installer, accelerate=accelerate, torch=torch)} == {"ok"}


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /workspace rw,relatime - nfs4 server:/volume rw
31 22 0:41 / /my\040share rw shared:2 master:1 - fuse.sshfs me@host:/ rw
32 22 0:42 / /workspace/local rw - xfs /dev/vdb rw
33 22 0:43 / /pod rw - ext4 /dev/vdc rw
34 22 0:44 / /pod rw - fuse mfs#server:9421 rw
"""


@pytest.mark.skipif(os.name != "posix", reason="as the Linux kernel tells it")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/workspace/fluxgym/outputs", "nfs4"),
        ("/pod/fluxgym/outputs", "fuse"),
        ("/workspace2", "ext4"),
        ("/my share/outputs", "fuse.sshfs"),
        ("/workspace/local/x", "xfs"),
    ],
)
def test_network_file_systems_are_known(installer: ModuleType, tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert installer._file_system(Path(path), tmp_path / "mountinfo") == kind


def test_no_mount_table_no_claim(installer: ModuleType, tmp_path: Path) -> None:
    if os.name == "posix":
        assert installer._file_system(tmp_path, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("app", "variables", "said"),
    [
        ("", {}, None),
        ("demo.launch(debug=True)", {}, None),
        ("demo.launch(server_name='127.0.0.1', share=False)", {}, None),
        ("demo.launch(share=True)", {}, "share=True"),
        ("demo.launch(server_name='0.0.0.0')", {}, "0.0.0.0"),
        ("demo.launch(server_name=args.listen, share=args.share)", {}, "share=args.share"),
        ("", {"GRADIO_SERVER_NAME": "0.0.0.0"}, "GRADIO_SERVER_NAME is 0.0.0.0"),
        ("", {"GRADIO_SHARE": "True"}, "GRADIO_SHARE"),
    ],
)
def test_who_can_reach_it(
    installer: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    app: str,
    variables: dict[str, str],
    said: str | None,
) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(installer, "CONTAINER_MARK", tmp_path / "none")
    (tmp_path / "app.py").write_text(app)
    ((mark, what),) = installer._judge_reach(tmp_path / "app.py")
    assert mark == ("ok" if said is None else "note")
    assert said is None or said in what


@pytest.mark.parametrize(("free_gb", "mark"), [(1, "bad"), (5, "note"), (500, "ok")])
def test_free_disk(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, mark: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_gb * 10**9))
    assert next(iter(installer._judge_disk(tmp_path)))[0] == mark


@pytest.mark.parametrize(
    ("kind", "mark"), [("fuse", "note"), ("fuse.sshfs", "note"), ("nfs4", "note"), ("fuseblk", "ok")]
)
def test_a_network_volume_is_noticed(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mark: str
) -> None:
    monkeypatch.setattr(installer, "_file_system", lambda path: kind)
    assert list(installer._judge_disk(tmp_path))[1][0] == mark


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")
def test_what_the_driver_s_programs_answer_is_told_as_it_is(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(name: str, line: str) -> Path:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        return program

    def told(versions: dict[str, str]) -> list[tuple[str, str]]:
        return list(installer._judge_gpu(python, versions))

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(installer, "LIMIT_S", 1)
    python = stand_in("python", "echo 2 570.1")
    assert told({"nvidia-ml-py": "13"}) == [("ok", "NVIDIA's driver library answers: 2 GPU(s), driver 570.1")]
    stand_in("nvidia-smi", "exit 0")
    assert told({"python": "3.11"})[-1] == ("ok", "nvidia-smi answers")
    stand_in("nvidia-smi", "exit 9")
    assert "answers with an error" in told({"python": "3.11"})[-1][1]
    python = stand_in("python", "echo no driver >&2; exit 1")
    assert told({"nvidia-ml-py": "13"})[0] == ("note", "NVIDIA's driver library does not answer: no driver")


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_a_program_that_does_not_answer_is_not_waited_for(installer: ModuleType) -> None:
    told = installer._run([sys.executable, "-c", "import time; time.sleep(600)"], 0.2)
    assert (told.returncode, told.stderr) == (1, f"{sys.executable} does not answer in 0.2 s".encode())


def test_the_doctor_looks_at_everything_and_changes_nothing(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = fluxgym(app_files.PLAIN.encode())
    monkeypatch.setattr(installer, "CONTAINER_MARK", tmp_path / "none")
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert installer.main([str(folder), "--doctor"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    said = capsys.readouterr().out
    for part in (
        "this Python is",
        "FluxGym's Python",
        "nvidia",
        "GB are free",
        "file system",
        "listens",
        "not installed",
    ):
        assert part in said, part
