"""Installing into folders and out of them again: what is kept, what is refused, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import app_files
import pytest
from killing import killed_at

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes and links as on POSIX")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_installing_and_uninstalling_gives_the_same_folder(
    installer: ModuleType, checkout: Path, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym()
    before = contents(folder)
    assert installer.main([str(folder), "--yes"]) == 0
    installed = contents(folder)
    record = json.loads(installed.pop(str(Path("fluxgym_watchdog", "INSTALLED.json"))))
    assert record["version"] == "1.2.3"
    package = {name for name in installed if name.startswith("fluxgym_watchdog")}
    patches = {f"patches/{path.name}" for path in (checkout / "patches").iterdir()}
    expected = {"__init__.py", "judge/__init__.py", "install.py", *patches}
    assert package == {str(Path("fluxgym_watchdog", name)) for name in expected}
    assert installer.main([str(folder), "--yes"]) == 0  # again: brings up to date, changes nothing
    assert contents(folder).items() >= installed.items()
    assert "unchanged" in capsys.readouterr().out

    (folder / "watchdog.yaml").write_text("max_restarts: 5\n")
    (folder / "watchdog.yaml.bak").write_text("# mine\n")
    (folder / "outputs" / "cat" / ".watchdog").mkdir(parents=True)
    assert installer.main([str(folder), "--uninstall", "--yes"]) == 0
    said = capsys.readouterr().out
    assert str(folder / "watchdog.yaml") in said and str(folder / "outputs" / "cat" / ".watchdog") in said
    assert contents(folder) == before | {"watchdog.yaml": b"max_restarts: 5\n", "watchdog.yaml.bak": b"# mine\n"}
    assert str(folder / "watchdog.yaml.bak") in said
    assert installer.main([str(folder), "--uninstall", "--yes"]) == 0
    assert "not installed here" in capsys.readouterr().out


def test_uninstalling_keeps_what_the_user_edited_meanwhile(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    app = folder / "app.py"
    app.write_bytes(app.read_bytes().replace(b'"Start"', b'"Go"'))
    installer.uninstall(folder, yes=True)
    assert app.read_bytes() == app_files.PLAIN.replace('"Start"', '"Go"').encode()


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--status"], ["--uninstall", "--dry-run"]])
def test_looking_changes_nothing(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    folder = fluxgym()
    if "--uninstall" in arguments:
        installer.install(folder, yes=True)
    before = contents(folder)
    capsys.readouterr()
    assert installer.main([str(folder), *arguments]) == 0
    assert contents(folder) == before
    said = capsys.readouterr().out
    sign = {"--dry-run": "\n+# >>> fluxgym-watchdog: supervise >>>\n", "--status": "anchors: supervise after line 5"}
    assert sign.get(arguments[0], "\n-# >>> fluxgym-watchdog: supervise >>>\n") in said


def test_status_knows_an_update_of_fluxgym(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    installer.print_status(folder)
    said = capsys.readouterr().out
    assert "blocks:  supervise at line 6, tab at line 29\n" in said and "fault" not in said
    assert "updates: not survived by themselves, as git has no app.py here" in said
    (folder / "app.py").write_bytes(app_files.PATCHABLE["plain"])
    installer.print_status(folder)
    said = capsys.readouterr().out
    assert "blocks:  none\n" in said and "app.py changed since then" in said
    assert "fault:   app.py is without the blocks" in said


def test_no_app_is_refused_with_what_was_looked_for(
    installer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installer.main([str(tmp_path), "--yes"]) == 1
    assert f"{tmp_path / 'app.py'}: not found" in capsys.readouterr().err


def test_another_programs_folder_is_refused(installer: ModuleType, tmp_path: Path) -> None:
    app = "import gradio as gr\nwith gr.Blocks():\n    with gr.Tabs():\n        gr.Button()\n"
    (tmp_path / "app.py").write_text(app)
    with pytest.raises(installer.RefusedError, match="another program's folder"):
        installer.install(tmp_path, yes=True)
    assert contents(tmp_path) == {"app.py": app.encode()}


def test_a_fluxgym_one_level_below_is_named(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    with pytest.raises(installer.RefusedError, match=f"app.py lies, as {re.escape(str(folder))}"):
        installer.install(folder.parent, yes=True)


def test_the_copy_knows_its_fluxgym_from_anywhere(
    installer: ModuleType, fluxgym: Callable[..., Path], tmp_path: Path
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    own = folder / "fluxgym_watchdog" / "install.py"
    told = subprocess.run(
        [sys.executable, str(own), "--status"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"FluxGym in {folder}\n" in told.stdout


@POSIX
def test_who_may_read_app_may_read_the_package(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    (folder / "app.py").chmod(0o644)
    before = os.umask(0o077)
    try:
        installer.install(folder, yes=True)
    finally:
        os.umask(before)
    package = folder / "fluxgym_watchdog"
    assert {path.stat().st_mode & 0o777 for path in package.rglob("*") if path.is_file()} == {0o644}
    assert package.stat().st_mode & 0o777 == 0o755


def test_missing_anchors_change_nothing_and_print_the_snippet(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym(app_files.REFUSED["two Tabs"][0])
    before = contents(folder)
    assert installer.main([str(folder), "--yes"]) == 1
    said = capsys.readouterr()
    assert "Tabs" in said.err and "python -m fluxgym_watchdog watch" in said.err
    assert "# >>> fluxgym-watchdog: tab >>>" in said.out
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["two Tabs", "two imports"])
def test_a_block_inserted_by_hand_is_taken_and_the_other_one_given(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    start: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    source = app_files.REFUSED[name][0]
    folder = fluxgym(source)
    assert installer.main([str(folder), "--yes"]) == 1
    told = capsys.readouterr()
    assert "insert what follows where it belongs, then install again" in told.err
    printed = told.out.split("To insert by hand:\n\n")[1].rstrip("\n").encode()
    place, indent = (b"    refresh =", b"        ") if name == "two Tabs" else (b"import json\n", b"")
    lines = b"".join(indent + line + b"\n" if line else b"\n" for line in printed.split(b"\n"))
    (folder / "app.py").write_bytes(source.replace(place, lines + place))
    assert installer.main([str(folder), "--yes"]) == 0
    said = capsys.readouterr().out
    assert "stays where it was inserted by hand" in said and "1 guarded block inserted" in said
    patched = (folder / "app.py").read_bytes()
    assert lines.rpartition(b"# <<<")[0] in patched and patched.count(b"# >>> fluxgym-watchdog") == 2
    (line,) = start(folder)
    assert line.startswith("READY Supervised") and line.count('"Watchdog"') == 1
    installer.print_status(folder)
    assert "fault" not in capsys.readouterr().out
    assert installer.main([str(folder), "--yes"]) == 0
    assert (folder / "app.py").read_bytes() == patched
    installer.uninstall(folder, yes=True)
    assert (folder / "app.py").read_bytes() == source


def test_a_folder_of_our_name_that_is_not_ours_is_left_alone(
    installer: ModuleType, fluxgym: Callable[..., Path]
) -> None:
    folder = fluxgym()
    (folder / "fluxgym_watchdog").mkdir()
    (folder / "fluxgym_watchdog" / "notes.txt").write_text("mine")
    before = contents(folder)
    for act in (installer.install, installer.uninstall):
        with pytest.raises(installer.RefusedError, match="not FluxGym Watchdog's"):
            act(folder, yes=True)
    assert contents(folder) == before


def test_an_older_copy_is_replaced_whole(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    (folder / "fluxgym_watchdog" / "gone_in_this_version.py").touch()
    (folder / ".fluxgym-watchdog.tmp-dead").mkdir()
    installer.install(folder, yes=True)
    assert not (folder / "fluxgym_watchdog" / "gone_in_this_version.py").exists()
    assert not list(folder.glob(".fluxgym-watchdog*"))


@pytest.mark.parametrize(("answer", "installed"), [("y", True), ("n", False), ("", False)])
def test_it_asks_on_a_terminal(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    installed: bool,
) -> None:
    folder = fluxgym()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert installer.main([str(folder)]) == (0 if installed else 1)
    assert (folder / "fluxgym_watchdog").exists() == installed


@pytest.mark.parametrize(
    "arguments",
    [[], ["--demo", "."], [".", "--port", "1"], ["--demo", "--port", "0"], [".", "--gradio", "4"], [".", "--what"]],
)
def test_usage_errors_exit_2(installer: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        installer.main(arguments)
    assert ended.value.code == 2


@POSIX
def test_a_linked_app_stays_a_link_and_its_file_keeps_its_mode(
    installer: ModuleType, fluxgym: Callable[..., Path], tmp_path: Path
) -> None:
    folder, elsewhere = fluxgym(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    real = elsewhere / "fluxgym_app.py"
    (folder / "app.py").replace(real)
    (folder / "app.py").symlink_to(Path("..", "elsewhere", "fluxgym_app.py"))
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 1234, 4321)
    installer.install(folder, yes=True)
    assert (folder / "app.py").is_symlink()
    assert b"fluxgym-watchdog" in real.read_bytes()
    assert real.stat().st_mode & 0o7777 == 0o640
    if os.geteuid() == 0:
        for path in (real, folder / "fluxgym_watchdog", folder / "fluxgym_watchdog" / "__init__.py"):
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)
    installer.uninstall(folder, yes=True)
    assert real.read_bytes() == app_files.PATCHABLE["plain"]
    assert [path.name for path in elsewhere.iterdir()] == ["fluxgym_app.py"]


@POSIX
def test_a_folder_that_cannot_be_written_is_refused(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    folder = fluxgym()
    folder.chmod(0o555)
    try:
        with pytest.raises(installer.RefusedError, match="no permission to write"):
            installer.install(folder, yes=True)
    finally:
        folder.chmod(0o755)


def test_a_change_by_someone_else_in_between_is_not_lost(
    installer: ModuleType, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fluxgym()
    mine = b"# edited while the question was on the screen\n"
    monkeypatch.setattr(installer, "_ask", lambda what, yes: (folder / "app.py").write_bytes(mine))
    assert installer.main([str(folder)]) == 1
    assert (folder / "app.py").read_bytes() == mine
    assert not (folder / "fluxgym_watchdog").exists()
    assert not list(folder.glob(".fluxgym-watchdog*"))


def test_unpacked_over_fluxgym_the_package_is_used_in_place(
    installer: ModuleType, checkout: Path, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fluxgym()
    shutil.copytree(checkout / "fluxgym_watchdog", folder / "fluxgym_watchdog")
    shutil.copytree(checkout / "patches", folder / "patches")
    monkeypatch.setattr(installer, "HERE", folder)
    installer.install(folder, yes=True)
    installer.uninstall(folder, yes=True)
    assert (folder / "fluxgym_watchdog" / "__init__.py").exists()
    assert (folder / "app.py").read_bytes() == app_files.PATCHABLE["plain"]


def test_a_console_that_cannot_show_the_path_stops_nothing(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    folder = folder.rename(folder.with_name("flüx 体育"))
    command = [sys.executable, str(installer.HERE / "install.py"), str(folder), "--yes"]
    variables = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    assert b"fl\\xfcx" in done.stdout and b"Installed." in done.stdout


# Finding FluxGym


@pytest.mark.parametrize("place", [".", "outputs", "outputs/cat", "app.py"])
def test_fluxgym_is_found_from_inside_it(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    folder = fluxgym()
    (folder / "outputs" / "cat").mkdir(parents=True)
    assert installer.main([str(folder / place), "--status"]) == 0
    assert f"FluxGym in {folder}\n" in capsys.readouterr().out
    if (folder / place).is_dir():
        monkeypatch.chdir(folder / place)
        assert installer.main(["--status"]) == 0
        assert f"FluxGym in {folder}\n" in capsys.readouterr().out


def test_somebody_elses_app_around_is_not_taken_for_fluxgym(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("import flask\n")
    (tmp_path / "inside").mkdir()
    assert installer.main([str(tmp_path / "inside"), "--yes"]) == 1
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(SystemExit) as ended:
        installer.main([])
    assert ended.value.code == 2


def test_the_installed_copy_uninstalls_when_the_download_is_gone(fluxgym: Callable[..., Path], checkout: Path) -> None:
    folder = fluxgym()
    before = contents(folder)
    subprocess.run([sys.executable, checkout / "install.py", folder, "--yes"], check=True, capture_output=True)
    copy = [sys.executable, "fluxgym_watchdog/install.py"]
    for arguments in (["--status"], ["--repair"], ["--yes"]):
        subprocess.run([*copy, *arguments], cwd=folder, check=True, capture_output=True)
    assert b"# >>> fluxgym-watchdog" in (folder / "app.py").read_bytes()
    told = subprocess.run([*copy, "--demo"], cwd=folder, check=False, capture_output=True, text=True)
    assert told.returncode == 1 and "needs all of FluxGym Watchdog" in told.stderr
    subprocess.run([*copy, "--uninstall"], cwd=folder, check=True, capture_output=True)
    assert contents(folder) == before


def test_the_installed_copy_installs_into_another_fluxgym(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    first = fluxgym()
    second = first.with_name("second")
    shutil.copytree(first, second)
    installer.install(first, yes=True)
    copy = str(first / "fluxgym_watchdog" / "install.py")
    subprocess.run([sys.executable, copy, str(second), "--yes"], check=True, capture_output=True)
    record = str(Path("fluxgym_watchdog", "INSTALLED.json"))
    assert {**contents(second), record: b""} == {**contents(first), record: b""}


def test_what_the_installed_copy_is_asked_to_leave_alone_is_recorded(
    fluxgym: Callable[..., Path], checkout: Path
) -> None:
    folder = fluxgym()
    record = folder / "fluxgym_watchdog" / "INSTALLED.json"
    for program, asked, declined in (
        (checkout / "install.py", [], []),
        (record.with_name("install.py"), ["--no-git", "--no-packages"], ["git", "packages"]),
        (record.with_name("install.py"), [], []),
    ):
        subprocess.run([sys.executable, program, folder, "--yes", *asked], check=True, capture_output=True)
        assert json.loads(record.read_text())["declined"] == declined
        assert json.loads(record.read_text())["files"]


@pytest.mark.parametrize("app", [None, b"import flask\n"], ids=["no app.py", "another app.py"])
@pytest.mark.parametrize("place", [".", "outputs"])
def test_whatever_became_of_app_the_package_goes_out(
    installer: ModuleType, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, app: bytes | None, place: str
) -> None:
    folder = fluxgym()
    (folder / "outputs").mkdir()
    installer.install(folder, yes=True)
    if app is None:
        (folder / "app.py").unlink()
        assert installer.main([str(folder), "--yes"]) == 1
    else:
        (folder / "app.py").write_bytes(app)
    monkeypatch.chdir(folder / place)
    assert installer.main(["--uninstall", "--yes"]) == 0
    assert not (folder / "fluxgym_watchdog").exists()


@POSIX
def test_a_group_that_cannot_be_given_stops_nothing(
    installer: ModuleType, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fluxgym()
    mine = (folder / "app.py").stat()
    monkeypatch.setattr(os, "chown", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    others_group = os.stat_result([*mine[:5], mine.st_gid + 1, *mine[6:10]])
    installer._keep_owner(folder / "app.py", others_group)
    with pytest.raises(installer.RefusedError, match=r"run install\.py as that user"):
        installer._keep_owner(folder / "app.py", os.stat_result([*mine[:4], mine.st_uid + 1, *mine[5:10]]))


def test_a_full_disk_is_told_in_one_short_line(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = fluxgym()
    before = contents(folder)

    def full(*_: object, **__: object) -> None:
        failed = [(f"from/{n}.py", f"to/{n}.py", f"[Errno 28] No space left on device: 'to/{n}.py'") for n in range(90)]
        raise shutil.Error(failed)

    monkeypatch.setattr(shutil, "copytree", full)
    assert installer.main([str(folder), "--yes"]) == 1
    said = capsys.readouterr().err
    assert said == "Refused: to/0.py: [Errno 28] No space left on device: 'to/0.py' (and 89 more)\n"
    assert contents(folder) == before


def test_no_module_of_the_package_hides_one_of_pythons() -> None:
    """install.py runs from inside the installed package, whose modules come first on its path then."""
    package = Path(__file__).parents[2] / "fluxgym_watchdog"
    assert not {path.stem for path in package.iterdir()} & sys.stdlib_module_names


# Repair and purge


def test_repair_says_what_is_damaged_and_puts_it_back(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym()
    (folder / "requirements.txt").write_text("gradio\n")
    installer.install(folder, yes=True)
    whole = contents(folder)
    capsys.readouterr()
    assert installer.main([str(folder), "--repair"]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    (folder / "requirements.txt").write_text("gradio\n")
    (folder / "app.py").write_bytes(app_files.PATCHABLE["plain"])
    (folder / "fluxgym_watchdog" / "judge" / "__init__.py").unlink()
    (folder / "fluxgym_watchdog" / "patches" / "last_tab.py").write_text("# mine\n")
    assert installer.main([str(folder), "--repair", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "Found: app.py is without the blocks" in said
    assert "Found: requirements.txt is without nvidia-ml-py" in said
    assert "2 files missing or changed (judge/__init__.py, patches/last_tab.py)" in said
    record = str(Path("fluxgym_watchdog", "INSTALLED.json"))
    assert {**contents(folder), record: b""} == {**whole, record: b""}


def test_a_copy_that_is_damaged_itself_says_that_it_cannot_repair_itself(
    installer: ModuleType, fluxgym: Callable[..., Path]
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    (folder / "fluxgym_watchdog" / "judge" / "__init__.py").unlink()
    (folder / "app.py").write_bytes(app_files.PATCHABLE["plain"])
    command = [sys.executable, "fluxgym_watchdog/install.py", "--repair"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 files missing or changed (judge/__init__.py). This needs --repair by the install.py of" in done.stderr
    assert (folder / "app.py").read_bytes() == installer.patch(app_files.PATCHABLE["plain"])


def test_repair_keeps_the_file_whose_block_somebody_edited(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    app = folder / "app.py"
    patched = app.read_bytes()
    edited = patched.replace(b"        print(f", b"        my_own = 1\n        print(f")
    app.write_bytes(edited)
    for arguments in ([], ["--uninstall"]):
        assert installer.main([str(folder), "--yes", *arguments]) == 1
        assert "was edited by hand" in capsys.readouterr().err
        assert app.read_bytes() == edited
    assert installer.main([str(folder), "--repair", "--yes"]) == 0
    assert app.read_bytes() == patched
    assert (folder / "app.py.edited-1").read_bytes() == edited
    again = patched.replace(b"        print(f", b"        another = 1\n        print(f")
    app.write_bytes(again)
    assert installer.main([str(folder), "--repair", "--yes"]) == 0
    assert (folder / "app.py.edited-1").read_bytes() == edited
    assert (folder / "app.py.edited-2").read_bytes() == again


def test_what_somebody_wrote_into_a_block_inserted_by_hand_is_not_lost(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a block has no checksum: it is compared with the one that was given."""
    given = installer.snippet("supervise")
    source = app_files.PLAIN.replace(app_files.IMPORT, f"{app_files.IMPORT}{given}\n")
    folder = fluxgym(source.encode())
    installer.install(folder, yes=True)
    assert installer.unpatch((folder / "app.py").read_bytes()) == app_files.PLAIN.encode()
    mine = source.replace("LogsViewRunner = ", "my_own_setup()\n    LogsViewRunner = ").encode()
    (folder / "app.py").write_bytes(mine)
    assert installer.main([str(folder), "--yes"]) == 1
    assert "'supervise' was edited by hand" in capsys.readouterr().err
    assert (folder / "app.py").read_bytes() == mine


