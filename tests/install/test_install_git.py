"""Updates as people run them, with the real git: the blocks come back, the work tree is clean, all can be taken out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import app_files
import pytest
from killing import killed_at

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="needs git")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX users, links or modes")

BLOCKS = b"# >>> fluxgym-watchdog: "
NEWER = app_files.PLAIN.replace('"Start"', '"Start training"')
REQUIREMENTS = "gradio\npydantic==2.9.2\nstarlette==0.50.0"  # as FluxGym's: no final newline
LOCAL = ("config", "info/attributes", "info/exclude")


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text(
        '[user]\n\tname = a\n\temail = a@example.invalid\n[protocol "file"]\n\tallow = always\n'
    )


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run([str(GIT), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout if check else done.stdout + done.stderr


def commit(upstream: Path, app: str | bytes, requirements: str = REQUIREMENTS) -> None:
    (upstream / "app.py").write_bytes(app if isinstance(app, bytes) else app.encode())
    (upstream / "requirements.txt").write_bytes(requirements.encode())
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "a version of FluxGym")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, app_files.PLAIN)
    return folder


@pytest.fixture
def fluxgym(upstream: Path, tmp_path: Path) -> Path:
    """A clone of the upstream, in a folder whose name asks for quotes."""
    folder = tmp_path / "Flux Gym's 50% ü"
    git(tmp_path, "clone", "-q", str(upstream), str(folder))
    return folder


def local_files(folder: Path) -> dict[str, bytes]:
    paths = {name: folder / git(folder, "rev-parse", "--git-path", name).rstrip("\n") for name in LOCAL}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def state(folder: Path) -> tuple[bool, bool, str]:
    """Whether app.py and requirements.txt have our blocks, and what git status says."""
    has = [BLOCKS in (folder / name).read_bytes() for name in ("app.py", "requirements.txt")]
    return has[0], has[1], git(folder, "status", "--porcelain")


INTACT = (True, True, "")


def test_git_sees_nothing_of_an_install_and_all_goes_out_again(installer: ModuleType, fluxgym: Path) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT
    (fluxgym / "watchdog.yaml").touch()
    assert state(fluxgym) == INTACT
    installer.install(fluxgym, yes=True)  # again
    assert state(fluxgym) == INTACT
    (fluxgym / "watchdog.yaml").unlink()
    installer.uninstall(fluxgym, yes=True)
    assert state(fluxgym) == (False, False, "")
    assert local_files(fluxgym) == before
    assert (fluxgym / "app.py").read_text() == app_files.PLAIN
    assert (fluxgym / "requirements.txt").read_text() == REQUIREMENTS
    assert sorted(path.name for path in fluxgym.iterdir()) == [".git", "app.py", "requirements.txt"]


UPDATES: dict[str, list[list[str]]] = {
    "git pull": [["pull", "-q"]],
    "StabilityMatrix": [
        ["fetch", "-q"],
        ["checkout", "-q", "--force", "main"],
        ["pull", "-q", "--ff-only", "--autostash"],
    ],
    "reset --hard": [["fetch", "-q"], ["reset", "-q", "--hard", "origin/main"]],
    "checkout --force of one version": [["fetch", "-q"], ["checkout", "-q", "--force", "origin/main"]],
    "clean and restore": [["clean", "-q", "-fd"], ["rm", "-q", "app.py"], ["reset", "-q", "--hard"], ["pull", "-q"]],
    "stash": [["stash", "-q"], ["pull", "-q"]],
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_every_update_merges_and_gives_a_patched_file(
    installer: ModuleType, upstream: Path, fluxgym: Path, update: list[list[str]]
) -> None:
    installer.install(fluxgym, yes=True)
    commit(upstream, NEWER, REQUIREMENTS + "\ntimm")
    for command in update:
        git(fluxgym, *command, check=command[0] != "stash")
    assert state(fluxgym) == INTACT
    assert installer.unpatch((fluxgym / "app.py").read_bytes()) == NEWER.encode()
    assert installer.unpatch((fluxgym / "requirements.txt").read_bytes()) == f"{REQUIREMENTS}\ntimm".encode()
    installer.uninstall(fluxgym, yes=True)
    assert state(fluxgym) == (False, False, "")


def test_the_users_own_change_stays_his_own(installer: ModuleType, upstream: Path, fluxgym: Path) -> None:
    mine = app_files.PLAIN.replace('"upload"', '"mine"')
    (fluxgym / "app.py").write_text(mine)
    installer.install(fluxgym, yes=True)
    assert git(fluxgym, "diff", "--stat").count("1 insertion(+), 1 deletion(-)") == 1
    assert not git(fluxgym, "diff", "--cached", "--stat")
    commit(upstream, NEWER)
    git(fluxgym, "pull", "-q", "--ff-only", "--autostash")
    both = NEWER.replace('"upload"', '"mine"').encode()
    assert installer.unpatch((fluxgym / "app.py").read_bytes()) == both
    assert BLOCKS in (fluxgym / "app.py").read_bytes()
    installer.uninstall(fluxgym, yes=True)
    assert (fluxgym / "app.py").read_bytes() == both


def test_an_update_without_a_place_for_the_blocks_gives_that_app_as_it_is(
    installer: ModuleType, upstream: Path, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(fluxgym, yes=True)
    broken = app_files.REFUSED["two Tabs"][0]
    commit(upstream, broken)
    said = git(fluxgym, "pull", check=False)
    assert "FluxGym Watchdog leaves app.py as it is: app.py has not one outermost" in said
    assert (fluxgym / "app.py").read_bytes() == broken
    assert not git(fluxgym, "status", "--porcelain")
    commit(upstream, NEWER)
    git(fluxgym, "pull", "-q")
    assert state(fluxgym) == INTACT
    capsys.readouterr()


@pytest.mark.parametrize("ended", [True, False], ids=["a final newline", "none"])
def test_gits_own_changes_to_its_configuration_leave_our_section_whole(
    installer: ModuleType, fluxgym: Path, ended: bool
) -> None:
    """Git takes a comment for part of the section above it, and deletes it with that one."""
    config = fluxgym / ".git" / "config"
    config.write_bytes(config.read_bytes() if ended else config.read_bytes().rstrip(b"\n"))
    installer.install(fluxgym, yes=True)
    git(fluxgym, "checkout", "-q", "-b", "mine")
    git(fluxgym, "branch", "-q", "-D", "main")
    git(fluxgym, "remote", "add", "other", "https://example.invalid/x")
    git(fluxgym, "remote", "remove", "other")
    assert state(fluxgym) == INTACT
    installer.install(fluxgym, yes=True)
    installer.install(fluxgym, yes=True, repair=True)
    installer.uninstall(fluxgym, yes=True)
    assert b"watchdog" not in config.read_bytes()
    assert state(fluxgym) == (False, False, "")


def test_a_block_with_its_marker_above_the_section_is_renewed(installer: ModuleType, fluxgym: Path) -> None:
    before = local_files(fluxgym)
    config = fluxgym / ".git" / "config"
    inner = '[filter "fluxgym-watchdog"]\n\trequired = false'
    config.write_bytes(
        installer._add_block(before["config"], "git-older", inner, "config").replace(b"-older", b"-config")
    )
    installer.install(fluxgym, yes=True)
    assert config.read_bytes().count(b'[filter "fluxgym-watchdog"] # >>>') == 1
    assert config.read_bytes().count(b'[filter "') == 1
    installer.uninstall(fluxgym, yes=True)
    assert local_files(fluxgym) == before


def test_a_block_inserted_by_hand_is_unseen_by_git_and_no_fault(
    installer: ModuleType, upstream: Path, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = app_files.REFUSED["two imports"][0]
    commit(upstream, source)
    git(fluxgym, "pull", "-q")
    by_hand = installer.snippet("supervise").encode() + b"\n"
    (fluxgym / "app.py").write_bytes(source.replace(b"import json\n", by_hand + b"import json\n"))
    installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT
    installer.install(fluxgym, yes=True, repair=True)
    installer.print_status(fluxgym)
    said = capsys.readouterr().out
    assert "fault" not in said and "nothing is damaged" in said and "Note: an update may stop" not in said
    assert "updates: not survived by supervise, inserted by hand" in said
    installer.uninstall(fluxgym, yes=True)
    assert state(fluxgym) == (False, False, "")


def test_conflicts_look_as_without_us(installer: ModuleType, upstream: Path, fluxgym: Path) -> None:
    installer.install(fluxgym, yes=True)
    app = fluxgym / "app.py"
    app.write_bytes(app.read_bytes().replace(b'"Start"', b'"Go"'))
    git(fluxgym, "commit", "-q", "-a", "-m", "mine")
    commit(upstream, NEWER)
    git(fluxgym, "pull", "-q", "--no-rebase", check=False)
    assert BLOCKS not in app.read_bytes() and b"<<<<<<< HEAD" in app.read_bytes()
    git(fluxgym, "checkout", "-q", "--theirs", "app.py")
    assert BLOCKS in app.read_bytes()
    git(fluxgym, "commit", "-q", "-a", "-m", "merged")
    assert git(fluxgym, "show", "HEAD:app.py") == NEWER
    assert not git(fluxgym, "status", "--porcelain")


def test_pinokios_update_deletes_env_and_the_tab_and_its_package_come_back(
    installer: ModuleType, upstream: Path, fluxgym: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(tmp_path)
    commit(upstream, app_files.PLAIN, "# nothing\n")  # FluxGym's own requirements would be gigabytes
    git(fluxgym, "pull", "-q")
    env = fluxgym / "env"
    new_env(env)
    git(fluxgym, "clone", "-q", str(upstream), "sd-scripts")
    with pytest.MonkeyPatch.context() as offline:
        offline.setenv("PIP_FIND_LINKS", str(wheel.parent))
        offline.setenv("PIP_NO_INDEX", "1")
        installer.install(fluxgym, yes=True)
        said = capsys.readouterr().out
        assert "nvidia-ml-py 99.0 put into " in said and "whose dry run says that nothing else changes" in said
        assert has_nvml(env)

        commit(upstream, NEWER, "# still nothing\n")
        git(fluxgym, "pull")
        git(fluxgym / "sd-scripts", "pull")
        shutil.rmtree(env)
        new_env(env)
        subprocess.run(
            [env_python(env), "-m", "pip", "install", "-q", "-r", "requirements.txt"], cwd=fluxgym, check=True
        )
    assert has_nvml(env)
    assert state(fluxgym)[:2] == (True, True)
    installer.print_status(fluxgym)
    said = capsys.readouterr().out
    assert "survived, through git's filter" in said and "fault" not in said
    config = local_files(fluxgym)["config"].decode()
    assert str(env) not in config  # the Python that git uses outlives env/
    installer.uninstall(fluxgym, yes=True)
    assert "nvidia-ml-py stays" in capsys.readouterr().out


def make_wheel(folder: Path, requires: str = "") -> Path:
    """A stand-in for NVIDIA's package, so that no index is asked."""
    import zipfile

    wheel = folder / "wheels" / "nvidia_ml_py-99.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    facts = "Metadata-Version: 2.1\nName: nvidia-ml-py\nVersion: 99.0\n" + requires
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pynvml.py", "")
        archive.writestr("nvidia_ml_py-99.0.dist-info/METADATA", facts)
        archive.writestr(
            "nvidia_ml_py-99.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("nvidia_ml_py-99.0.dist-info/RECORD", "")
    return wheel


def new_env(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)


def env_python(folder: Path) -> str:
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def has_nvml(folder: Path) -> bool:
    return subprocess.run([env_python(folder), "-c", "import pynvml"], check=False, capture_output=True).returncode == 0


def test_autocrlf_keeps_its_line_endings(installer: ModuleType, upstream: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fluxgym"
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(upstream), str(folder))
    original = (folder / "app.py").read_bytes()
    assert b"\r\n" in original
    installer.install(folder, yes=True)
    assert state(folder) == INTACT
    assert b"\n" not in (folder / "app.py").read_bytes().replace(b"\r\n", b"")
    commit(upstream, NEWER)
    git(folder, "pull", "-q")
    assert state(folder) == INTACT
    patched = (folder / "app.py").read_bytes()
    assert installer.unpatch(patched) == NEWER.replace("\n", "\r\n").encode()
    assert b"\n" not in patched.replace(b"\r\n", b"")
    installer.uninstall(folder, yes=True)
    assert state(folder) == (False, False, "")


# What the filter does when its parts are gone


def test_without_any_python_the_pristine_file_comes_through(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installer, "_lasting_python", lambda folder: str(tmp_path / "no" / "python"))
    installer.install(fluxgym, yes=True)
    few = tmp_path / "bin"
    few.mkdir()
    for name in ("sh", "cat", "git"):
        (few / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(few))
    (fluxgym / "app.py").unlink()
    said = git(fluxgym, "checkout", "--force", "main", check=False)
    assert "error" not in said
    assert (fluxgym / "app.py").read_text() == app_files.PLAIN
    repository = installer._find_repository(fluxgym)
    assert "gives app.py without the blocks" in installer._survival(fluxgym, fluxgym / "app.py", repository)


@POSIX
def test_a_python_that_is_gone_is_replaced_by_one_on_the_path(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installer, "_lasting_python", lambda folder: str(tmp_path / "no" / "python"))
    installer.install(fluxgym, yes=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "--force", "main")
    assert state(fluxgym) == INTACT


@POSIX
def test_a_python_that_is_too_old_is_passed_over(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installer, "_lasting_python", lambda folder: str(tmp_path / "no" / "python"))
    installer.install(fluxgym, yes=True)
    (tmp_path / "bin").mkdir()
    old = tmp_path / "bin" / "python3"
    old.write_text('#!/bin/sh\n[ "$3" = -c ] && exit 1\necho too old\n')
    old.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "--force", "main")
    assert state(fluxgym) == INTACT


