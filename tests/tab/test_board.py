"""What the board survives in a run's folder, and that what it shows is never older than what is there."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.glance import Glance
from fluxgym_watchdog.records import Event, RunRecord, RunState, Sample, Saves, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab import feed, view
from fluxgym_watchdog.tab.board import Board
from fluxgym_watchdog.tab.feed import Feed
from tests.trainings import PATIENCE_S

NOW = 10_000.0
RUN = "persian-miniature"


def board(tmp_path: Path, now: float = NOW) -> Board:
    return Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: now)


# what cannot be sent as it stands


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file's name is always text")
def test_a_folder_whose_name_is_no_text_is_shown_and_can_be_asked(
    tmp_path: Path, write_run: Callable[..., Store]
) -> None:
    store = write_run(tmp_path / "outputs", os.fsdecode(b"caf\xe9"))
    there = board(tmp_path)
    show = there.show(None, "all")
    assert show.names == ("caf\\udce9",)
    assert "caf\\udce9" in show.parts["card"].html
    assert show.parts["card"].html.encode("utf-8")
    assert there.ask("caf\\udce9", "stop").problem == ""
    assert store.pending_requests() == [{"kind": "stop"}]


def test_half_a_letter_in_a_file_stops_no_page(tmp_path: Path, write_run: Callable[..., Store]) -> None:
    store = write_run(tmp_path / "outputs")
    with (store.folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"at": 9990, "kind": "x", "text": "half \\ud800 a letter", "evidence": {"a": "\\ud800"}}\n')
    there = board(tmp_path)
    assert "half \\ud800 a letter" in there.show(None, "all").parts["timeline"].html
    assert all(part.html.encode("utf-8") is not None for part in there.show(None, "all").parts.values())
    assert there.ask(RUN, "evidence", "9990.000").file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("name", ["samples.csv", "events.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, write_run: Callable[..., Store], name: str
) -> None:
    store = write_run(tmp_path / "outputs")
    events = store.read_events()
    path = store.folder / name
    path.unlink()
    os.mkfifo(path)
    assert RUN in board(tmp_path).show(None, "all").parts["card"].html
    assert store.read_samples() == [] or name != "samples.csv"
    assert store.read_events() == [] or name != "events.jsonl"
    assert events


@pytest.mark.parametrize("name", [["a"], {"a": 1}, 5, True])
def test_a_name_that_is_no_text_is_no_run(tmp_path: Path, write_run: Callable[..., Store], name: Any) -> None:
    write_run(tmp_path / "outputs")
    there = board(tmp_path)
    assert there.show(name, "all").name == RUN
    assert there.ask(name, "stop").problem == "There is no such run any more."


# what has changed meanwhile


def test_the_card_and_the_table_of_a_run_at_rest_follow_its_folder(
    tmp_path: Path, make_status: Callable[..., Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "outputs" / "old"
    folder.mkdir(parents=True)
    (folder / "train.sh").write_text("accelerate launch\n", encoding="utf-8")
    look = Glance(RunRecord("old"), False, None, 0, (), Saves(), finished=False)
    looks = [look, replace(look, step=120, checkpoints=make_status().checkpoints)]
    monkeypatch.setattr(feed, "glance", lambda *_: looks[0])
    there = board(tmp_path)
    assert "None yet" in there.show(None, "all").parts["checkpoints"].html
    looks.pop(0)
    (folder / "train.sh").write_text("accelerate launch \n", encoding="utf-8")
    show = there.show(None, "all")
    assert "State, epoch 3" in show.parts["checkpoints"].html
    assert "Resume goes on" in show.parts["card"].html


def test_a_state_that_is_still_being_written_is_looked_at_again(
    tmp_path: Path, make_status: Callable[..., Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, *rest = make_status().checkpoints
    look = Glance(RunRecord("old"), False, None, 0, (replace(newest, sound=False), *rest), Saves(), finished=False)
    looked: list[float] = []
    monkeypatch.setattr(feed, "glance", lambda *_: looked.append(NOW) or look)
    folder = settled_run(tmp_path)
    reader = Feed(folder)
    for now in (NOW, NOW + 1, NOW + 2):
        reader.look(Settings(), now)
    assert len(looked) == 1
    reader.look(Settings(), NOW + 60)
    assert len(looked) == 2
    look = replace(look, checkpoints=make_status().checkpoints)
    reader.look(Settings(), NOW + 120)
    reader.look(Settings(), NOW + 180)
    assert len(looked) == 3, "once it is whole its folder says so"


def settled_run(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "old"
    folder.mkdir(parents=True)
    (folder / "train.sh").write_text("accelerate launch\n", encoding="utf-8")
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Makes all that is there so old that its next change is seen."""
    before = time.time() - 60
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (before, before))


