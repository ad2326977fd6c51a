"""The real app.py of FluxGym and of its forks: each is patched, behaves and reverts, or is left alone with a reason.

FLUXGYM_FORKS names a folder of app.py files (any names, *.py), fetched by whoever runs this. Nothing of them is part of
this project. They run under stand-ins for all that they import, and can neither start programs, nor connect, nor write
outside of a temporary folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("FLUXGYM_FORKS")
FILES = sorted(Path(FOLDER).glob("*.py")) if FOLDER else []
pytestmark = pytest.mark.skipif(not FILES, reason="set FLUXGYM_FORKS to a folder of forks' app.py files to run this")

# Runs one app.py with a stand-in for every module that is not Python's own, and tells what it built and how it ended.
STAGE = '''
import builtins, importlib.abc, importlib.machinery, json, os, runpy, sys, types

built = []

class Word(str):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Word("it")

class Anything:
    """Whatever is asked of it, it gives more of itself; as a context it notes that it was entered and left."""
    def __init__(self, *args, _name="it", **kwargs):
        self._name = _name
    def __call__(self, *args, **kwargs):
        return Anything(_name=self._name)
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(_name=name)
    def __enter__(self):
        built.append(self._name)
        return self
    def __exit__(self, *exc):
        built.append("/" + self._name)
    def __iter__(self): return iter((Word("it"),))
    def __getitem__(self, key): return Anything()
    def __setitem__(self, key, value): pass
    def __contains__(self, key): return False
    def __len__(self): return 0
    def __bool__(self): return False
    def __repr__(self): return "it"
    def __fspath__(self): return "it"
    def __index__(self): return 0
    def __int__(self): return 0
    def __float__(self): return 0.0
    def __mro_entries__(self, bases): return (object,)
    def _same(self, *args): return Anything()
    __add__ = __radd__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __or__ = __and__ = _same
    def __lt__(self, other): return False
    __gt__ = __le__ = __ge__ = __lt__

class LogsViewRunner: ...

def supervise(cls):
    built.append("supervise " + cls.__name__)
    return cls

def mount(root):
    built.append("mount " + str(root))

class StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "LogsViewRunner":
            return LogsViewRunner
        return Anything(_name=name)

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        module = StandIn(spec.name)
        if spec.name == "fluxgym_watchdog":
            module.supervise, module.mount = supervise, mount
        return module
    def exec_module(self, module): pass

FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill",
             "socket.connect", "socket.bind", "ctypes.dlopen", "urllib.Request", "shutil.rmtree")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
           "os.truncate")
here = os.path.realpath(os.getcwd())

def guard(event, arguments):
    if event in FORBIDDEN:
        raise PermissionError(event)
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (writes or event in CHANGES) and not os.path.realpath(os.fsdecode(arguments[0])).startswith(here + os.sep):
        raise PermissionError(event + " outside")

sys.meta_path.insert(0, Finder())
sys.argv = ["app.py"]
sys.dont_write_bytecode = True
import ast, json, re, subprocess, tempfile, threading, uuid  # before the guard: they may load shared libraries
sys.addaudithook(guard)
output, sys.stdout = sys.stdout, sys.stderr
try:
    runpy.run_path("app.py", run_name="app")
    ended = "to the end"
except BaseException as error:
    ended = type(error).__name__ + ": " + str(error)[:200]
print(json.dumps([built, ended]), file=output)
output.flush()
os._exit(0)
'''


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    specification = importlib.util.spec_from_file_location("install_for_forks", ROOT / "install.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def run(folder: Path, source: bytes) -> tuple[list[str], str]:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_bytes(source)
    (folder / "models.yaml").write_text("flux-dev: {}\n")
    done = subprocess.run(
        [sys.executable, "-I", "-c", STAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={"PATH": "", "HOME": str(folder)},
    )
    built, ended = json.loads(done.stdout.splitlines()[-1])
    return built, ended


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_it_is_patched_behaves_and_reverts_or_is_left_alone(installer: ModuleType, path: Path, tmp_path: Path) -> None:
    source = path.read_bytes()
    try:
        patched = installer.patch(source)
    except installer.RefusedError as reason:
        assert "app.py is unchanged" in str(reason)
        assert installer.unpatch(source) == source
        return
    assert installer.unpatch(patched) == source
    assert installer.patch(patched) == patched
    compile(patched, "app.py", "exec")
    as_written, ended = run(tmp_path / "original", source)
    with_blocks, ended_with = run(tmp_path / "patched", patched)
    assert ended_with == ended
    ours = [note for note in with_blocks if note.startswith(("supervise", "mount"))]
    assert [note for note in with_blocks if note not in ours] == as_written
    if b"fluxgym-watchdog: supervise" in patched:
        assert ours[0] == "supervise LogsViewRunner"
    if b"fluxgym-watchdog: tab" in patched and ended == "to the end":
        assert ours[-1] == f"mount {tmp_path / 'patched'}"
        assert with_blocks[with_blocks.index(ours[-1]) + 1] == "/Tabs"
    assert len(ours) <= 2
