"""FluxGym's own app.py, patched, in a real browser: Start, a hang, a reloaded page, a crash, and the finished LoRA.

FLUXGYM_APP names an app.py of FluxGym; nothing of FluxGym is part of this project.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.demo import environment
from fluxgym_watchdog.records import RunRecord, RunState
from fluxgym_watchdog.store import Store
from tests.fluxgym.standins import create

ROOT = Path(__file__).resolve().parents[2]
APP = os.environ.get("FLUXGYM_APP")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(APP is None, reason="set FLUXGYM_APP to the path of FluxGym's app.py to run this"),
]
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = "/usr/bin/chromium"
LIMIT_S = 120.0


def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s} s for {what}"
        time.sleep(0.1)


def install(folder: Path, *options: str) -> str:
    command = [sys.executable, str(ROOT / "install.py"), str(folder), "--yes", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def fluxgym(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """The patched FluxGym, answering on a port; the parameter orders the trainer's faults."""
    folder = tmp_path / "fluxgym"
    create(folder, Path(str(APP)))
    install(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **environment(folder),
        "GRADIO_SERVER_PORT": str(port),
        "DEMO_FAULTS": request.param,
        "DEMO_STEP_SECONDS": "0.05",
        "DEMO_LOAD_SECONDS": "0.3",
        "DEMO_STEPS_FILE": str(folder / "steps.txt"),
    }
    with (folder / "app.log").open("wb") as log:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: answers(port) or app.poll() is not None, "the page")
        assert app.poll() is None, (folder / "app.log").read_text()
        yield folder, port
    finally:
        for run in (folder / "outputs").iterdir():
            subprocess.run(
                [sys.executable, "-m", "fluxgym_watchdog", "stop", str(run)], cwd=ROOT, check=False, timeout=60
            )
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def record(folder: Path) -> RunRecord:
    return Store(folder / "outputs" / "tiny").read_record()[0] or RunRecord("tiny")


@pytest.fixture
def page(fluxgym: tuple[Path, int]) -> Iterator[Any]:
    """FluxGym's page with the form filled in, ready for Start."""
    folder, port = fluxgym
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_label("The name of your LoRA").fill("Tiny")
        page.get_by_label("Trigger word/sentence").fill("tny")
        page.get_by_label("Max Train Epochs").fill("6")
        pictures = [str(path) for path in sorted((folder / "datasets/demo-lora").glob("*.png"))]
        page.locator("input[type=file]").first.set_input_files(pictures)
        page.locator("button", has_text="Advanced options").click()
        page.get_by_label("--save_every_n_epochs").fill("1")
        script = page.get_by_label("Train script")
        until(lambda: "--save_every_n_epochs 1 " in script.input_value(), "FluxGym to write the train script")
        until(lambda: "--max_train_epochs 6 " in script.input_value(), "FluxGym to write the train script")
        yield page
        browser.close()


@pytest.mark.parametrize("fluxgym", ["hang@85,crash@150"], indirect=True)
def test_a_training_heals_itself_from_start_to_the_finished_lora(fluxgym: tuple[Path, int], page: Any) -> None:
    folder, _ = fluxgym
    page.locator("#start_training").click()
    until(lambda: record(folder).state is RunState.TRAINING, "the training to begin")
    until(lambda: page.locator("#terminal", has_text="steps:").count(), "FluxGym's own log view to follow")
    page.reload()
    page.get_by_role("tab", name="Watchdog").click()
    playwright.expect(page.locator("#watchdog-card")).to_contain_text("Finished", timeout=LIMIT_S * 1000)
    playwright.expect(page.locator("#watchdog-timeline")).to_contain_text("Training stuck")
    picture(page, "real-fluxgym-healed")
    assert record(folder).state is RunState.FINISHED
    assert next(a.outcome for a in record(folder).attempts) == "hang"
    assert {int(line.split()[2]) for line in (folder / "steps.txt").read_text().splitlines()} == set(range(1, 241))
    install(folder, "--uninstall")
    assert (folder / "app.py").read_bytes() == Path(str(APP)).read_bytes()


@pytest.mark.parametrize("fluxgym", ["oom@1"], indirect=True)
def test_a_training_that_cannot_be_helped_ends_in_an_error(fluxgym: tuple[Path, int], page: Any) -> None:
    folder, _ = fluxgym
    page.locator("#start_training").click()
    toast = page.locator(".toast-wrap")
    playwright.expect(toast).to_contain_text("video memory ran out", timeout=LIMIT_S * 1000)
    picture(page, "real-fluxgym-failed")
    playwright.expect(toast).not_to_contain_text("Training Complete")
    playwright.expect(page.locator("#terminal")).to_contain_text("The training failed")
    assert record(folder).state is RunState.FAILED
    assert len(record(folder).attempts) == 1
    assert not (folder / "outputs/tiny/README.md").exists()


def picture(page: Any, name: str) -> None:
    (ROOT / "tests/artefacts").mkdir(exist_ok=True)
    page.screenshot(path=str(ROOT / f"tests/artefacts/{name}.png"), full_page=True)