def test_purge_deletes_what_was_written_about_runs_and_nothing_of_the_runs(
    installer: ModuleType, fluxgym: Callable[..., Path], tmp_path: Path
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    (folder / "outputs" / "cat" / ".watchdog" / "evidence").mkdir(parents=True)
    (folder / "outputs" / "cat" / ".watchdog" / "run.json").write_text("{}")
    (folder / "outputs" / "cat" / "cat.safetensors").write_text("weights")
    (folder / "outputs" / "cat" / "training.log").write_text("log")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (folder / "outputs" / "dog").mkdir()
    if os.name == "posix":
        (folder / "outputs" / "dog" / ".watchdog").symlink_to(elsewhere)
    (folder / "watchdog.yaml").touch()
    assert installer.main([str(folder), "--uninstall", "--purge", "--dry-run"]) == 0
    assert (folder / "watchdog.yaml").exists()
    assert installer.main([str(folder), "--uninstall", "--purge", "--yes"]) == 0
    left = {path.relative_to(folder / "outputs").as_posix() for path in (folder / "outputs").rglob("*")}
    assert left == {"cat", "cat/cat.safetensors", "cat/training.log", "dog"}
    assert not (folder / "watchdog.yaml").exists()
    assert (elsewhere / "kept").exists()
    with pytest.raises(SystemExit):
        installer.main([str(folder), "--purge"])


def test_purge_is_refused_while_a_run_is_watched(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from fluxgym_watchdog.store import Store

    folder = fluxgym()
    installer.install(folder, yes=True)
    (folder / "outputs" / "cat").mkdir(parents=True)
    with Store(folder / "outputs" / "cat").locked():
        assert installer.main([str(folder), "--uninstall", "--purge", "--yes"]) == 1
    assert "a training of this run is being watched" in capsys.readouterr().err
    assert (folder / "fluxgym_watchdog").is_dir()
    assert installer.main([str(folder), "--uninstall", "--purge", "--yes"]) == 0


# Several at once


HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import install
with install._alone_in(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_installers_do_not_work_in_one_folder(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fluxgym()
    before = contents(folder)
    command = [sys.executable, "-B", "-c", HOLDER, str(installer.HERE), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        for arguments in ([], ["--uninstall"]):
            assert installer.main([str(folder), "--yes", *arguments]) == 1
            assert "another install.py is at work here" in capsys.readouterr().err
        assert contents(folder).items() >= before.items()
        assert not (folder / "fluxgym_watchdog").exists()
        holder.communicate("")
    assert installer.main([str(folder), "--yes"]) == 0


def test_many_installers_at_once_leave_one_sound_install(
    installer: ModuleType, fluxgym: Callable[..., Path], start: Callable[[Path], list[str]]
) -> None:
    folder = fluxgym()
    command = [sys.executable, str(installer.HERE / "install.py"), str(folder), "--yes"]
    crowd = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    refusals = [process.communicate()[1] for process in crowd]
    codes = [process.returncode for process in crowd]
    assert 0 in codes and set(codes) <= {0, 1}
    assert all("another install.py is at work" in said for said, code in zip(refusals, codes, strict=True) if code)
    assert (folder / "app.py").read_bytes() == installer.patch(app_files.PATCHABLE["plain"])
    assert installer._faults(folder, folder / "app.py", None) == []
    assert start(folder)[0].startswith("READY Supervised")
    assert not list(folder.glob(".fluxgym-watchdog*"))


@POSIX
def test_a_read_only_app_is_patched_and_stays_read_only(installer: ModuleType, fluxgym: Callable[..., Path]) -> None:
    folder = fluxgym()
    (folder / "app.py").chmod(0o444)
    installer.install(folder, yes=True)
    assert (folder / "app.py").stat().st_mode & 0o777 == 0o444
    installer.uninstall(folder, yes=True)
    assert (folder / "app.py").stat().st_mode & 0o777 == 0o444


# Kills at every write


CHANGES = "os.rename os.remove os.rmdir os.mkdir os.chmod os.chown shutil.rmtree open"


@pytest.mark.parametrize("arguments", [[], ["--uninstall"]], ids=["install", "uninstall"])
def test_killed_at_any_write_app_is_the_old_or_the_new_file(
    installer: ModuleType,
    fluxgym: Callable[..., Path],
    start: Callable[[Path], list[str]],
    tmp_path: Path,
    arguments: list[str],
) -> None:
    pristine = fluxgym()
    source = (pristine / "app.py").read_bytes()
    patched = installer.patch(source)
    if arguments:
        installer.install(pristine, yes=True)
    seen = set()
    for writes in range(200):
        folder = tmp_path / "killed" / "fluxgym"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        done = killed_at(writes, CHANGES, folder, installer.HERE, *arguments)
        app = (folder / "app.py").read_bytes()
        assert app in (source, patched)
        if app == patched:  # then the package is there, whole: no line of complaint
            if not arguments:
                assert (folder / "fluxgym_watchdog" / "judge" / "__init__.py").exists()
            if not seen:
                assert start(folder)[0].startswith("READY Supervised")
            seen.add("patched")
        installer.main([str(folder), "--yes", "--uninstall"])  # and from wherever it stopped, out again
        left = {name: data for name, data in contents(folder).items() if "__pycache__" not in name}
        assert left == {name: data for name, data in contents(pristine).items() if "watchdog" not in name} | {
            "app.py": source
        }
        if done.returncode == 0:
            break
    assert done.returncode == 0 and writes > 3


def test_a_block_of_an_older_text_inserted_by_hand_is_renewed_by_repair(
    installer: ModuleType, fluxgym: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, older = app_files.REFUSED["two imports"][0], installer.snippet("supervise").replace("is off", "was off")
    second = source.index(b"import json\n")
    by_hand = source[:second] + older.encode() + b"\n" + source[second:]
    folder = fluxgym(by_hand)
    assert installer.main([str(folder), "--yes"]) == 1
    assert "'supervise' was edited by hand" in capsys.readouterr().err
    assert installer.main([str(folder), "--yes", "--repair"]) == 0
    assert (folder / "app.py.edited-1").read_bytes() == by_hand
    content = (folder / "app.py").read_bytes()
    assert b"was off" not in content
    assert [block.edited for block in installer._find_blocks(content)] == [False, False]
    capsys.readouterr()
    assert installer.main([str(folder), "--yes"]) == 0
    assert installer.main([str(folder), "--uninstall", "--yes"]) == 0
    assert "takes no line of ours" not in capsys.readouterr().out
    assert (folder / "app.py").read_bytes() == source


@POSIX
def test_ended_between_the_renames_of_an_update_the_package_is_there(
    installer: ModuleType, fluxgym: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fluxgym()
    installer.install(folder, yes=True)
    replace, sent = Path.replace, []

    def and_a_signal(path: Path, target: Path) -> Path:
        moved = replace(path, target)
        if path.name == installer.PACKAGE:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return moved

    monkeypatch.setattr(Path, "replace", and_a_signal)
    installer.main([str(folder), "--yes"])
    assert sent
    assert (folder / installer.PACKAGE / "__init__.py").is_file()
