"""The demo's folder: shaped like FluxGym's, its app builds, and its train script runs under a real bash."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluxgym_watchdog.demo import create_fluxgym, environment

BASH = shutil.which("bash")
PATIENCE_S = 120
FAST = {f"DEMO_{part}_SECONDS": "0" for part in ("LOAD", "STEP", "SAVE", "SAMPLE", "END")}
BUILD_SCRIPT = """
import json, runpy
app = runpy.run_path("app.py", run_name="app")
plain, config, steps = app["update"]("My LoRA", 6, 10, 1, "", 0)
sampled, _, _ = app["update"]("My LoRA", 6, 10, 1, "a prompt", 20)
print("BUILT" + json.dumps({"plain": plain, "sampled": sampled, "config": config, "steps": steps}))
"""
START_TRAINING = """
import runpy
app = runpy.run_path("app.py", run_name="app")
script, config, _ = app["update"]("My LoRA", 6, 10, 1, "", 0)
*_, last = app["start_training"]("My LoRA", script, config, "")
print("LAST" + repr(last.splitlines()[-2:]), len(last.splitlines()))
"""


@pytest.fixture
def fluxgym(tmp_path: Path) -> Path:
    folder = tmp_path / "flux gym"
    create_fluxgym(folder)
    return folder


def test_app_compiles_and_has_the_anchors_once(fluxgym: Path) -> None:
    text = (fluxgym / "app.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "gradio_logsview"]
    assert [alias.name for alias in imports[0].names] == ["LogsView", "LogsViewRunner"]
    blocks = [node for node in tree.body if isinstance(node, ast.With)]
    assert ast.unparse(blocks[0].items[0]).startswith("gr.Blocks(elem_id='app'")
    tabs = [node for node in blocks[0].body if isinstance(node, ast.With)]
    assert [ast.unparse(node.items[0]) for node in tabs] == ["gr.Tabs() as tabs"]
    items = [ast.unparse(node.items[0]) for node in tabs[0].body if isinstance(node, ast.With)]
    assert items == ["gr.TabItem('Gym')", "gr.TabItem('Publish') as publish_tab"]
    assert text.count("yield from runner.run_command([command], cwd=cwd)") == 1


def test_the_folder_is_shaped_like_fluxgym(fluxgym: Path) -> None:
    assert sum(file.suffix == ".png" for file in (fluxgym / "datasets" / "demo-lora").iterdir()) == 4
    for part in ("outputs", "sd-scripts/flux_train_network.py", "gradio_logsview/__init__.py", "requirements.txt"):
        assert (fluxgym / part).exists()
    assert os.access(fluxgym / "bin" / "accelerate", os.X_OK)


def test_laying_out_again_keeps_runs_and_tells_the_story_anew(fluxgym: Path) -> None:
    (fluxgym / "outputs" / "kept").mkdir()
    (fluxgym / ".demo-faults-done").write_text("hang@85\n")
    create_fluxgym(fluxgym)
    assert (fluxgym / "outputs" / "kept").is_dir()
    assert not (fluxgym / ".demo-faults-done").exists()


def test_environment_tells_the_story_unless_told_otherwise(fluxgym: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMO_FAULTS", raising=False)
    monkeypatch.setenv("DEMO_STEP_SECONDS", "7")
    variables = environment(fluxgym)
    assert variables["DEMO_FAULTS"] == "hang@85,crash@150"
    assert variables["DEMO_STEP_SECONDS"] == "7"
    assert variables["PATH"].split(os.pathsep)[0] == str(fluxgym / "bin")


def test_the_train_script_is_written_as_fluxgym_writes_it(fluxgym: Path) -> None:
    built = build(fluxgym)
    assert str(built["plain"]).endswith("--loss_type l2 \\")
    assert '--optimizer_type adamw8bit \\--sample_prompts="' in str(built["sampled"])
    assert '--sample_every_n_steps="20" \\\n' in str(built["sampled"])
    assert built["steps"] == 240


@pytest.mark.skipif(sys.platform == "win32" or BASH is None, reason="needs bash")
@pytest.mark.parametrize("which", ["plain", "sampled"])
def test_the_train_script_trains_to_the_end_under_bash(fluxgym: Path, which: str) -> None:
    built = build(fluxgym)
    output = fluxgym / "outputs" / "my-lora"
    output.mkdir()
    (output / "train.sh").write_text(str(built[which]), encoding="utf-8")
    (output / "dataset.toml").write_text(str(built["config"]), encoding="utf-8")
    (output / "sample_prompts.txt").write_text("a prompt", encoding="utf-8")
    done = start(fluxgym, [str(BASH), str(output / "train.sh")], DEMO_FAULTS="")
    assert done.returncode == 0, done.stderr
    assert "  total optimization steps / 学習ステップ数: 240" in done.stdout
    assert "model saved." in done.stderr
    assert [path.name for path in sorted(output.glob("*.safetensors"))][-1] == "my-lora.safetensors"
    assert (output / "sample").exists() == (which == "sampled")


@pytest.mark.skipif(sys.platform == "win32" or BASH is None, reason="needs bash")
def test_the_app_announces_completion_even_after_a_crash(fluxgym: Path) -> None:
    done = start(fluxgym, [sys.executable, "-c", START_TRAINING], DEMO_FAULTS="crash@150")
    assert done.returncode == 0, done.stderr
    assert "Process exited with code 1" in done.stdout
    assert (fluxgym / "outputs" / "my-lora" / "README.md").exists()
    assert (fluxgym / "outputs" / "my-lora" / "my-lora-000003.safetensors").exists()
    assert not (fluxgym / "outputs" / "my-lora" / "my-lora.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX script")
def test_accelerate_looks_like_the_real_one_among_the_processes(fluxgym: Path) -> None:
    script = fluxgym / "show.py"
    script.write_text("import psutil; print(psutil.Process().parent().cmdline())", encoding="utf-8")
    done = start(fluxgym, [str(fluxgym / "bin" / "accelerate"), "launch", "--num_processes", "1", str(script)])
    _, *rest = ast.literal_eval(done.stdout)
    assert shlex.join(rest) == shlex.join(
        [str(fluxgym / "bin" / "accelerate"), "launch", "--num_processes", "1", str(script)]
    )


def build(fluxgym: Path) -> dict[str, object]:
    """Build the app in a process of its own and return what it would fill its boxes with."""
    done = start(fluxgym, [sys.executable, "-c", BUILD_SCRIPT])
    assert done.returncode == 0, done.stderr
    built: dict[str, object] = json.loads(done.stdout.partition("BUILT")[2])
    return built


def start(fluxgym: Path, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=fluxgym,
        env={**environment(fluxgym), **FAST, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
