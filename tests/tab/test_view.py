"""Records → HTML, and what the board reads and asks: plain words, nothing hostile, only what has changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.glance import Glance
from fluxgym_watchdog.judge.resume import NOTHING_LEFT, QUARANTINED
from fluxgym_watchdog.records import Event, FindingKind, Phase, RunRecord, RunState, Sample, Saves, Status
from fluxgym_watchdog.settings import Settings
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab import tables, view, words
from fluxgym_watchdog.tab.board import Board, news
from fluxgym_watchdog.tab.feed import LOG_SHOWN, log_tail
from fluxgym_watchdog.tab.history import SampleFile, history_of
from fluxgym_watchdog.tab.seen import Seen, is_stale

NOW = 10_000.0
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    """Collects what a browser would make elements and attributes of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += " " + data


@pytest.fixture
def make_seen(make_record: Callable[..., RunRecord], make_status: Callable[..., Status]) -> Callable[..., Seen]:
    def make(record: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **changes: Any) -> Seen:
        seen = Seen("persian-miniature", make_record(**(record or {})), status=make_status(**(status or {})))
        return replace(seen, **changes)

    return make


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Board]:
    def make(now: float = NOW) -> Board:
        return Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: now)

    return make


def text_of(html: str) -> str:
    return " ".join(Tags(html).text.split())


def test_the_card_counts_over_all_attempts(
    make_seen: Callable[..., Seen], make_samples: Callable[..., list[Sample]]
) -> None:
    html = view.card(make_seen(history=history_of(make_samples(100, NOW, first_step=61))), NOW)
    text = text_of(html)
    for part in (
        "persian-miniature",
        "Training",
        "attempt 2",
        "resumed 1 time, 30 steps trained again",
        "A step every 2 s.",
        "epoch 5 of 6",
        "step 160 of 240",
        "resumed at step 80",
        "3 min left, done about",
        "2.00 s",
        "0.413",
        "2 s ago last step",
        "41 GiB disk left",
        "90 s of work at risk now",
    ):
        assert part in text, part
    assert "style='left:33.33%'" in html


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_has_words_and_a_tone(make_seen: Callable[..., Seen], state: RunState) -> None:
    html = view.card(make_seen({"state": state}, {"state": state}), NOW)
    label, tone = words.STATES[state]
    assert label in html
    assert f"data-tone='{tone}'" in html


def test_a_failed_run_says_why_and_what_to_do(make_seen: Callable[..., Seen]) -> None:
    record = {"state": RunState.FAILED, "reason": "Out of video memory.", "advice": "Choose the 12G setting."}
    text = text_of(view.card(make_seen(record, {"text": ""}), NOW))
    assert "Out of video memory. Choose the 12G setting." in text


def test_a_waiting_run_counts_down(make_seen: Callable[..., Seen]) -> None:
    html = view.card(make_seen({"state": RunState.WAITING, "next_start_at": NOW + 12}), NOW)
    assert "Next start in 12 s" in text_of(html)
    assert "data-form='until'" in html


def test_caching_is_said_with_its_count(make_seen: Callable[..., Seen]) -> None:
    status = {"phase": Phase.CACHING_LATENTS, "count": 3, "count_total": 20}
    assert "Caching latents, 3 of 20" in view.card(make_seen(None, status), NOW)


@pytest.mark.parametrize(("held", "words_"), [(False, "Nobody watches this run"), (True, "busy or hangs")])
def test_a_stale_status_is_never_shown_as_healthy(make_seen: Callable[..., Seen], held: bool, words_: str) -> None:
    html = view.card(make_seen(None, {"at": NOW - 60}, stale=True, held=held), NOW)
    assert words_ in html
    assert "data-tone='bad'" in html
    assert "Not watched" in html
    assert "left" not in text_of(html).replace("disk left", "")
    assert "the last look was 60 s ago" in text_of(html)


