"""Every state that a run can be in, as its reader sees it: a picture of each is kept, and each says what to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from fluxgym_watchdog.records import FindingKind, Gpu, Phase, RunState, Sample, Saves, Status
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab.board import Board
from tests.browsing import Pages, needs_browser, picture, wait_until

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
pytestmark = needs_browser

NOW = time.time()
NO_ROOM = Saves(40, 10, 25.0, next_in_steps=30, next_bytes=159_000_000, fits=False)
STATES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "starting": ({"state": RunState.STARTING}, {"phase": Phase.LOADING, "step": 80}, ["Loading models", "left"]),
    "caching": ({}, {"phase": Phase.CACHING_LATENTS, "count": 3, "count_total": 20}, ["Caching latents, 3 of 20"]),
    "suspect": (
        {"state": RunState.SUSPECT},
        {"text": "no step for 24 s"},
        ["Slow, looking closer", "No step for 24 s."],
    ),
    "stuck": (
        {"state": RunState.STALLED, "auto_resume": False, "reason": "no step for 58 s", "advice": "Press Resume."},
        {},
        ["Stuck", "No step for 58 s.", "Press Resume.", "watching only: auto-resume is off"],
    ),
    "waiting": (
        {"state": RunState.WAITING, "reason": "CUDA error", "next_start_at": NOW + 500},
        {"next_start_at": NOW + 500},
        ["Waiting to start again", "CUDA error.", "Next start in"],
    ),
    "stopping": ({"state": RunState.STOPPING}, {}, ["Stopping"]),
    "stopped": ({"state": RunState.STOPPED}, {}, ["Stopped"]),
    "crashed": ({"state": RunState.CRASHED, "reason": "exit 1"}, {}, ["Crashed", "Exit 1."]),
    "blind": ({}, {"finding": FindingKind.BLIND, "problem": "the log cannot be read"}, ["Cannot see the training"]),
    "no-gpu": ({}, {"gpu_source": "none", "gpus": (), "gpu_problem": "no driver"}, []),
    "stale": ({}, {"at": NOW - 900}, ["Nobody watches this run at the moment", "out of date"]),
    "no-room": ({}, {"saves": NO_ROOM}, ["the next save (159 MB) does not fit"]),
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_told_in_words(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], name: str
) -> None:
    record, status, texts = STATES[name]
    status = {"state": record.get("state", RunState.TRAINING), **status}
    write_run(outputs, now=time.time(), record=record, status=status)
    page = open_page()
    card = page.locator("#watchdog-card")
    expect(card.locator("h2")).to_have_text("persian-miniature")
    for text in texts:
        expect(card).to_contain_text(text)
    if name == "no-gpu":
        expect(page.locator("#watchdog-gpu")).to_contain_text("No NVIDIA GPU can be read: no driver.")
    picture(page, name)


def test_before_there_is_anything_each_part_says_so(
    open_page: Callable[..., Any], outputs: Path, make_record: Callable[..., Any]
) -> None:
    page = open_page()
    expect(page.locator("#watchdog-card")).to_contain_text("No training yet. Press Start in the Gym tab")
    expect(page.locator("#watchdog-plot-controls")).to_be_hidden()
    (outputs / "new").mkdir()
    (outputs / "new" / "train.sh").write_text("accelerate launch\n", encoding="utf-8")
    expect(page.locator("#watchdog-card")).to_contain_text("Not trained under the watchdog yet")
    for part, text in {
        "gpu": "Nothing was measured in this time.",
        "training": "No steps in this time.",
        "timeline": "Nothing yet.",
        "checkpoints": "None yet. A state is saved at the end of an epoch",
        "log": "The training has written nothing yet.",
        "host": "Not measured yet.",
    }.items():
        expect(page.locator(f"#watchdog-{part}")).to_contain_text(text)
    picture(page, "new")


def test_what_is_wrong_with_the_outputs_or_the_watchdog_stands_on_top(
    pages: Pages, serve: Callable[..., str], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = pages.open(serve(problem=lambda: "watchdog.yaml: unknown key 'x'. The defaults are used."))
    expect(page.locator("#watchdog-card")).to_contain_text("unknown key 'x'. The defaults are used.")
    picture(page, "degraded")
    outputs.rename(outputs.with_name("gone"))
    outputs.write_text("", encoding="utf-8")
    expect(page.locator("#watchdog-card")).to_contain_text("The outputs folder cannot be read")
    picture(page, "unreadable")


def test_a_page_that_is_reloaded_shows_the_same_history(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page()
    line = page.locator("#watchdog-gpu path[data-name]").first
    expect(line).to_have_count(1)
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    page.reload()
    page.get_by_role("tab", name="Watchdog").click()
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    expect(page.locator("#watchdog-timeline li")).to_have_count(2)
    assert len(line.get_attribute("d")) > 10


def test_a_page_outlives_its_server(
    pages: Pages, serve: Callable[..., str], outputs: Path, write_run: Callable[..., Store]
) -> None:
    """FluxGym is restarted in mid-run: the page goes on by itself, on Gradio 6 after a reload; nothing is lost."""
    store = write_run(outputs, now=time.time())
    address = serve()
    page = pages.open(address)
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    status = store.read_status()
    assert status is not None
    assert serve(port=int(address.rstrip("/").rpartition(":")[2])) == address
    store.write_status(replace(status, at=time.time(), step=170))
    if int(gr.__version__.split(".", maxsplit=1)[0]) >= 6:
        page.reload()
        page.get_by_role("tab", name="Watchdog").click()
    expect(page.locator("#watchdog-card")).to_contain_text("step 170 of 240")
    expect(page.locator("#watchdog-gpu path[data-name]")).not_to_have_count(0)
    expect(page.locator("#watchdog-timeline li")).to_have_count(2)
    pages.problems[:] = [p for p in pages.problems if "fetch" not in p.lower() and "connection" not in p.lower()]


def test_a_server_that_does_not_answer_is_not_taken_for_a_training_that_runs(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, show = threading.Event(), Board.show
    answers.set()

    def late(*given: Any, **named: Any) -> Any:
        answers.wait(300)
        return show(*given, **named)

    monkeypatch.setattr(Board, "show", late)
    write_run(outputs, now=time.time())
    # The test cannot wait for half a minute: its clock can be put forward.
    page = open_page(script="const now = Date.now.bind(Date); window.ahead = 0; Date.now = () => now() + window.ahead;")
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    said = page.locator("#watchdog-silent[role=alert]")
    expect(said).to_have_count(0)
    try:
        answers.clear()
        wait_until(page, lambda: page.evaluate("window.ahead += 5000") and said.count() == 1)
        expect(said).to_contain_text("No answer from FluxGym for")
        picture(page, "no-answer")
    finally:
        answers.set()
    expect(said).to_have_count(0)


def test_values_under_the_pointer_the_finger_and_the_arrow_keys(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page()
    plot = page.locator("#watchdog-gpu svg.wd-plot").first
    expect(plot).to_be_visible()
    tip = page.locator("#watchdog-tip")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.97, box["y"] + 40)
    expect(tip).to_contain_text("97.0 %")
    page.mouse.move(box["x"], box["y"] - 30)
    expect(tip).to_be_hidden()
    plot.dispatch_event(
        "pointerdown", {"clientX": box["x"] + box["width"] * 0.97, "clientY": box["y"] + 40, "bubbles": True}
    )
    expect(tip).to_contain_text("97.0 %")
    page.keyboard.press("Escape")
    plot.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(tip).to_contain_text("97.0 %")


def test_the_loss_can_be_seen_on_a_log_scale(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-training figcaption").first).to_contain_text("Loss")
    page.locator("#watchdog-log-scale input").click()
    expect(page.locator("#watchdog-training figcaption").first).to_contain_text("Loss, log scale")
    assert page.evaluate("window.documentInputs") == 0


def test_a_reader_at_the_keyboard_keeps_the_focus(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], make_status: Callable[..., Status]
) -> None:
    store = write_run(outputs, now=time.time(), record={"state": RunState.STOPPED})
    page = open_page()
    button = page.locator("button[data-act='resume']").first
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("Goes back from step 160 to step 120: 40 steps to train again. Sure?")
    status = store.read_status()
    assert status is not None
    fewer = status.checkpoints[:3]
    store.write_status(replace(status, checkpoints=fewer))
    expect(page.locator("#watchdog-checkpoints tbody tr")).to_have_count(3)
    expect(button).to_be_focused()
    expect(button).to_have_text("Goes back from step 160 to step 120: 40 steps to train again. Sure?")
    page.keyboard.press("Enter")
    wait_until(page, lambda: store.pending_requests() == [{"kind": "resume", "checkpoint": "p-000003-state"}])


CONTRASTS = """() => {
  const parse = (text) => { const n = text.match(/[0-9.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((c) => { c /= 255;
    return c <= 0.03928 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4); });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const behind = (node) => { const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(parse(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]); };
  const found = [];
  const all = ".wd *, #watchdog-range *, #watchdog-log-scale *, #watchdog-controls button";
  for (const node of document.querySelectorAll(`#watchdog-tab :is(${all})`)) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("svg, .wd-unseen") || !node.offsetParent || node.disabled) continue;
    const back = behind(node), ink = over(parse(getComputedStyle(node).color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(getComputedStyle(node).fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) found.push(`${node.className}: ${node.textContent.slice(0, 40)} ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], scheme: str
) -> None:
    record = {"state": RunState.FAILED, "reason": "Out of video memory.", "advice": "Choose 12G."}
    write_run(outputs, now=time.time(), record=record, status={"gpu_source": "simulated", "problem": "x"})
    page = open_page(scheme=scheme)
    expect(page.locator("#watchdog-checkpoints tbody tr")).to_have_count(4)
    page.locator("#watchdog-settings summary").click()
    page.locator("#watchdog-timeline summary").first.click()
    page.locator("button[data-act='delete']").first.click()
    assert page.evaluate(CONTRASTS) == []
    picture(page, f"open-{scheme}")


def test_every_control_has_a_name_and_every_part_a_heading(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page()
    page.locator("#watchdog-settings summary").click()
    nameless = page.evaluate(
        """() => {
          const all = "#watchdog-tab .wd :is(button, input, select, svg[role], [role=progressbar])";
          return [...document.querySelectorAll(all)]
            .filter((n) => !(n.textContent.trim() || n.getAttribute("aria-label") || (n.labels && n.labels.length)))
            .map((n) => n.outerHTML.slice(0, 90));
        }"""
    )
    assert nameless == []
    for heading in ("persian-miniature", "What happened", "Checkpoints", "Log", "Settings", "Machine"):
        expect(page.get_by_role("heading", name=heading)).not_to_have_count(0)


@pytest.mark.parametrize("width", [1280, 360])
def test_several_gpus_fit(
    open_page: Callable[..., Any],
    outputs: Path,
    write_run: Callable[..., Store],
    make_samples: Callable[..., list[Sample]],
    width: int,
) -> None:
    now = time.time()
    gpus = tuple(Gpu(i, f"GPU-{i}", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97.0) for i in range(4))
    store = write_run(outputs, now=now - 400, status={"gpus": gpus, "at": now})
    of_each = [make_samples(100, now, gpu=i) for i in range(4)]
    store.append_samples([sample for tick in zip(*of_each, strict=True) for sample in tick])
    page = open_page(width=width)
    expect(page.locator("#watchdog-gpu figcaption i")).to_have_count(16)
    picture(page, f"four-gpus-{width}")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    captions = page.locator("#watchdog-gpu figcaption")
    titles = captions.evaluate_all("(all) => all.map((each) => each.querySelector('b').offsetHeight)")
    assert max(titles) < 30, "no title is broken into letters"
    beyond = "(all) => Math.max(...all.map((each) => each.getBoundingClientRect().right))"
    assert captions.evaluate_all(beyond) <= width


@pytest.mark.parametrize("shown", [True, False], ids=["while it looks", "while it is elsewhere"])
def test_a_page_that_meets_another_server_asks_it_nothing(
    pages: Pages, serve: Callable[..., str], outputs: Path, write_run: Callable[..., Store], shown: bool
) -> None:
    """We were uninstalled, FluxGym was updated: the number of our look is that of another function now."""
    write_run(outputs, now=time.time())
    address = serve()
    page = pages.open(address)
    expect(page.locator("#watchdog-card")).to_contain_text("step 160 of 240")
    called: list[int] = []
    with gr.Blocks() as another:
        box = gr.Textbox()
        for number in range(12):
            gr.Button(str(number)).click(lambda *_, n=number: called.append(n), [box], None)

    def noticed() -> None:
        if shown:
            page.wait_for_function("window.fluxgymWatchdog.unanswered >= 2")
            return
        page.get_by_role("tab", name="Gym").click()
        page.wait_for_timeout(5500)  # for longer than an answer lets the page trust its server

    serve(port=int(address.rstrip("/").rpartition(":")[2]), instead=another, meanwhile=noticed)
    if not shown and page.locator("#watchdog-tab").count():
        page.get_by_role("tab", name="Watchdog").click()
    page.wait_for_function(
        "!document.querySelector('#watchdog-tab') ||"
        " document.querySelector('#watchdog-silent')?.textContent.includes('Reload this page')"
    )
    assert called == []
    pages.problems.clear()  # the connection was lost, which Gradio tells the console
