"""A checkout with the real installer and snippets, and a package of four lines in place of the real one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import app_files
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGE_INIT = '''\
"""FluxGym Watchdog, as far as app.py sees it."""
__version__ = "1.2.3"
def supervise(runner_class):
    return type("Supervised", (runner_class,), {})
def mount(root):
    import gradio
    gradio.PAGE.append(["Watchdog", type(root).__name__, root.name])
'''


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(REPOSITORY / "install.py", folder)
    shutil.copytree(REPOSITORY / "patches", folder / "patches", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "fluxgym_watchdog" / "judge").mkdir(parents=True)
    (folder / "fluxgym_watchdog" / "__init__.py").write_text(PACKAGE_INIT)
    (folder / "fluxgym_watchdog" / "judge" / "__init__.py").write_text("")
    (folder / "fluxgym_watchdog" / "__pycache__").mkdir()
    (folder / "fluxgym_watchdog" / "__pycache__" / "old.pyc").write_bytes(b"")
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    return folder


@pytest.fixture(scope="session")
def installer(checkout: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("install_under_test", checkout / "install.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def fluxgym(tmp_path: Path) -> Callable[..., Path]:
    """Makes a FluxGym folder around an app.py, with stand-ins for the modules that it imports."""

    def make(app: bytes = app_files.PLAIN.encode()) -> Path:
        folder = tmp_path / "fluxgym"
        folder.mkdir()
        (folder / "app.py").write_bytes(app)
        (folder / "gradio.py").write_text(app_files.GRADIO)
        (folder / "gradio_logsview").mkdir()
        (folder / "gradio_logsview" / "__init__.py").write_text("class LogsView: ...\nclass LogsViewRunner: ...\n")
        (folder / "gradio_logsview" / "sub.py").write_text("from gradio_logsview import *\n")
        return folder

    return make


@pytest.fixture
def start() -> Callable[[Path], list[str]]:
    """Starts app.py as FluxGym is started; returns the printed lines, and fails if it did not come up."""

    def run(folder: Path) -> list[str]:
        command = [sys.executable, "-B", "app.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run
