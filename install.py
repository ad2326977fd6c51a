#!/usr/bin/env python3
"""Puts FluxGym Watchdog into a FluxGym folder and takes it out again; also runs its demo and its tests.

    python install.py [DIR]                install into the FluxGym in DIR, or bring an older copy up to date
    python install.py [DIR] --uninstall    give app.py its own bytes back and remove the package
                      --purge              with --uninstall: also what was written about runs, and watchdog.yaml
    python install.py [DIR] --repair       say what is damaged, and put it back
    python install.py [DIR] --status       say what is installed there, and whether it survives an update
    python install.py [DIR] --doctor       look for what keeps trainings from being watched or resumed
    python install.py --demo [--port N] [--folder DIR]         a small FluxGym with a stand-in trainer, to try it out
    python install.py --test [--gradio VERSION] [pytest arguments ...]

DIR is the folder with FluxGym's app.py, or one inside it; without DIR, the current folder is looked at in that way.
--yes does not ask; --dry-run shows the changes without making them.

Exit codes: 0 done, 1 refused (with the reason), 2 usage. Standard library only; needs Python 3.10 or newer.
"""

# One file by contract, so it is long; the sections: what the user asks for, app.py, blocks, git, FluxGym's Python,
# the doctor, files and folders, the demo and the virtual environments.

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import os
import re
import sys
import tokenize
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if sys.argv[1:2] != ["--git-filter"]:  # git waits for the filter at each status, and it starts sooner without these
    import argparse
    import difflib
    import errno
    import hashlib
    import importlib.metadata
    import json
    import shlex
    import shutil
    import signal
    import socket
    import stat
    import subprocess
    import tempfile
    import time

if sys.version_info < (3, 10):  # noqa: UP036  (this file parses on 3.8 and 3.9 just to say so)
    sys.exit(f"install.py needs Python 3.10 or newer; this is {sys.version.split()[0]}. Run it with a newer python.")

HERE = Path(__file__).resolve().parent
PACKAGE = "fluxgym_watchdog"
RECORD = "INSTALLED.json"  # inside the installed package: what was done, and to which app.py
NOT_TOLD = "git will see the blocks, and an update that touches app.py stops until they are uninstalled"
TEMPORARY = ".fluxgym-watchdog.tmp-"  # whatever has this prefix is left from a killed installer
DEMO_MARK = ".fluxgym-watchdog-demo"
SETTINGS = "watchdog.yaml"
NEEDED = "nvidia-ml-py"  # all else that the package imports is in every FluxGym environment
COMMAND_LINE = "the command line needs no app.py: python -m fluxgym_watchdog watch --output-dir DIR --train-script FILE"


