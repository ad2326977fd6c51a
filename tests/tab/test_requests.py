"""What a page asks for is looked up and never believed; what it is told of states, saves and settings is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fluxgym_watchdog import settings
from fluxgym_watchdog.fluxgym.runs import find_runs
from fluxgym_watchdog.judge.resume import NOTHING_LEFT
from fluxgym_watchdog.records import Attempt, Checkpoint, CheckpointKind, RunRecord, RunState, SaveOffer, Saves, Status
from fluxgym_watchdog.settings import Settings, SettingsError
from fluxgym_watchdog.store import Store
from fluxgym_watchdog.tab import evidence, preferences, tables, view
from fluxgym_watchdog.tab.board import TICK_BYTES, Board, news
from fluxgym_watchdog.tab.estimate import left, loading_s
from fluxgym_watchdog.tab.history import history_of
from fluxgym_watchdog.tab.seen import Seen
from fluxgym_watchdog.tab.series import Pace
from fluxgym_watchdog.tab.show import PARTS, Show, part

NOW = 10_000.0
RUN = "persian-miniature"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "outputs", Settings(), find_runs, clock=lambda: NOW)


@pytest.fixture
def seen(make_record: Callable[..., RunRecord], make_status: Callable[..., Status]) -> Callable[..., Seen]:
    def make(state: RunState, states: list[Checkpoint], **changes: Any) -> Seen:
        status = make_status(state=state, checkpoints=tuple(states))
        return replace(Seen(RUN, make_record(state=state), status=status), **changes)

    return make


def state(epoch: int, *, sound: bool = True, aside: str = "", final: bool = False) -> Checkpoint:
    name = f"{RUN}-state" if final else f"{RUN}-{epoch:06d}-state"
    at = NOW - 1000 + 10 * epoch
    return Checkpoint(
        name, CheckpointKind.STATE, at, 100, sound, epoch=epoch, final=final, step=40 * epoch, aside=aside
    )


# what may go


def names(states: list[Checkpoint]) -> list[int | None]:
    return [c.epoch for c in states]


def test_the_newest_state_that_a_restart_would_use_is_never_deleted(seen: Callable[..., Seen]) -> None:
    states = [state(1), state(2), state(3, aside="two attempts died on it"), state(4, sound=False)]
    stopped = seen(RunState.STOPPED, states)
    assert names(stopped.deletable()) == [4, 3, 1]
    assert names(stopped.unneeded()) == [4, 3]
    done = state(5, aside=NOTHING_LEFT, final=True)
    assert names(seen(RunState.FINISHED, [*states, done]).unneeded()) == [5, 4, 3, 2, 1]


def test_of_a_live_run_only_what_is_older_may_go_and_not_what_it_began_from(seen: Callable[..., Seen]) -> None:
    states = [state(1), state(2), state(3), state(4, sound=False)]
    assert names(seen(RunState.TRAINING, states).deletable()) == [2, 1]
    attempt = Attempt(2, NOW, fresh=False, resumed_from=states[1].stamp)
    loading = seen(RunState.STARTING, states, record=RunRecord(RUN, RunState.STARTING, attempts=(attempt,)))
    assert names(loading.deletable()) == [1]
    assert seen(RunState.TRAINING, [state(1, sound=False), state(2, sound=False)]).deletable() == []


def test_what_was_asked_for_already_is_not_offered_again(seen: Callable[..., Seen]) -> None:
    states = [state(1), state(2), state(3)]
    asked = ({"kind": "delete", "checkpoints": [states[0].stamp]}, {"kind": "delete", "checkpoints": 5})
    assert names(seen(RunState.STOPPED, states, requests=asked).deletable()) == [2]


def test_weights_are_never_offered_for_deletion(seen: Callable[..., Seen]) -> None:
    weights = replace(state(1), name="p.safetensors", kind=CheckpointKind.WEIGHTS)
    finished = seen(RunState.FINISHED, [weights, state(2, aside=NOTHING_LEFT)])
    assert names(finished.deletable()) == [2]
    assert weights.stamp not in tables.checkpoints(finished)


# what comes from the browser


HOSTILE_VALUES: list[object] = [
    "../../etc/passwd",
    "/etc/passwd",
    "",
    None,
    True,
    5,
    1e999,
    [],
    ["a"],
    {"a": 1},
    "p-000002-state",
    "p-000002-state@1.000",
    "\0",
]


@pytest.mark.parametrize("kind", ["delete", "delete-older", "evidence", "saves", "unknown", "__class__", ""])
@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_no_value_of_a_page_is_believed(
    tmp_path: Path, board: Board, write_run: Callable[..., Store], kind: str, value: object
) -> None:
    store = write_run(tmp_path / "outputs", record={"state": RunState.STOPPED})
    answer = board.ask(RUN, kind, value)
    assert answer.problem
    assert not answer.file
    assert store.pending_requests() == []


def test_older_states_go_up_to_the_one_that_was_asked_about(
    tmp_path: Path, board: Board, write_run: Callable[..., Store]
) -> None:
    states = tuple(state(epoch) for epoch in range(1, 7))
    store = write_run(tmp_path / "outputs", record={"state": RunState.STOPPED}, status={"checkpoints": states})
    assert board.ask(RUN, "delete-older", states[2].stamp).done == "Asked to delete 3 states."
    assert store.pending_requests() == [{"kind": "delete", "checkpoints": [states[i].stamp for i in (2, 1, 0)]}]


def test_an_unwritable_request_is_said(
    tmp_path: Path, board: Board, write_run: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "outputs")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "request", full)
    assert "No space left" in board.ask(RUN, "stop").problem


# evidence


@pytest.mark.parametrize("folder", ["../../..", "evidence/..", "/etc", "evidence/../../..", "evidence/link", "", 5])
def test_evidence_is_read_from_the_runs_own_folder_alone(
    tmp_path: Path, board: Board, write_run: Callable[..., Store], folder: object
) -> None:
    """The timeline may come with a folder that was copied from anywhere."""
    store = write_run(tmp_path / "outputs")
    (tmp_path / "secret.txt").write_text("geheim", encoding="utf-8")
    store.evidence_folder.mkdir(parents=True)
    (store.evidence_folder / "link").symlink_to(tmp_path)
    (store.run_folder / "other.txt").write_text("geheim", encoding="utf-8")
    event = replace(store.read_events()[0], evidence={"folder": folder})
    assert b"geheim" not in evidence.packed(store, event)
    assert evidence._looked_at(store, str(folder)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "HF_TOKEN=hf_abcdefGEHEIM12345",
        "--wandb_api_key GEHEIM1234567890",
        '"password": "GEHEIM-123"',
        "Authorization: Bearer GEHEIM.abc-123",
        "https://user:GEHEIM@example.org/x",
        "huggingface_token='GEHEIM123'",
        "aws_secret_access_key=GEHEIM/123+abc",
        "secret_key: GEHEIM",
        "X-Api-Key: GEHEIM123",
        "api key GEHEIM0123456789abcdef",
        "ghp_GEHEIM1234567890abcdefghijklmnopqrst",
        "github_pat_GEHEIM1234567890abcdefghijkl",
        "sk-proj-GEHEIM1234567890abcdef",
        "AKIAGEHEIM0123456789",
        "https://GEHEIM@example.org/x",
        "https://hooks.slack.com/services/T0/B0/GEHEIM",
        "https://discord.com/api/webhooks/123/GEHEIM",
        "https://api.telegram.org/bot123:GEHEIM/sendMessage",
        "password='two GEHEIM words'",
        '{"password": "two GEHEIM words"}',
    ],
)
def test_what_looks_like_a_secret_is_left_out(text: str) -> None:
    assert "GEHEIM" not in evidence.redacted(f"before {text} after\n")
    assert evidence.redacted("caching Text Encoder outputs, max_token_length 225, step 3/240") == (
        "caching Text Encoder outputs, max_token_length 225, step 3/240"
    )


@pytest.mark.parametrize(
    "text",
    [
        "The secret ingredient",
        "the password is asked for",
        "max_token_length=225",
        "tokenizer: CLIPTokenizer",
        "steps:  50%|█████     | 120/240",
        "https://huggingface.co/black-forest-labs/FLUX.1-dev",
        "task-0123456789abcdef0123",
        pytest.param("-" * 200_000, id="a long rule"),
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert evidence.redacted(text) == text


def test_a_short_password_goes_and_what_is_around_it_stays() -> None:
    assert evidence.redacted("a=1 password=abc b=2") == "a=1 password=… b=2"
    line = json.dumps({"text": 'x "password": "two words" y\nhf_abcdefgh0123'})
    assert evidence.redacted(line) == json.dumps({"text": "x"})[:-2] + ' \\"password\\": … y\\nhf_…"}'


# settings


def test_every_setting_is_in_the_form_with_its_meaning() -> None:
    html = preferences.form(Settings(stuck_threshold=120.0, auto_resume=False))
    for field in fields(Settings):
        assert f"name='{field.name}'" in html
        assert field.metadata["text"].split(";")[0] in html
    assert html.count("(changed)") == 2


def test_settings_are_saved_over_what_is_in_the_file_now(tmp_path: Path) -> None:
    used: list[Settings] = []
    board = Board(tmp_path / "outputs", Settings(), find_runs, use=used.append)
    (tmp_path / "watchdog.yaml").write_text("backoff: 20\n", encoding="utf-8")
    assert board.change_settings({"max_restarts": "5", "auto_resume": "false"}).done
    assert used == [settings.load(tmp_path)] == [Settings(backoff=20.0, max_restarts=5, auto_resume=False)]
    assert "max_restarts" in (tmp_path / "watchdog.yaml").read_text(encoding="utf-8")
    (tmp_path / "watchdog.yaml.bak").unlink()
    assert board.change_settings({"max_restarts": "6"}).done
    assert not (tmp_path / "watchdog.yaml.bak").exists(), "a file of our own has nothing to lose"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_restarts": "1.5"}, "max_restarts = '1.5'; allowed: a whole number"),
        ({"backoff": "nan"}, "allowed: a number from"),
        ({"backoff": "-1"}, "allowed: a number from"),
        ({"auto_resume": "maybe"}, "allowed: true or false"),
        ({"output_dir": "/etc"}, "unknown key 'output_dir'"),
        ({"x" * 9999: "1"}, f"Settings: unknown key '{'x' * 40}'"),
        ({"backoff": ["1"]}, "allowed: a number"),
        ({}, "Nothing was changed."),
        (None, "Nothing was changed."),
        ("backoff", "Nothing was changed."),
    ],
)
def test_a_value_that_is_not_allowed_changes_nothing(tmp_path: Path, values: Any, says: str) -> None:
    board = Board(tmp_path / "outputs", Settings(), find_runs)
    problem = board.change_settings(values).problem
    assert says in problem
    assert len(problem) < 600
    assert not (tmp_path / "watchdog.yaml").exists()


def test_a_file_that_cannot_be_used_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text("- a list\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="expected lines"):
        settings.save(tmp_path, {"backoff": 5.0})
    assert (tmp_path / "watchdog.yaml").read_text(encoding="utf-8") == "- a list\n"


# how long it takes


def test_time_left_counts_pauses_loading_and_waiting_in(
    make_record: Callable[..., RunRecord], make_status: Callable[..., Status], make_samples: Callable[..., Any]
) -> None:
    pace = Pace(2.0, 1.8, 2.5, pauses_s=0.5)
    attempts = make_record().attempts
    history = history_of([*make_samples(20, NOW - 400, first_step=91), *make_samples(100, NOW, first_step=61)])
    training = left(RunState.TRAINING, make_status(), pace, history, attempts)
    assert training is not None
    assert (training.seconds, training.low_s, training.high_s) == (80 * 2.5, 80 * 2.3, 80 * 3.0)
    took = loading_s(history, attempts)
    assert took > 0
    waiting = left(RunState.WAITING, make_status(next_start_at=NOW + 30), pace, history, attempts)
    assert waiting is not None
    assert waiting.seconds == pytest.approx(training.seconds + 30 + took)
    loading = left(RunState.TRAINING, make_status(step=80, at=NOW - 289), pace, history, attempts)
    assert loading is not None
    assert loading.seconds == pytest.approx(160 * 2.5 + took - 1)
    assert left(RunState.STOPPED, make_status(), pace, history, attempts) is None
    assert left(RunState.TRAINING, make_status(total_steps=None), pace, history, attempts) is None
    assert left(RunState.TRAINING, make_status(seconds_per_step=None), None, history, attempts) is None


# saves


@pytest.mark.parametrize(
    ("offer", "text"),
    [
        (
            SaveOffer("--save_every_n_epochs", 1, 40, 360.0, 12, 2_100_000_000),
            "Save every epoch: at most 6 min at risk",
        ),
        (SaveOffer("--save_every_n_epochs", 2, 80), "Save every 2 epochs: 0 more files"),
        (
            SaveOffer("--save_every_n_steps", 50, 50, 99.0, 1, 5),
            "Save every 50 steps: at most 99 s at risk, 1 more file",
        ),
    ],
)
def test_the_offer_says_what_it_costs(seen: Callable[..., Seen], offer: SaveOffer, text: str) -> None:
    live = seen(RunState.TRAINING, [state(1)])
    assert live.status is not None
    live = replace(live, status=replace(live.status, saves=Saves(160, 5, offer=offer, warning="<b>rarely</b>")))
    card = view.card(live, NOW)
    assert text in card
    assert "&lt;b&gt;rarely" in card
    assert "Save every" not in view.card(replace(live, requests=({"kind": "saves", "closer": True},)), NOW)


# what a page is sent


def shown(**texts: str) -> Show:
    return Show("run", ("run",), {name: part(texts.get(name, "")) for name in PARTS})


def test_the_first_view_comes_whole_and_later_looks_in_portions() -> None:
    _, sent = news(shown(), {})
    big = {name: name * (8000 // len(name)) for name in PARTS}
    assert set(PARTS) <= news(shown(**big), {})[0]
    arrived: list[str] = []
    for _ in PARTS:
        now, sent = news(shown(**big), sent)
        assert sum(len(big[name]) for name in now if name in PARTS) <= TICK_BYTES
        arrived += now
    assert sorted(arrived) == sorted(PARTS)
    assert arrived[:3] == ["card", "checkpoints", "timeline"], "what is read first"
    assert not any(key.startswith("waits") for key in sent)


def test_no_part_starves_while_others_always_change() -> None:
    _, sent = news(shown(), {})
    arrived = set()
    for look in range(12):
        always = {"card": f"{look}" * 3000, "gpu": f"{look}" * 4000, "training": f"{look}" * 4000}
        now, sent = news(shown(**always, log="l" * 4000, checkpoints="c" * 6000), sent)
        arrived |= now
    assert {"card", "gpu", "training", "log", "checkpoints"} <= arrived


def test_ages_alone_are_no_news() -> None:
    one = "<section>x<time data-form='ago'>5 s ago</time></section>"
    two = "<section>x<time data-form='ago'>7 s ago</time></section>"
    assert part(one).mark == part(two).mark
    assert part(one).mark != part(two.replace(">x<", ">y<")).mark
    assert json.dumps(part(one).html).count("\\") == 0, "single quotes need no escape in what is sent"


def test_a_state_that_was_just_asked_for_is_not_offered_for_deletion(seen: Callable[..., Seen]) -> None:
    there = seen(RunState.STOPPED, [state(1), state(2), state(3)])
    asked = replace(there, requests=[{"kind": "resume", "checkpoint": state(1).name}])
    assert [c.epoch for c in there.deletable()] == [2, 1]
    assert [c.epoch for c in asked.deletable()] == [2]
