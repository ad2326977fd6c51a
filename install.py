#!/usr/bin/env python3
"""Puts FluxGym Watchdog into a FluxGym folder and takes it out again; also runs its demo and its tests.

    python install.py DIR [--yes]              install into the FluxGym in DIR, or bring an older copy up to date
    python install.py DIR --uninstall [--yes]  give app.py its own bytes back and remove the package
    python install.py DIR --status             say what is installed there
    add --dry-run to see the change to app.py without making it
    python install.py --demo [--port N] [--folder DIR]         a small FluxGym with a stand-in trainer, to try it out
    python install.py --test [--gradio VERSION] [pytest arguments ...]

Exit codes: 0 done, 1 refused (with the reason), 2 usage. Standard library only; needs Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tokenize
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if sys.version_info < (3, 10):  # noqa: UP036  (this file parses on older versions just to say so)
    sys.exit(f"install.py needs Python 3.10 or newer; this is {sys.version.split()[0]}. Run it with a newer python.")

HERE = Path(__file__).resolve().parent
PACKAGE = "fluxgym_watchdog"
RECORD = "INSTALLED.json"  # inside the installed package: what was done, and to which app.py
TEMPORARY = ".fluxgym-watchdog.tmp-"  # whatever has this prefix is left from a killed installer
DEMO_MARK = ".fluxgym-watchdog-demo"
COMMAND_LINE = "the command line needs no app.py: fluxgym-watchdog watch --output-dir DIR --train-script FILE"


class RefusedError(Exception):
    """Nothing was done, for this reason; `by_hand` holds the snippets that the user can insert instead."""

    def __init__(self, reason: str, by_hand: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.by_hand = by_hand


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if "--test" in arguments:
            return run_tests([argument for argument in arguments if argument != "--test"])
        options = _parse_options(arguments)
        if options.demo:
            run_demo(options.port, options.folder)
        elif options.status:
            print_status(options.dir)
        elif options.uninstall:
            uninstall(options.dir, yes=options.yes, dry_run=options.dry_run)
        else:
            install(options.dir, yes=options.yes, dry_run=options.dry_run)
    except RefusedError as refused:
        print(f"Refused: {refused}", file=sys.stderr)
        for snippet in refused.by_hand:
            print(f"\nTo insert by hand:\n\n{snippet}")
        return 1
    except OSError as error:
        print(f"Refused: {error.filename or 'install.py'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 1
    return 0


def _parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="install.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="the FluxGym folder, the one with app.py")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="show the change to app.py, make none")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--uninstall", action="store_true", help="take FluxGym Watchdog out again")
    modes.add_argument("--status", action="store_true", help="say what is installed in DIR")
    modes.add_argument("--demo", action="store_true", help="run the demo")
    modes.add_argument("--test", action="store_true", help="run the tests; what follows goes to pytest")
    parser.add_argument("--port", type=int, metavar="N", help="with --demo: the port (default: a free one)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="with --demo: keep the demo's FluxGym here")
    parser.add_argument("--gradio", metavar="VERSION", help="with --test: test against this Gradio")
    options = parser.parse_args(arguments)
    if options.demo == bool(options.dir):
        parser.error("give the FluxGym folder DIR, or --demo, or --test" if not options.demo else "--demo takes no DIR")
    if not options.demo and (options.port is not None or options.folder is not None):
        parser.error("--port and --folder belong to --demo")
    if options.gradio is not None:
        parser.error("--gradio belongs to --test")
    if options.port is not None and not 0 < options.port < 65536:
        parser.error(f"--port {options.port}: a port is a number from 1 to 65535")
    return options


# What the user asks for ---------------------------------------------------------------------------


def install(folder: Path, *, yes: bool, dry_run: bool = False) -> None:
    """Copies the package into `folder`, then patches its app.py: killed in between, FluxGym still runs as before."""
    folder, app = _find_app(folder)
    before = app.read_bytes()
    after = patch(before)
    source, target = HERE / PACKAGE, folder / PACKAGE
    version = _version(source)
    if version is None:
        raise RefusedError(f"{source}: the package is not beside install.py; unpack all of FluxGym Watchdog")
    in_place = target.resolve() == source.resolve()  # all of FluxGym Watchdog was unpacked into the FluxGym folder
    if not in_place:
        _check_ours(target)
    replaced = f" (replaces version {_version(target)})" if target.exists() and not in_place else ""
    print(f"FluxGym Watchdog {version} for {folder}")
    print(f"  package: {'used in place from' if in_place else 'copied to'} {target}{replaced}")
    print(f"  app.py:  {_describe_change(before, after)}")
    print(f"  GPU:     {_gpu_reading(folder)}")
    if dry_run:
        _print_diff(app, before, after)
        return
    _check_writable(folder, app)
    _ask("Install", yes)
    _remove_leftovers(folder, app)
    existed = target.exists()
    if not in_place:
        _copy_package(source, target, _record(version, unpatch(before), after), owner=app.stat())
    if after != before:
        try:
            _replace_file(app, before, after)
        except (OSError, RefusedError):
            if not existed:
                shutil.rmtree(target, ignore_errors=True)
            raise
    print("Installed. Restart FluxGym to see the Watchdog tab.")


def uninstall(folder: Path, *, yes: bool, dry_run: bool = False) -> None:
    """Takes our blocks out of app.py, then removes the package; runs and settings stay."""
    folder, app = _find_app(folder)
    before = app.read_bytes()
    after = unpatch(before)
    target = folder / PACKAGE
    present = target.exists() and target.resolve() != (HERE / PACKAGE).resolve()
    if present:
        _check_ours(target)
    if not present and after == before:
        print(f"{folder}: FluxGym Watchdog is not installed here; nothing to do.")
        if not dry_run:
            _remove_leftovers(folder, app)
        return
    print(f"Taking FluxGym Watchdog out of {folder}")
    print(f"  app.py:  {_describe_change(before, after)}")
    print(f"  package: {'removed: ' + str(target) if present else 'none to remove'}")
    if dry_run:
        _print_diff(app, before, after)
        return
    _check_writable(folder, app)
    _ask("Uninstall", yes)
    _remove_leftovers(folder, app)
    if after != before:
        _replace_file(app, before, after)
    if present:
        grave = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
        target.replace(grave / PACKAGE)
        shutil.rmtree(grave)
    kept = [str(path) for path in (folder / "watchdog.yaml", *folder.glob("outputs/*/.watchdog")) if path.exists()]
    print("Uninstalled." + (" Kept, as they are yours:" if kept else ""))
    for path in kept:
        print(f"  {path}")


def print_status(folder: Path) -> None:
    folder, app = _find_app(folder)
    content = app.read_bytes()
    blocks = _find_blocks(content)
    try:
        proper = patch(content)
        anchors = ", ".join(f"{anchor.block} after line {anchor.line}" for anchor in _find_anchors(unpatch(content)))
    except RefusedError as refused:
        proper, anchors = None, str(refused)
    where = ", ".join(f"{block.name} at line {block.first_line}" for block in blocks) or "none"
    fresh = "" if not blocks else "; as this version writes them" if proper == content else "; of another version"
    version, record = _version(folder / PACKAGE), _read_record(folder / PACKAGE)
    known = hashlib.sha256(content).hexdigest() == record.get("app_sha256_after")
    print(f"FluxGym in {folder}")
    print(f"  blocks:  {where}{fresh if where != 'none' else ''}")
    print(f"  anchors: {anchors}")
    print(f"  package: {'not installed' if version is None else 'version ' + version}")
    if record:
        print(f"  since:   {record.get('installed')}; app.py {'unchanged' if known else 'changed'} since then")
    print(f"  GPU:     {_gpu_reading(folder)}")


def run_demo(port: int | None, folder: Path | None) -> None:
    """Creates the demo FluxGym, installs into it as a user would, and runs it until Ctrl+C."""
    if port is not None and _answers(port):
        raise RefusedError(f"port {port} is taken; choose another --port, or leave it out")
    endings = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    endings = [ending for ending in endings if signal.getsignal(ending) != signal.SIG_IGN]  # as under nohup
    for ending in endings:
        signal.signal(ending, signal.default_int_handler)
    python = prepare_venv(".venv", [str(HERE)])
    root = Path(tempfile.mkdtemp(prefix="fluxgym-demo-")) if folder is None else folder.absolute()
    app: subprocess.Popen[bytes] | None = None
    try:
        variables = _create_demo(python, root)
        install(root, yes=True)
        sys.stdout.flush()
        port = port or _free_port()
        variables |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
        app = subprocess.Popen([python, "app.py"], cwd=root, env=os.environ | variables, **_own_group())
        while not _answers(port):
            if app.poll() is not None:
                raise RefusedError(f"the demo's app.py ended with exit code {app.returncode} before it answered")
            time.sleep(0.2)
        print(f"FluxGym demo: http://127.0.0.1:{port}", flush=True)
        print("Ctrl+C stops it and any training it started.", flush=True)
        app.wait()
        raise RefusedError(f"the demo's app.py ended by itself with exit code {app.returncode}")
    except KeyboardInterrupt:
        print("\nStopping the demo ...", flush=True)
    finally:
        for ending in endings:
            signal.signal(ending, signal.SIG_IGN)
        if app is not None:  # until then `root` may be anybody's folder
            _stop_demo(python, root, app)
        if folder is None:
            shutil.rmtree(root, ignore_errors=True)


def run_tests(arguments: list[str]) -> int:
    """Runs pytest in a virtual environment made for it; returns pytest's exit code."""
    parser = argparse.ArgumentParser(prog="install.py --test", add_help=False, allow_abbrev=False)
    parser.add_argument("--gradio", metavar="VERSION")
    options, rest = parser.parse_known_args(arguments)
    rest = rest[1:] if rest[:1] == ["--"] else rest
    name, pins = ".venv", []
    if options.gradio:
        if not re.fullmatch(r"\d+(\.\w+)*", options.gradio):
            parser.error(f"--gradio {options.gradio}: a version is like 4.44.1")
        name, pins = f".venv-gradio-{options.gradio}", [f"gradio=={options.gradio}"]
        if options.gradio.startswith("4."):  # what FluxGym itself pins beside that Gradio
            pins += ["pydantic==2.9.2", "starlette==0.50.0", "huggingface_hub<1"]
        if not rest:
            rest = [path for path in ("tests/tab", "tests/install", "tests/demo") if any((HERE / path).glob("*.py"))]
    python = prepare_venv(name, [f"{HERE}[test]", *pins])
    return subprocess.run([python, "-m", "pytest", *rest], cwd=HERE, check=False).returncode


