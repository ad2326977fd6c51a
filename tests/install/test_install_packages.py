"""requirements.txt, and what is installed into FluxGym's Python: only what changes nothing that is there."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BLOCK = b"# >>> fluxgym-watchdog: requirements"

REQUIREMENTS = {
    "as FluxGym's, without a final newline": b"gradio\nstarlette==0.50.0",
    "with a final newline": b"gradio\nstarlette==0.50.0\n",
    "CRLF": b"gradio\r\nstarlette==0.50.0\r\n",
    "CRLF without a final newline": b"gradio\r\nstarlette==0.50.0",
    "empty": b"",
    "one empty line": b"\n",
    "BOM": b"\xef\xbb\xbfgradio\n",
    "another package of a similar name": b"nvidia-ml-py3\n",
    "named in a comment only": b"# nvidia-ml-py\ngradio\n",
}


@pytest.mark.parametrize("source", REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_the_requirement_is_added_once_and_reverts_to_the_byte(installer: ModuleType, source: bytes) -> None:
    patched = installer.patch_requirements(source)
    assert patched.count(BLOCK) == 1
    assert [line for line in patched.splitlines() if line.startswith(b"nvidia-ml-py>=")]
    assert installer.patch_requirements(patched) == patched
    assert installer.unpatch(patched) == source
    assert (b"\r\n" in source) == (b"\r\n" in patched)


@pytest.mark.parametrize("source", REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_a_line_that_the_user_adds_at_the_end_is_a_line(installer: ModuleType, source: bytes) -> None:
    added = installer.patch_requirements(source) + b"mypkg==1\n"
    assert b"mypkg==1" in added.splitlines()
    assert installer.unpatch(added).splitlines() == [*source.splitlines(), b"mypkg==1"]


@pytest.mark.parametrize(
    "source",
    [b"gradio\nNVIDIA_ML.py==12.0\n", b"nvidia-ml-py", "gradio\n".encode("utf-16"), b"gradio --hash=1 \\\n"],
    ids=["pinned", "there", "UTF-16", "a line that goes on"],
)
def test_requirements_that_need_nothing_or_cannot_take_it_stay(installer: ModuleType, source: bytes) -> None:
    assert installer.patch_requirements(source) == source


def test_pip_reads_the_patched_file_as_it_read_the_original(installer: ModuleType, tmp_path: Path) -> None:
    """By pip itself: what it would install from the file, with the lines that FluxGym's own file has."""
    text = b"pydantic==2.9.2\ngradio_logsview@https://example.invalid/gradio_logsview-0.0.17-py3-none-any.whl"
    (tmp_path / "requirements.txt").write_bytes(installer.patch_requirements(text))
    code = (
        "from pip._internal.req.req_file import parse_requirements\n"
        "from pip._internal.network.session import PipSession\n"
        "print(*(r.requirement for r in parse_requirements('requirements.txt', PipSession())), sep='\\n')"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"this pip cannot be asked: {told.stderr.splitlines()[-1]}")
    assert told.stdout.split("\n")[:-1] == [*text.decode().split("\n"), "nvidia-ml-py>=12"]


# With a real pip


def make_wheel(folder: Path, name: str, version: str, module: str, requires: str = "") -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}.py", "")
        info = f"{name}-{version}.dist-info"
        needed = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip in it, as FluxGym's env/ is one."""
    folder = tmp_path_factory.mktemp("python") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place that pip takes any from."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


@pytest.fixture
def gym(fluxgym: Callable[..., Path], environment: Path) -> Iterator[Path]:
    folder = fluxgym()
    (folder / "env").symlink_to(environment, target_is_directory=True)
    yield folder
    subprocess.run([python(environment), "-m", "pip", "uninstall", "-q", "-y", "nvidia-ml-py", "pydantic"], check=True)


