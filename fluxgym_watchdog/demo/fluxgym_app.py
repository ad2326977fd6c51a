"""Lays out the demo: a folder shaped like FluxGym's, with an app of our own and the stand-in trainer in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fluxgym_watchdog.demo.pace import SIMULATED_GPU_VARIABLE
from fluxgym_watchdog.demo.pictures import write_picture

RUN_NAME = "demo-lora"
PICTURES = 4
"""With the app's 10 repeats and 6 epochs: 40 steps an epoch, 240 in all."""
STORY = {"DEMO_FAULTS": "hang@85,crash@150", "DEMO_STEP_SECONDS": "0.12", "DEMO_LOAD_SECONDS": "3"}
"""The demo hangs once and crashes once; a variable that is already set wins."""
SIMULATED_GPU_FILE = ".simulated-gpu.json"
FAULTS_DONE_FILE = ".demo-faults-done"
TEMPLATES = Path(__file__).parent / "templates"
PACKAGE_PARENT = Path(__file__).resolve().parents[2]

TRAINER_STUB = '''\
"""Demo: a stand-in for sd-scripts' flux_train_network.py. It trains nothing."""
from fluxgym_watchdog.demo.trainer import main

if __name__ == "__main__":
    main()
'''

# A shell script and a Python script at once: /bin/sh replaces itself by this Python (whose path may hold spaces), and
# to Python the second line is a string. So the process is called `python .../accelerate launch ...`, as the real one.
ACCELERATE_STUB = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
from fluxgym_watchdog.demo.accelerate import main

main()
"""
SETTINGS = """\
# The demo's settings: short, so that nobody need wait. Without this file a hang is found by the run's own pace, at the
# latest after five minutes without any sign of life.
check_interval: 1
stuck_threshold: 12
backoff: 3
stop_grace: 5
"""
ACCELERATE_BATCH = '@"{python}" -m fluxgym_watchdog.demo.accelerate %*\n'


MODELS = ("unet/flux1-dev.sft", "clip/clip_l.safetensors", "clip/t5xxl_fp16.safetensors", "vae/ae.sft")
"""What the demo's train script names, as FluxGym's does."""


def create_fluxgym(folder: Path) -> None:
    """Lay out the demo in `folder`, which is created where needed. What the demo brings is written anew, runs that
    are already in outputs/ stay, and the story's failures will happen again."""
    for part in ("outputs", "sd-scripts", "gradio_logsview", "bin", f"datasets/{RUN_NAME}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATES / "app.py.txt", folder / "app.py")
    shutil.copyfile(TEMPLATES / "gradio_logsview.py.txt", folder / "gradio_logsview" / "__init__.py")
    _write(folder / "requirements.txt", "gradio\n")
    _write(folder / "watchdog.yaml", SETTINGS)
    _write(folder / "sd-scripts" / "flux_train_network.py", TRAINER_STUB)
    for model in MODELS:
        (folder / "models" / model).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / "models" / model, "Stands where FluxGym keeps a model.\n")
    accelerate = folder / "bin" / "accelerate"
    _write(accelerate, ACCELERATE_STUB.format(python=sys.executable))
    accelerate.chmod(0o755)
    _write(folder / "bin" / "accelerate.bat", ACCELERATE_BATCH.format(python=sys.executable))
    for number in range(1, PICTURES + 1):
        write_picture(folder / "datasets" / RUN_NAME / f"picture-{number}.png", number)
        _write(folder / "datasets" / RUN_NAME / f"picture-{number}.txt", f"dmo picture number {number}\n")
    (folder / FAULTS_DONE_FILE).unlink(missing_ok=True)


def environment(folder: Path) -> dict[str, str]:
    """The environment to start the demo's app.py in: this process's, with the stand-in `accelerate` found first, this
    package importable by every Python below it, and the story. A GPU is simulated only where none can be read."""
    folder = folder.resolve()
    variables = dict(os.environ)
    variables["PATH"] = _joined(str(folder / "bin"), os.environ.get("PATH", ""))
    # The folder itself first: a copy of this package in there is the one that its app.py imports.
    variables["PYTHONPATH"] = _joined(str(folder), str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", ""))
    variables["PYTHONUTF8"] = "1"
    variables["DEMO_FAULTS_DONE"] = str(folder / FAULTS_DONE_FILE)
    for name, value in STORY.items():
        variables.setdefault(name, value)
    if SIMULATED_GPU_VARIABLE not in variables and not _gpu_is_readable():
        variables[SIMULATED_GPU_VARIABLE] = str(folder / SIMULATED_GPU_FILE)
    return variables


def _gpu_is_readable() -> bool:
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def _joined(*paths: str) -> str:
    return os.pathsep.join(path for path in paths if path)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")
