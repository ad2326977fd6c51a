"""For tests in a real browser: Debian's Chromium through Playwright, and a picture of each state for the reader."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from tests.trainings import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]
ARTEFACTS = Path(__file__).parent / "artefacts"
SLOW_MS = 1000 * PATIENCE_S
"""For what takes a moment, and longer on a busy machine."""
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that reaches nothing by itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    sync_api.expect.set_options(timeout=SLOW_MS)
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_QUIET, *sandbox])
        yield found
        found.close()


class Pages:
    """Opens pages, which reach nothing but the test's server; nothing may go wrong in them."""

    def __init__(self, browser: Any) -> None:
        self.problems: list[str] = []
        self._browser, self._contexts = browser, []

    def open(
        self,
        address: str,
        *,
        width: int = 1280,
        scheme: str = "light",
        show: bool = True,
        script: str = "",
        **more: Any,
    ) -> Any:
        """A page with the tab shown (or not); `script` runs in it before anything else does."""
        context = self._browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **more)
        context.set_default_timeout(SLOW_MS)
        context.route("**/*", _local_only)
        self._contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"{address}?__theme={scheme}", wait_until="domcontentloaded")
        page.get_by_role("tab", name="Watchdog").wait_for()
        page.wait_for_function("window.fluxgymWatchdog !== undefined")
        if show:
            page.get_by_role("tab", name="Watchdog").click()
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _note(self, message: Any) -> None:
        if message.type == "error" and "watchdog" in (message.text + message.location.get("url", "")).lower():
            self.problems.append(message.text)


def wait_until(page: Any, true: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    """Waits for something outside the page; the page's requests pass through this thread meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        page.wait_for_timeout(20)


def picture(page: Any, name: str) -> None:
    """Keeps a picture of the whole page as an artefact of the test run."""
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"tab-{name}-gradio{gr.__version__.split('.', maxsplit=1)[0]}.png", full_page=True)


def _local_only(route: Any) -> None:
    if "//127.0.0.1" in route.request.url or route.request.url.startswith("blob:"):
        route.continue_()
    else:
        route.abort()