def test_a_program_in_a_branch_is_not_run_by_git(
    installer: ModuleType, upstream: Path, fluxgym: Path, tmp_path: Path
) -> None:
    installer.install(fluxgym, yes=True)
    (upstream / "fluxgym_watchdog").mkdir()
    run = tmp_path / "was run"
    (upstream / "fluxgym_watchdog" / "install.py").write_text(f"open({str(run)!r}, 'w')\n")
    git(upstream, "add", "-A", "--force")
    commit(upstream, NEWER)
    shutil.rmtree(fluxgym / "fluxgym_watchdog")
    git(fluxgym, "pull", "-q")
    git(fluxgym, "checkout", "-q", "--force", "HEAD")
    git(fluxgym, "status")
    assert (fluxgym / "fluxgym_watchdog" / "install.py").is_file() and not run.exists()


def test_with_the_package_deleted_git_still_sees_nothing_of_the_blocks(installer: ModuleType, fluxgym: Path) -> None:
    installer.install(fluxgym, yes=True)
    shutil.rmtree(fluxgym / "fluxgym_watchdog")
    (fluxgym / "app.py").touch()
    assert state(fluxgym) == INTACT


@pytest.mark.parametrize("damage", ["the package is deleted", "the copy is deleted", "it raises", "a snippet is gone"])
def test_a_damaged_installer_gives_the_pristine_file(installer: ModuleType, fluxgym: Path, damage: str) -> None:
    installer.install(fluxgym, yes=True)
    copy = fluxgym / ".git" / "fluxgym-watchdog"
    if damage == "the package is deleted":
        shutil.rmtree(fluxgym / "fluxgym_watchdog")
    elif damage == "the copy is deleted":
        shutil.rmtree(copy)
    elif damage == "it raises":
        (copy / "filter.py").write_text("raise RuntimeError\n")
    else:
        (copy / "patches" / "last_tab.py").unlink()
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "-q", "--force", "main", check=False)
    assert (fluxgym / "app.py").read_text() == app_files.PLAIN
    installer.install(fluxgym, yes=True, repair=True)
    assert state(fluxgym) == INTACT