# app.py: bytes in, bytes out ----------------------------------------------------------------------

_MARKER = re.compile(rb"[ \t\f]*# (>>>|<<<) fluxgym-watchdog: (supervise|tab)( \(newline added\))? (?:>>>|<<<)[ \t]*")
_SNIPPETS = {"supervise": "after_logsview_import.py", "tab": "last_tab.py"}


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One of our blocks in a file: the bytes from `start` to `end` are what was inserted."""

    name: str
    start: int
    end: int
    first_line: int
    last_line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Anchor:
    """Where a block goes: after this line (from 1), with this indentation; `name` is what the import binds."""

    block: str
    line: int
    indent: bytes
    name: str = ""


def patch(source: bytes) -> bytes:
    """`source` with both blocks in place; blocks already there are renewed. Raises RefusedError."""
    original = unpatch(source)
    lines = original.splitlines(keepends=True)
    encoding = "utf-8"
    with contextlib.suppress(SyntaxError):
        encoding = tokenize.detect_encoding(iter(lines[:2]).__next__)[0].removesuffix("-sig")
    usual_ending = _line_ending(lines[0]) if lines else b""
    # From the bottom up, so that line numbers stay true; of two at one place, the import's block comes first.
    for anchor in sorted(_find_anchors(original), key=lambda anchor: (-anchor.line, anchor.block != "tab")):
        text = re.sub(r"\bLogsViewRunner\b", anchor.name or "LogsViewRunner", snippet(anchor.block))
        own_ending = _line_ending(lines[anchor.line - 1])
        ending = own_ending or usual_ending or b"\n"
        block = [anchor.indent + line.encode(encoding) if line else b"" for line in text.splitlines()]
        if own_ending:
            lines.insert(anchor.line, ending.join(block) + ending)
        else:  # the marker tells that the line break before it is ours too
            block[0] = block[0].removesuffix(b" >>>") + b" (newline added) >>>"
            lines.insert(anchor.line, ending + ending.join(block))
    patched = b"".join(lines)
    _verify(original, patched)
    return patched


def unpatch(source: bytes) -> bytes:
    """`source` without our blocks, whatever else was edited meanwhile. Raises RefusedError if a marker is missing."""
    for block in reversed(_find_blocks(source)):
        source = source[: block.start] + source[block.end :]
    return source


def snippet(block: str) -> str:
    """The text between and including the markers of a file in patches/."""
    path = HERE / "patches" / _SNIPPETS[block]
    text = path.read_text(encoding="utf-8")
    return text[text.index("# >>> ") :].rstrip("\n")


def _find_blocks(source: bytes) -> list[Block]:
    blocks: list[Block] = []
    begun: tuple[bytes, int, int, bool] | None = None
    offset, ending_before = 0, b""
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        ending = _line_ending(line)
        marker = _MARKER.fullmatch(line.removesuffix(ending))
        if marker and (marker[1] == b">>>") == (begun is not None):
            break
        if marker and begun is None:
            added = marker[3] is not None
            begun = (marker[2], offset - len(ending_before) * added, number, added)
        elif marker and begun is not None:
            name, start, first_line, added = begun
            if name != marker[2]:
                break
            end = offset + len(line) - len(ending) * added
            blocks.append(Block(name.decode(), start, end, first_line, number))
            begun = None
        offset, ending_before = offset + len(line), ending
    else:
        if begun is None:
            return blocks
        number = begun[2]
    raise RefusedError(
        f"app.py line {number}: a fluxgym-watchdog marker (# >>> or # <<<) without its partner; "
        "delete what is left of that block by hand, then try again"
    )


def _find_anchors(original: bytes) -> list[Anchor]:
    tree = _parse(original, "app.py")
    lines = original.splitlines(keepends=True)
    anchors, reasons, by_hand = [], [], []
    finders: dict[str, Callable[[ast.Module, list[bytes]], Anchor]] = {"supervise": _after_import, "tab": _last_in_tabs}
    for block, find in finders.items():
        try:
            anchors.append(find(tree, lines))
        except RefusedError as refused:
            reasons.append(str(refused))
            by_hand.append(snippet(block))
    if reasons:
        raise RefusedError(f"{'; '.join(reasons)}. app.py is unchanged; {COMMAND_LINE}", tuple(by_hand))
    return anchors


def _after_import(tree: ast.Module, lines: list[bytes]) -> Anchor:
    found = [
        (suite, position, alias.asname or alias.name)
        for suite in _suites(tree)
        for position, statement in enumerate(suite)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name == "LogsViewRunner"
    ]
    if not found:
        names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
        seen = "; it imports the module gradio_logsview as a whole" if "gradio_logsview" in names else ""
        raise RefusedError(f"app.py has no `from gradio_logsview import LogsViewRunner`{seen}")
    if len(found) > 1:
        at = ", ".join(str(suite[position].lineno) for suite, position, _ in found)
        raise RefusedError(f"app.py imports LogsViewRunner {len(found)} times (lines {at}): which counts is unclear")
    suite, position, name = found[0]
    return _anchor_after("supervise", suite, position, lines, what="the import of LogsViewRunner", name=name)


def _last_in_tabs(tree: ast.Module, lines: list[bytes]) -> Anchor:
    found = list(_outermost_tabs(tree))
    if len(found) != 1:
        at = f" but {len(found)} (lines {', '.join(str(node.lineno) for node in found)})" if found else ""
        raise RefusedError(f"app.py has not one outermost `with gr.Tabs():`{at}")
    suite = found[0].body
    if isinstance(suite[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break)):
        raise RefusedError(f"app.py line {suite[-1].lineno}: what comes after the last tab would never be reached")
    return _anchor_after("tab", suite, len(suite) - 1, lines, what="the last statement in gr.Tabs()")


def _anchor_after(
    block: str, suite: list[ast.stmt], position: int, lines: list[bytes], *, what: str, name: str = ""
) -> Anchor:
    """The place after the line on which `suite[position]` ends, statements that share that line included."""
    first = last = position
    while first > 0 and suite[first - 1].end_lineno == suite[first].lineno:
        first -= 1
    while last + 1 < len(suite) and suite[last + 1].lineno == suite[last].end_lineno:
        last += 1
    start = suite[first]
    line = lines[start.lineno - 1]
    indent = line[: len(line) - len(line.lstrip(b" \t\f"))]
    if len(indent) != start.col_offset:  # both count bytes, and white space is one byte each
        raise RefusedError(f"app.py line {start.lineno}: {what} is on the same line as the statement around it")
    return Anchor(block, suite[last].end_lineno or start.lineno, indent, name)


def _suites(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value


def _outermost_tabs(tree: ast.Module) -> Iterator[ast.With | ast.AsyncWith]:
    modules, classes = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "gradio"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gradio":
            classes |= {alias.asname or alias.name for alias in node.names if alias.name == "Tabs"}

    def makes_tabs(expression: ast.expr) -> bool:
        function = expression.func if isinstance(expression, ast.Call) else None
        if isinstance(function, ast.Attribute):
            return function.attr == "Tabs" and isinstance(function.value, ast.Name) and function.value.id in modules
        return isinstance(function, ast.Name) and function.id in classes

    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop(0)
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(makes_tabs(item.context_expr) for item in node.items):
            yield node
        else:
            pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def _verify(original: bytes, patched: bytes) -> None:
    """Taking the blocks out gives the original, as bytes and as a syntax tree, and the result compiles."""
    blocks = _find_blocks(patched)
    tree = _parse(patched, "app.py with the blocks inserted")
    for suite in _suites(tree):
        suite[:] = [s for s in suite if not any(block.first_line <= s.lineno <= block.last_line for block in blocks)]
    if unpatch(patched) != original or ast.dump(tree) != ast.dump(_parse(original, "app.py")):
        reason = f"app.py: the blocks would change more than they should. app.py is unchanged; {COMMAND_LINE}"
        raise RefusedError(reason, tuple(map(snippet, _SNIPPETS)))


def _parse(source: bytes, what: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "app.py", "exec", dont_inherit=True)
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        version = sys.version.split()[0]
        reason = f"{what} is not valid Python for the Python {version} that runs install.py: {error}"
        raise RefusedError(f"{reason}. app.py is unchanged; {COMMAND_LINE}", tuple(map(snippet, _SNIPPETS))) from error


def _line_ending(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]


# Files and folders --------------------------------------------------------------------------------


def _find_app(folder: Path) -> tuple[Path, Path]:
    folder = folder.expanduser().absolute()
    if folder.name == "app.py" and folder.is_file():
        folder = folder.parent
    app = folder / "app.py"
    if not app.is_file():
        raise RefusedError(f"{app}: not found; give the folder in which FluxGym's app.py lies")
    return folder, app


def _check_writable(folder: Path, app: Path) -> None:
    for path in (folder, app.resolve().parent):
        if not os.access(path, os.W_OK | os.X_OK):
            raise RefusedError(f"{path}: no permission to write here; run install.py as the user who owns it")


def _check_ours(target: Path) -> None:
    if target.is_symlink():
        raise RefusedError(f"{target}: is a link; remove it first, install.py replaces only copies that it made")
    if not target.exists() or _read_record(target):
        return
    with contextlib.suppress(OSError):
        text = (target / "__init__.py").read_text(encoding="utf-8", errors="replace")
        if "__version__" in text and re.search(r"\bsupervise\b", text) and re.search(r"\bmount\b", text):
            return
    raise RefusedError(f"{target}: exists and is not FluxGym Watchdog's; move it away first")


def _copy_package(source: Path, target: Path, record: dict[str, Any], owner: os.stat_result) -> None:
    """Copies beside `target`, then renames; a moment without `target` is one in which FluxGym runs without us."""
    bench = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    new, old = bench / "new", bench / "old"
    try:
        shutil.copytree(source, new, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", RECORD))
        (new / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        with contextlib.suppress(RefusedError):  # only root can give files away, and it need not be so
            for path in (new, *new.rglob("*")):
                _keep_owner(path, owner)
        if target.exists():
            target.replace(old)
        try:
            new.replace(target)
        except OSError:
            if old.exists():
                old.replace(target)
            raise
    finally:
        shutil.rmtree(bench, ignore_errors=True)


def _replace_file(path: Path, expected: bytes, content: bytes) -> None:
    """`path` holds either `expected` or `content` at every instant; links are followed, mode and owner kept."""
    target = path.resolve()
    before = target.stat()
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=target.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(new, before)
        new.chmod(stat.S_IMODE(before.st_mode))
        if target.read_bytes() != expected:
            raise RefusedError(f"{target}: was changed by someone else in this moment; try again")
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        handle = os.open(target.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(handle)
        os.close(handle)


def _keep_owner(path: Path, owner: os.stat_result) -> None:
    own = path.stat()
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (owner.st_uid, owner.st_gid):
        try:
            os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            who = f"user {owner.st_uid}, group {owner.st_gid}"
            raise RefusedError(f"{path.parent}: files here belong to {who}; run install.py as that user") from error


def _remove_leftovers(folder: Path, app: Path) -> None:
    places = {folder.resolve(), app.resolve().parent}
    for path in [path for place in places for path in place.glob(TEMPORARY + "*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _version(package: Path) -> str | None:
    with contextlib.suppress(OSError):
        text = (package / "__init__.py").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^__version__\s*(?::[^=\n]+)?=\s*[\"']([^\"']+)", text, re.MULTILINE)
        return found[1] if found else "unknown"
    return None


def _record(version: str, before: bytes, after: bytes) -> dict[str, Any]:
    return {
        "product": "fluxgym-watchdog",
        "version": version,
        "installed": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "app_sha256_before": hashlib.sha256(before).hexdigest(),
        "app_sha256_after": hashlib.sha256(after).hexdigest(),
    }


def _read_record(package: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((package / RECORD).read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("product") == "fluxgym-watchdog":
            return record
    return {}


def _describe_change(before: bytes, after: bytes) -> str:
    if before == after:
        return "has the blocks already; unchanged"
    if after == unpatch(before):
        return f"{len(_find_blocks(before))} blocks taken out, nothing else touched"
    places = ", ".join(f"{anchor.block} after line {anchor.line}" for anchor in _find_anchors(unpatch(before)))
    return f"2 guarded blocks inserted ({places}), no line replaced"


def _print_diff(app: Path, before: bytes, after: bytes) -> None:
    old, new = ([line.decode("utf-8", "backslashreplace") for line in text.splitlines()] for text in (before, after))
    for line in difflib.unified_diff(old, new, str(app), f"{app} (new)", lineterm=""):
        print(line)
    print("Dry run: nothing was changed.")


def _gpu_reading(folder: Path) -> str:
    environments = [folder / name for name in ("env", "venv", ".venv") if (folder / name / "pyvenv.cfg").is_file()]
    if not environments:
        return "read through nvidia-ml-py where FluxGym's Python has it, else through nvidia-smi"
    patterns = ("lib/python*/site-packages/pynvml.py", "Lib/site-packages/pynvml.py")
    if any(any(environment.glob(pattern)) for environment in environments for pattern in patterns):
        return "read through nvidia-ml-py"
    return f"read through nvidia-smi ({environments[0]} has no nvidia-ml-py; nothing is installed into it)"


def _ask(what: str, yes: bool) -> None:
    if yes or not sys.stdin.isatty():
        return
    try:
        answer = input(f"{what}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise RefusedError("not confirmed; nothing was changed")


# The demo and the virtual environments ------------------------------------------------------------

_CREATE_DEMO = """\
import json, sys
from pathlib import Path
from fluxgym_watchdog.demo import create_fluxgym, environment
folder = Path(sys.argv[1])
create_fluxgym(folder)
print(json.dumps(environment(folder)))
"""


def _create_demo(python: str, root: Path) -> dict[str, str]:
    if root.exists() and any(root.iterdir()) and not (root / DEMO_MARK).exists():
        raise RefusedError(f"{root}: not empty and not a demo's folder; choose an empty one for --folder")
    root.mkdir(parents=True, exist_ok=True)
    (root / DEMO_MARK).touch()
    made = subprocess.run(
        [python, "-c", _CREATE_DEMO, str(root)], capture_output=True, text=True, check=False, cwd=HERE
    )
    if made.returncode:
        raise RefusedError(f"{root}: the demo FluxGym could not be made:\n{made.stderr.strip()}")
    variables: dict[str, str] = json.loads(made.stdout.splitlines()[-1])
    return variables


def _stop_demo(python: str, root: Path, app: subprocess.Popen[bytes]) -> None:
    for run in sorted(path.parent for path in root.glob("outputs/*/.watchdog")):
        command = [python, "-m", PACKAGE, "stop", str(run)]
        try:
            stopped = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=90)
            trouble = stopped.stderr.strip() if stopped.returncode else ""
        except subprocess.TimeoutExpired:
            trouble = "no answer in 90 s"
        if trouble:
            print(f"{run}: the training could not be stopped: {trouble}", file=sys.stderr)
    if app.poll() is None:
        app.terminate()
        try:
            app.wait(timeout=10)
        except subprocess.TimeoutExpired:
            app.kill()
            app.wait()


def _own_group() -> dict[str, Any]:
    """Ctrl+C reaches this process only, which then stops things in order."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepare_venv(name: str, requirements: list[str]) -> str:
    """Makes the virtual environment `name` beside this file unless it is ready; returns its python.

    The package itself is the first requirement, installed from this checkout. Ready means that a stamp inside holds the
    same hash of pyproject.toml, the requirements and this Python as now, and that the environment finds the package.
    """
    venv = HERE / name
    python = str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    wanted = [(HERE / "pyproject.toml").read_text(encoding="utf-8"), *requirements, sys.version]
    digest = hashlib.sha256("\0".join(wanted).encode()).hexdigest()
    stamp = venv / f"fluxgym-watchdog-{hashlib.sha256(requirements[0].encode()).hexdigest()[:8]}.stamp"
    healthy = _succeeds([python, "-I", "-m", "pip", "--version"])
    complete = f"import importlib.util as u; raise SystemExit(None in map(u.find_spec, ['{PACKAGE}', 'gradio']))"
    known = stamp.read_text(encoding="utf-8") == digest if stamp.is_file() else False
    if healthy and known and _succeeds([python, "-I", "-c", complete]):
        return python
    if not healthy:
        if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists():
            raise RefusedError(f"{venv}: exists and is no virtual environment; move it away")
        advice = "Python's venv module failed (on Debian and Ubuntu: install the package python3-venv)"
        _run_quietly([sys.executable, "-m", "venv", "--clear", str(venv)], f"Making {venv}", advice)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-e", *requirements]
    advice = "pip failed. Is this machine online? Is the disk full? Is there a build for this Python? Then try again"
    _run_quietly(pip, f"Installing into {venv} (a minute or two the first time)", advice)
    stamp.write_text(digest, encoding="utf-8")
    return python


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run_quietly(command: list[str], title: str, advice: str) -> None:
    begun = time.monotonic()
    print(f"{title} ...", flush=True)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=HERE)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            if sys.stdout.isatty():
                print(f"\r  {time.monotonic() - begun:.0f} s ", end="", flush=True)
        if sys.stdout.isatty():
            print()
        if process.returncode:
            output.seek(0)
            last = output.read().decode("utf-8", "replace").strip().splitlines()[-30:]
            raise RefusedError(advice + ":\n" + "\n".join(last))


if __name__ == "__main__":
    sys.exit(main())