def test_stale_means_three_ticks_and_only_while_live(make_status: Callable[..., Status]) -> None:
    slow, status = make_status(NOW, interval_s=30.0), make_status(NOW)
    assert not is_stale(RunState.TRAINING, status, NOW + 19)
    assert is_stale(RunState.TRAINING, status, NOW + 21)
    assert not is_stale(RunState.TRAINING, slow, NOW + 89), "its own interval counts, not ours"
    assert is_stale(RunState.TRAINING, slow, NOW + 91)
    assert is_stale(RunState.TRAINING, None, NOW)
    assert not is_stale(RunState.FINISHED, status, NOW + 9999)


def test_a_blind_watcher_does_not_look_healthy(make_seen: Callable[..., Seen]) -> None:
    html = view.card(make_seen(None, {"finding": FindingKind.BLIND, "problem": "driver gone"}), NOW)
    assert "Cannot see the training" in html
    assert "Driver gone." in html


def test_a_nan_loss_is_said(make_seen: Callable[..., Seen], make_samples: Callable[..., list[Sample]]) -> None:
    """JSON and samples.csv hold no NaN: there it is a loss that is not known any more."""
    samples = [*make_samples(3, NOW - 2), *make_samples(1, NOW, loss=None)]
    seen = make_seen(None, {"loss": None}, history=history_of(samples))
    assert "the training has gone wrong" in view.card(seen, NOW)
    loading = make_seen(None, {"loss": None}, history=history_of(make_samples(3, NOW, loss=None)))
    assert "loss" not in view.card(loading, NOW)


def test_nothing_hostile_becomes_markup(make_seen: Callable[..., Seen], make_status: Callable[..., Status]) -> None:
    checkpoints = tuple(replace(c, name=HOSTILE, reason=HOSTILE) for c in make_status().checkpoints)
    record = {"state": RunState.FAILED, "name": HOSTILE, "reason": HOSTILE, "advice": HOSTILE}
    status = {"text": HOSTILE, "problem": HOSTILE, "checkpoints": checkpoints}
    events = [
        Event(NOW, HOSTILE, HOSTILE, HOSTILE, 1, {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}], "x": {HOSTILE: HOSTILE}})
    ]
    seen = make_seen(record, status, name=HOSTILE, events=events, log=[HOSTILE])
    for html in (
        view.card(seen, NOW),
        view.nothing(HOSTILE),
        view.host(seen),
        tables.timeline(events),
        tables.checkpoints(seen),
        tables.log(seen.log),
    ):
        tags = Tags(html)
        assert not tags.names & {"script", "img"}
        assert not {name for name in tags.attributes if name.startswith("on")}


def test_records_with_nothing_in_them_are_shown(make_seen: Callable[..., Seen]) -> None:
    bare = {"total_steps": None, "loss": None, "seconds_per_step": None, "heartbeat_at": None, "host": None}
    seen = make_seen({"attempts": (), "total_steps": None}, {**bare, "checkpoints": (), "gpus": ()})
    assert "Training" in view.card(seen, NOW)
    assert "Not measured yet" in view.host(seen)
    assert "None yet" in tables.checkpoints(seen)
    assert "Nothing yet" in tables.timeline([])
    assert "written nothing" in tables.log([])
    assert "Not trained under the watchdog" in view.card(Seen("x"), NOW)


def test_the_timeline_is_newest_first_with_its_evidence_folded() -> None:
    html = tables.timeline([Event(1, "a", "first"), Event(2, "b", "second", "bad", 1, {"silence": 58.25})])
    assert html.index("second") < html.index("first")
    assert "<details" in html
    assert "58.25" in html


def test_saved_states_in_a_row_are_one_line_and_push_no_trouble_off_the_timeline() -> None:
    """A night of saves must not hide what happened in it."""
    stuck = Event(NOW - 9000, "stalled", "Training stuck.", "bad", 1)
    saved = [Event(NOW - 8000 + i, "checkpoint", f"Saved p-{i:06d}-state. It is sound.", "ok", 2) for i in range(150)]
    html = tables.timeline([saved[0], stuck, *saved])
    assert html.count("<li>") == 3
    assert "Training stuck." in html
    assert "Saved p-000149-state. It is sound. So are the 149 saved before it." in html
    assert html.count("Saved p-000000-state") == 1
    assert "So is the one saved before it." in tables.timeline(saved[:2])


