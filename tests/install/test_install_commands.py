"""--demo, --test and the virtual environments, with stand-ins for pip and Gradio."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType

import app_files
import pytest

DEMO = '''
from pathlib import Path
APP = """{app}
import http.server, os
port = int(os.environ["GRADIO_SERVER_PORT"])
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
def create_fluxgym(folder):
    (folder / "app.py").write_text(APP)
    (folder / "gradio.py").write_text({gradio!r})
    (folder / "gradio_logsview.py").write_text("class LogsView: ...\\nclass LogsViewRunner: ...\\n")
    (folder / "outputs" / "cat" / ".watchdog").mkdir(parents=True)
def environment(folder):
    return {{"DEMO": "1"}}
'''
STOP = "import sys; from pathlib import Path; Path(sys.argv[0]).parents[1].joinpath('stopped').write_text(sys.argv[2])"
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
import install
install.prepare_venv = lambda name, requirements: sys.executable
sys.exit(install.main(["--demo", *sys.argv[2:]]))
"""


def test_the_file_still_parses_where_it_can_only_say_that_python_is_too_old(checkout: Path) -> None:
    ast.parse((checkout / "install.py").read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.fixture
def demo_checkout(checkout: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    shutil.copytree(checkout, folder)
    (folder / "fluxgym_watchdog" / "demo").mkdir()
    demo = DEMO.format(app=app_files.PLAIN.replace("\\", "\\\\"), gradio=app_files.GRADIO)
    (folder / "fluxgym_watchdog" / "demo" / "__init__.py").write_text(demo)
    (folder / "fluxgym_watchdog" / "__main__.py").write_text(STOP)
    return folder


@pytest.mark.skipif(os.name != "posix", reason="stops the demo by SIGINT")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_is_installed_started_and_stopped(demo_checkout: Path, tmp_path: Path, ending: signal.Signals) -> None:
    kept = tmp_path / "demo"
    command = [sys.executable, "-c", DRIVER, str(demo_checkout), "--folder", str(kept)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("FluxGym demo: "):
            break
    with urllib.request.urlopen(lines[-1].split()[-1], timeout=10) as page:
        assert page.status == 200
    assert b"# >>> fluxgym-watchdog: tab >>>" in (kept / "app.py").read_bytes()
    process.send_signal(ending)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert (kept / "stopped").read_text() == str(kept / "outputs" / "cat")
    deadline = time.monotonic() + 10
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            urllib.request.urlopen(lines[-1].split()[-1], timeout=1).close()
        pytest.fail("the demo's app goes on after its end")


def test_the_demo_touches_no_folder_that_is_not_a_demos(demo_checkout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "mine"
    (kept / "outputs" / "cat" / ".watchdog").mkdir(parents=True)
    command = [sys.executable, "-c", DRIVER, str(demo_checkout), "--folder", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not empty and not a demo's folder" in done.stderr
    assert not (kept / "stopped").exists() and not (kept / "app.py").exists()


@pytest.fixture
def ran(installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Commands that prepare_venv would have run, in a HERE of its own; a made environment counts as healthy."""
    commands: list[list[str]] = []

    def run(command: list[str], title: str, advice: str) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
            (Path(command[-1]) / "pyvenv.cfg").touch()

    monkeypatch.setattr(installer, "HERE", tmp_path)
    monkeypatch.setattr(installer, "_run_quietly", run)
    monkeypatch.setattr(installer, "_succeeds", lambda command: Path(command[0]).parents[1].is_dir())
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return commands


def test_a_ready_environment_is_not_installed_again(
    installer: ModuleType, ran: list[list[str]], tmp_path: Path
) -> None:
    installer.prepare_venv(".venv", [str(tmp_path)])
    assert len(ran) == 2 and ran[1][-2:] == ["-e", str(tmp_path)]
    installer.prepare_venv(".venv", [str(tmp_path)])
    assert len(ran) == 2
    installer.prepare_venv(".venv", [f"{tmp_path}[test]"])
    installer.prepare_venv(".venv", [str(tmp_path)])
    assert len(ran) == 3
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    installer.prepare_venv(".venv", [str(tmp_path)])
    assert len(ran) == 4


def test_a_folder_that_is_no_environment_is_not_cleared(
    installer: ModuleType, ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "_succeeds", lambda command: False)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine.txt").touch()
    with pytest.raises(installer.RefusedError, match="no virtual environment"):
        installer.prepare_venv(".venv", [str(tmp_path)])
    assert ran == []


def test_tests_against_an_old_gradio_get_fluxgyms_own_pins_and_three_folders(
    installer: ModuleType, ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        started.append(command)
        return subprocess.CompletedProcess(command, 5)

    monkeypatch.setattr(installer.subprocess, "run", run)
    (tmp_path / "tests" / "tab").mkdir(parents=True)
    (tmp_path / "tests" / "tab" / "test_x.py").touch()
    assert installer.main(["--test", "--gradio", "4.44.1"]) == 5
    assert installer.main(["--test", "--gradio=4.44.1", "-k", "a or b", "tests/tab"]) == 5
    assert installer.main(["--test", "--", "-x"]) == 5
    assert {"gradio==4.44.1", "pydantic==2.9.2", "starlette==0.50.0", "huggingface_hub<1"} <= set(ran[1])
    assert [command[3:] for command in started] == [["tests/tab"], ["-k", "a or b", "tests/tab"], ["-x"]]
    assert ".venv-gradio-4.44.1" in started[0][0] and ".venv-gradio" not in started[2][0]


def test_pips_failure_is_shown_with_advice(installer: ModuleType) -> None:
    with pytest.raises(installer.RefusedError, match=r"(?s)Is the disk full.*no matching"):
        installer._run_quietly([sys.executable, "-c", "exit('no matching')"], "Installing", "Is the disk full?")