@pytest.mark.parametrize("name", ["README.md", "app.py", "requirements.txt"])
@pytest.mark.parametrize("direction", ["clean", "smudge"])
def test_the_filter_passes_what_it_does_not_know(checkout: Path, direction: str, name: str) -> None:
    for content in (b"", b"\0\xff\r\n\\", b"# >>> fluxgym-watchdog: tab >>>\n", "x = (\n".encode("utf-16")):
        command = [sys.executable, "-I", "-S", str(checkout / "install.py"), "--git-filter", direction, name]
        done = subprocess.run(command, input=content, capture_output=True, check=True)
        if name == "requirements.txt" and direction == "smudge" and content == b"":
            assert b"nvidia-ml-py" in done.stdout
        else:
            assert done.stdout == content


def test_the_filter_needs_little_beside_python_itself(checkout: Path) -> None:
    """It runs at each git status; how long it takes depends on the machine, what it does does not."""
    code = (
        "import sys; sys.argv = ['install.py', '--git-filter', 'clean', 'app.py']\n"
        f"sys.path.insert(0, {str(checkout)!r})\nimport install\n"
        "print(*sorted({'argparse', 'subprocess', 'tempfile', 'socket', 'json', 'hashlib'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""

    def quickest(*command: str) -> float:
        taken = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-I", "-S", *command], input=app_files.PLAIN.encode(), check=True, stdout=-3
            )
            taken.append(time.perf_counter() - begun)
        return min(taken)

    bare = quickest("-c", "import ast, dataclasses, re, tokenize, pathlib")
    assert quickest(str(checkout / "install.py"), "--git-filter", "smudge", "app.py") < 8 * bare


