"""A patched app.py starts whatever happens to the package: at most one line more, and everything else as before."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import app_files
import pytest

RAISES = "__version__ = '1'\n"
NO_SUPERVISE = RAISES + "def mount(root): import gradio; gradio.PAGE.append('Watchdog')\n"
NO_MOUNT = RAISES + "def supervise(c): return c\n"

BROKEN = {
    "deleted": None,
    "empty": "",
    "no longer Python": "def (:\n",
    "raises at import": "raise RuntimeError('über\\nzwei Zeilen')\n",
    "exits at import": "raise SystemExit(7)\n",
    "needs what is missing": "import no_such_module\n",
    "half copied": "from fluxgym_watchdog.launch import supervise, mount\n",
    "of another version": RAISES + "def start(): pass\n",
    "raises in supervise": NO_SUPERVISE + "def supervise(c): raise ValueError('no')\n",
    "raises in mount": NO_MOUNT + "def mount(root): raise ValueError('no')\n",
    "exits in mount": NO_MOUNT + "def mount(root): raise SystemExit('no')\n",
    "takes other arguments": RAISES + "def supervise(): pass\ndef mount(): pass\n",
}


def test_a_sound_package_supervises_and_adds_its_tab_last(
    installer: ModuleType, fluxgym: Callable[..., Path], start: Callable[[Path], list[str]]
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    (line,) = start(folder)
    assert line.startswith("READY Supervised")
    assert '"/TabItem", ["Watchdog", "PosixPath", "fluxgym"], "/Tabs"' in line.replace("WindowsPath", "PosixPath")


@pytest.mark.parametrize("package", BROKEN.values(), ids=BROKEN)
def test_a_package_that_fails_costs_one_line(
    installer: ModuleType, fluxgym: Callable[..., Path], start: Callable[[Path], list[str]], package: str | None
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    shutil.rmtree(folder / "fluxgym_watchdog")
    if package is not None:
        (folder / "fluxgym_watchdog").mkdir()
        (folder / "fluxgym_watchdog" / "__init__.py").write_text(package, encoding="utf-8")
    said, ready = start(folder)
    assert said.startswith("FluxGym Watchdog ") and "FluxGym runs without it: " in said
    assert ready.startswith("READY LogsViewRunner")
    assert '"TabItem", "/TabItem", "TabItem", "/TabItem"' in ready
    assert ready.endswith('"/Tabs", "/Blocks"]')


@pytest.mark.parametrize("name", app_files.PATCHABLE)
def test_every_class_of_app_runs_patched(
    installer: ModuleType, fluxgym: Callable[..., Path], start: Callable[[Path], list[str]], name: str
) -> None:
    folder = fluxgym(app_files.PATCHABLE[name])
    expected = start(folder)
    installer.install(folder, yes=True)
    printed = start(folder)
    assert len(printed) == len(expected)
    for line in printed:
        assert line.startswith("READY Supervised") and line.count('"Watchdog"') == 1


def test_the_snippets_bind_no_name_of_the_app(installer: ModuleType) -> None:
    namespace: dict[str, object] = {"LogsViewRunner": object, "__file__": __file__}
    before = dict(namespace)
    sys.modules.pop("fluxgym_watchdog", None)
    for block in ("supervise", "tab"):
        exec(installer.snippet(block), namespace)
    new = namespace.keys() - before.keys() - {"__builtins__"}
    assert all(name.startswith("_fluxgym_watchdog") for name in new)
