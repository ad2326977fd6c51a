"""The tab in a real browser, on the Gradio that is installed, beside FluxGym's two habits: autoscroll and refresh."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.records import RunRecord, RunState
from fluxgym_watchdog.store import Store
from tests.browsing import needs_browser, picture, wait_until

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
pytestmark = needs_browser

HOSTILE = "<img src=x onerror=window.pwned=1>"
HOSTILE_LOG = (
    "<script>window.pwned=1</script> ${window.pwned=1} {{window.pwned=1}} <img src=x onerror=window.pwned=1>\n"
)


def test_the_tab_shows_a_run_and_what_becomes_of_it(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    page = open_page()
    expect(page.locator("#watchdog-card")).to_contain_text("No training yet")
    picture(page, "empty")
    store = write_run(outputs, now=time.time())
    expect(page.locator("#watchdog-card")).to_contain_text("Training")
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    expect(page.locator("#watchdog-gpu")).to_contain_text("GPU 0 · NVIDIA GeForce RTX 4090")
    expect(page.locator("#watchdog-training svg")).not_to_have_count(0)
    expect(page.locator("#watchdog-timeline")).to_contain_text("No step for 58 s.")
    expect(page.locator("#watchdog-checkpoints tbody tr")).to_have_count(4)
    expect(page.locator("#watchdog-log")).to_contain_text("epoch 4/6")
    expect(page.locator("#watchdog-host")).to_contain_text("24 GiB of 64 GiB")
    page.locator("#watchdog-gpu svg.wd-plot").first.hover(position={"x": 80, "y": 40})
    expect(page.locator("#watchdog-tip")).to_contain_text(":")
    picture(page, "training")
    record, _ = store.read_record()
    assert record is not None
    store.write_record(replace(record, state=RunState.FAILED, reason="Out of video memory.", advice="Choose 12G."))
    expect(page.locator("#watchdog-card")).to_contain_text("Out of video memory. Choose 12G.")
    page.wait_for_function("document.title.includes('persian-miniature: Failed')")
    picture(page, "failed")


def test_the_title_names_another_run_that_needs_a_look(
    open_page: Callable[..., Any],
    outputs: Path,
    write_run: Callable[..., Store],
    make_record: Callable[..., RunRecord],
) -> None:
    other = write_run(outputs, "other", now=time.time())
    write_run(outputs, now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-card h2")).to_contain_text("persian-miniature")
    title = page.title()
    other.write_record(make_record("other", now=time.time(), state=RunState.STALLED))
    page.wait_for_function("document.title.includes('other: Stuck')")
    expect(page.locator("#watchdog-card")).to_contain_text("Another run needs a look: other: Stuck.")
    picture(page, "elsewhere")
    other.write_record(make_record("other", now=time.time()))
    page.wait_for_function("title => document.title === title", arg=title)


def test_a_hidden_tab_asks_for_nothing(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page(show=False)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    page.get_by_role("tab", name="Watchdog").click()
    wait_until(page, lambda: len(asked) >= 2)
    page.get_by_role("tab", name="Gym").click()
    page.wait_for_function("!window.fluxgymWatchdog.shown")
    before = len(asked)
    page.wait_for_timeout(4500)  # two ticks and a half, in which nothing may come
    assert len(asked) == before


def test_the_switch_is_asked_for_and_the_same_on_a_second_page(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(outputs, now=time.time())
    one, two = open_page(), open_page()
    for page in (one, two):
        expect(page.locator("#watchdog-auto-resume input")).to_be_enabled()
        expect(page.locator("#watchdog-auto-resume input")).to_be_checked()
    one.locator("#watchdog-auto-resume input").click()
    wait_until(one, lambda: store.pending_requests() == [{"kind": "switch", "auto_resume": False}])
    expect(two.locator("#watchdog-auto-resume input")).not_to_be_checked(timeout=10_000)
    expect(one.locator("#watchdog-auto-resume input")).not_to_be_checked()
    three = open_page()
    expect(three.locator("#watchdog-auto-resume input")).not_to_be_checked()


def test_stop_and_resume_leave_requests(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(outputs, now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-stop")).to_be_enabled(timeout=10_000)
    expect(page.locator("#watchdog-resume")).to_be_disabled()
    page.locator("#watchdog-stop").click()
    wait_until(page, lambda: store.pending_requests() == [{"kind": "stop"}])
    expect(page.locator("#watchdog-stop")).to_be_disabled(timeout=10_000)
    store.take_requests()
    record, _ = store.read_record()
    assert record is not None
    store.write_record(replace(record, state=RunState.STOPPED))
    expect(page.locator("#watchdog-resume")).to_be_enabled(timeout=10_000)
    page.locator("#watchdog-resume").click()
    wait_until(page, lambda: store.pending_requests() == [{"kind": "resume"}])


def test_going_back_to_a_checkpoint_is_asked_once(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(outputs, now=time.time(), record={"state": RunState.STOPPED})
    page = open_page()
    button = page.locator("button[data-act='resume'][data-value='p-000002-state']")
    button.click()
    expect(button).to_have_text("Goes back from step 160 to step 80: 80 steps to train again. Sure?")
    assert store.pending_requests() == []
    button.click()
    wait_until(page, lambda: store.pending_requests() == [{"kind": "resume", "checkpoint": "p-000002-state"}])


def test_a_picked_run_stays_picked(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, "older", now=time.time(), record={"state": RunState.FINISHED})
    write_run(outputs, "newer", now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-card h2")).to_have_text("newer")
    page.locator("#watchdog-run input").click()
    page.get_by_role("option", name="older").click()
    expect(page.locator("#watchdog-card h2")).to_have_text("older")
    expect(page.locator("#watchdog-card")).to_contain_text("Finished")
    looked: list[str] = []
    page.on("request", lambda request: looked.append(request.url) if "queue/join" in request.url else None)
    wait_until(page, lambda: len(looked) >= 3)
    expect(page.locator("#watchdog-card h2")).to_have_text("older")


def test_autoscroll_is_taken_while_shown_and_given_back(open_page: Callable[..., Any]) -> None:
    page = open_page(show=False)
    scroll = page.locator("#autoscroll")
    expect(scroll).to_have_class("on")
    page.get_by_role("tab", name="Watchdog").click()
    expect(scroll).to_have_class("")
    page.get_by_role("tab", name="Gym").click()
    expect(scroll).to_have_class("on")
    scroll.click()
    page.get_by_role("tab", name="Watchdog").click()
    page.wait_for_function("window.fluxgymWatchdog.shown")
    page.get_by_role("tab", name="Gym").click()
    page.wait_for_function("!window.fluxgymWatchdog.shown")
    expect(scroll).to_have_class("")


def test_no_input_of_the_tab_reaches_the_document(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, "one", now=time.time(), record={"state": RunState.FINISHED})
    store = write_run(outputs, "two", now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-card h2")).to_have_text("two")
    page.locator("#watchdog-auto-resume input").click()
    wait_until(page, store.pending_requests)
    page.locator("#watchdog-range").get_by_text("1 h", exact=True).click()
    page.wait_for_function(
        "(({dataset}) => dataset.to - dataset.from === 3600)(document.querySelector('#watchdog-gpu figure'))"
    )
    page.locator("#watchdog-run input").fill("one")
    page.get_by_role("option", name="one").click()
    expect(page.locator("#watchdog-card h2")).to_have_text("one")
    assert page.evaluate("window.documentInputs") == 0
    page.get_by_role("tab", name="Gym").click()
    page.locator("#script textarea, #script input").fill("edited")
    assert page.evaluate("window.documentInputs") > 0, "the page's own inputs must go on reaching it"


def test_a_hostile_run_is_only_text(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, HOSTILE, now=time.time(), status={"text": HOSTILE}, log=HOSTILE_LOG)
    page = open_page()
    expect(page.locator("#watchdog-card h2")).to_have_text(HOSTILE)
    expect(page.locator("#watchdog-log")).to_contain_text("${window.pwned=1} {{window.pwned=1}}")
    page.locator("#watchdog-run input").click()
    page.get_by_role("option").first.wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("#watchdog-tab img").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_it_fits_a_phone_and_the_dark(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], width: int, scheme: str
) -> None:
    write_run(outputs, "a-very-long-name-without-any-place-to-break-it-0123456789", now=time.time())
    page = open_page(width=width, scheme=scheme)
    expect(page.locator("#watchdog-card h2")).to_be_visible()
    expect(page.locator("#watchdog-gpu svg.wd-plot")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    colour = page.locator("#watchdog-card h2").evaluate("(h) => getComputedStyle(h).color.match(/[0-9]+/)[0]")
    assert (int(colour) > 128) is (scheme == "dark")
    picture(page, f"{width}-{scheme}")
