"""The whole story of the demo in a browser: it starts, hangs, is healed, crashes, is healed and finishes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.demo import create_fluxgym, environment
from fluxgym_watchdog.records import RunState
from fluxgym_watchdog.store import Store
from tests.browsing import Pages, needs_browser, picture, wait_until
from tests.trainings import ROOT, TEST_VARIABLE, clean_up, until

PlaywrightError = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").Error
expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
pytestmark = [*needs_browser, pytest.mark.skipif(sys.platform == "win32", reason="the stand-in's faults are signals")]

STORY = {"DEMO_FAULTS": "hang@85,crash@150", "DEMO_STEP_SECONDS": "0.05", "DEMO_LOAD_SECONDS": "1"}
QUICK = "check_interval: 0.5\nstuck_threshold: 4\nbackoff: 1\nstop_grace: 2\n"


@pytest.fixture
def fluxgym(tmp_path: Path) -> Iterator[Path]:
    """The demo's FluxGym with the watchdog installed into it; no process of it is left."""
    root = tmp_path.resolve() / "fluxgym"
    create_fluxgym(root)
    (root / "watchdog.yaml").write_text(QUICK, encoding="utf-8")
    shutil.copytree(ROOT / "fluxgym_watchdog", root / "fluxgym_watchdog", ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("fluxgym_watchdog_installer", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    installer = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = installer
    spec.loader.exec_module(installer)
    app = root / "app.py"
    app.write_bytes(installer.patch(app.read_bytes()))
    yield root
    clean_up(root)


class App:
    """FluxGym's process, on a port of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        server = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(self.port)}
        # A GPU is simulated wherever the test runs: its pictures are the same everywhere, and say so.
        simulated = {"FLUXGYM_WATCHDOG_SIMULATED_GPU": str(self.root / ".simulated-gpu.json")}
        variables = environment(self.root) | STORY | server | simulated | {TEST_VARIABLE: str(self.root)}
        with (self.root / "app.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=self.root, env=variables, stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, "FluxGym's page")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.root / "app.log").read_text(encoding="utf-8", errors="replace")
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def app(fluxgym: Path) -> Iterator[App]:
    app = App(fluxgym)
    yield app
    app.kill()


def start(page: Any) -> None:
    page.get_by_role("tab", name="Gym").click()
    page.get_by_role("button", name="Start training").click()


def test_the_story_of_the_demo(app: App, pages: Pages) -> None:
    page = pages.open(app.address, show=False)
    start(page)
    page.get_by_role("tab", name="Watchdog").click()
    card, timeline = page.locator("#watchdog-card"), page.locator("#watchdog-timeline")
    expect(card.locator("h2")).to_have_text("demo-lora")
    expect(card).to_contain_text("of 240")
    expect(page.locator("#watchdog-gpu")).to_contain_text("Simulated GPU: these values are invented")
    expect(timeline).to_contain_text("Training stuck:")
    expect(timeline).to_contain_text("all are gone")
    expect(timeline).to_contain_text("Attempt 2 goes on from epoch 2 (step 80)")
    picture(page, "story-healed")
    expect(timeline).to_contain_text("Training crashed:")
    second = pages.open(app.address)
    expect(timeline).to_contain_text("Attempt 3 goes on from epoch 3 (step 120)")
    for each in (page, second):
        expect(each.locator("#watchdog-card")).to_contain_text("Finished")
        expect(each.locator("#watchdog-card")).to_contain_text("step 240 of 240")
        expect(each.locator("#watchdog-card")).to_contain_text("resumed 2 times")
        expect(each.locator("#watchdog-checkpoints")).to_contain_text("Publish would upload about")
    picture(page, "story-finished")
    assert page.evaluate("document.querySelectorAll('#watchdog-gpu use').length") == 4


def _went(page: Any, address: str) -> bool:
    """Whether the page went there: Gradio's own reload, when its server is back, may cut in."""
    try:
        page.goto(address, wait_until="domcontentloaded")
    except PlaywrightError:
        return False
    return True


def test_fluxgym_is_killed_in_mid_run_and_the_page_finds_the_training_again(app: App, pages: Pages) -> None:
    page = pages.open(app.address, show=False)
    start(page)
    page.get_by_role("tab", name="Watchdog").click()
    store = Store(app.root / "outputs" / "demo-lora")
    wait_until(page, lambda: (status := store.read_status()) is not None and status.step > 0)
    app.kill()
    app.start()
    until(lambda: _went(page, app.address), "the page of the new server")
    page.get_by_role("tab", name="Watchdog").click()
    timeline = page.locator("#watchdog-timeline")
    expect(timeline).to_contain_text("Watching this run again")
    expect(page.locator("#watchdog-log")).to_contain_text("epoch 1/6")
    expect(page.locator("#watchdog-card")).to_contain_text("Finished")
    record, _ = store.read_record()
    assert record is not None
    assert record.state is RunState.FINISHED
    assert os.path.exists(store.run_folder / "demo-lora.safetensors")  # noqa: PTH110


def test_stop_and_resume_in_the_page(app: App, pages: Pages) -> None:
    page = pages.open(app.address, show=False)
    start(page)
    page.get_by_role("tab", name="Watchdog").click()
    store = Store(app.root / "outputs" / "demo-lora")
    wait_until(page, lambda: (status := store.read_status()) is not None and status.step > 45)
    page.locator("#watchdog-stop").click()
    expect(page.locator("#watchdog-card")).to_contain_text("Stopped")
    picture(page, "story-stopped")
    page.locator("#watchdog-resume").click()
    expect(page.locator("#watchdog-timeline")).to_contain_text("Attempt 2 goes on from epoch")
    expect(page.locator("#watchdog-card")).to_contain_text("Finished")
