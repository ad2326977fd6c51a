"""What a reader asks for in the page: settings, deletions, closer saves, evidence to keep, alerts."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog import settings
from fluxgym_watchdog.judge.resume import NOTHING_LEFT
from fluxgym_watchdog.records import Checkpoint, CheckpointKind, Event, RunState, SaveOffer, Saves, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab.board import Board
from tests.browsing import Pages, needs_browser, picture, wait_until
from tests.trainings import PATIENCE_S

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
pytestmark = needs_browser

OFFER = SaveOffer("--save_every_n_epochs", 1, 40, 360.0, 12, 2_100_000_000)
RISKY = Saves(
    every_steps=160,
    since_steps=62,
    since_s=240.0,
    next_in_steps=98,
    next_bytes=159_000_000,
    fits=True,
    warning="It saves every 4 epochs: up to 15 min of work can be lost.",
    offer=OFFER,
)


FAKES = """
  window.beeps = 0; window.told = [];
  class Node { frequency = {}; gain = {}; connect(to) { return to; } start() {} stop() {} }
  window.AudioContext = class { resume() {} createOscillator() { window.beeps += 1; return new Node(); }
    createGain() { return new Node(); } };
  window.Notification = class { constructor(text) { window.told.push(text); }
    static permission = "granted"; static requestPermission() { return Promise.resolve("granted"); } };