def test_a_file_that_was_just_written_is_read_again_where_times_are_coarse(
    tmp_path: Path, write_run: Callable[..., Store]
) -> None:
    """On such a file system two changes within a second or two leave the same time."""
    store = write_run(tmp_path / "outputs", record={"state": RunState.TRAINING})
    reader = Feed(store.run_folder)
    store.request("stop")
    folder = store.folder / "requests"
    there = folder.stat()
    assert reader.look(Settings(), NOW).pending("stop")
    store.take_requests()
    os.utime(folder, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert not reader.look(Settings(), NOW).pending("stop")


def test_a_file_that_has_settled_is_read_once(tmp_path: Path, write_run: Callable[..., Store]) -> None:
    store = write_run(tmp_path / "outputs")
    settle(store.run_folder)
    reader = Feed(store.run_folder)
    first = reader.look(Settings(), NOW)
    again = reader.look(Settings(), NOW)
    assert again.record is first.record
    assert again.events is first.events
    store.append_event(Event(NOW, "x", "new"))
    assert len(reader.look(Settings(), NOW).events) == len(first.events) + 1


# the runs beside the one shown


def test_another_run_that_needs_a_look_is_named_until_it_is_well_again(
    tmp_path: Path, write_run: Callable[..., Store], make_record: Callable[..., RunRecord]
) -> None:
    write_run(tmp_path / "outputs")
    other = write_run(tmp_path / "outputs", "other & one")
    now = [NOW]
    there = Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: now[0])

    def card() -> str:
        now[0] += 10
        return there.show(RUN, "all").parts["card"].html

    assert "needs a look" not in card()
    other.write_record(make_record("other & one", state=RunState.STALLED))
    assert "data-elsewhere='other &amp; one: Stuck'" in card()
    assert "needs a look" not in there.show("other & one", "all").parts["card"].html
    other.write_record(make_record("other & one", state=RunState.TRAINING))
    assert "needs a look" not in card()


def test_a_run_that_failed_days_ago_is_no_news(tmp_path: Path, write_run: Callable[..., Store]) -> None:
    write_run(tmp_path / "outputs")
    other = write_run(tmp_path / "outputs", "other", record={"state": RunState.FAILED})
    ago = time.time() - 2 * 24 * 3600
    os.utime(other.folder / "run.json", (ago, ago))
    assert "needs a look" not in board(tmp_path).show(RUN, "all").parts["card"].html


def test_the_machine_is_dated_as_soon_as_nobody_measures_it(tmp_path: Path, write_run: Callable[..., Store]) -> None:
    write_run(tmp_path / "outputs")
    now = [NOW]
    there = Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: now[0])
    assert "measured at" not in there.show(RUN, "all").parts["host"].html
    now[0] += 3600
    assert "measured at" in there.show(RUN, "all").parts["host"].html


# when something of ours fails


def test_an_error_of_ours_is_shown_and_the_page_goes_on(
    tmp_path: Path, write_run: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "outputs")
    there = board(tmp_path)

    def fails(*_: object) -> None:
        raise RuntimeError("no such thing")

    with monkeypatch.context() as broken:
        broken.setattr(view, "card", fails)
        for _ in range(2):
            show = there.show(RUN, "all")
        assert "The tab failed at persian-miniature" in show.parts["card"].html
        assert "no such thing" in show.parts["card"].html
    assert len(caplog.records) == 1, "it is logged once"
    assert "step 160 of 240" in there.show(RUN, "all").parts["card"].html


def test_a_run_whose_disk_hangs_keeps_no_other_from_being_stopped(
    tmp_path: Path, write_run: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "outputs", "hangs")
    store = write_run(tmp_path / "outputs", "lives")
    there, answers, hangs, look = board(tmp_path), threading.Event(), threading.Event(), Feed.look

    def stuck(feed: Feed, *given: Any) -> Any:
        if feed.store.run_folder.name == "hangs":
            hangs.set()
            answers.wait(PATIENCE_S)
        return look(feed, *given)

    monkeypatch.setattr(Feed, "look", stuck)
    page = threading.Thread(target=lambda: there.show("hangs", "all"))
    page.start()
    try:
        assert hangs.wait(PATIENCE_S)
        assert there.ask("lives", "stop").done
        assert there.show("lives", "all").name == "lives"
        assert store.pending_requests() == [{"kind": "stop"}]
    finally:
        answers.set()
        page.join()


def test_a_header_that_a_full_disk_cut_off_is_no_history(tmp_path: Path, write_run: Callable[..., Store]) -> None:
    store = write_run(tmp_path / "outputs")
    (store.folder / "samples.csv").write_bytes(b"at,gpu,utilization_per")
    assert "Nothing was measured in this time" in board(tmp_path).show(RUN, "all").parts["gpu"].html


def test_a_clock_that_was_set_back_leaves_no_future_behind(
    tmp_path: Path, write_run: Callable[..., Store], make_samples: Callable[..., list[Sample]]
) -> None:
    store = write_run(tmp_path / "outputs", now=NOW + 3600)
    store.append_samples(make_samples(30, NOW, first_step=500))
    at = Feed(store.run_folder).look(Settings(), NOW).history.column("at")
    assert at.max() == NOW
    assert (at[1:] >= at[:-1]).all()