def test_only_a_sound_state_of_a_stopped_run_can_be_gone_back_to(make_seen: Callable[..., Seen]) -> None:
    live = tables.checkpoints(make_seen())
    assert "data-act='resume'" not in live
    assert "stop the training first" in live
    stopped = tables.checkpoints(make_seen({"state": RunState.STOPPED}))
    assert stopped.count("data-act='resume'") == 2
    assert "Goes back from step 160 to step 120: 40 steps to train again. Sure?" in stopped
    assert "no: optimizer.bin is cut off" in stopped


def test_a_quarantined_state_says_so_and_is_its_owner_s_to_choose(
    make_seen: Callable[..., Seen], make_status: Callable[..., Status]
) -> None:
    bad, *rest = make_status().checkpoints
    found = (replace(bad, aside=QUARANTINED), *(replace(c, aside=NOTHING_LEFT) for c in rest))
    html = tables.checkpoints(make_seen({"state": RunState.STOPPED}, {"checkpoints": found}))
    assert html.count("data-act='resume'") == 1
    assert "yes, but set aside" in html
    assert "This one was set aside: it did not load" in html
    assert "nothing is left to train" in html


def test_a_run_that_was_never_watched_can_go_on_from_what_it_has(make_status: Callable[..., Status]) -> None:
    found = make_status().checkpoints
    look = Glance(RunRecord("old"), False, None, 160, found, Saves(), finished=False)
    old = Seen("old", at_rest=look)
    assert old.may_resume()
    assert "Resume goes on from its newest sound checkpoint" in view.card(old, NOW)
    assert tables.checkpoints(old).count("data-act='resume'") == 2
    assert "Goes back from step 160 to step 80" in tables.checkpoints(old)
    finished = Seen("old", at_rest=replace(look, finished=True))
    assert "wd-pill wd-ok'>Finished" in view.card(finished, NOW)
    assert not finished.may_resume()
    assert "It is finished" in view.card(finished, NOW)
    assert not Seen("old", at_rest=replace(look, checkpoints=())).may_resume()


def test_a_finished_run_can_go_on_when_its_script_asks_for_more(
    make_seen: Callable[..., Seen], make_status: Callable[..., Status]
) -> None:
    done = make_seen({"state": RunState.FINISHED})
    assert not done.may_resume()
    look = Glance(RunRecord("x"), True, None, 160, make_status().checkpoints, Saves(), finished=False)
    more = replace(done, at_rest=look, folder_bytes=5)
    assert more.may_resume()
    assert "The train script asks for more now: Resume goes on." in view.card(more, NOW)
    assert "asks for more" not in view.card(done, NOW)
    assert "Publish" in tables.checkpoints(replace(done, folder_bytes=5))
    assert "Publish" not in tables.checkpoints(more)


def test_the_log_shows_the_newest_drawing_of_each_bar(tmp_path: Path) -> None:
    bar = "".join(f"\rsteps: {i}/240" for i in range(99))
    (tmp_path / "training.log").write_bytes(
        f"epoch 1/6\r\n{bar}\n\x1b[31mred\x1b[0m\n\n".encode() + b"\xff\n" + bar.encode()
    )
    assert log_tail(tmp_path) == (["epoch 1/6", "steps: 98/240", "red", "", "\ufffd"], "steps: 98/240")
    (tmp_path / "training.log").write_text("x" * 100_000 + "\nlast\n", encoding="utf-8")
    assert log_tail(tmp_path) == (["last"], "")
    (tmp_path / "training.log").write_text("y" * 99 + "\n" + "z" * 15_000 + "\n", encoding="utf-8")
    assert len(log_tail(tmp_path)[0][-1]) <= LOG_SHOWN + 1
    (tmp_path / "training.log").write_text(f"{' ' * 22}INFO  x\n    four\n", encoding="utf-8")
    assert log_tail(tmp_path) == (["  INFO  x", "    four"], ""), "rich leaves its column of times blank"
    assert log_tail(tmp_path / "nowhere") == ([], "")