"""
"""Stand-ins for what makes a sound and shows a notification."""


def test_a_setting_is_changed_in_the_page_for_all_runs(
    pages: Pages, serve: Callable[..., str], outputs: Path, write_run: Callable[..., Store]
) -> None:
    used: list[Settings] = []
    write_run(outputs, now=time.time())
    (outputs.parent / "watchdog.yaml").write_text("max_restarts: 7  # mine\n", encoding="utf-8")
    address = serve(settings.load(outputs.parent), use=used.append)
    one, two = pages.open(address), pages.open(address)
    for page in (one, two):
        page.locator("#watchdog-settings summary").click()
        expect(page.locator("#wd-set-max_restarts")).to_have_value("7")
    one.locator("#wd-set-stuck_threshold").fill("soon")
    one.get_by_role("button", name="Save", exact=True).click()
    expect(one.locator("[data-form-says]")).to_have_text("Settings: stuck_threshold = 'soon'; allowed: a number")
    one.locator("#wd-set-stuck_threshold").fill("900000")
    one.get_by_role("button", name="Save", exact=True).click()
    expect(one.locator("[data-form-says]")).to_contain_text("allowed: a number from 1 to 86400 s")
    expect(one.locator("#wd-set-stuck_threshold")).to_have_value("900000")
    picture(one, "settings")
    assert used == []
    one.locator("#wd-set-stuck_threshold").fill("120")
    one.locator("#wd-set-from_beginning").select_option("false")
    one.get_by_role("button", name="Save", exact=True).click()
    wait_until(one, lambda: used)
    assert used == [Settings(stuck_threshold=120.0, from_beginning=False, max_restarts=7)]
    assert settings.load(outputs.parent) == used[0]
    assert (outputs.parent / "watchdog.yaml.bak").read_text(encoding="utf-8") == "max_restarts: 7  # mine\n"
    for page in (one, two):
        expect(page.locator("#wd-set-stuck_threshold")).to_have_value("120")
    assert one.evaluate("window.documentInputs") == 0, "FluxGym would overwrite the train script"


def test_a_settings_file_that_cannot_be_used_is_left_as_it_is(
    pages: Pages, serve: Callable[..., str], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    file = outputs.parent / "watchdog.yaml"
    file.write_text("stuck_treshold: 5\n", encoding="utf-8")
    page = pages.open(serve())
    page.locator("#watchdog-settings summary").click()
    page.locator("#wd-set-backoff").fill("20")
    page.locator("#wd-set-backoff").press("Enter")
    expect(page.locator("[data-form-says]")).to_contain_text("unknown key 'stuck_treshold'")
    assert file.read_text(encoding="utf-8") == "stuck_treshold: 5\n"


def test_deleting_names_the_bytes_and_is_asked_once(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], make_status: Callable[..., Status]
) -> None:
    store = write_run(outputs, now=time.time(), record={"state": RunState.STOPPED})
    status = store.read_status()
    assert status is not None
    page = open_page()
    old, broken = (c for c in status.checkpoints[1:3])
    button = page.locator(f"button[data-act='delete'][data-value='{old.stamp}']")
    button.click()
    expect(button).to_have_text("Delete p-000002-state and free 119 MB?")
    page.keyboard.press("Escape")
    expect(button).to_have_text("Delete")
    assert store.pending_requests() == []
    button.click()
    button.click()
    wait_until(page, lambda: store.pending_requests() == [{"kind": "delete", "checkpoints": [old.stamp]}])
    expect(page.locator("#watchdog-card")).to_contain_text("Asked to delete states.")
    expect(button).to_have_count(0)
    newest = status.checkpoints[0]
    expect(page.locator(f"button[data-act='delete'][data-value='{newest.stamp}']")).to_have_count(0)
    expect(page.locator(f"button[data-act='delete'][data-value='{broken.stamp}']")).to_have_count(1)


def test_a_finished_run_says_what_publishing_would_upload_and_frees_its_states_at_once(
    open_page: Callable[..., Any],
    outputs: Path,
    write_run: Callable[..., Store],
    make_status: Callable[..., Status],
) -> None:
    now = time.time()
    end = Checkpoint("p.safetensors", CheckpointKind.WEIGHTS, now, 40_000_000, True, final=True, aside=NOTHING_LEFT)
    status = {"step": 240, "checkpoints": (*make_status(now).checkpoints, end)}
    store = write_run(outputs, now=now, record={"state": RunState.FINISHED}, status=status)
    (store.run_folder / "p.safetensors").write_bytes(b"x" * 40_000_000)
    page = open_page()
    checkpoints = page.locator("#watchdog-checkpoints")
    expect(checkpoints).to_contain_text("Publish would upload about 278 MB, 238 MB of it 3 states")
    picture(page, "finished")
    button = page.locator("button[data-act='delete-older']")
    button.click()
    expect(button).to_have_text("Delete 3 states for good and free 238 MB?")
    button.click()
    wait_until(page, store.pending_requests)
    (request,) = store.pending_requests()
    assert request["kind"] == "delete"
    assert len(request["checkpoints"]) == 3
    expect(page.locator("#watchdog-checkpoints button")).to_have_count(0)


@pytest.mark.parametrize(("name", "closer"), [("Save every epoch", True), ("Keep as the script says", False)])
def test_closer_saves_are_offered_and_answered(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], name: str, closer: bool
) -> None:
    store = write_run(outputs, now=time.time(), status={"saves": RISKY})
    page = open_page()
    card = page.locator("#watchdog-card")
    expect(card).to_contain_text("of work since the last save, 62 steps; the next one in 98 steps")
    expect(card).to_contain_text("It saves every 4 epochs: up to 15 min of work can be lost.")
    button = page.get_by_role("button", name="Save every epoch: at most 6 min at risk, 12 more files, 2.1 GB")
    expect(button).to_be_visible()
    picture(page, "offer")
    page.get_by_role("button", name=name).click()
    wait_until(page, lambda: store.pending_requests() == [{"kind": "saves", "closer": closer}])
    expect(button).to_have_count(0)
    expect(card).to_contain_text("from the next attempt on")


def test_evidence_can_be_kept_without_a_secret_in_it(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    now = time.time()
    store = write_run(outputs, now=now, log="epoch 4/6\n--huggingface_token hf_abcdefghijklmnop --x 1\n")
    store.write_evidence("20260101-000000", {"stacks.txt": "== trainer", "gpu.txt": "https://me:geheim@host/x"})
    (store.evidence_folder / "20260101-000000" / "link.txt").symlink_to("/etc/passwd")
    evidence = {"folder": "evidence/20260101-000000", "last_lines": ["api_key=0123456789abcdef"]}
    store.append_event(Event(now - 1, "stalled", "Stuck.", "bad", 2, evidence))
    page = open_page()
    page.locator("#watchdog-timeline summary").first.click()
    button = page.locator("button[data-act='evidence']").first
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == f"persian-miniature-stalled-{now - 1:.0f}.zip"
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(files) == {"event.json", "events.jsonl", "samples.csv", "log.txt", "stacks.txt", "gpu.txt"}
    assert "Stuck." in files["event.json"]
    assert len(files["samples.csv"].splitlines()) == 101
    for text in files.values():
        assert not any(secret in text for secret in ("hf_abc", "geheim", "0123456789abcdef", "root:"))
    assert "--x 1" in files["log.txt"]


def test_a_run_that_needs_a_look_says_so_in_title_and_icon_and_as_was_wanted(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(outputs, now=time.time())
    page = open_page(script=FAKES)
    expect(page.locator("#watchdog-card h2")).to_be_visible()
    title = page.title()
    page.locator("#watchdog-settings summary").click()
    for which in ("sound", "notification"):
        expect(page.locator(f"[data-alert={which}]")).not_to_be_checked()
    page.locator("[data-alert=sound]").check()
    page.locator("[data-alert=notification]").check()
    beeps = page.evaluate("window.beeps")
    record, _ = store.read_record()
    assert record is not None
    page.get_by_role("tab", name="Gym").click()
    store.write_record(replace(record, state=RunState.FAILED, reason="Out of video memory."))
    page.wait_for_function("document.title.includes('persian-miniature: Failed')")
    assert page.evaluate("[...document.querySelectorAll('link[rel~=icon]')].every((l) => l.href.startsWith('data:'))")
    assert page.evaluate("window.beeps") > beeps
    assert page.evaluate("window.told") == ["persian-miniature: Failed"]
    store.write_record(replace(record, state=RunState.FINISHED))
    page.wait_for_function("(title) => document.title === title", arg=title)
    assert not page.evaluate(
        "[...document.querySelectorAll('link[rel~=icon]')].some((l) => l.href.startsWith('data:'))"
    )
    beeps = page.evaluate("window.beeps")
    write_run(outputs, "other", now=time.time(), record={"state": RunState.FAILED})
    page.wait_for_function("document.title.includes('other: Failed')")
    assert page.evaluate("window.beeps") == beeps, "it had failed already when the page came to it"
    assert page.evaluate("window.told") == ["persian-miniature: Failed"]


def test_alerts_work_in_a_page_whose_tab_was_never_opened(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    """As after a reload: Gradio 6 makes the parts of a tab only when it is opened."""
    store = write_run(outputs, now=time.time())
    page = open_page(show=False, script=f"{FAKES} localStorage.setItem('fluxgym-watchdog-alert-sound', 'on');")
    expect(page.locator("#watchdog-card h2")).to_have_count(1)
    expect(page.get_by_role("tab", name="Gym")).to_have_attribute("aria-selected", "true")
    record, _ = store.read_record()
    assert record is not None
    store.write_record(replace(record, state=RunState.FAILED, reason="Out of video memory."))
    page.wait_for_function("document.title.includes('persian-miniature: Failed')")
    assert page.evaluate("window.beeps") > 0


def test_who_was_in_the_tab_is_there_again_after_a_reload(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store]
) -> None:
    write_run(outputs, now=time.time())
    page = open_page()
    expect(page.locator("#watchdog-card h2")).to_be_visible()
    page.wait_for_function("window.fluxgymWatchdog.shown")
    page.reload()
    expect(page.locator("#watchdog-card h2")).to_be_visible()


def test_wishes_that_follow_each_other_are_all_heard(
    open_page: Callable[..., Any], outputs: Path, write_run: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_run(outputs, now=time.time(), record={"state": RunState.STOPPED})
    page = open_page()
    buttons = page.locator("button[data-act='delete']")
    expect(buttons).to_have_count(2)
    goes_on, ask = threading.Event(), Board.ask

    def slow(*given: Any) -> Any:
        goes_on.wait(PATIENCE_S)
        return ask(*given)

    monkeypatch.setattr(Board, "ask", slow)
    for number in (0, 1):
        buttons.nth(number).click()
        buttons.nth(number).click()
    goes_on.set()
    wait_until(page, lambda: len(store.pending_requests()) == 2)
    asked = [stamp for request in store.pending_requests() for stamp in request["checkpoints"]]
    assert len(set(asked)) == 2


def test_a_switch_whose_click_was_lost_shows_what_is_so(
    open_page: Callable[..., Any], pages: Pages, outputs: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(outputs, now=time.time())
    page = open_page()
    switch = page.locator("#watchdog-auto-resume input")
    expect(switch).to_be_enabled()
    page.wait_for_function("window.fluxgymWatchdog.unanswered === 0")
    page.context.set_offline(True)
    switch.click()
    expect(switch).not_to_be_checked()
    page.wait_for_timeout(1000)  # the click's request fails meanwhile
    page.context.set_offline(False)
    # Where a look's answer was lost with the connection Gradio 4 waits for ever; then the page says that it is old.
    page.wait_for_function(
        "document.querySelector('#watchdog-auto-resume input')?.checked || document.querySelector('#watchdog-silent')"
    )
    assert store.pending_requests() == []
    pages.problems.clear()  # that the connection was lost, Gradio tells the console