def python(environment: Path) -> str:
    return str(environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def packages(environment: Path) -> set[str]:
    listed = subprocess.run(
        [python(environment), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    lines = listed.stdout.replace("_", "-").split()
    return {line for line in lines if not line.startswith(("pip==", "setuptools=="))}


def test_it_is_installed_after_a_dry_run_and_stays(
    installer: ModuleType, gym: Path, environment: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml")
    installer.install(gym, yes=True, dry_run=True)
    assert "nvidia-ml-py 99.0 put into " in capsys.readouterr().out
    assert packages(environment) == set()
    installer.install(gym, yes=True)
    assert packages(environment) == {"nvidia-ml-py==99.0"}
    capsys.readouterr()
    installer.install(gym, yes=True)
    assert "nvidia-ml-py 99.0 is in FluxGym's Python" in capsys.readouterr().out
    installer.uninstall(gym, yes=True)
    assert "nvidia-ml-py stays in FluxGym's Python" in capsys.readouterr().out


def test_the_python_that_was_named_is_remembered(
    installer: ModuleType, fluxgym: Callable[..., Path], index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml")
    folder = fluxgym()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "elsewhere")], check=True)
    named = Path(python(tmp_path / "elsewhere"))
    installer.install(folder, yes=True, python=named)
    installer.install(folder, yes=True)
    installer.print_status(folder)
    assert "GPU:     read through nvidia-ml-py\n" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such owners")
def test_nothing_is_put_into_a_python_of_another_user(
    installer: ModuleType, gym: Path, environment: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert "belongs to user" in installer._choose_package(gym, None).text


@pytest.mark.parametrize("line", ["wheel==0.42.0 --hash=sha256:00", "--require-hashes", "--no-index"])
def test_requirements_that_a_line_of_ours_would_spoil_get_none(
    installer: ModuleType, gym: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (gym / "requirements.txt").write_text(f"{line}\n")
    installer.install(gym, yes=True)
    assert "requirements.txt: takes no line of ours" in capsys.readouterr().out
    assert (gym / "requirements.txt").read_text() == f"{line}\n"


@pytest.mark.skipif(os.name != "posix", reason="of an environment as POSIX has it")
def test_a_copied_folder_has_its_own_python(installer: ModuleType, gym: Path, index: Path, tmp_path: Path) -> None:
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml")
    installer.install(gym, yes=True, python=gym / "env" / "bin" / "python")
    shutil.copytree(gym, tmp_path / "copy", symlinks=True)
    assert installer._fluxgym_python(tmp_path / "copy") == tmp_path / "copy" / "env" / "bin" / "python"
    with pytest.raises(installer.RefusedError, match="not found; --python names"):
        installer.install(gym, yes=True, packages=False, python=tmp_path / "none")


def test_a_python_that_is_too_old_is_refused(installer: ModuleType, gym: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "_versions", lambda python: {"python": "3.9.18"})
    with pytest.raises(installer.RefusedError, match=r"is Python 3\.9\.18, and FluxGym Watchdog needs 3\.10"):
        installer.install(gym, yes=True)
    assert not (gym / "fluxgym_watchdog").exists()


def test_an_environment_without_pip_is_served_by_this_pythons(
    installer: ModuleType, fluxgym: Callable[..., Path], index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml")
    folder = fluxgym()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    installer.install(folder, yes=True)
    assert "nvidia-ml-py 99.0 put into " in capsys.readouterr().out
    subprocess.run([python(folder / "env"), "-c", "import pynvml"], check=True)


def test_nothing_is_done_where_pip_would_change_what_fluxgym_has(
    installer: ModuleType, gym: Path, environment: Path, index: Path
) -> None:
    make_wheel(index, "pydantic", "2.9.2", "pydantic")
    subprocess.run([python(environment), "-m", "pip", "install", "-q", "pydantic==2.9.2"], check=True)
    make_wheel(index, "pydantic", "3.0", "pydantic")
    make_wheel(index, "nvidia_ml_py", "99.0", "pynvml", requires="pydantic>=3")
    before = (gym / "app.py").read_bytes()
    with pytest.raises(installer.RefusedError, match=r"would change what FluxGym has \(pydantic 2\.9\.2 to 3\.0\)"):
        installer.install(gym, yes=True)
    assert (gym / "app.py").read_bytes() == before and not (gym / "fluxgym_watchdog").exists()
    assert packages(environment) == {"pydantic==2.9.2"}
    installer.install(gym, yes=True, packages=False)
    assert packages(environment) == {"pydantic==2.9.2"}


def test_offline_it_is_left_out_and_said(
    installer: ModuleType, gym: Path, environment: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(gym, yes=True)
    said = capsys.readouterr().out
    assert "nvidia-ml-py cannot be installed (ERROR: No matching distribution found for nvidia-ml-py)" in said
    assert "without it the GPU is read through nvidia-smi" in said and "Installed." in said
    assert packages(environment) == set()


def test_fluxgyms_python_is_looked_for_where_people_have_it(
    installer: ModuleType, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fluxgym()
    assert installer._fluxgym_python(folder) is None
    for place in ("venv/Scripts/python.exe", "env/python.exe", "env/bin/python"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
        assert installer._fluxgym_python(folder) == folder / place
    named = folder / "env" / "python.exe"
    assert installer._fluxgym_python(folder, named) == named
    with pytest.raises(installer.RefusedError, match="not found; --python names"):
        installer._fluxgym_python(folder, folder / "nowhere")
    bare = folder / "outputs"
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: None)  # as in Docker and on RunPod
    assert installer._fluxgym_python(bare) == Path(sys.executable)


def test_a_python_that_does_not_run_is_said(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").write_text("no program")
    assert "does not run" in installer._choose_package(folder, None).text