# Repositories that are not plain clones


def test_inside_a_larger_repository_only_its_own_files_are_filtered(
    installer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "all"
    folder = top / 'my [tools] "x"' / "flux gym"
    folder.mkdir(parents=True)
    git(top, "init", "-q", "-b", "main")
    for place in (top, folder):
        (place / "app.py").write_text(app_files.PLAIN)
        (place / "requirements.txt").write_text(REQUIREMENTS)
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "all")
    before = local_files(folder)
    installer.install(folder, yes=True)
    assert state(folder) == INTACT
    for place in (top, folder):
        (place / "app.py").unlink()
    git(top, "checkout", "-q", "--force", "main")
    assert state(folder) == INTACT
    assert (top / "app.py").read_text() == app_files.PLAIN
    with pytest.raises(installer.RefusedError, match="installed for another folder of this repository"):
        installer.install(top, yes=True)
    installer.uninstall(folder, yes=True)
    assert local_files(folder) == before
    assert not git(top, "status", "--porcelain")
    capsys.readouterr()


def test_a_submodule(installer: ModuleType, upstream: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    git(top, "init", "-q", "-b", "main")
    git(top, "submodule", "--quiet", "add", str(upstream), "fluxgym")
    git(top, "commit", "-q", "-m", "all")
    folder = top / "fluxgym"
    assert (folder / ".git").is_file()
    before = local_files(folder)
    installer.install(folder, yes=True)
    assert state(folder) == INTACT
    assert not git(top, "status", "--porcelain")
    git(folder, "reset", "-q", "--hard")
    (folder / "app.py").unlink()
    git(top, "submodule", "--quiet", "update", "--force")
    assert state(folder) == INTACT
    installer.uninstall(folder, yes=True)
    assert local_files(folder) == before


def test_linked_work_trees_share_the_filter_and_the_last_one_takes_it_out(
    installer: ModuleType, fluxgym: Path, tmp_path: Path
) -> None:
    before = local_files(fluxgym)
    second = tmp_path / "second"
    git(fluxgym, "worktree", "add", "-q", "-b", "other", str(second))
    installer.install(second, yes=True)
    assert state(second) == INTACT
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "-q", "--force", "main")
    assert state(fluxgym) == (False, False, "")  # nothing is installed there
    installer.install(fluxgym, yes=True)
    installer.uninstall(second, yes=True)
    assert state(second) == (False, False, "")
    assert state(fluxgym) == INTACT
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "-q", "--force", "main")
    assert state(fluxgym) == INTACT
    installer.uninstall(fluxgym, yes=True)
    assert local_files(fluxgym) == before