def test_samples_are_read_once_and_again_only_when_replaced(
    tmp_path: Path, make_samples: Callable[..., list[Sample]]
) -> None:
    store, path = Store(tmp_path), tmp_path / ".watchdog" / "samples.csv"
    reader = SampleFile(path)

    def steps() -> list[float]:
        return reader.read().column("step").tolist()

    assert steps() == []
    samples = make_samples(5)
    store.append_samples(samples[:3])
    first = reader.read()
    np.testing.assert_array_equal(first.rows, history_of(samples[:3]).rows)
    with path.open("ab") as file:
        file.write(b"9999999,0,")
    assert steps() == [1, 2, 3], "a line half written is left for later"
    with path.open("ab") as file:
        file.write(b"nonsense\n,,,,,,,,,,\n1,inf,,,,,,,1,,\n9e99,0,,,,,,,1,,\n")
    store.append_samples(samples[3:])
    assert steps() == [1, 2, 3, 4, 5]
    assert first.column("step").tolist() == [1, 2, 3], "who holds an older look keeps it"
    store.append_samples(make_samples(3000, 20_000.0, first_step=6))
    assert steps() == list(range(1, 3006))
    path.with_suffix(".new").write_text("at,gpu,step,later_column\n1.0,0,7,x\n2.0,0,8,1\n", encoding="utf-8")
    path.with_suffix(".new").replace(path)
    assert steps() == [8], "a column of a later version must be a number, too"


def test_a_page_is_sent_only_what_changed(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store]
) -> None:
    store = write_run(tmp_path / "outputs")
    there = board()
    everything, sent = news(there.show(None, "15 min"), {})
    assert {"picker", "card", "gpu", "training", "timeline", "checkpoints", "log", "host", "stop"} <= everything
    assert news(there.show(None, "15 min"), sent)[0] == set()
    store.append_event(Event(NOW - 1, "x", "new"))
    changed, sent = news(there.show(None, "15 min"), sent)
    assert changed == {"timeline"}
    assert {"gpu", "training"} <= news(there.show(None, "1 h"), sent)[0]


def test_the_switch_shows_what_was_asked_until_it_is_taken(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store]
) -> None:
    store = write_run(tmp_path / "outputs")
    there = board()
    assert there.show(None, "all").auto_resume is True
    assert there.ask("persian-miniature", "switch", False).problem == ""
    assert store.pending_requests() == [{"kind": "switch", "auto_resume": False}]
    assert there.show(None, "all").auto_resume is False
    store.take_requests()
    assert there.show(None, "all").auto_resume is True


def test_stop_is_asked_once_and_only_of_a_live_run(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store]
) -> None:
    store = write_run(tmp_path / "outputs")
    there = board()
    assert there.ask("persian-miniature", "stop").problem == ""
    assert there.ask("persian-miniature", "stop").problem != ""
    assert store.pending_requests() == [{"kind": "stop"}]
    show = there.show(None, "all")
    assert not show.may_stop
    assert "Asked to stop" in show.parts["card"].html


@pytest.mark.parametrize("name", ["", "nobody", "../persian-miniature", "/etc", None])
def test_a_name_that_is_no_run_leaves_no_request(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store], name: str | None
) -> None:
    write_run(tmp_path / "outputs")
    assert board().ask(name, "stop").problem == "There is no such run any more."
    assert not list(tmp_path.rglob("requests"))


