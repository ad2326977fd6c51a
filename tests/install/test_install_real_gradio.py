"""The real package in a page of the real Gradio: whatever is broken, the page comes up and one line is said.

`install.py --test --gradio VERSION` runs this against the Gradio that FluxGym's users have, and against newer ones.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fluxgym_watchdog"

APP = """\
import os
import sys
sys.path.insert(0, os.getcwd())
import gradio as gr
from gradio_logsview import LogsView, LogsViewRunner

def start_training():
    yield from LogsViewRunner().run_command(["echo"], cwd=".")

with gr.Blocks(elem_id="app") as demo:
    with gr.Tabs() as tabs:
        with gr.TabItem("Gym"):
            start = gr.Button("Start")
            text = gr.Textbox()
        with gr.TabItem("Publish"):
            gr.Markdown("upload")
    start.click(start_training, outputs=[text])
"""

LOGSVIEW = """\
class LogsView: ...
class LogsViewRunner:
    def run_command(self, command, **options):
        yield "ran"
"""

# Runs app.py anew for each folder that it is given, and tells what came of it.
DRIVER = """
import contextlib, io, json, os, runpy, sys, urllib.request
import gradio as gr
home = os.getcwd()
# Only what lies in FluxGym's folder counts, not the copy that these tests are installed with.
sys.path[:] = [entry for entry in sys.path if not os.path.isdir(os.path.join(entry, "fluxgym_watchdog"))]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for folder in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("fluxgym_watchdog", "gradio_logsview")]:
        del sys.modules[name]
    os.chdir(folder)
    path, said = list(sys.path), io.StringIO()
    with contextlib.redirect_stdout(said):
        found = runpy.run_path("app.py", run_name="app")
    sys.path[:] = path
    config = found["demo"].get_config_file()
    tabs = [c["props"].get("label") for c in config["components"] if c["type"] == "tabitem"]
    ran = list(found["start_training"]())
    with contextlib.redirect_stdout(io.StringIO()):
        _, url, _ = found["demo"].launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with urllib.request.urlopen(url, timeout=60) as page:
        status = page.status
    found["demo"].close()
    os.chdir(home)
    print("TOLD" + json.dumps([said.getvalue().splitlines(), tabs, ran, status]), flush=True)
os._exit(0)
"""


def nothing(package: Path) -> None:
    """The package as it is."""


def without(name: str) -> Callable[[Path], None]:
    def damage(package: Path) -> None:
        path = package / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda package: (package / name).write_text(text, encoding="utf-8") and None


def halved(name: str) -> Callable[[Path], None]:
    def damage(package: Path) -> None:
        content = (package / name).read_bytes()
        (package / name).write_bytes(content[: len(content) // 2])

    return damage


HALF_A_TAB = """
import gradio as gr
def lay_out(*arguments, **options):
    with gr.TabItem("Watchdog"):
        gr.Button("half").click(print)
        raise RuntimeError("in the middle of the tab")
"""

BROKEN: dict[str, Callable[[Path], None]] = {
    "deleted": without("."),
    "without the tab": without("tab"),
    "without the watchdog": without("watchdog.py"),
    "without records": without("records.py"),
    "without judge": without("judge"),
    "without the runner": without("fluxgym"),
    "half of __init__.py": halved("__init__.py"),
    "half of layout.py": halved("tab/layout.py"),
    "of another version": written("__init__.py", "__version__ = '9'\ndef begin(): pass\n"),
    "raises at import": written("__init__.py", "raise RuntimeError('no')\n"),
    "raises in the middle of mount": written("tab/layout.py", HALF_A_TAB),
    "raises in mount": written("tab/__init__.py", "def build(*a, **k): raise KeyError('no')\n"),
}

SETTINGS = {
    "bytes that are no text": b"\xff\xfe\x00[",
    "no mapping": b"- a\n- b\n",
    "not YAML": b"a: [1,\n",
    "unknown keys and wrong values": b"auto_resume: perhaps\nno_such_key: 1\ncheck_interval: -5\n",
}


def run(folders: list[Path]) -> list[tuple[list[str], list[str], list[str], int]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, folders)], capture_output=True, text=True, check=False, cwd=folders[0]
    )
    told = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("TOLD")]
    assert len(told) == len(folders), done.stdout + done.stderr
    return told


@pytest.fixture
def make(installer: ModuleType, tmp_path: Path) -> Callable[[int], Path]:
    """Makes a FluxGym folder with the patched app.py and the real package in it."""

    def make(number: int) -> Path:
        folder = tmp_path / f"fluxgym-{number}"
        folder.mkdir()
        (folder / "app.py").write_bytes(installer.patch(APP.encode()))
        (folder / "gradio_logsview.py").write_text(LOGSVIEW)
        shutil.copytree(PACKAGE, folder / "fluxgym_watchdog", ignore=shutil.ignore_patterns("__pycache__", "demo"))
        return folder

    return make


def test_a_package_that_fails_costs_one_line_and_nothing_else(make: Callable[[int], Path]) -> None:
    pytest.importorskip("gradio")
    folders = []
    for number, damage in enumerate([nothing, *BROKEN.values()]):
        folders.append(make(number))
        damage(folders[-1] / "fluxgym_watchdog")
    (said, tabs, ran, status), *rest = run(folders)
    assert (said, tabs, ran, status) == ([], ["Gym", "Publish", "Watchdog"], ["ran"], 200)
    for name, (said, tabs, ran, status) in zip(BROKEN, rest, strict=True):
        assert (tabs, ran, status) == (["Gym", "Publish"], ["ran"], 200), name
        assert len(said) == 1 and said[0].startswith("FluxGym Watchdog ") and "runs without it" in said[0], name


def test_settings_of_garbage_cost_neither_the_page_nor_the_tab(make: Callable[[int], Path]) -> None:
    pytest.importorskip("gradio")
    folders = []
    for number, content in enumerate(SETTINGS.values()):
        folders.append(make(number))
        (folders[-1] / "watchdog.yaml").write_bytes(content)
    folders.append(make(99))
    (folders[-1] / "watchdog.yaml").mkdir()
    for _, tabs, ran, status in run(folders):
        assert (tabs, ran, status) == (["Gym", "Publish", "Watchdog"], ["ran"], 200)
