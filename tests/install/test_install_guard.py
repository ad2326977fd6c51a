"""A patched app.py starts whatever happens to the package: at most one line more, and everything else as before."""

from __future__ import annotations

import shutil
import subprocess
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
    "ends a generator at import": "raise GeneratorExit\n",
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


def test_the_snippets_bind_no_name_of_the_app(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"LogsViewRunner": object, "__file__": __file__}
    before = dict(namespace)
    called: list[object] = []
    package = ModuleType("fluxgym_watchdog")
    package.__dict__.update(supervise=lambda runner: called.append(runner) or runner, mount=called.append)
    monkeypatch.setitem(sys.modules, "fluxgym_watchdog", package)
    for block in ("supervise", "tab"):
        exec(installer.snippet(block), namespace)
    assert called == [object, Path(__file__).parent]
    new = namespace.keys() - before.keys() - {"__builtins__"}
    assert all(name.startswith("_fluxgym_watchdog") for name in new)


@pytest.mark.parametrize("name", app_files.PARTIAL)
def test_what_a_fork_can_be_given_runs(
    installer: ModuleType, fluxgym: Callable[..., Path], start: Callable[[Path], list[str]], name: str
) -> None:
    source, block, _ = app_files.PARTIAL[name]
    folder = fluxgym(source)
    installer.install(folder, yes=True)
    (line,) = start(folder)
    assert line.startswith("READY Supervised" if block == "supervise" else "READY str")
    assert line.count('"Watchdog"') == (block == "tab")


# Other versions of Python


def find_python(version: str) -> str | None:
    """A Python of this version: on the PATH, or beside the one that runs the tests (as pyenv, asdf and uv put them)."""
    beside = sorted(Path(sys.base_prefix).parent.glob(f"*{version}.*/bin/python{version}"))
    for candidate in filter(None, [shutil.which(f"python{version}"), *map(str, beside)]):
        told = subprocess.run(
            [candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.stdout.strip() == version:
            return candidate
    return None


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_on_every_python_it_installs_starts_whatever_is_broken_and_goes_out(
    installer: ModuleType, fluxgym: Callable[..., Path], version: str
) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} was found on the PATH or beside {sys.base_prefix}")
    folder = fluxgym()
    before = (folder / "app.py").read_bytes()

    def run(*command: str) -> list[str]:
        done = subprocess.run([str(python), "-B", *command], cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    run(str(installer.HERE / "install.py"), ".", "--yes")
    assert run("app.py")[0].startswith("READY Supervised")
    package = folder / "fluxgym_watchdog"
    kept = package.with_name("kept")
    package.rename(kept)
    for name, text in BROKEN.items():
        if text is not None:
            package.mkdir()
            (package / "__init__.py").write_text(text, encoding="utf-8")
        said, ready = run("app.py")
        assert "FluxGym runs without it: " in said, name
        assert ready.startswith("READY LogsViewRunner"), name
        shutil.rmtree(package, ignore_errors=True)
    kept.rename(package)
    run("fluxgym_watchdog/install.py", "--uninstall", "--yes")
    assert (folder / "app.py").read_bytes() == before