@pytest.mark.parametrize(
    ("checkpoint", "fine"), [("p-000002-state", True), ("p-000001-state", False), ("../../x", False), ("", False)]
)
def test_resume_takes_only_a_checkpoint_it_knows(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store], checkpoint: str, fine: bool
) -> None:
    store = write_run(tmp_path / "outputs", record={"state": RunState.STOPPED})
    assert (board().ask("persian-miniature", "resume", checkpoint).problem == "") is fine
    assert store.pending_requests() == ([{"kind": "resume", "checkpoint": checkpoint}] if fine else [])


def test_a_finished_run_can_neither_stop_nor_go_on(
    tmp_path: Path, board: Callable[..., Board], write_run: Callable[..., Store]
) -> None:
    write_run(tmp_path / "outputs", record={"state": RunState.FINISHED})
    show = board().show(None, "all")
    assert not show.may_stop
    assert not show.may_resume


def test_a_page_that_picked_nothing_follows_the_newest_run_once_its_own_is_over(
    tmp_path: Path, write_run: Callable[..., Store]
) -> None:
    names = ["older", "newer"]
    there = Board(
        tmp_path / "outputs", Settings(), lambda outputs: [outputs / n for n in reversed(names)], clock=lambda: NOW
    )
    older = write_run(tmp_path / "outputs", "older")
    write_run(tmp_path / "outputs", "newer")
    assert there.show("older", "all", follow=True).name == "older"
    record, _ = older.read_record()
    assert record is not None
    older.write_record(replace(record, state=RunState.FINISHED))
    assert there.show("older", "all", follow=True).name == "newer"
    assert there.show("older", "all").name == "older"


def test_no_runs_and_an_unreadable_folder_say_so(tmp_path: Path) -> None:
    assert (
        "Press Start in the Gym tab"
        in Board(tmp_path / "no", Settings(), find_runs).show(None, "all").parts["card"].html
    )
    (tmp_path / "file").write_text("", encoding="utf-8")
    card = Board(tmp_path / "file", Settings(), find_runs).show(None, "all").parts["card"].html
    assert "cannot be read" in card


def test_the_watchdogs_own_problem_stands_above_the_card_until_it_is_over(
    tmp_path: Path, write_run: Callable[..., Store]
) -> None:
    problems = [f"a.yaml: {HOSTILE}"]
    there = Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: NOW, problem=lambda: " ".join(problems))
    without_runs = there.show(None, "all").parts["card"].html
    write_run(tmp_path / "outputs")
    there = Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: NOW, problem=lambda: " ".join(problems))
    with_run = there.show(None, "all").parts["card"].html
    assert "No training yet" in without_runs
    assert "persian-miniature" in with_run
    for html in (without_runs, with_run):
        assert text_of(html).strip().startswith("A.yaml: <script>alert(1)")
        assert not Tags(html).names & {"script", "img"}
    problems.clear()
    assert there.show(None, "all").parts["card"].html in with_run
    assert "wd-note" not in there.show(None, "all").parts["card"].html


def test_a_look_at_a_long_run_is_quick(tmp_path: Path, write_run: Callable[..., Store], make_samples: Any) -> None:
    store = write_run(tmp_path / "outputs")
    store.append_samples(make_samples(10_000, NOW + 30_000))
    now = NOW + 30_000
    there = Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: now)
    there.show(None, "15 min")
    began = time.perf_counter()
    for _ in range(20):
        there.show(None, "15 min")
    assert (time.perf_counter() - began) / 20 < 0.05, "far above the 3 ms it takes, so that a busy machine passes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (150, "3 min"), (7200, "2 h 00 min"), (400_000, "4 d 15 h"), (math.nan, "unknown")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.41349, "0.413"),
        (2.0, "2.00"),
        (97.04, "97.0"),
        (math.nan, "NaN"),
        (1e-9, "1.00e-09"),
        (0.0, "0.000"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_sizes() -> None:
    assert words.size(119_000_000) == "119 MB"
    assert words.memory(41 * 1024**3) == "41 GiB"
    assert words.memory(15.34 * 1024**3) == "15.3 GiB"


def test_an_impossible_time_is_unknown() -> None:
    assert words.clock(1e300) == "unknown"