def test_an_app_that_git_does_not_have_is_patched_without_a_filter(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(fluxgym, "rm", "-q", "--cached", "app.py")
    installer.install(fluxgym, yes=True)
    assert local_files(fluxgym)["info/attributes"].count(b"filter=") == 1  # requirements.txt
    assert BLOCKS in (fluxgym / "app.py").read_bytes()
    installer.print_status(fluxgym)
    assert "git has no app.py here" in capsys.readouterr().out


def test_blocks_that_are_committed_need_no_filter(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(fluxgym, yes=True, git=False, packages=False)
    git(fluxgym, "commit", "-q", "-a", "-m", "with the blocks")
    installer.install(fluxgym, yes=True)
    assert not git(fluxgym, "status", "--porcelain")
    assert local_files(fluxgym)["info/attributes"].count(b"filter=") == 1  # requirements.txt
    installer.print_status(fluxgym)
    assert "the blocks are in git's own app.py" in capsys.readouterr().out


def test_no_git_leaves_gits_files_alone(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True, git=False)
    assert "an update that touches app.py stops" in capsys.readouterr().out
    assert local_files(fluxgym) == before
    assert BLOCKS in (fluxgym / "app.py").read_bytes()


def test_no_packages_leaves_requirements_alone_for_ever(installer: ModuleType, fluxgym: Path) -> None:
    installer.install(fluxgym, yes=True, packages=False)
    for name in ("app.py", "requirements.txt"):
        (fluxgym / name).unlink()
    git(fluxgym, "checkout", "-q", "--force", "main")
    assert state(fluxgym) == (True, False, "")


def test_an_edited_block_of_gits_is_left_alone_unless_repaired(installer: ModuleType, fluxgym: Path) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True)
    config = fluxgym / ".git" / "config"
    edited = config.read_bytes().replace(b"required = false", b"required = true")
    config.write_bytes(edited)
    for act in (installer.install, installer.uninstall):
        with pytest.raises(installer.RefusedError, match=r"config line .* the fluxgym-watchdog block 'git-config' was"):
            act(fluxgym, yes=True)
        assert config.read_bytes() == edited
    installer.install(fluxgym, yes=True, repair=True)
    assert (fluxgym / ".git" / "config.edited-1").read_bytes() == edited
    assert state(fluxgym) == INTACT
    installer.uninstall(fluxgym, yes=True)
    assert local_files(fluxgym) == before


def test_repair_keeps_to_what_was_declined(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True, git=False, packages=False)
    installer.print_status(fluxgym)
    said = capsys.readouterr().out
    assert "fault" not in said and "may stop at app.py: its filter is not set up" in said
    (fluxgym / "app.py").write_text(app_files.PLAIN)
    installer.install(fluxgym, yes=True, repair=True)
    assert local_files(fluxgym) == before
    assert state(fluxgym)[:2] == (True, False)
    installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT


def test_no_packages_later_takes_the_requirement_out_again(installer: ModuleType, fluxgym: Path) -> None:
    installer.install(fluxgym, yes=True)
    installer.install(fluxgym, yes=True, packages=False)
    assert state(fluxgym) == (True, False, "")
    installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT


@POSIX
def test_a_linked_app_is_not_filtered_and_requirements_are(
    installer: ModuleType, fluxgym: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fluxgym / "app.py").replace(tmp_path / "real.py")
    (fluxgym / "app.py").symlink_to(tmp_path / "real.py")
    git(fluxgym, "commit", "-q", "-a", "-m", "a link")
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT
    capsys.readouterr()
    installer.print_status(fluxgym)
    said = capsys.readouterr().out
    assert f"not survived by themselves, as app.py is a link to {tmp_path / 'real.py'}" in said and "fault" not in said
    (fluxgym / "requirements.txt").unlink()
    git(fluxgym, "checkout", "-q", "--force", "main")
    assert state(fluxgym) == INTACT
    installer.uninstall(fluxgym, yes=True)
    assert (tmp_path / "real.py").read_text() == app_files.PLAIN
    assert local_files(fluxgym) == before


def test_a_file_that_was_only_touched_is_no_fault(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(fluxgym, yes=True)
    os.utime(fluxgym / "app.py", (1, 1))
    installer.print_status(fluxgym)
    assert "fault" not in capsys.readouterr().out


def test_killed_before_git_looked_again_it_is_repaired(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Git takes a file of another size for changed before it asks the filter."""
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(installer, "_refresh", lambda repository, folder: None)
        installer.install(fluxgym, yes=True)
    assert git(fluxgym, "status", "--porcelain") == " M app.py\n M requirements.txt\n"
    installer.print_status(fluxgym)
    assert "fault:   git: it takes app.py and requirements.txt as changed by you" in capsys.readouterr().out
    installer.install(fluxgym, yes=True, repair=True)
    assert state(fluxgym) == INTACT


# Refusals: nothing is changed


def refused(installer: ModuleType, folder: Path, match: str) -> None:
    before = local_files(folder), (folder / "app.py").read_bytes(), sorted(folder.iterdir())
    with pytest.raises(installer.RefusedError, match=match):
        installer.install(folder, yes=True)
    assert (local_files(folder), (folder / "app.py").read_bytes(), sorted(folder.iterdir())) == before


def test_somebody_elses_filter_on_app_is_respected(installer: ModuleType, fluxgym: Path) -> None:
    (fluxgym / ".gitattributes").write_text("*.py filter=theirs\n")
    refused(installer, fluxgym, "goes through the git filter 'theirs' already")
    installer.install(fluxgym, yes=True, git=False)


@pytest.mark.parametrize("change", ["another filter", "no git", "distrusted"])
def test_what_hinders_an_install_hinders_no_uninstall(
    installer: ModuleType, fluxgym: Path, change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True)
    with pytest.MonkeyPatch.context() as changed:
        if change == "another filter":
            attributes = fluxgym / ".git" / "info" / "attributes"
            attributes.write_bytes(attributes.read_bytes() + b"*.py filter=theirs\n")
            installer.print_status(fluxgym)
            assert "app.py goes through another filter, theirs" in capsys.readouterr().out
        elif change == "no git":
            changed.setenv("PATH", str(tmp_path))
        else:
            changed.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        installer.uninstall(fluxgym, yes=True)
    said = capsys.readouterr().out
    assert ("once more tells it" in said) == (change != "another filter")
    if change == "another filter":
        before["info/attributes"] = before.get("info/attributes", b"") + b"*.py filter=theirs\n"
    assert local_files(fluxgym) == before
    assert not (fluxgym / ".git" / "fluxgym-watchdog").exists()
    assert (fluxgym / "app.py").read_text() == app_files.PLAIN
    installer.uninstall(fluxgym, yes=True)  # as the note says: now git can be told
    assert not git(fluxgym, "status", "--porcelain")


def test_git_knows_of_the_blocks_before_pip_is_asked(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installer, "_install_package", interrupted)
    with pytest.raises(KeyboardInterrupt):
        installer.install(fluxgym, yes=True)
    assert state(fluxgym) == INTACT


def test_a_conflict_is_named_and_needs_no_snippet(
    installer: ModuleType, upstream: Path, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(fluxgym, yes=True)
    app = fluxgym / "app.py"
    app.write_bytes(app.read_bytes().replace(b'"Start"', b'"Mine"'))
    commit(upstream, app_files.PLAIN.replace('"Start"', '"Theirs"').encode())
    git(fluxgym, "commit", "-q", "-am", "mine")
    pulled = subprocess.run(["git", "pull", "--no-rebase"], cwd=fluxgym, capture_output=True, text=True, check=False)
    assert pulled.returncode != 0
    capsys.readouterr()
    assert installer.main([str(fluxgym), "--yes"]) == 1
    said = capsys.readouterr()
    assert "app.py has a merge conflict in it; resolve it, then run install.py --repair" in said.err
    assert "by hand" not in said.out
    text = app.read_text()
    ours, theirs = text.index("<<<<<<<"), text.index("=======")
    kept = text[ours:theirs].split("\n", 1)[1]
    app.write_text(text[:ours] + kept + text[text.index("\n", text.index(">>>>>>>")) + 1 :])
    git(fluxgym, "commit", "-q", "-am", "merged")
    installer.install(fluxgym, yes=True, repair=True)
    assert state(fluxgym) == INTACT


def test_without_the_gits_settings_the_note_says_what_is_so(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.install(fluxgym, yes=True)
    capsys.readouterr()
    installer.install(fluxgym, yes=True, git=False, packages=False)
    assert "git's settings stay as an earlier install made them" in capsys.readouterr().out
    assert state(fluxgym) == (True, False, "")  # nvidia-ml-py is no longer wanted in requirements.txt
    installer.uninstall(fluxgym, yes=True, git=False)
    said = capsys.readouterr().out
    assert str(fluxgym / ".git" / "fluxgym-watchdog") in said
    assert not git(fluxgym, "status", "--porcelain")


def test_git_sees_an_edited_block_and_loses_none(installer: ModuleType, fluxgym: Path) -> None:
    installer.install(fluxgym, yes=True)
    app = fluxgym / "app.py"
    edited = app.read_bytes().replace(b"        print(f", b"        my_own = 1\n        print(f")
    app.write_bytes(edited)
    told = subprocess.run(["git", "diff"], cwd=fluxgym, capture_output=True, text=True, check=True)
    assert "the fluxgym-watchdog block 'tab' was edited by hand" in told.stderr
    git(fluxgym, "stash", "-q")
    assert state(fluxgym) == INTACT
    git(fluxgym, "stash", "pop", "-q")
    assert app.read_bytes() == edited


def test_a_line_that_somebody_adds_while_the_question_is_asked_is_kept(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = fluxgym / ".git" / "info" / "attributes"
    attributes.unlink(missing_ok=True)
    installer.install(fluxgym, yes=True)

    def ask(*_: object) -> None:
        attributes.write_bytes(attributes.read_bytes() + b"*.png binary\n")

    monkeypatch.setattr(installer, "_ask", ask)
    with pytest.raises(installer.RefusedError, match="was changed by someone else"):
        installer.uninstall(fluxgym, yes=True)
    assert attributes.read_bytes().endswith(b"*.png binary\n")
    assert state(fluxgym) == INTACT


def test_git_s_configuration_is_changed_under_git_s_own_lock(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fluxgym / ".git" / "config"
    told: list[int] = []
    check = installer._check_as_expected

    def git_writes(path: Path, expected: bytes | None) -> None:
        check(path, expected)
        if path == config.resolve():
            tried = subprocess.run(["git", "config", "a.b", "c"], cwd=fluxgym, capture_output=True, check=False)
            told.append(tried.returncode)

    monkeypatch.setattr(installer, "_check_as_expected", git_writes)
    installer.install(fluxgym, yes=True)
    assert told and 0 not in told  # git was kept out, and says so, instead of being written over
    assert not config.with_name("config.lock").exists()
    assert state(fluxgym) == INTACT


def test_another_repository_named_in_the_environment_is_not_asked(
    installer: ModuleType, fluxgym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    before = local_files(other)
    with monkeypatch.context() as changed:
        changed.setenv("GIT_DIR", str(other / ".git"))
        installer.install(fluxgym, yes=True)
    assert local_files(other) == before
    assert state(fluxgym) == INTACT


def test_a_folder_that_git_had_not_made_is_gone_again(installer: ModuleType, fluxgym: Path) -> None:
    shutil.rmtree(fluxgym / ".git" / "info")
    installer.install(fluxgym, yes=True)
    installer.uninstall(fluxgym, yes=True)
    assert not (fluxgym / ".git" / "info").exists()


def test_uninstalled_with_no_git_what_stays_is_named(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_files(fluxgym)
    installer.install(fluxgym, yes=True)
    whole = local_files(fluxgym)
    capsys.readouterr()
    installer.uninstall(fluxgym, yes=True, git=False)
    said = capsys.readouterr().out
    assert local_files(fluxgym) == whole
    assert "Left as asked by --no-git" in said
    assert all(str(fluxgym / ".git" / name) in said for name in LOCAL)
    installer.uninstall(fluxgym, yes=True)
    assert local_files(fluxgym) == before
    assert not (fluxgym / ".git" / "fluxgym-watchdog").exists()


def test_no_git_on_the_path_is_refused_with_the_way_out(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = (fluxgym / "app.py").read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(installer.RefusedError, match=r"no git was found on the PATH.*--no-git"):
        installer.install(fluxgym, yes=True)
    assert (fluxgym / "app.py").read_bytes() == before


def test_a_repository_that_git_distrusts_is_refused_in_gits_words(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(installer.RefusedError, match=r"dubious ownership.*as the user who owns the folder"):
        installer.install(fluxgym, yes=True)


def test_gits_own_lock_is_respected_and_what_was_done_before_is_taken_back(
    installer: ModuleType, fluxgym: Path
) -> None:
    (fluxgym / ".git" / "config.lock").touch()
    refused(installer, fluxgym, "git is writing its configuration")


@POSIX
def test_a_disk_that_fills_up_half_way_leaves_all_as_it_was(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())
    real = installer._replace_file

    def replace(path: Path, expected: bytes | None, content: bytes) -> None:
        if path.name == "requirements.txt" and b"nvidia" in content:
            raise OSError(28, "No space left on device", str(path))
        real(path, expected, content)

    monkeypatch.setattr(installer, "_replace_file", replace)
    assert installer.main([str(fluxgym), "--yes"]) == 1
    assert "requirements.txt: No space left on device" in capsys.readouterr().err
    assert (local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())) == before
    assert not git(fluxgym, "status", "--porcelain")


def test_ctrl_c_half_way_leaves_all_as_it_was(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())
    real = installer._replace_file

    def replace(path: Path, expected: bytes | None, content: bytes) -> None:
        if path.name == "requirements.txt" and b"nvidia" in content:
            raise KeyboardInterrupt
        real(path, expected, content)

    monkeypatch.setattr(installer, "_replace_file", replace)
    assert installer.main([str(fluxgym), "--yes"]) == 1
    assert (local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())) == before


@POSIX
def test_a_signal_half_way_leaves_all_as_it_was(installer: ModuleType, fluxgym: Path) -> None:
    before = local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())
    for name in ("SIGTERM", "SIGHUP"):
        code = TERMINATED.replace("SIGNAL", name)
        command = [sys.executable, "-c", code, str(fluxgym), str(installer.HERE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "Interrupted. What is there now: --status\n")
        assert (local_files(fluxgym), (fluxgym / "app.py").read_bytes(), sorted(fluxgym.iterdir())) == before
        assert not (fluxgym / ".git" / "fluxgym-watchdog").exists()


TERMINATED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
sys.dont_write_bytecode = True
import install
real = install._replace_file
def replace(path, expected, content):
    if path.name == "requirements.txt" and b"nvidia" in content:
        os.kill(os.getpid(), signal.SIGNAL)
    real(path, expected, content)
install._replace_file = replace
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(install.main([sys.argv[1], "--yes"]))
"""


def test_what_cannot_be_taken_back_is_named_and_keeps_its_package(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = installer._replace_file

    def replace(path: Path, expected: bytes | None, content: bytes) -> None:
        if path.name == "requirements.txt" or (path.name == "app.py" and BLOCKS not in content):
            raise OSError(30, "Read-only file system", str(path))
        real(path, expected, content)

    monkeypatch.setattr(installer, "_replace_file", replace)
    assert installer.main([str(fluxgym), "--yes"]) == 1
    said = capsys.readouterr().err
    assert f"{fluxgym / 'app.py'}: could not be taken back and stays changed" in said
    assert BLOCKS in (fluxgym / "app.py").read_bytes()
    assert (fluxgym / "fluxgym_watchdog" / "__init__.py").is_file()


def test_gits_own_reason_is_told(installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fluxgym / ".git" / "index.lock").touch()
    installer.install(fluxgym, yes=True)
    assert "index.lock': File exists" in capsys.readouterr().out
    with pytest.raises(installer.RefusedError, match=r"index\.lock': File exists") as refused:
        installer.install(fluxgym, yes=True, repair=True)
    assert "fresh download" not in str(refused.value)


def test_no_secret_of_gits_configuration_is_printed(
    installer: ModuleType, fluxgym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(fluxgym, "remote", "set-url", "origin", "https://me:s3cret@example.invalid/fluxgym")
    for arguments in (
        ["--dry-run"],
        ["--yes"],
        ["--status"],
        ["--doctor"],
        ["--uninstall", "--dry-run"],
        ["--uninstall"],
    ):
        assert installer.main([str(fluxgym), *arguments]) == 0
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err
    assert installer._without_secrets("at https://me:s3cret@host/x") == "at https://****@host/x"
    token = "hf_" + "abcdefghIJKLMNOPq" * 2
    assert installer._without_secrets(f"login('{token}')") == "login('hf_****')"
    assert installer._without_secrets("hf_hub_download(hf_transfer_enabled)") == "hf_hub_download(hf_transfer_enabled)"


# Kills


CHANGES = "os.rename os.remove os.link"


@POSIX
@pytest.mark.parametrize("arguments", [[], ["--repair"], ["--uninstall"]], ids=["install", "repair", "uninstall"])
def test_killed_between_any_two_files_git_still_works_and_all_goes_out_again(
    installer: ModuleType, fluxgym: Path, tmp_path: Path, arguments: list[str]
) -> None:
    pristine = local_files(fluxgym)
    if arguments:
        installer.install(fluxgym, yes=True)
    if "--repair" in arguments:
        (fluxgym / "app.py").write_text(app_files.PLAIN)
        (fluxgym / ".git" / "info" / "exclude").write_bytes(b"")
        (fluxgym / ".git" / "config").write_bytes(pristine["config"])
        pristine["info/exclude"] = b""
    for changes in range(60):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fluxgym, folder, symlinks=True)
        done = killed_at(changes, CHANGES, folder, installer.HERE, *arguments)
        for name, original in {"app.py": app_files.PLAIN, "requirements.txt": REQUIREMENTS}.items():
            content = (folder / name).read_bytes()
            assert content in (original.encode(), installer._FILTERED[name](original.encode()))
        git(folder, "status", "--porcelain")
        installer.uninstall(folder, yes=True)
        assert state(folder) == (False, False, "")
        assert local_files(folder) == pristine
        assert not (folder / ".git" / "fluxgym-watchdog").exists()
        assert sorted(path.name for path in folder.iterdir()) == [".git", "app.py", "requirements.txt"]
        if done.returncode == 0:
            break
    assert done.returncode == 0 and changes > 5


# Other users and other machines


@POSIX
def test_in_docker_without_git_as_another_user(checkout: Path) -> None:
    """The image has no .git, the folder is mounted from the host, FluxGym's user is not root and ends by SIGKILL."""
    if os.geteuid() != 0:
        pytest.skip("only root can become user 1000")
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        folder, tools = Path(place, "app", "fluxgym"), Path(place, "tools")
        folder.mkdir(parents=True)
        shutil.copytree(checkout, tools)
        (folder / "app.py").write_text(app_files.PLAIN + "    sys.stdout.flush()\n    sys.stdin.read()\n")
        (folder / "requirements.txt").write_text(REQUIREMENTS)
        (folder / "gradio.py").write_text(app_files.GRADIO)
        (folder / "gradio_logsview.py").write_text("class LogsView: ...\nclass LogsViewRunner: ...\n")
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, 1000, 1000)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def as_user(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, "-B", *arguments], cwd=folder, capture_output=True, text=True, check=False,
                user=1000, group=1000, extra_groups=[],
            )  # fmt: skip

        def works(python: str) -> bool:
            with contextlib.suppress(OSError):
                return not as_user(python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))").returncode
            return False

        python = next(filter(works, (sys.executable, "/usr/bin/python3")), None)
        if python is None:
            pytest.skip("user 1000 can run no Python 3.10 or newer here")
        done = as_user(python, str(tools / "install.py"), ".", "--yes")
        assert done.returncode == 0, done.stderr
        assert {path.stat().st_uid for path in folder.rglob("*")} == {1000}
        patched = (folder / "app.py").read_bytes()
        for _ in range(2):  # killed, it comes up again
            with subprocess.Popen(
                [python, "-B", "app.py"], cwd=folder, user=1000, group=1000, extra_groups=[], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ) as app:  # fmt: skip
                assert app.stdout and app.stdout.readline().startswith("READY Supervised")
                app.kill()
        assert (folder / "app.py").read_bytes() == patched
        done = as_user(python, "fluxgym_watchdog/install.py", "--uninstall", "--yes")
        assert done.returncode == 0, done.stderr
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_windows_paths_in_gits_configuration(installer: ModuleType) -> None:
    assert installer._for_shell("C:/Program Files/Py 100%/python.exe") == "'C:/Program Files/Py 100%%/python.exe'"
    assert installer._for_shell("C:/Jo's/python.exe") == """'C:/Jo'\\"'\\"'s/python.exe'"""


def test_run_by_fluxgyms_own_python_the_one_behind_it_is_the_filters(installer: ModuleType, fluxgym: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fluxgym / "env")], check=True)
    command = [env_python(fluxgym / "env"), str(installer.HERE / "install.py"), ".", "--yes", "--no-packages"]
    subprocess.run(command, cwd=fluxgym, check=True, capture_output=True)
    config = local_files(fluxgym)["config"].decode()
    assert Path(sys.base_prefix).as_posix() in config and "/env/" not in config
    shutil.rmtree(fluxgym / "env")
    (fluxgym / "app.py").unlink()
    git(fluxgym, "checkout", "-q", "--force", "main")
    assert BLOCKS in (fluxgym / "app.py").read_bytes()


def test_a_python_inside_fluxgym_is_never_the_filters(
    installer: ModuleType, fluxgym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fluxgym / "env").mkdir()
    inside = str(fluxgym / "env" / "python")
    (fluxgym / "env" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(installer, "_base_pythons", lambda: [inside])
    monkeypatch.setattr(shutil, "which", lambda name: inside)
    with pytest.raises(installer.RefusedError, match=r"needs a Python 3\.10 or newer outside of"):
        installer._lasting_python(fluxgym)