class RefusedError(Exception):
    """What was asked for is not done, for this reason; `by_hand` holds snippets that the user can insert instead."""

    def __init__(self, reason: str, by_hand: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.by_hand = by_hand


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    sys.setrecursionlimit(max(5000, sys.getrecursionlimit()))  # an elif is one level deeper in the tree than the last
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no path may end an install half-way, by being printed
    if arguments[:1] == ["--git-filter"]:  # what .git/config calls; see patches/git_config
        return filter_for_git(*arguments[1:])
    handlers = {ending: signal.signal(ending, signal.default_int_handler) for ending in _endings()}
    try:
        if "--test" in arguments:
            return run_tests([argument for argument in arguments if argument != "--test"])
        options = _parse_options(arguments)
        if options.demo:
            run_demo(options.port, options.folder)
        elif options.status:
            print_status(options.dir, python=options.python)
        elif options.doctor:
            print_doctor(options.dir, python=options.python)
        elif options.uninstall:
            uninstall(options.dir, yes=options.yes, dry_run=options.dry_run, purge=options.purge, git=options.git)
        else:
            install(
                options.dir,
                yes=options.yes,
                dry_run=options.dry_run,
                repair=options.repair,
                git=options.git,
                packages=options.packages,
                python=options.python,
            )
    except RefusedError as refused:
        print(f"Refused: {_without_secrets(str(refused))}", file=sys.stderr)
        for snippet in refused.by_hand:
            print(f"\nTo insert by hand:\n\n{snippet}")
        return 1
    except shutil.Error as error:  # of a folder that was copied: each file that failed, with its reason
        failed = error.args[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        print(f"Refused: {failed[0][1]}: {failed[0][2]}{more}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Refused: {error.filename or 'install.py'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except RecursionError:
        print("Refused: app.py is nested too deeply; it is unchanged", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What is there now: --status", file=sys.stderr)
        return 1
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
    return 0


def _endings() -> list[signal.Signals]:
    """What ends a program, and here interrupts it as Ctrl+C does, so that what is half done is taken back."""
    endings = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [ending for ending in endings if signal.getsignal(ending) != signal.SIG_IGN]  # as under nohup


def _parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="install.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="FluxGym's folder, or one inside it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="show the changes, make none")
    parser.add_argument("--no-git", dest="git", action="store_false", help="leave git's local configuration alone")
    parser.add_argument(
        "--no-packages", dest="packages", action="store_false", help="leave FluxGym's Python and requirements.txt alone"
    )
    parser.add_argument("--python", metavar="FILE", type=Path, help="the Python that runs FluxGym, if not in DIR/env")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--uninstall", action="store_true", help="take FluxGym Watchdog out again")
    modes.add_argument("--repair", action="store_true", help="put back what is damaged")
    modes.add_argument("--status", action="store_true", help="say what is installed in DIR")
    modes.add_argument("--doctor", action="store_true", help="look for what stands in the way of watching and resuming")
    modes.add_argument("--demo", action="store_true", help="run the demo")
    modes.add_argument("--test", action="store_true", help="run the tests; what follows goes to pytest")
    parser.add_argument("--purge", action="store_true", help="with --uninstall: also what was written about runs")
    parser.add_argument("--port", type=int, metavar="N", help="with --demo: the port (default: a free one)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="with --demo: keep the demo's FluxGym here")
    parser.add_argument("--gradio", metavar="VERSION", help="with --test: test against this Gradio")
    options = parser.parse_args(arguments)
    if options.demo and options.dir:
        parser.error("--demo takes no DIR")
    if not options.demo and (options.port is not None or options.folder is not None):
        parser.error("--port and --folder belong to --demo")
    if options.purge and not options.uninstall:
        parser.error("--purge belongs to --uninstall")
    if options.dry_run and (options.demo or options.status or options.doctor):
        parser.error("--dry-run belongs to an install, --repair or --uninstall; the others change nothing of FluxGym's")
    if not options.packages and (options.uninstall or options.status or options.doctor or options.demo):
        parser.error("--no-packages belongs to an install or --repair")
    if options.gradio is not None:
        parser.error("--gradio belongs to --test")
    if options.port is not None and not 0 < options.port < 65536:
        parser.error(f"--port {options.port}: a port is a number from 1 to 65535")
    if not options.demo and options.dir is None and _fluxgym_around(_usual_place()) is None:
        parser.error(f"give the FluxGym folder DIR; {Path.cwd()} is not in a FluxGym. Or give --demo, or --test")
    return options


# What the user asks for ---------------------------------------------------------------------------


def install(
    folder: Path | None,
    *,
    yes: bool,
    dry_run: bool = False,
    repair: bool = False,
    git: bool = True,
    packages: bool = True,
    python: Path | None = None,
) -> None:
    """Copies the package into FluxGym's folder, then has git tolerate the change, then makes it.

    Killed anywhere in between, FluxGym runs as before or with all of it. With `repair`, blocks that were edited by hand
    are put back as they were, and the edited file is kept beside them.
    """
    folder, app = _find_app(folder)
    with _alone_in(folder):
        if not dry_run:
            _remove_own_lock(_find_local(folder))
        if repair:  # as it was installed
            git, packages = git and not _declined(folder, "git"), packages and not _declined(folder, "packages")
        repository = _repository_for_filter(folder) if git else None
        if repair:
            faults = _faults(folder, app, repository)
            if not faults:
                print(f"{folder}: nothing is damaged; nothing to repair.")
                return
            for fault in faults:
                print(f"Found: {fault}")
        plan = _planned(folder, app, repository, repair=repair, git=git, packages=packages, python=python)
        _print_plan(plan)
        if dry_run:
            _print_diffs(plan.edits)
            return
        _check_writable(folder, plan.edits)
        _ask("Repair" if repair else "Install", yes)
        _carry_out(plan)
    print("Installed. Restart FluxGym to see the Watchdog tab.")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What an install does to a folder: `edits` are made in order, `record` is kept, `notes` are told before."""

    folder: Path
    app: Path
    repository: Repository | None
    version: str
    in_place: bool
    edits: list[Edit]
    choice: Package
    record: dict[str, Any]
    notes: list[str]
    repair: bool
    by_hand: frozenset[str]
    filter_stays: bool
    """Git's settings are left alone, and are there from an earlier install."""


def _planned(
    folder: Path,
    app: Path,
    repository: Repository | None,
    *,
    repair: bool,
    git: bool,
    packages: bool,
    python: Path | None,
) -> Plan:
    """Looks at everything and changes nothing. Raises RefusedError where an install cannot be."""
    version, in_place = _check_package(folder)
    before = app.read_bytes()
    after = patch(before, edited_too=repair)
    if not _is_fluxgym(folder):
        raise RefusedError(f"{app}: names nothing that FluxGym trains with; this is another program's folder")
    edits = [Edit(app, before, after)]
    if repository is not None:
        names = [name for name in repository.filtered if packages or name == "app.py"]
        setup = dataclasses.replace(repository, filtered=tuple(names))
        edits = [*_git_setup(setup, folder, edited_too=repair), *edits]
    _fluxgym_python(folder, python)  # refuses one that is not there
    choice = _choose_package(folder, python) if packages else Package(None, "its Python is left alone, as asked")
    edits += _requirements_edit(folder, repository, wanted=packages, edited_too=repair)
    local = None if git else _find_local(folder)
    filter_stays = local is not None and local.config.is_file() and BEGIN in local.config.read_bytes()
    notes = _find_anchors(*_without_ours(before, edited_too=True))[1]
    if local is not None:
        notes.append("git's settings stay as an earlier install made them" if filter_stays else NOT_TOLD)
    declined = [name for name, wanted in {"git": git, "packages": packages}.items() if not wanted]
    record = _record(version, unpatch(before, edited_too=repair), after) | {"declined": declined}
    record |= {name: fact for name, fact in _read_record(folder / PACKAGE).items() if name in _LASTING}
    if python is not None:
        python = python.absolute()
        record["python"] = str(python.relative_to(folder) if folder in python.parents else python)
    return Plan(
        folder=folder,
        app=app,
        repository=repository,
        version=version,
        in_place=in_place,
        edits=edits,
        choice=choice,
        record=record,
        notes=notes,
        repair=repair,
        by_hand=_without_ours(after, edited_too=True)[1],
        filter_stays=filter_stays,
    )


def _carry_out(plan: Plan) -> None:
    """Does what was planned. Raises RefusedError where a repair has not put everything right."""
    folder, app, repository = plan.folder, plan.app, plan.repository
    _remove_leftovers(folder, app, repository.local if repository else None)
    for edit in plan.edits:
        _keep_edited(edit)
    programs = [folder / PACKAGE, *([repository.local.program.parent] if repository else [])]
    new = [program for program in programs if not program.exists()]
    try:
        if not plan.in_place:
            _copy_package(folder / PACKAGE, plan.record, app.stat())
        if repository is not None:
            _copy_filter(repository.local)
        _apply(plan.edits)
    except BaseException:
        if BEGIN not in app.read_bytes():  # else it could not be taken back, and needs what it imports
            for program in new:
                shutil.rmtree(program, ignore_errors=True)
        raise
    if plan.in_place:
        _renew_record(folder / PACKAGE, plan.record)
    gits_reason = _refresh(repository, folder) if repository is not None else ""  # before pip, which may take long
    if plan.filter_stays:
        _refresh_after_removal(folder, "install.py --no-git")
    _install_package(plan.choice, folder)
    judged = repository is not None and not (plan.repair or plan.by_hand)  # where those are the filter cannot know
    if repository is not None and judged and (trouble := _update_trouble(repository, folder)):
        print(f"Note: an update may stop at app.py: {'. '.join(filter(None, [trouble, gits_reason]))}")
    if plan.repair and (faults := _faults(folder, app, repository)):
        advice = "This needs --repair by the install.py of a fresh download" if plan.in_place else ""
        raise RefusedError(". ".join(filter(None, ["; ".join(faults), gits_reason, advice])))


def uninstall(folder: Path | None, *, yes: bool, dry_run: bool = False, purge: bool = False, git: bool = True) -> None:
    """Takes our blocks out of all files, then removes the package; runs and settings stay, unless `purge`."""
    folder, app = _find_app(folder, app_needed=False)
    with _alone_in(folder):
        if not dry_run:
            _remove_own_lock(_find_local(folder))
        local = _find_local(folder) if git else None
        edits = [edit for edit in _removals(folder, app, local) if edit.after != edit.before]
        filter_ = local.program.parent if local is not None and not _other_worktrees_use(local, folder) else None
        filter_ = filter_ if filter_ is not None and filter_.exists() else None
        target = folder / PACKAGE
        present = target.exists() and target.resolve() != (HERE / PACKAGE).resolve()  # else: unpacked over FluxGym
        if present:
            _check_ours(target)
        kept = (folder / SETTINGS, *folder.glob(f"{SETTINGS}.bak"), *folder.glob(f"{SETTINGS}.bak-[0-9]*"))
        settings = [path for path in kept if path.exists()]
        about_runs = [*sorted(settings), *sorted(folder.glob("outputs/*/.watchdog"))]
        purged = about_runs if purge else []
        if not present and not edits and not purged and filter_ is None:
            print(f"{folder}: FluxGym Watchdog is not installed here; nothing to do.")
            if not dry_run:
                _remove_leftovers(folder, app, local)
                _refresh_after_removal(folder)
            return
        for path in purged:
            if _is_supervised(path):
                raise RefusedError(
                    f"{path.parent}: a training of this run is being watched; stop it, or leave --purge out"
                )
        print(f"Taking FluxGym Watchdog out of {folder}")
        for edit in edits:
            print(f"  {_relative(edit.path, folder)}: {_describe_change(edit)}")
        print(f"  package: {'removed: ' + str(target) if present else 'none to remove'}")
        if filter_ is not None:
            print(f"  git's filter: removed: {filter_}")
        for path in purged:
            print(f"  deleted: {path}")
        if dry_run:
            _print_diffs(edits)
            return
        _check_writable(folder, edits)
        _ask("Uninstall", yes)
        _remove_leftovers(folder, app, local)
        packages = _read_record(target).get("installed_packages")
        _apply(edits)
        if filter_ is not None:
            _delete(filter_, filter_.parent)
        if present:
            _delete(target, folder)
        for path in purged:
            _delete(path, path.parent)
        _refresh_after_removal(folder)
        left = [] if git else _left_in_git(folder, app)
        edited = sorted(kept for edit in edits for kept in edit.path.parent.glob(f"{edit.path.name}.edited-*"))
    print("Uninstalled. Restart FluxGym if it is running.")
    if left:
        print("Left as asked by --no-git (--uninstall without it takes our lines out of them):")
        for path in left:
            print(f"  {path}")
    if packages:
        print(f"{NEEDED} stays in FluxGym's Python, where other programs may use it.")
    if about_runs and not purge:
        print("Kept, as they are yours (--purge deletes them):")
        for path in about_runs:
            print(f"  {path}")
    for path in edited:
        print(f"Kept from a --repair, as you had edited it: {path}")


def print_status(folder: Path | None, *, python: Path | None = None) -> None:
    """What is installed in the folder, what is wrong with it, and whether an update of FluxGym leaves it there."""
    folder, app = _find_app(folder)
    content = app.read_bytes()
    version, record = _version(folder / PACKAGE), _read_record(folder / PACKAGE)
    print(f"FluxGym in {folder}")
    try:
        blocks = ", ".join(f"{block.name} at line {block.first_line}" for block in _find_blocks(content)) or "none"
        anchors, lacking = _find_anchors(*_without_ours(content, edited_too=True))
        places = [f"{anchor.block} after line {anchor.line}" for anchor in anchors]
        found = "; ".join([", ".join(places), *lacking])
    except RefusedError as refused:
        blocks, found = "not readable", str(refused)
    print(f"  blocks:  {blocks}")
    print(f"  anchors: {found} (lines of the file without the blocks)")
    print(f"  package: {'not installed' if version is None else 'version ' + version}")
    if record:
        known = hashlib.sha256(content).hexdigest() == record.get("app_sha256_after")
        print(f"  since:   {record.get('installed')}; app.py {'unchanged' if known else 'changed'} since then")
    if _is_installed(folder, app):
        try:
            faults, survival = _condition(folder, app)
            for fault in faults:
                print(f"  fault:   {fault} (--repair puts it right)")
            print(f"  updates: {survival}")
        except RefusedError as refused:
            why = "as the anchors are" if str(refused) == found else _without_secrets(str(refused))
            print(f"  updates: not known: {why}")
    print(f"  GPU:     {_gpu_reading(folder, python)}")


def run_demo(port: int | None, folder: Path | None) -> None:
    """Creates the demo FluxGym, installs into it as a user would, and runs it until Ctrl+C."""
    if port is not None and _answers(port):
        raise RefusedError(f"port {port} is taken; choose another --port, or leave it out")
    python = prepare_venv(".venv", [str(HERE)])
    root = Path(tempfile.mkdtemp(prefix="fluxgym-demo-")) if folder is None else folder.absolute()
    app: subprocess.Popen[bytes] | None = None
    try:
        variables = _create_demo(python, root)
        install(root, yes=True, packages=False)
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
        for ending in _endings():
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
            places = (
                "tests/tab",
                "tests/install/test_install_real_gradio.py",
                "tests/demo",
            )  # all that Gradio is part of
            rest = [path for path in places if (HERE / path).exists()]
    python = prepare_venv(name, [f"{HERE}[test]", *pins])
    return subprocess.run([python, "-m", "pytest", *rest], cwd=HERE, check=False).returncode


# app.py: bytes in, bytes out ----------------------------------------------------------------------

_SNIPPETS = {"supervise": "after_logsview_import.py", "tab": "last_tab.py"}


@dataclasses.dataclass(frozen=True, slots=True)
class Anchor:
    """Where a block goes: after this line (from 1), with this indentation; `name` is what the import binds."""

    block: str
    line: int
    indent: bytes
    name: str = ""


class _AbsentError(RefusedError):
    """The app has nothing of the kind that this block belongs to: the other block alone can be given."""


def patch(source: bytes, *, edited_too: bool = False) -> bytes:
    """`source` with the blocks that it has a place for; blocks already there are renewed.

    A block whose place is ambiguous and that somebody inserted by hand is renewed where it is. Raises RefusedError if
    an anchor is ambiguous or both are absent, and, unless `edited_too`, where somebody has edited a block.
    """
    original, by_hand = _without_ours(source, edited_too=edited_too)
    original = _renewed_by_hand(original, by_hand)
    tree = _parse(original, "app.py")
    lines = original.splitlines(keepends=True)
    encoding = "utf-8"
    with contextlib.suppress(SyntaxError):
        encoding = tokenize.detect_encoding(iter(lines[:2]).__next__)[0].removesuffix("-sig")
    usual_ending = _line_ending(lines[0]) if lines else b""
    # From the bottom up, so that line numbers stay true; of two at one place, the import's block comes first.
    for anchor in sorted(
        _find_anchors(original, by_hand, tree)[0], key=lambda anchor: (-anchor.line, anchor.block != "tab")
    ):
        text = re.sub(r"\bLogsViewRunner\b", anchor.name or "LogsViewRunner", snippet(anchor.block))
        own_ending = _line_ending(lines[anchor.line - 1])
        ending = own_ending or usual_ending or b"\n"
        try:
            inner = [anchor.indent + line.encode(encoding) if line else b"" for line in text.split("\n")[1:-1]]
        except UnicodeEncodeError as error:  # the name of the class, in Python's normal form
            raise RefusedError(f"app.py: {anchor.name} cannot be written in {encoding}; {COMMAND_LINE}") from error
        block = _frame(anchor.block, inner, indent=anchor.indent, added="" if own_ending else "newline")
        framed = ending.join(block)
        if own_ending:
            lines.insert(anchor.line, framed + ending)
        else:  # the marker tells that the line break before it is ours too; a block below it has its own
            lines.insert(anchor.line, ending + framed + (ending if anchor.line == len(lines) else b""))
    patched = b"".join(lines)
    _verify(original, tree, patched, by_hand)
    return patched


def unpatch(
    source: bytes, *, edited_too: bool = False, file: str = "app.py", but: frozenset[str] = frozenset()
) -> bytes:
    """`source` without our blocks, `but` those, whatever else was edited meanwhile; `file` is for what is refused.

    Raises RefusedError if a marker is missing or, unless `edited_too`, if what is between the markers was edited.
    """
    for block in reversed([block for block in _find_blocks(source, file) if block.name not in but]):
        _check_unedited(block, file, edited_too=edited_too)
        source = source[: block.start] + source[block.end :]
    return source


def snippet(block: str) -> str:
    """The text between and including the markers of a block's file in patches/."""
    return _framed(_SNIPPETS[block])


def _framed(name: str) -> str:
    path = HERE / "patches" / name
    text = path.read_text(encoding="utf-8")
    begin = text.find("# >>> ")
    if begin < 0:
        raise RefusedError(f"{path}: is damaged; use the install.py of a fresh download")
    return text[begin:].rstrip("\n")


def _inner(name: str) -> str:
    return "\n".join(_framed(name).split("\n")[1:-1])


def _without_ours(source: bytes, *, edited_too: bool = False) -> tuple[bytes, frozenset[str]]:
    """`source` without the blocks that are put in anew, and the names of those that can only stay where they are."""
    blocks = _find_blocks(source)
    if not blocks:
        return source, frozenset()
    bare = unpatch(source, edited_too=edited_too)
    tree, by_hand = _parse(bare, "app.py"), set()
    for block in blocks:
        if block.name not in _FINDERS:  # of another version
            continue
        try:
            _FINDERS[block.name](tree, bare.splitlines(keepends=True))
        except _AbsentError:
            pass
        except RefusedError:
            by_hand.add(block.name)
    return unpatch(source, edited_too=edited_too, but=frozenset(by_hand)), frozenset(by_hand)


def _renewed_by_hand(source: bytes, by_hand: frozenset[str]) -> bytes:
    """`source` with this version's text, and a checksum, in those blocks."""
    for block in reversed([block for block in _find_blocks(source) if block.name in by_hand and not block.added]):
        lines = source[block.start : block.end].splitlines(keepends=True)
        indent = lines[0][: len(lines[0]) - len(lines[0].lstrip(b" \t\f"))]
        bound = re.search(rb"(\w+) = _fluxgym_watchdog_supervise\(", source[block.start : block.end])
        text = re.sub(
            rb"\bLogsViewRunner\b", bound[1] if bound else b"LogsViewRunner", _inner(_SNIPPETS[block.name]).encode()
        )
        inner = [indent + line if line else b"" for line in text.split(b"\n")]
        framed = (_line_ending(lines[0]) or b"\n").join(_frame(block.name, inner, indent=indent))
        source = source[: block.start] + framed + _line_ending(lines[-1]) + source[block.end :]
    return source


def _find_anchors(
    original: bytes, by_hand: frozenset[str] = frozenset(), tree: ast.Module | None = None
) -> tuple[list[Anchor], list[str]]:
    """The places for our blocks, and what is lacking where one of them is absent. Raises RefusedError."""
    tree = _parse(original, "app.py") if tree is None else tree
    lines = original.splitlines(keepends=True)
    anchors, absent, unclear, snippets = [], [], [], []
    for block, find in _FINDERS.items():
        if block in by_hand:
            continue
        try:
            anchors.append(find(tree, lines))
        except _AbsentError as error:
            absent.append(str(error))
        except RefusedError as error:
            unclear.append(str(error))
            snippets.append(snippet(block))
    if unclear or not (anchors or by_hand):
        advice = "insert what follows where it belongs, then install again; or: " if unclear else ""
        reason = f"{'; '.join(unclear or absent)}. app.py is unchanged; {advice}{COMMAND_LINE}"
        raise RefusedError(reason, tuple(snippets))
    consequence = {
        "supervise": "so there is no tab, and after a restart of FluxGym only the command line watches a training",
        "tab": "so FluxGym's trainings are not started by the watchdog, and the tab shows only what it sees",
    }
    given = anchors[0].block if anchors else min(by_hand)
    notes = [f"{reason}, {consequence[given]}; {COMMAND_LINE}" for reason in absent]
    stays = "stays where it was inserted by hand; an update that replaces app.py takes it out"
    return anchors, [*notes, *(f"the block '{block}' {stays}" for block in sorted(by_hand))]


def _after_import(tree: ast.Module, lines: list[bytes]) -> Anchor:
    found = [
        (suite, position, "LogsViewRunner" if alias.name == "*" else alias.asname or alias.name)
        for suite in _suites(tree)
        for position, statement in enumerate(suite)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.name == "LogsViewRunner" or (alias.name == "*" and statement.module == "gradio_logsview")
    ]
    if not found:
        imports = [s for suite in _suites(tree) for s in suite if isinstance(s, ast.Import)]
        names = [alias.name for statement in imports for alias in statement.names]
        seen = "; it imports the module gradio_logsview as a whole" if "gradio_logsview" in names else ""
        raise _AbsentError(f"app.py has no `from gradio_logsview import LogsViewRunner`{seen}")
    if len(found) > 1:
        at = ", ".join(str(suite[position].lineno) for suite, position, _ in found)
        raise RefusedError(f"app.py imports LogsViewRunner {len(found)} times (lines {at}): which counts is unclear")
    suite, position, name = found[0]
    return _anchor_after("supervise", suite, position, lines, what="the import of LogsViewRunner", name=name)


def _last_in_tabs(tree: ast.Module, lines: list[bytes]) -> Anchor:
    found = list(_outermost_tabs(tree))
    if not found:
        raise _AbsentError("app.py has no `with gr.Tabs():`")
    if len(found) != 1:
        at = ", ".join(str(node.lineno) for node in found)
        raise RefusedError(f"app.py has not one outermost `with gr.Tabs():` but {len(found)} (lines {at})")
    suite = found[0].body
    if not _makes_tabs(tree)(found[0].items[-1].context_expr):
        raise RefusedError(f"app.py line {found[0].lineno}: the `with` of gr.Tabs() opens more inside of it")
    if isinstance(suite[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break)):
        raise RefusedError(f"app.py line {suite[-1].lineno}: what comes after the last tab would never be reached")
    return _anchor_after("tab", suite, len(suite) - 1, lines, what="the last statement in gr.Tabs()")


_FINDERS: dict[str, Callable[[ast.Module, list[bytes]], Anchor]] = {"supervise": _after_import, "tab": _last_in_tabs}


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
    goes_on = start.lineno > 1 and lines[start.lineno - 2].rstrip(b"\r\n").endswith(b"\\")
    if goes_on or len(indent) != start.col_offset:  # both count bytes, and white space is one byte each
        raise RefusedError(f"app.py line {start.lineno}: {what} is on the same line as the statement around it")
    return Anchor(block, suite[last].end_lineno or start.lineno, indent, name)


def _suites(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """All lists of statements, each before those inside it. Expressions, which hold none, are not looked into."""
    for _, value in ast.iter_fields(tree):
        if isinstance(value, list) and value and isinstance(value[0], (ast.stmt, ast.ExceptHandler, ast.match_case)):
            if isinstance(value[0], ast.stmt):
                yield value
            for child in value:
                yield from _suites(child)


def _makes_tabs(tree: ast.Module) -> Callable[[ast.expr], bool]:
    """What tells whether an expression is gr.Tabs(), under whatever name it was imported."""
    modules, classes = set(), set()
    for statement in (statement for suite in _suites(tree) for statement in suite):
        if isinstance(statement, ast.Import):
            modules |= {alias.asname or alias.name for alias in statement.names if alias.name == "gradio"}
        elif isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "gradio":
            classes |= {alias.asname or "Tabs" for alias in statement.names if alias.name in ("Tabs", "*")}

    def makes_tabs(expression: ast.expr) -> bool:
        function = expression.func if isinstance(expression, ast.Call) else None
        if isinstance(function, ast.Attribute):
            return function.attr == "Tabs" and isinstance(function.value, ast.Name) and function.value.id in modules
        return isinstance(function, ast.Name) and function.id in classes

    return makes_tabs


def _outermost_tabs(tree: ast.Module) -> Iterator[ast.With | ast.AsyncWith]:
    makes_tabs = _makes_tabs(tree)
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop(0)
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(makes_tabs(item.context_expr) for item in node.items):
            yield node
        else:
            pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def _verify(original: bytes, tree: ast.Module, patched: bytes, by_hand: frozenset[str]) -> None:
    """Taking out the blocks that were put in gives the original, as bytes and as a tree, and the result compiles."""
    blocks = [block for block in _find_blocks(patched) if block.name not in by_hand]
    after = _parse(patched, "app.py with the blocks inserted")
    for suite in _suites(after):
        suite[:] = [s for s in suite if not any(block.first_line <= s.lineno <= block.last_line for block in blocks)]
    if unpatch(patched, but=by_hand) != original or ast.dump(after) != ast.dump(tree):
        reason = f"app.py: the blocks would change more than they should. app.py is unchanged; {COMMAND_LINE}"
        raise RefusedError(reason, tuple(map(snippet, _SNIPPETS)))


def _parse(source: bytes, what: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            compile(tree, "app.py", "exec", dont_inherit=True)  # finds what the syntax alone allows
            return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if re.search(rb"^<{7} .*^>{7} ", source, re.MULTILINE | re.DOTALL):
            reason = f"{what} has a merge conflict in it; resolve it, then run install.py --repair"
            raise RefusedError(reason) from error
        version = sys.version.split()[0]
        reason = f"{what} is not valid Python for the Python {version} that runs install.py: {error}"
        raise RefusedError(f"{reason}. app.py is unchanged; {COMMAND_LINE}", tuple(map(snippet, _SNIPPETS))) from error


# Blocks: what we add to a file, between markers ---------------------------------------------------

BEGIN = b"# >>> fluxgym-watchdog: "
_SECTION = b'[filter "fluxgym-watchdog"]'
_MARKER = re.compile(
    rb"(?:[ \t\f]*|"
    + re.escape(_SECTION)
    + rb" )# (?:>>> fluxgym-watchdog: ([a-z-]+)(?: \((newline|file) added\))? >>>"
    rb"|<<< fluxgym-watchdog: ([a-z-]+)(?: ([0-9a-f]{8}))? <<<)[ \t]*"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One of our blocks in a file: the bytes from `start` to `end` are what was inserted.

    `added` names what was made for it: "newline" for the line break before it, "file" for the whole file. A line break
    that was made goes with the block, but for one that a line added later by others needs before it.
    """

    name: str
    start: int
    end: int
    first_line: int
    last_line: int
    added: str
    edited: bool


def _find_blocks(source: bytes, file: str = "app.py") -> list[Block]:
    """Raises RefusedError where a marker stands without its partner."""
    blocks: list[Block] = []
    lines = source.splitlines(keepends=True)
    begun: tuple[str, int, int, str] | None = None
    offset, ending_before = 0, b""
    for number, line in enumerate(lines, 1):
        ending = _line_ending(line)
        marker = _MARKER.fullmatch(line.removesuffix(ending))
        if marker and (marker[1] is not None) == (begun is not None):
            break
        if marker and begun is None:
            added = (marker[2] or b"").decode()
            begun = (marker[1].decode(), offset - len(ending_before) * (added == "newline"), number, added)
        elif marker and begun is not None:
            name, start, first, added = begun
            if name != marker[3].decode():
                break
            followed = number < len(lines)
            end = offset + len(line) - len(ending) * (added == "newline" and followed)
            inner = lines[first : number - 1]
            edited = marker[4] != _checksum(inner) if marker[4] else not _is_as_given(name, inner)
            blocks.append(Block(name, start, end, first, number, added, edited))
            begun = None
        offset, ending_before = offset + len(line), ending
    else:
        if begun is None:
            return blocks
    first_line = begun[2] if begun else number  # the block that has no end, not the sound one after it
    raise RefusedError(
        f"{file} line {first_line}: a fluxgym-watchdog marker (# >>> or # <<<) without its partner; "
        "delete what is left of that block by hand, then try again"
    )


def _check_unedited(block: Block, file: str, *, edited_too: bool) -> None:
    if block.edited and not edited_too:
        raise RefusedError(
            f"{file} line {block.first_line}: the fluxgym-watchdog block '{block.name}' was edited by hand. Move what "
            "is yours out of it, have --repair put it back as it was (the edited file is kept beside it), or delete it"
        )


def _frame(name: str, inner: list[bytes], *, indent: bytes = b"", added: str = "") -> list[bytes]:
    """The lines of a block, without their ends: the closing marker holds a checksum of what is between.

    In git's configuration the opening marker stands on the line of our section: a comment above it would belong to the
    section before, and be deleted with that.
    """
    note = f" ({added} added)" if added else ""
    opening, closing = f"# >>> fluxgym-watchdog: {name}{note} >>>", f"# <<< fluxgym-watchdog: {name} "
    before = _SECTION + b" " if name == "git-config" else indent
    return [before + opening.encode(), *inner, indent + closing.encode() + _checksum(inner) + b" <<<"]


def _is_as_given(name: str, inner: list[bytes]) -> bool:
    """Whether a block without a checksum, which somebody inserted by hand, is the one that he was given.

    For "LogsViewRunner" he may have put another name.
    """
    try:
        given = _inner(_SNIPPETS[name]).encode().splitlines()
    except KeyError:
        return True  # another version's
    bound = re.compile(rb"^(\s*)\w+( = _fluxgym_watchdog_supervise\()\w+\)", re.MULTILINE)
    one, other = (_checksum([bound.sub(rb"\1R\2R)", line) for line in lines]) for lines in (given, inner))
    return one == other


def _checksum(lines: list[bytes]) -> bytes:
    """Of what stands there, however it is indented and its lines end: an editor may change that by itself."""
    return b"%08x" % zlib.crc32(b"\n".join(line.strip() for line in lines if line.strip()))


def _add_block(source: bytes | None, name: str, text: str, file: str, *, edited_too: bool = False) -> bytes:
    """A file of lines (None: not there yet) with the block at its end, or renewed where it is. Raises RefusedError."""
    found = [block for block in _find_blocks(source or b"", file) if block.name == name]
    start = end = len(source or b"")
    added = "file" if source is None else "newline" if source and not _line_ending(source[-2:]) else ""
    if found:
        _check_unedited(found[0], file, edited_too=edited_too)
        start, end, added = found[0].start, found[0].end, found[0].added
    source = source or b""
    first = source.splitlines(keepends=True)[:1]
    ending = (_line_ending(first[0]) if first else b"") or b"\n"
    framed = ending.join(_frame(name, os.fsencode(text).splitlines(), added=added))
    if added == "newline":
        framed = ending + framed
    if added != "newline" or end == len(source):  # else the next line's break is there
        framed += ending
    return source[:start] + framed + source[end:]


def _without_blocks(source: bytes, file: str) -> bytes | None:
    """As unpatch(); None where nothing is left of a file that was made for a block."""
    ours = any(block.added == "file" for block in _find_blocks(source, file))
    rest = unpatch(source, file=file)
    return None if ours and not rest else rest


def _line_ending(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]


# requirements.txt: the environment is deleted by Pinokio's update, and made again from this file ---


def patch_requirements(source: bytes, *, edited_too: bool = False) -> bytes:
    """`source` with what the watchdog needs beyond FluxGym, unless it is named there already."""
    original = unpatch(source, edited_too=edited_too, file="requirements.txt")
    named = re.search(rb"(?im)^[ \t]*nvidia[-_.]ml[-_.]py\b(?![-_.])", original)
    strict = re.search(
        rb"(?m)(?:^|\s)--(?:hash|require-hashes|no-index)\b", original
    )  # one line without would fail all
    if named or strict or b"\0" in original or original.rstrip().endswith(b"\\"):  # UTF-16; a line that goes on
        return original
    return _add_block(original, "requirements", _inner("requirements.txt"), "requirements.txt")


# git: a clean/smudge filter, so that it sees FluxGym's files as they were --------------------------

FILTER = "fluxgym-watchdog"
_FILTERED = {"app.py": patch, "requirements.txt": patch_requirements}


@dataclasses.dataclass(frozen=True, slots=True)
class Local:
    """Where git keeps what is local: `shared` is .git, or what linked work trees have in common, `top` their top."""

    top: Path
    shared: Path

    @property
    def config(self) -> Path:
        return self.shared / "config"

    @property
    def attributes(self) -> Path:
        return self.shared / "info" / "attributes"

    @property
    def exclude(self) -> Path:
        return self.shared / "info" / "exclude"

    @property
    def program(self) -> Path:
        """What the filter runs: no branch can put a file there, and it outlives the package. See patches/git_config."""
        return self.shared / FILTER / "filter.py"


@dataclasses.dataclass(frozen=True, slots=True)
class Repository:
    """The git work tree around a FluxGym folder; `prefix` is the way from its top to the folder, "" or ending in /."""

    git: str
    local: Local
    prefix: str
    filtered: tuple[str, ...]
    """The files that git has as they were without us, and that the filter is for; app.py first."""
    committed: tuple[str, ...]
    """The files that git itself has with blocks of ours in them."""


def filter_for_git(direction: str = "", path: str = "", *_: str) -> int:
    """Called by git with a file on the standard input. On an error it takes the file as it is: `required` is off."""
    content, reason = filtered(direction, path.rpartition("/")[2], sys.stdin.buffer.read())
    if reason:
        print(f"FluxGym Watchdog leaves {path} as it is: {reason}", file=sys.stderr)
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return 0


def filtered(direction: str, name: str, content: bytes) -> tuple[bytes, str]:
    """A file on its way into git (`clean`: without our blocks) or out of it (`smudge`: with them).

    What is not understood passes unchanged, and the reason comes with it.
    """
    try:
        if direction == "clean":
            return unpatch(content, file=name), ""
        if direction == "smudge" and name in _FILTERED and not _find_blocks(content, name):
            return _FILTERED[name](content), ""
    except (
        RefusedError
    ) as refused:  # of an edited block too: then git sees both, or smudge could not tell what is lacking
        return content, str(refused)
    except RecursionError:
        return content, f"{name} is nested too deeply"
    return content, ""


def _find_local(folder: Path) -> Local | None:
    """Found without git, which need not be there for what is ours to be taken out; None where there is no work tree."""
    for top in (folder.resolve(), *folder.resolve().parents):
        found = top / ".git"
        if found.is_file():  # a linked work tree or a submodule: it names the place
            named = os.fsdecode(found.read_bytes()).removeprefix("gitdir:").strip()
            found = top / named
        if (found / "HEAD").is_file():
            common = found / "commondir"
            shared = found / os.fsdecode(common.read_bytes()).strip() if common.is_file() else found
            return Local(top, shared.resolve())
    return None


def _find_repository(folder: Path) -> Repository | None:
    """None where git has none of the files here. Raises RefusedError where there is a work tree but git says no."""
    real, local = folder.resolve(), _find_local(folder)
    if local is None:
        return None
    git = shutil.which("git")
    if git is None:
        raise RefusedError(
            f"{real}: is under git, but no git was found on the PATH. Put the one there that updates FluxGym (Pinokio "
            "and StabilityMatrix bring their own), or install git"
        )
    told = _git(git, real, "rev-parse", "--show-prefix")
    if told.returncode:
        reason = _on_one_line(told.stderr)
        if "not a git repository" in reason:
            return None
        hint = ". Run install.py as the user who owns the folder" if "ownership" in reason else ""
        raise RefusedError(f"{real}: git refuses: {reason}{hint}")
    prefix = os.fsdecode(told.stdout).removesuffix("\n")
    if "\n" in prefix:
        raise RefusedError(f"{real}: a name with a line break in it cannot stand in git's attributes")
    staged = _git(git, real, "ls-files", "-s", "-z", "--", *_FILTERED).stdout.split(b"\0")
    modes = {os.fsdecode(name): mode for mode, _, name in (entry.partition(b"\t") for entry in staged)}
    names = [name for name in _FILTERED if modes.get(name, b"120000")[:6] != b"120000"]  # git filters no links
    if not names:
        return None
    committed = tuple(name for name in names if BEGIN in _git(git, real, "cat-file", "blob", f":./{name}").stdout)
    return Repository(git, local, prefix, tuple(name for name in names if name not in committed), committed)


def _repository_for_filter(folder: Path) -> Repository | None:
    """As _find_repository(); raises RefusedError too where another filter has one of the files."""
    try:
        repository = _find_repository(folder)
        if repository is not None:
            others = _git(repository.git, folder, "check-attr", "-z", "filter", "--", *repository.filtered).stdout
            for name, value in zip(others.split(b"\0")[::3], others.split(b"\0")[2::3], strict=False):
                if value not in (b"unspecified", b"unset", FILTER.encode()):
                    filter_, path = os.fsdecode(value), folder / os.fsdecode(name)
                    reason = f"goes through the git filter '{filter_}' already, and git takes one filter a file"
                    raise RefusedError(f"{path}: {reason}")
    except RefusedError as refused:
        raise RefusedError(f"{refused}. Or add --no-git, which leaves git's settings as they are") from refused
    return repository


def _git_setup(repository: Repository, folder: Path, *, edited_too: bool) -> list[Edit]:
    """The changes to git's local files. Raises RefusedError where there is no Python for the filter."""
    local = repository.local
    names = {local.exclude: "git_exclude"}
    words = {"FOLDER": _for_pattern(repository.prefix)}
    if repository.filtered:
        names |= {local.attributes: "git_attributes", local.config: "git_config"}
        words["PYTHON"] = _for_shell(_lasting_python(folder))
        words["PROGRAM"] = f"{FILTER}/{local.program.name}"
        words["PACKAGE"] = _for_shell(f"{repository.prefix}{PACKAGE}/__init__.py")
    edits = []
    for path, name in names.items():
        before = _content(path)
        text = _inner(name)
        if name == "git_attributes":
            quoted = words["FOLDER"].replace("\\", "\\\\").replace('"', '\\"')
            lines = [line for line in text.split("\n") if any(f'@{file}"' in line for file in repository.filtered)]
            text = "\n".join(lines).replace("@FOLDER@", quoted)
            _check_alone(path, before or b"", quoted)
        else:
            text = re.sub("@([A-Z]+)@", lambda word: words[word[1]], text)
        after = _add_block(before, name.replace("_", "-"), text, path.name, edited_too=edited_too)
        edits.append(Edit(path, before, after))
    return edits


def _for_shell(word: str) -> str:
    """Quoted for sh, with git's own %, inside a string of .git/config."""
    return shlex.quote(word.replace("%", "%%")).replace("\\", "\\\\").replace('"', '\\"')


def _for_pattern(path: str) -> str:
    return re.sub(r"([\\*?\[\]])", r"\\\1", path)


def _check_alone(path: Path, before: bytes, quoted: str) -> None:
    """One folder of a repository can have the filter."""
    ours = os.fsencode(f'"/{quoted}app.py" filter={FILTER}')
    if b'app.py" filter=' + FILTER.encode() in before and ours not in before.splitlines():
        raise RefusedError(
            f"{path}: FluxGym Watchdog is installed for another folder of this repository. Or add --no-git"
        )


def _lasting_python(folder: Path) -> str:
    """A Python 3.10 or newer that is still there when FluxGym's own environment is deleted. Raises RefusedError."""
    named = [shutil.which(f"python3{minor}") for minor in ("", ".13", ".12", ".11", ".10")]
    for python in filter(None, [*_base_pythons(), *named, shutil.which("python")]):
        inside = any(folder.resolve() in place.parents for place in (Path(python), Path(python).resolve()))
        check = [python, "-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
        if not inside and _succeeds(check):
            return Path(python).as_posix()
    raise RefusedError(
        f"git's filter needs a Python 3.10 or newer outside of {folder}, whose own is deleted by updates; none "
        "was found. Install one, or add --no-git"
    )


def _base_pythons() -> list[str]:
    """The Python that the running one is an environment of, under the names that it may have; else the running one."""
    if sys.prefix == sys.base_prefix:
        return [sys.executable]
    names = ["python.exe"] if os.name == "nt" else ["bin/python3", f"bin/python3.{sys.version_info[1]}"]
    return [str(path) for name in names if (path := Path(sys.base_prefix, name)).is_file()]


def _survival(folder: Path, app: Path, repository: Repository | None) -> str:
    """Whether the blocks are in app.py again after an update, in words."""
    if by_hand := sorted(_without_ours(app.read_bytes(), edited_too=True)[1]):
        return f"not survived by {' and '.join(by_hand)}, inserted by hand, when an update replaces app.py"
    if repository is not None and "app.py" in repository.committed:
        return "survived, as the blocks are in git's own app.py (staged or committed)"
    if repository is None or "app.py" not in repository.filtered:
        why = f"app.py is a link to {app.resolve()}" if app.is_symlink() else "git has no app.py here"
        return f"not survived by themselves, as {why}; after an update that replaces app.py, run install.py again"
    trouble = _update_trouble(repository, folder)
    return f"may stop at app.py: {trouble}" if trouble else "survived, through git's filter (tried just now)"


def _update_trouble(repository: Repository, folder: Path) -> str:
    """Why git would stop an update at app.py, or lose the blocks; "" if it would do neither."""
    if "app.py" in repository.filtered and (trouble := _filter_trouble(repository, folder)):
        return trouble
    stale = _taken_as_changed(repository, folder)
    return f"it takes {' and '.join(stale)} as changed by you" if stale else ""


def _filter_trouble(repository: Repository, folder: Path) -> str:
    """What is wrong with the filter, by having git use it both ways; "" if nothing is."""
    value = _git(repository.git, folder, "check-attr", "-z", "filter", "--", "app.py").stdout.split(b"\0")[2:3]
    if value not in ([FILTER.encode()], [b"unspecified"], [b"unset"]):
        return f"app.py goes through another filter, {_text(b''.join(value))}"
    if value != [FILTER.encode()]:
        return "its filter is not set up"
    smudged = _git(repository.git, folder, "cat-file", "--filters", ":./app.py")
    staged = _git(repository.git, folder, "rev-parse", ":./app.py").stdout
    cleaned = _git(repository.git, folder, "hash-object", "--stdin", "--path=app.py", given=smudged.stdout)
    if BEGIN not in smudged.stdout:
        return f"the filter gives app.py without the blocks. {_text(smudged.stderr)}".rstrip(". ")
    return "" if cleaned.stdout == staged else f"the filter does not give back git's app.py. {_text(cleaned.stderr)}"


def _refresh(repository: Repository, folder: Path) -> str:
    """Has git note the files as they lie there now, where it says itself that they are what it has.

    A file of another size counts as changed before any filter is asked. Nothing that the user changed is staged.
    Returns git's reason where it does not.
    """
    names = _taken_as_changed(repository, folder)
    told = _git(repository.git, folder, "update-index", "--", *names) if names else None
    return f"git says: {_on_one_line(told.stderr)}" if told is not None and told.returncode else ""


def _refresh_after_removal(folder: Path, command: str = "install.py --uninstall") -> None:
    try:
        repository = _find_repository(folder)
    except RefusedError as refused:
        again = f"When that is mended, {command} once more tells it"
        print(f"Note: git may go on taking app.py and requirements.txt as changed. {refused}. {again}")
        return
    if repository is not None:
        reason = _refresh(repository, folder)
        if stale := _taken_as_changed(repository, folder):
            ends = f"{reason}; " if reason else ""
            print(f"Note: git goes on taking {' and '.join(stale)} as changed; {ends}`git checkout` of them ends that")


def _taken_as_changed(repository: Repository, folder: Path) -> list[str]:
    """The files that git status names as changed, and that are for git what it has."""
    asked = ["status", "--porcelain", "-z", "--untracked-files=no", "--", *repository.filtered]
    listed = _git(repository.git, folder, *asked).stdout.split(b"\0") if repository.filtered else []
    names = [os.fsdecode(entry[3:]).removeprefix(repository.prefix) for entry in listed if entry[1:2] == b"M"]
    return [name for name in names if (folder / name).is_file() and _is_as_staged(repository, folder, name)]


def _is_as_staged(repository: Repository, folder: Path, name: str) -> bool:
    given = (folder / name).read_bytes()
    cleaned = _git(repository.git, folder, "hash-object", "--stdin", f"--path={name}", given=given)
    return cleaned.stdout == _git(repository.git, folder, "rev-parse", f":./{name}").stdout != b""


def _other_worktrees_use(local: Local, folder: Path) -> bool:
    """Work trees of one repository share its configuration."""
    linked = [path.parent / os.fsdecode(path.read_bytes()).strip() for path in local.shared.glob("worktrees/*/gitdir")]
    tops = {place.parent.resolve() for place in (local.shared, *linked)} - {local.top}
    return any(_read_record(top / folder.resolve().relative_to(local.top) / PACKAGE) for top in tops)


def _git(git: str, folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
    variables = {name: value for name, value in os.environ.items() if name not in elsewhere}
    variables |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}  # looking writes nothing
    command = [git, "-c", "core.safecrlf=false", *arguments]  # a warning of line endings would be an error here
    return subprocess.run(command, cwd=folder, env=variables, input=given, capture_output=True, check=False)


# FluxGym's Python ---------------------------------------------------------------------------------

_VERSIONS = """\
import importlib.metadata as metadata, json, sys
found = {}
for d in metadata.distributions():  # in the order of the path: of two copies the first is the one that is imported
    found.setdefault((d.metadata["Name"] or "").lower().replace("_", "-"), d.version)
found["python"] = sys.version.split()[0]
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """What is to be done about NEEDED: installed into FluxGym's `python` if that is given, else nothing."""

    python: Path | None
    text: str


def _choose_package(folder: Path, named: Path | None) -> Package:
    """Decides by pip's dry run. Raises RefusedError where pip would change anything that FluxGym has."""
    python = _fluxgym_python(folder, named)
    without = "without it the GPU is read through nvidia-smi"
    if sys.platform == "darwin":
        return Package(None, "no NVIDIA GPU on macOS")
    if python is None:
        return Package(None, f"FluxGym's Python was not found in {folder} (--python names it); {without}")
    present = _versions(python)
    if not present:
        return Package(None, f"{python} does not run; {without}")
    if not _at_least(present["python"], 3, 10):
        reason = f"{python}: is Python {present['python']}, and FluxGym Watchdog needs 3.10 or newer"
        raise RefusedError(f"{reason}. --python names another one; --no-packages does not look")
    if NEEDED in present:
        return Package(None, f"{NEEDED} {present[NEEDED]} is in FluxGym's Python")
    if hasattr(os, "geteuid") and (owner := python.parent.stat().st_uid) != os.geteuid():
        return Package(None, f"{NEEDED} is not installed, as {python} belongs to user {owner}; {without}")
    command = [*_pip(python, present), "install", "--dry-run", "--report", "-", *_PIP_OPTIONS, NEEDED]
    tried = _run(command, PIP_LIMIT_S)
    planned: dict[str, str] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        report = json.loads(tried.stdout)
        found = [item["metadata"] for item in report["install"]]
        planned = {fact["name"].lower().replace("_", "-"): fact["version"] for fact in found}
    if tried.returncode or NEEDED not in planned:
        return Package(None, f"{NEEDED} cannot be installed ({_pips_reason(tried.stderr)}); {without}")
    changed = [f"{name} {present[name]} to {new}" for name, new in planned.items() if name in present]
    if changed:
        what = ", ".join(changed)
        reason = f"{python}: installing {NEEDED} would change what FluxGym has ({what})"
        raise RefusedError(f"{reason}. Nothing was done; --no-packages installs without it, and {without}")
    names = ", ".join(f"{name} {new}" for name, new in planned.items())
    return Package(python, f"{names} put into {python} by pip, whose dry run says that nothing else changes")


_PIP_OPTIONS = ("--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "15")


def _install_package(choice: Package, folder: Path) -> None:
    if choice.python is None:
        return
    print(f"Installing {NEEDED} ...", flush=True)
    command = [*_pip(choice.python, _versions(choice.python)), "install", *_PIP_OPTIONS, NEEDED]
    done = _run(command, PIP_LIMIT_S)
    if done.returncode:
        print(f"Note: pip failed ({_pips_reason(done.stderr)}); the GPU is read through nvidia-smi")
        return
    _renew_record(folder / PACKAGE, {"installed_packages": [NEEDED]})


def _pip(python: Path, present: dict[str, str]) -> list[str]:
    """The pip of FluxGym's Python; where it has none, as uv makes environments, that of the Python behind this one."""
    if "pip" in present:
        return [str(python), "-m", "pip"]
    return [(_base_pythons() or [sys.executable])[0], "-I", "-m", "pip", "--python", str(python)]


def _pips_reason(stderr: bytes) -> str:
    lines = _text(stderr).splitlines() or ["it gave no reason"]
    errors = [line for line in lines if line.lower().startswith("error")]
    return _without_secrets((errors or lines)[-1])


def _fluxgym_python(folder: Path, named: Path | None = None) -> Path | None:
    """The Python that runs FluxGym: the one named, now or at the install, that of FluxGym's environment, or this one if
    it has FluxGym's parts."""
    if named is not None:
        if not named.is_file():
            raise RefusedError(f"{named}: not found; --python names the Python that runs FluxGym")
        return named.absolute()
    before = _read_record(folder / PACKAGE).get("python")  # relative where it lies inside: the folder may be a copy
    if isinstance(before, str) and (folder / before).is_file():
        return folder / before
    for name in ("env", "venv", ".venv"):
        for program in ("bin/python", "Scripts/python.exe", "python.exe"):  # the last: conda on Windows
            if (folder / name / program).is_file():
                return folder / name / program
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("gradio_logsview")
        return Path(sys.executable)
    return None


def _versions(python: Path) -> dict[str, str]:
    """The versions of what a Python has installed, by name, and its own as "python"; nothing if it does not run."""
    try:
        told = _run([str(python), "-B", "-c", _VERSIONS])
        versions: dict[str, str] = json.loads(told.stdout)
    except (OSError, ValueError):
        return {}
    return versions


def _requirements_edit(folder: Path, repository: Repository | None, *, wanted: bool, edited_too: bool) -> list[Edit]:
    path = folder / "requirements.txt"
    if path.is_symlink() or not path.is_file() or (repository is not None and path.name in repository.committed):
        return []
    before = path.read_bytes()
    change = patch_requirements if wanted else partial(unpatch, file=path.name)
    after = change(before, edited_too=edited_too)
    return [Edit(path, before, after)] if wanted or after != before else []


def _gpu_reading(folder: Path, named: Path | None) -> str:
    python = _fluxgym_python(folder, named)
    if python is None:
        return "read through nvidia-ml-py where FluxGym's Python has it, else through nvidia-smi"
    if NEEDED in _versions(python):
        return "read through nvidia-ml-py"
    return f"read through nvidia-smi ({python} has no nvidia-ml-py)"


# The doctor: what is known to keep trainings from being watched or resumed ------------------------


def print_doctor(folder: Path | None, *, python: Path | None = None) -> None:
    """Each line says whether something is fine ("ok"), worth knowing ("note") or in the way ("bad"), and what to do."""
    folder, app = _find_app(folder)
    print(f"FluxGym in {folder}")
    bad = 0
    for mark, what in _diagnose(folder, app, python):
        bad += mark == "bad"
        print(f"  {mark:<5}{_without_secrets(what)}")
    print("Nothing stands in the way." if not bad else f"{bad} in the way; what to do stands beside it.")


def _diagnose(folder: Path, app: Path, named: Path | None) -> Iterator[tuple[str, str]]:
    python = _fluxgym_python(folder, named)
    versions = _versions(python) if python is not None else {}
    yield "ok", f"this Python is {sys.version.split()[0]} ({sys.executable})"
    if not versions:
        place = f"{python} does not run" if python else f"was not found in {folder}; --python names it"
        yield "note", f"FluxGym's Python {place}: its packages are not looked at"
    else:
        yield from _judge_versions(python, versions)
    yield from _judge_gpu(python, versions)
    yield from _judge_disk(folder)
    yield from _judge_reach(app)
    yield from _judge_install(folder, app)


def _judge_install(folder: Path, app: Path) -> Iterator[tuple[str, str]]:
    try:
        if not _is_installed(folder, app):
            yield "note", "FluxGym Watchdog is not installed here"
            return
        faults, survival = _condition(folder, app)
        for fault in faults:
            yield "bad", f"{fault} (--repair puts it right)"
        yield "ok" if survival.startswith("survived") else "note", f"updates of FluxGym: {survival}"
    except RefusedError as refused:
        yield "bad", str(refused)


REINSTALL = "install FluxGym's requirements again, or name its Python with --python"


def _judge_versions(python: Path | None, versions: dict[str, str]) -> Iterator[tuple[str, str]]:
    own = versions["python"]
    text = f"FluxGym's Python is {own} ({python})"
    yield ("ok", text) if _at_least(own, 3, 10) else ("bad", f"{text}: 3.10 is needed")
    for name in ("numpy", "psutil", "pyyaml"):
        if name not in versions:
            yield "bad", f"{name} is missing there, and the watchdog needs it: {python} -m pip install {name}"
    gradio = versions.get("gradio")
    if gradio is None:
        yield "bad", f"gradio is missing there, and so FluxGym cannot start: {REINSTALL}"
    elif not _at_least(gradio, 5, 44):
        yield "ok", f"Gradio is {gradio}"
    elif not _at_least(gradio, 6):
        yield "bad", f"Gradio is {gradio}: FluxGym's Start button does not work from 5.44 on; it wants 4.44.1"
    else:
        yield "bad", f"Gradio is {gradio}: FluxGym's own page does not start on Gradio 6; it wants 4.44.1"
    if gradio and not _at_least(gradio, 5) and _at_least(versions.get("starlette", "0"), 1):
        starlette = versions["starlette"]
        yield "bad", f"starlette is {starlette}: Gradio {gradio} does not start with it; FluxGym pins 0.50.0"
    if "pynvml" in versions and not _at_least(versions["pynvml"], 12):
        yield "note", f"the retired package pynvml hides NVIDIA's own there: {python} -m pip uninstall pynvml"
    accelerate, torch = versions.get("accelerate"), versions.get("torch")
    if accelerate is None or torch is None:
        missing = " and ".join(name for name in ("accelerate", "torch") if name not in versions)
        yield "bad", f"{missing} missing there, and so nothing can be trained: {REINSTALL}"
    elif _at_least(accelerate, 0, 32) and not _at_least(accelerate, 0, 34) and _at_least(torch, 2, 6):
        trouble = f"accelerate {accelerate} with torch {torch}: a resume by hand dies with KeyError: 'step'"
        yield "note", f"{trouble}; the watchdog's does not, as it sets what helps. To update accelerate is better"
    elif not _at_least(accelerate, 1, 1) and _at_least(torch, 2, 6):
        trouble = f"accelerate {accelerate} with torch {torch}: a resume by hand leaves the random state behind"
        yield "note", f"{trouble}; the watchdog's does not, as it sets what helps. To update accelerate is better"
    else:
        yield "ok", f"accelerate {accelerate} with torch {torch} resumes, as far as is known"


def _judge_gpu(python: Path | None, versions: dict[str, str]) -> Iterator[tuple[str, str]]:
    if python is not None and NEEDED in versions:
        probe = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetCount(), n.nvmlSystemGetDriverVersion())"
        told = _run([str(python), "-c", probe])
        if told.returncode == 0:
            count, _, driver = _text(told.stdout).partition(" ")
            yield "ok", f"NVIDIA's driver library answers: {count} GPU(s), driver {driver}"
            return
        last = _text(told.stderr).splitlines()[-1:]
        yield "note", f"NVIDIA's driver library does not answer: {''.join(last)}"
    else:
        found = f"{NEEDED} is not there" if versions else f"{NEEDED} was not looked for"
        yield "note", f"{found}: without it the GPU is read through nvidia-smi"
    smi = shutil.which("nvidia-smi")
    if smi is not None and _succeeds([smi, "-L"]):
        yield "ok", "nvidia-smi answers"
    else:
        found = "answers with an error, or not at all," if smi else "is not on the PATH"
        advice = (
            "install NVIDIA's driver, or give the container the GPU; until then trainings are watched by progress alone"
        )
        yield "bad", f"nvidia-smi {found} either, so no GPU can be seen: {advice}"


CONTAINER_MARK = Path("/.dockerenv")
LOCAL = ("127.0.0.1", "localhost", "::1")
NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "beegfs", "afs"))


def _judge_disk(folder: Path) -> Iterator[tuple[str, str]]:
    outputs = folder / "outputs" if (folder / "outputs").is_dir() else folder
    free_gb = shutil.disk_usage(outputs).free / 1e9
    text = f"{free_gb:.0f} GB are free for {outputs}; a saved state takes 0.1 to 0.3 GB, two are kept"
    yield "bad" if free_gb < 2 else "note" if free_gb < 10 else "ok", text
    kind = _file_system(outputs.resolve())
    if kind in NETWORK or (kind.startswith("fuse") and kind not in ("fuseblk", "fuse.fuseblk")):
        text = (
            f"{outputs} is on a network file system ({kind}), as far as can be told: when it stalls the training does"
        )
        yield "note", f"{text}, and is told so. A quota there is not seen"
    else:
        yield "ok", f"{outputs} is on a local file system" + (f" ({kind})" if kind else "")


def _file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a path is on, as the kernel names it; "" where that cannot be told."""
    if os.name == "nt":
        import ctypes  # noqa: PLC0415 - `windll` exists on Windows alone

        drive = path.drive if path.drive.startswith("\\\\") else path.drive + "\\"
        remote = drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive) == 4  # type: ignore[attr-defined,unused-ignore]
        return "smbfs" if remote else ""
    best, kind = -1, ""
    with contextlib.suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").splitlines():
            own, _, rest = line.partition(" - ")
            place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), own.split()[4]))
            depth = len(place.parts)
            if (place == path or place in path.parents) and depth >= best:  # of two on one place the later one is seen
                best, kind = depth, rest.split()[0]
    return kind


def _judge_reach(app: Path) -> Iterator[tuple[str, str]]:
    """FluxGym has no login, and serves every file of its folder to whoever reaches its page."""
    ways = []
    with contextlib.suppress(RefusedError):
        for node in ast.walk(_parse(app.read_bytes(), "app.py")):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch":
                given = {k.arg: k.value for k in node.keywords if k.arg in ("share", "server_name")}
                for argument, value in given.items():
                    constant = value.value if isinstance(value, ast.Constant) else value
                    if constant not in (None, False, *LOCAL):  # what is no constant may be anything
                        ways.append(f"app.py launches with {argument}={ast.unparse(value)}")
    served = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    ways += [f"GRADIO_SERVER_NAME is {served}"] if served not in LOCAL else []
    ways += ["GRADIO_SHARE is set"] if os.environ.get("GRADIO_SHARE", "").lower() == "true" else []
    ways += ["this is a container, whose image of FluxGym listens on 0.0.0.0"] if CONTAINER_MARK.exists() else []
    if ways:
        advice = "anybody who reaches the page can start and stop trainings and read the folder's files, HF_TOKEN too"
        yield "note", f"reachable from outside ({'; '.join(ways)}): {advice}"
    else:
        yield "ok", "FluxGym listens on this machine alone, as far as app.py and the environment say"


def _at_least(version: str, *least: int) -> bool:
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(least)]) >= least


# Files and folders --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """A file that is to become `after`; None: it is not there."""

    path: Path
    before: bytes | None
    after: bytes | None


def _find_app(folder: Path | None, *, app_needed: bool = True) -> tuple[Path, Path]:
    """FluxGym's folder and its app.py: in `folder` (or the usual place), else in the nearest one around it.

    Where we are installed is FluxGym's folder, whatever has become of app.py. Raises RefusedError.
    """
    given = (_usual_place() if folder is None else folder).expanduser().absolute()
    if given.name == "app.py" and given.is_file():
        given = given.parent
    if folder is not None and (given / "app.py").is_file():  # named by the user
        return given, given / "app.py"
    around = _fluxgym_around(given)
    if around is None or (app_needed and not (around / "app.py").is_file()):
        below = next((child for child in given.glob("*/") if _is_fluxgym(child)), None)
        hint = f", as {below}" if below else ""
        raise RefusedError(
            f"{(around or given) / 'app.py'}: not found; give the folder in which FluxGym's app.py lies{hint}"
        )
    return around, around / "app.py"


def _usual_place() -> Path:
    """The current folder; where that is in no FluxGym, the one that a copy of this file lies in."""
    return HERE if _fluxgym_around(Path.cwd()) is None and _read_record(HERE) else Path.cwd()


def _fluxgym_around(place: Path) -> Path | None:
    return next((folder for folder in (place, *place.parents) if _is_fluxgym(folder)), None)


def _is_fluxgym(folder: Path) -> bool:
    """Whether we are installed there, or its app.py names what FluxGym trains with."""
    if _read_record(folder / PACKAGE):
        return True
    with contextlib.suppress(OSError):
        text = (folder / "app.py").read_bytes() if (folder / "app.py").is_file() else b""
        return b"gradio" in text and re.search(rb"LogsViewRunner|sd-scripts|flux_train_network", text) is not None
    return False


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One installer at a time in a folder; the operating system lets go when this process ends, however it does."""
    busy = RefusedError(f"{folder}: another install.py is at work here; wait for it to end")
    if os.name == "nt":
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0)  # gone when it is closed
        try:
            handle = os.open(folder / f"{TEMPORARY}lock", flags)
        except (FileExistsError, PermissionError):
            raise busy from None
    else:
        import fcntl  # noqa: PLC0415 - exists on POSIX alone

        handle = os.open(folder, os.O_RDONLY)  # no file that could be left behind
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise busy from None
        except OSError:
            pass  # a network file system without locks: each file is still replaced whole, and only if it is as it was
    try:
        yield
    finally:
        os.close(handle)


def _apply(edits: list[Edit]) -> None:
    """Makes the changes in order; if one fails, those before it are taken back, and its error is raised.

    What cannot be taken back is named.
    """
    begun: list[Edit] = []
    try:
        for edit in edits:
            if edit.after != edit.before:
                begun.append(edit)
                _change_file(edit)
    except BaseException:  # Ctrl+C too; a second one must not end the taking back half-way
        with _undisturbed():
            for edit in reversed(begun):
                try:
                    if _content(edit.path) != edit.before:
                        _change_file(Edit(edit.path, edit.after, edit.before))
                except (OSError, RefusedError) as error:
                    print(f"{edit.path}: could not be taken back and stays changed ({error})", file=sys.stderr)
        raise


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    try:
        handlers = {ending: signal.signal(ending, signal.SIG_IGN) for ending in _endings()}
    except ValueError:  # not the main thread, to which signals come
        handlers = {}
    try:
        yield
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)


def _change_file(edit: Edit) -> None:
    if edit.after is None:
        _check_as_expected(edit.path, edit.before)
        edit.path.unlink()
        if edit.path.parent.name == "info":  # .git/info, which _replace_file may have made
            with contextlib.suppress(OSError):
                edit.path.parent.rmdir()
    else:
        _replace_file(edit.path, edit.before, edit.after)


def _removals(folder: Path, app: Path, local: Local | None) -> Iterator[Edit]:
    """The files with blocks of ours, without them: git's configuration last, so that git never sees a change."""
    for path in _our_files(folder, app, local):
        content = path.read_bytes()
        yield Edit(path, content, _without_blocks(content, path.name))


def _our_files(folder: Path, app: Path, local: Local | None) -> list[Path]:
    """The files that can have blocks of ours and that no other work tree needs them in."""
    paths = [folder / "requirements.txt", app]
    if local is not None and not _other_worktrees_use(local, folder):
        paths += [local.config, local.attributes, local.exclude]
    return [path for path in paths if path.is_file()]


def _left_in_git(folder: Path, app: Path) -> list[Path]:
    """What of ours is still there after an uninstall that leaves git's settings alone."""
    local = _find_local(folder)
    paths = [path for path in _our_files(folder, app, local) if BEGIN in path.read_bytes()]
    return [*paths, local.program.parent] if local is not None and local.program.parent.exists() else paths


def _declined(folder: Path, name: str) -> bool:
    """Whether the last install was asked to leave "git" or "packages" alone."""
    return name in (_read_record(folder / PACKAGE).get("declined") or [])


def _is_installed(folder: Path, app: Path) -> bool:
    """Whether anything of ours is there, whole or not."""
    return (folder / PACKAGE).exists() or BEGIN in app.read_bytes()


def _condition(folder: Path, app: Path) -> tuple[list[str], str]:
    """The faults, and whether an update is survived. Raises RefusedError where git does not tell."""
    repository = _find_repository(folder)
    faults = _faults(folder, app, None if _declined(folder, "git") else repository)
    return faults, _survival(folder, app, repository)


def _faults(folder: Path, app: Path, repository: Repository | None) -> list[str]:
    """What is not as the installer left it, each in words."""
    faults = []
    for path in _our_files(folder, app, repository.local if repository else None):
        blocks = _find_blocks(path.read_bytes(), path.name)
        edited = [block for block in blocks if block.edited]
        faults += [f"{path.name} line {b.first_line}: the block '{b.name}' was edited by hand" for b in edited]
    content = app.read_bytes()
    if not any(block.edited for block in _find_blocks(content)):
        proper = patch(content)
        if not _find_blocks(content):
            faults.append("app.py is without the blocks: an update has replaced it, or they were never there")
        elif proper != content:
            faults.append("the blocks in app.py are incomplete or of another version")
    if not _declined(folder, "packages"):
        changes = _requirements_edit(folder, repository, wanted=True, edited_too=True)
        if any(edit.after != edit.before for edit in changes):
            faults.append(f"requirements.txt is without {NEEDED}, or has it as another version wrote it")
    package = folder / PACKAGE
    if not (package / "__init__.py").is_file():
        faults.append(f"{package}: the package is not there, or not whole")
    else:
        files = _read_record(package).get("files") or {}
        wrong = [name for name, sum_ in files.items() if _file_sum(package / name) != sum_]
        if wrong:
            more = " ..." if len(wrong) > 3 else ""
            faults.append(f"{package}: {len(wrong)} files missing or changed ({', '.join(sorted(wrong)[:3])}{more})")
    placed_by_hand = _without_ours(content, edited_too=True)[1]  # no repair can help, as the filter cannot know where
    if repository is not None and not placed_by_hand and (trouble := _update_trouble(repository, folder)):
        faults.append(f"git: {trouble}")
    return faults


def _check_package(folder: Path) -> tuple[str, bool]:
    """The version that is to be installed, and whether it lies there already. Raises RefusedError."""
    source, target = _package(), folder / PACKAGE
    version = _version(source)
    if version is None:
        raise RefusedError(f"{source}: the package is not beside install.py; unpack all of FluxGym Watchdog")
    in_place = target.resolve() == source.resolve()
    if not in_place:
        _check_ours(target)
    return version, in_place


def _package() -> Path:
    """The package beside this file, or around it: an installed package has a copy of this file in it."""
    return HERE if HERE.name == PACKAGE and (HERE / "__init__.py").is_file() else HERE / PACKAGE


def _check_writable(folder: Path, edits: list[Edit]) -> None:
    for path in (folder, *(edit.path.resolve().parent for edit in edits)):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
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


def _copy_package(target: Path, record: dict[str, Any], owner: os.stat_result) -> None:
    """A moment without `target` is one in which FluxGym runs without us.

    This file and the snippets go along: they can uninstall when the download is gone.
    """
    with _new_folder(target, owner) as new:
        shutil.copytree(_package(), new, ignore=_not_copied, dirs_exist_ok=True)
        shutil.copy2(Path(__file__), new / "install.py")
        shutil.copytree(HERE / "patches", new / "patches", ignore=_not_copied, dirs_exist_ok=True)
        files = {path.relative_to(new).as_posix(): _file_sum(path) for path in sorted(new.rglob("*")) if path.is_file()}
        (new / RECORD).write_text(json.dumps(record | {"files": files}, indent=2) + "\n", encoding="utf-8")


def _not_copied(folder: str, names: list[str]) -> set[str]:
    return shutil.ignore_patterns("__pycache__", "*.pyc", RECORD)(folder, names)


def _copy_filter(local: Local) -> None:
    folder = local.program.parent
    if folder.is_dir():  # without it, if only for a moment, git would commit the blocks
        sources = {local.program: Path(__file__)}
        sources |= {folder / "patches" / path.name: path for path in (HERE / "patches").iterdir() if path.is_file()}
        for target, source in sources.items():
            before = _content(target)
            if before != source.read_bytes():
                _replace_file(target, before, source.read_bytes())
        return
    with _new_folder(folder, local.shared.stat()) as new:
        shutil.copy2(Path(__file__), new / local.program.name)
        shutil.copytree(HERE / "patches", new / "patches", ignore=_not_copied)


@contextlib.contextmanager
def _new_folder(target: Path, owner: os.stat_result) -> Iterator[Path]:
    """A folder beside `target` to be filled, which then takes its place by a rename.

    Whoever may read what `owner` is of may read what is in it: FluxGym may run as another user.
    """
    bench = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    new, old = bench / "new", bench / "old"
    try:
        new.mkdir()
        yield new
        readable = owner.st_mode & 0o444
        for path in (new, *new.rglob("*")):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | readable | (readable >> 2 if path.is_dir() else 0))
        with contextlib.suppress(RefusedError):  # only root can give files away, and it need not be so
            for path in (new, *new.rglob("*")):
                _keep_owner(path, owner)
        with _undisturbed():  # between these two there is no package
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


def _renew_record(package: Path, facts: dict[str, Any]) -> None:
    """Of a copy that is used in place; what was unpacked over FluxGym has none and is no copy."""
    if found := _read_record(package):
        path = package / RECORD
        _replace_file(path, path.read_bytes(), (json.dumps(found | facts, indent=2) + "\n").encode())


def _replace_file(path: Path, expected: bytes | None, content: bytes) -> None:
    """`path` holds either `expected` or `content` at every instant; links are followed, mode and owner kept."""
    target = path.resolve()
    target.parent.mkdir(exist_ok=True)
    before = target.stat() if expected is not None else None
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=target.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(new, before or target.parent.stat())
        new.chmod(stat.S_IMODE(before.st_mode) if before else 0o644)
        with _undisturbed(), _gits_lock(new, target):
            _check_as_expected(target, expected)
            new.replace(target)
    except BaseException as error:
        new.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as for a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if os.name == "posix":
        handle = os.open(target.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(handle)
        os.close(handle)


@contextlib.contextmanager
def _gits_lock(new: Path, target: Path) -> Iterator[None]:
    """Holds git's lock on its configuration, so that it writes nothing between our look at the file and our change.

    The lock is a second name of the new file: what a kill leaves is known by that as ours. See _remove_own_lock.
    """
    lock = target.with_name("config.lock")
    if target.name != "config":
        yield
        return
    try:
        os.link(new, lock)
    except FileExistsError as error:
        reason = "is there, so git is writing its configuration, or a killed git has left it"
        raise RefusedError(f"{lock}: {reason}") from error
    except OSError:  # a file system without such names: then it is only looked whether git is at work
        if lock.exists():
            raise
        yield
        return
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _remove_own_lock(local: Local | None) -> None:
    """What a kill of ours has left of _gits_lock; git's own lock is no second name of anything."""
    if local is None:
        return
    config = local.config.resolve()
    lock = config.with_name("config.lock")
    if lock.is_file():
        candidates = [config, *config.parent.glob(f"{TEMPORARY}*")]
        if any(path.is_file() and path.samefile(lock) for path in candidates):
            lock.unlink()


def _content(path: Path) -> bytes | None:
    """None where there is no such file, as in an Edit."""
    return path.read_bytes() if path.exists() else None


def _check_as_expected(path: Path, expected: bytes | None) -> None:
    if _content(path) != expected:
        raise RefusedError(f"{path}: was changed by someone else in this moment; try again")


def _keep_owner(path: Path, owner: os.stat_result) -> None:
    own = path.stat()
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (owner.st_uid, owner.st_gid):
        try:
            os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            if own.st_uid == owner.st_uid:
                return  # a group that one is not in cannot be given; the file is its owner's all the same
            who = f"user {owner.st_uid}, group {owner.st_gid}"
            raise RefusedError(f"{path.parent}: files here belong to {who}; run install.py as that user") from error


def _keep_edited(edit: Edit) -> None:
    """Before --repair takes somebody's lines out of a block, the file as it was is put beside it."""
    if not any(block.edited for block in _find_blocks(edit.before or b"", edit.path.name)):
        return
    number = 1
    while (kept := edit.path.with_name(f"{edit.path.name}.edited-{number}")).exists():
        number += 1
    shutil.copy2(edit.path, kept)
    print(f"{edit.path.name} as it was edited is kept as {kept}")


def _delete(path: Path, bench: Path) -> None:
    """Away at once, by a rename; then its parts, one after the other."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    grave = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=bench))
    path.replace(grave / path.name)
    shutil.rmtree(grave)


def _is_supervised(path: Path) -> bool:
    """Whether a process holds the lock in a run's .watchdog/ folder."""
    if not (path / "lock").is_file():
        return False
    try:
        with (path / "lock").open("rb+") as file:
            if os.name == "nt":
                import msvcrt  # noqa: PLC0415 - exists on Windows alone

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            else:
                import fcntl  # noqa: PLC0415 - exists on POSIX alone

                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:  # on a file system without locks nothing can be supervised
        return error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
    return False


def _remove_leftovers(folder: Path, app: Path, local: Local | None) -> None:
    places = {folder.resolve(), app.resolve().parent}
    if local is not None:
        places |= {local.shared, local.attributes.parent.resolve()}
        places |= {local.program.parent, local.program.parent / "patches"}
    for path in [path for place in places for path in place.glob(TEMPORARY + "*")]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != f"{TEMPORARY}lock":
            path.unlink()


def _version(package: Path) -> str | None:
    with contextlib.suppress(OSError):
        text = (package / "__init__.py").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^__version__\s*(?::[^=\n]+)?=\s*[\"']([^\"']+)", text, re.MULTILINE)
        return found[1] if found else "unknown"
    return None


_LASTING = ("installed_packages", "python")
"""What a record keeps of the one before: what pip put into FluxGym's Python, and the Python that was named."""


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


def _file_sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


# What is said -------------------------------------------------------------------------------------


def _print_plan(plan: Plan) -> None:
    target = plan.folder / PACKAGE
    replaced = f" (replaces version {_version(target)})" if target.exists() and not plan.in_place else ""
    print(f"FluxGym Watchdog {plan.version} for {plan.folder}")
    print(f"  package: {'used in place from' if plan.in_place else 'copied to'} {target}{replaced}")
    for edit in plan.edits:
        print(f"  {_relative(edit.path, plan.folder)}: {_describe_change(edit)}")
    if plan.repository is not None:
        print(f"  git's filter: copied to {_relative(plan.repository.local.program.parent, plan.folder)}")
    print(f"  GPU: {plan.choice.text}")
    for note in plan.notes:
        print(f"  Note: {note}")


def _describe_change(edit: Edit) -> str:
    lacks = NEEDED.encode() not in (edit.after or b"").replace(b"\0", b"")
    if edit.path.name == "requirements.txt" and edit.before == edit.after and lacks:
        return f"takes no line of ours (hashes, UTF-16, or its last line goes on), so {NEEDED} is not in it; unchanged"
    if edit.before == edit.after:
        return "has it already; unchanged"
    if edit.after is None:
        return "removed; the installer had made it"
    blocks = _find_blocks(edit.after, edit.path.name)
    if not blocks:
        return f"{_count(len(_find_blocks(edit.before or b'')))} taken out, nothing else touched"
    if edit.path.name == "app.py":
        anchors, _ = _find_anchors(*_without_ours(edit.before or b"", edited_too=True))
        places = ", ".join(f"{anchor.block} after line {anchor.line}" for anchor in anchors)
        return f"{_count(len(anchors), 'guarded ')} inserted ({places}), no line replaced"
    return {
        "requirements.txt": f"{NEEDED} added at its end, so that it comes back with the environment",
        "config": "block added: a local filter, through which git sees FluxGym's files as they were",
        "attributes": "block added: the files that the filter is for",
        "exclude": "block added: what is ours, for git to ignore",
    }[edit.path.name]


def _count(number: int, kind: str = "") -> str:
    return f"{number} {kind}block{'' if number == 1 else 's'}"


def _relative(path: Path, folder: Path) -> str:
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(folder.resolve()).as_posix()
    return str(path)


def _print_diffs(edits: list[Edit]) -> None:
    for edit in edits:
        pair = (edit.before or b"", edit.after or b"")
        old, new = ([line.decode("utf-8", "backslashreplace") for line in text.splitlines()] for text in pair)
        context = 0 if edit.path.name == "config" else 3  # what else stands in git's is nobody's business
        for line in difflib.unified_diff(old, new, str(edit.path), f"{edit.path} (new)", n=context, lineterm=""):
            print(_without_secrets(line))
    print("Dry run: nothing was changed.")


def _without_secrets(text: str) -> str:
    """Without the user and the password that an address can have, and without tokens of Hugging Face."""
    return re.sub(r"\bhf_[A-Za-z0-9]{34,}", "hf_****", re.sub(r"(\w://)[^/\s@]+@", r"\1****@", text))


def _on_one_line(output: bytes) -> str:
    return " ".join(_text(output).split())


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip()


def _ask(what: str, yes: bool) -> None:
    if yes or sys.stdin is None or not sys.stdin.isatty():
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
    if not (HERE / "pyproject.toml").is_file():
        raise RefusedError(f"{HERE}: this needs all of FluxGym Watchdog, not the copy inside FluxGym")
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
        return _run(command).returncode == 0
    except OSError:
        return False


LIMIT_S, PIP_LIMIT_S = 30, 600
"""How long a program that is asked for something may take: one that asks a driver may never answer."""


def _run(command: list[str], limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[bytes]:
    """Runs a program in an empty folder, where nothing can be taken for a module of Python's. Raises OSError.

    One that does not answer in time is ended, and has failed with that as its reason.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            return subprocess.run(
                command, cwd=nowhere, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            reason = f"{command[0]} does not answer in {limit_s:g} s"
            return subprocess.CompletedProcess(command, 1, b"", reason.encode())


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
