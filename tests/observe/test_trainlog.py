"""What the log says: wording of the trainer, wrapped and not, glued and cut, in any chunks."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxgym_watchdog.observe.logtext import PIECE_LIMIT, Splitter, clean
from fluxgym_watchdog.observe.trainlog import POLL_LIMIT_BYTES, LogFollower, LogParser, TextFollower
from fluxgym_watchdog.records import LogProgress, Phase

LEVEL = " " * 20 + "INFO     "
MORE = " " * 29


def bar(count: int, total: int, label: str = "", loss: str = "") -> str:
    tail = f", avr_loss={loss}" if loss else ""
    label += " " * bool(label)
    return f"\r{label}{100 * count // total:3d}%|█▏        | {count}/{total} [00:01<00:09,  3.68it/s{tail}]"


def steps(count: int, total: int = 80, loss: str = "1.47") -> str:
    """A step: tqdm draws the bar once for the count and once for the loss."""
    return bar(count, total, "steps:", loss) + bar(count, total, "steps:", loss)


IMPORTS = "The following values were not passed to `accelerate launch` and had defaults used instead:\n"
LOADING = (
    "2026-03-04 05:06:07 INFO     highvram is enabled /            train_util.py:4409\n"
    f"{MORE}highvramが有効です                                 \n"
    f"{LEVEL}Loading dataset config from    train_network.py:519\n"
    f"{MORE}/srv/gym/outputs/caching latents                   \n"
    f"{MORE}/dataset.toml                                      \n"
    f"{bar(0, 6)}{bar(6, 6)}\n"
    f"{LEVEL}Building Flux model dev from BFL  flux_utils.py:107\n"
)
LATENTS = f"{LEVEL}caching latents with caching     train_util.py:1120\n{MORE}strategy.{' ' * 40}\n{bar(0, 6)}"
TEXTS = f"{bar(6, 6)}\n{LEVEL}caching Text Encoder outputs     train_util.py:1306\n{bar(0, 6)}{bar(3, 6)}{bar(6, 6)}\n"
NETWORK = f"import network module: networks.lora_flux\n{LEVEL}create LoRA network. base dim      lora_flux.py:778\n"
COUNTERS = (
    "running training / 学習開始\n"
    "  num train images * repeats / 学習画像の数×繰り返し回数: 40\n"
    "  num batches per epoch / 1epochのバッチ数: 40\n"
    "  num epochs / epoch数: 2\n"
    "  batch size per device / バッチサイズ: 1\n"
    "  gradient accumulation steps / 勾配を合計するステップ数 = 1\n"
    "  total optimization steps / 学習ステップ数: 80\n"
    "\rsteps:   0%|          | 0/80 [00:00<?, ?it/s]\nepoch 1/2\n\n"
)
SAVING = (
    "\nsaving checkpoint: /srv/gym/outputs/猫 cat/cat-000001.safetensors\n"
    "2026-03-04 05:06:09 INFO                                      train_util.py:5941\n"
    f"{LEVEL}saving state at epoch 1          train_util.py:5942\n"
)
SAVED = (
    f"{LEVEL}Random states saved in         checkpointing.py:170\n"
    f"{MORE}/srv/gym/outputs/cat/cat-000001-state/ra\n{MORE}ndom_states_0.pkl\n"
)
SAMPLING = (
    "2026-03-04 05:06:10 INFO                                  flux_train_utils.py:60\n"
    f"{LEVEL}generating sample images at  flux_train_utils.py:61\n{MORE}step / サンプル画像生成\n"
    f"{LEVEL}prompt: model saved. saving     flux_train_utils.py:182\n{MORE}last state.\n"
    "Using cached text encoder outputs for prompt: a cat, saving checkpoint: epoch 9/9\n"
    f"\n{bar(0, 2)}\x1b[A\n{bar(1, 2)}\x1b[A"
)
SAMPLED = f"{bar(2, 2)}\n{bar(41, 80, 'steps:', '1.5')}"
LAST_STATE = f"\n{LEVEL}saving last state.               train_util.py:5990\n"
END = (
    "\nsaving checkpoint: /srv/gym/outputs/cat/cat.safetensors\n"
    f"{LEVEL}model saved.                  train_network.py:1729\n"
)
WHOLE = (
    IMPORTS + LOADING + LATENTS + TEXTS + NETWORK + COUNTERS + steps(1) + steps(40) + SAVING + SAVED + "\nepoch 2/2\n\n"
    + steps(41) + SAMPLING + SAMPLED + steps(42) + steps(80) + LAST_STATE + SAVED + END
)  # fmt: skip


def progress_of(text: str) -> LogProgress:
    parser = LogParser()
    parser.feed(text)
    return parser.progress


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("", Phase.IMPORTS),
        (IMPORTS, Phase.IMPORTS),
        (IMPORTS + LOADING, Phase.LOADING),
        (IMPORTS + LOADING + LATENTS, Phase.CACHING_LATENTS),
        (IMPORTS + LOADING + LATENTS + TEXTS, Phase.CACHING_TEXT),
        (IMPORTS + LOADING + LATENTS + TEXTS + NETWORK, Phase.LOADING),
        (IMPORTS + NETWORK + COUNTERS, Phase.FIRST_STEP),
        (COUNTERS + steps(1), Phase.TRAINING),
        (COUNTERS + steps(40) + SAVING, Phase.SAVING),
        (COUNTERS + steps(40) + SAVING + SAVED, Phase.TRAINING),
        (COUNTERS + steps(40) + SAVING + "\nepoch 2/2\n", Phase.TRAINING),
        (COUNTERS + SAMPLING, Phase.SAMPLING),
        (COUNTERS + steps(41) + SAMPLING + SAMPLED, Phase.SAMPLING),
        (COUNTERS + steps(41) + SAMPLING + SAMPLED + steps(42), Phase.TRAINING),
        (COUNTERS + steps(80) + "\nepoch 2/2\n" + LAST_STATE, Phase.ENDING),
        (COUNTERS + steps(80) + "\nepoch 2/2\n" + LAST_STATE + SAVED, Phase.ENDING),
        (COUNTERS + "epoch 2/2\n" + steps(80) + "\nsaving checkpoint: /o/cat.safetensors\n", Phase.ENDING),
        (COUNTERS + "epoch 2/2\n" + steps(60) + "\nsaving checkpoint: /o/c-step00000060.safetensors\n", Phase.SAVING),
        (WHOLE, Phase.ENDING),
        (bar(1, 9, "model.safetensors:") + bar(2, 9, "model.safetensors:"), Phase.DOWNLOAD),
    ],
)
def test_each_phase_is_recognised(text: str, phase: Phase) -> None:
    assert progress_of(text).phase is phase


def test_a_whole_training() -> None:
    found = progress_of(WHOLE)
    assert (found.step, found.bar_total, found.total_steps) == (80, 80, 80)
    assert (found.epoch, found.epochs, found.steps_per_epoch, found.accumulation) == (2, 2, 40, 1)
    assert found.loss == 1.47
    assert found.model_saved
    assert not found.resumed


def test_steps_per_epoch_counts_optimizer_steps() -> None:
    found = progress_of("  num batches per epoch / x: 41\n  gradient accumulation steps / y = 4\n")
    assert (found.steps_per_epoch, found.accumulation) == (11, 4)


def test_what_a_user_wrote_or_named_means_nothing() -> None:
    found = progress_of(COUNTERS + steps(41) + SAMPLING)
    assert not found.model_saved
    assert (found.epoch, found.epochs) == (1, 2)
    named = "/srv/model saved./sd-scripts/lora.py:1092: FutureWarning: Positional args are being deprecated\n"
    assert not progress_of(COUNTERS + steps(41) + named).model_saved


def test_caching_counts() -> None:
    found = progress_of(LOADING + LATENTS + bar(4, 6))
    assert (found.count, found.count_total) == (4, 6)


def test_sampling_and_validation_bars_are_not_steps() -> None:
    text = COUNTERS + steps(7) + bar(9, 20) + bar(3, 90, "validation steps:") + "\n"
    found = progress_of(text)
    assert (found.step, found.bar_total, found.count, found.count_total) == (7, 80, 3, 90)


def test_resumed_also_where_the_line_is_wrapped() -> None:
    assert progress_of(
        f"{LEVEL}resume training from local       train_util.py:4777\n{MORE}state:\n{MORE}/o/c-state\n"
    ).resumed
    assert not progress_of(f"{LEVEL}resume training from local       train_util.py:4777\n").resumed


def test_a_wide_terminal_and_one_without_rich() -> None:
    wide = f"{LEVEL}saving state at epoch 1{' ' * 320}train_util.py:5942\n"
    found = progress_of(COUNTERS + steps(40) + "\n" + wide)
    assert found.phase is Phase.SAVING
    assert found.last_lines[-1] == f"{LEVEL}saving state at epoch 1  train_util.py:5942"
    assert progress_of(COUNTERS + steps(40) + "saving state at epoch 1\n").phase is Phase.SAVING
    assert progress_of(COUNTERS + steps(80) + "model saved.\n").model_saved


def test_colours_and_links_are_seen_through() -> None:
    line = (
        "\x1b[2;36m                   \x1b[0m\x1b[2;36m \x1b[0m\x1b[34mINFO    \x1b[0m "
        "caching latents\x1b[33m...\x1b[0m    "
        "\x1b]8;id=7;file:///srv/train_util.py\x1b\\\x1b[2mtrain_util.py\x1b[0m\x1b]8;;\x1b\\\x1b[2m:\x1b[0m1170\r\n"
    )
    assert progress_of(line).phase is Phase.CACHING_LATENTS
    assert progress_of(line).last_lines == (f"{LEVEL}caching latents...    train_util.py:1170",)


def test_text_glued_to_a_bar() -> None:
    found = progress_of(COUNTERS + steps(15, loss="1.48") + "Traceback (most recent call last):\n  File x\n")
    assert (found.step, found.loss) == (15, 1.48)
    assert found.last_lines[-2:] == ("Traceback (most recent call last):", "  File x")
    glued = progress_of(COUNTERS + steps(40) + "2026-03-04 05:06:09 INFO     saving last state.   train_util.py:1\n")
    assert glued.phase is Phase.ENDING


def test_a_loss_that_is_no_number() -> None:
    loss = progress_of(COUNTERS + steps(3, loss="nan")).loss
    assert loss is not None
    assert math.isnan(loss)


def test_advances() -> None:
    parser = LogParser()

    def advance(text: str) -> int:
        before = parser.progress.advances
        parser.feed(text)
        return parser.progress.advances - before

    assert advance(IMPORTS) == 0
    assert advance(f"{LEVEL}caching latents...\n{bar(0, 6)}") == 1
    assert advance(bar(1, 6)) == 1
    assert advance(bar(1, 6)) == 0
    assert advance(COUNTERS) == 1
    assert advance(bar(1, 80, "steps:")) == 1
    assert advance(bar(1, 80, "steps:", "1.5")) == 0
    assert advance(bar(2, 80, "steps:", "1.5")) == 1
    assert advance("\nsaving checkpoint: /o/c-000001.safetensors\n") == 1
    assert advance(f"{LEVEL}saving state at epoch 1          train_util.py:5942\n") == 1
    assert advance(SAVED) == 1
    assert advance("some warning\n") == 0


def test_downloads_side_by_side_advance_only_when_one_of_them_does() -> None:
    one, two = "a.safetensors:", "b.safetensors:"
    parser = LogParser()
    parser.feed(bar(5, 9, one) + bar(2, 9, two))
    before = parser.progress.advances
    parser.feed(bar(5, 9, one) + bar(2, 9, two))
    assert parser.progress.advances == before
    parser.feed(bar(3, 9, two))
    assert parser.progress.advances == before + 1


def test_sizes_with_units_and_bars_without_an_end() -> None:
    found = progress_of("\rflux.safetensors:  12%|█▏   | 1.50G/23.8G [00:10<03:00, 120MB/s]\n")
    assert (found.phase, found.count, found.count_total) == (Phase.DOWNLOAD, 1_500_000_000, 23_800_000_000)
    assert progress_of("\r123it [00:01, 98.2it/s]\n").count == 123


def test_last_lines_keep_one_redraw_of_a_bar() -> None:
    found = progress_of(COUNTERS + "".join(steps(n) for n in range(1, 60)))
    assert [line for line in found.last_lines if "steps:" in line][-1].startswith("steps:  73%|█▏        | 59/80")
    assert len(found.last_lines) == 10
    assert len(progress_of("x\n" * 100).last_lines) == 40


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=30))
def test_any_chunking_gives_the_same(cuts: list[int]) -> None:
    parser = LogParser()
    reached = 0
    places = [0, *sorted(cuts), len(WHOLE)]
    for begin, end in itertools.pairwise(places):
        parser.feed(WHOLE[begin:end])
        assert parser.progress.advances >= reached
        reached = parser.progress.advances
    assert parser.progress == progress_of(WHOLE)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="\r\n\x1b[]8;A|%/0123steps: INFO.model saved猫", max_size=300))
def test_no_text_is_too_strange(text: str) -> None:
    parser = LogParser()
    for character in text:
        parser.feed(character)
    assert parser.progress == progress_of(text)


def test_a_line_without_an_end_is_cut_alike_in_any_chunks() -> None:
    text = "x" * (2 * PIECE_LIMIT + 5)
    whole, bits = Splitter(), Splitter()
    pieces = whole.feed(text + "\n")
    in_bits = [piece for at in range(0, len(text), 1000) for piece in bits.feed(text[at : at + 1000])] + bits.feed("\n")
    assert pieces == in_bits == ["x" * PIECE_LIMIT, "x" * PIECE_LIMIT, "xxxxx"]


def test_cleaning() -> None:
    assert clean("\x1b[1mbold\x1b[0m\x00 \x1b]8;;http://x\x07link\x1b]8;;\x07 \x1b[A  ") == "bold link"
    assert clean("cut \x1b[3") == "cut"


# the file


def test_following_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    follower = LogFollower(path)
    assert follower.poll() == LogProgress()
    path.write_bytes(COUNTERS.encode())
    found = follower.poll()
    assert (found.phase, found.new_bytes, found.size_bytes) == (
        Phase.FIRST_STEP,
        path.stat().st_size,
        path.stat().st_size,
    )
    with path.open("ab") as file:
        file.write(steps(5).encode())
    found = follower.poll()
    assert (found.step, found.new_bytes) == (5, len(steps(5).encode()))
    assert follower.poll().new_bytes == 0


def test_an_attempt_begins_at_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    path.write_bytes(WHOLE.encode())
    follower = LogFollower(path, path.stat().st_size)
    assert follower.poll().step == 0
    with path.open("ab") as file:
        file.write((COUNTERS + steps(3)).encode())
    assert follower.poll().step == 3


@pytest.mark.parametrize("tail", ["学習開始", "é", "🐈"])
def test_a_character_cut_at_every_byte(tmp_path: Path, tail: str) -> None:
    data = f"running training / {tail}\n".encode()
    for cut in range(len(data)):
        path = tmp_path / f"{cut}.log"
        path.write_bytes(data[:cut])
        follower = LogFollower(path)
        follower.poll()
        with path.open("ab") as file:
            file.write(data[cut:])
        assert follower.poll().last_lines == (f"running training / {tail}",)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    path.write_bytes(b"\xff\xfe\x00\xc3(" + steps(4).encode())
    assert LogFollower(path).poll().step == 4


@pytest.mark.parametrize("later", [COUNTERS + steps(2), WHOLE + steps(2)])
def test_a_replaced_file_is_read_again_from_its_start(tmp_path: Path, later: str) -> None:
    path = tmp_path / "training.log"
    path.write_bytes((WHOLE + "the old file\n").encode())
    follower = LogFollower(path)
    before = follower.poll()
    other = tmp_path / "other"
    other.write_bytes(("a new file\n" * 9 + later).encode())
    other.replace(path)
    found = follower.poll()
    assert found.step == 2
    assert found.advances > before.advances
    assert found.last_lines[-1].startswith("steps:")
    assert not found.problem


def test_of_a_backlog_of_gigabytes_the_beginning_and_the_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    path.write_bytes(COUNTERS.encode() + b"x" * POLL_LIMIT_BYTES)
    os.truncate(path, 3_000_000_000)
    with path.open("a") as file:
        file.write(steps(9))
    follower = LogFollower(path)
    found = follower.poll(everything=True)
    assert (found.epochs, found.step, found.size_bytes) == (2, 9, path.stat().st_size)
    with path.open("a") as file:
        file.write(steps(10))
    again = follower.poll()
    assert (again.step, again.advances, again.new_bytes) == (10, found.advances + 1, len(steps(10).encode()))


def test_a_poll_is_bounded_unless_asked_for_everything(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    path.write_bytes(COUNTERS.encode() + b"x" * 70 + b"\n" * 1_100_000 + steps(9).encode())
    follower = LogFollower(path)
    first = follower.poll()
    assert (first.step, first.new_bytes) == (0, 1_048_576)
    assert follower.poll(everything=True).step == 9
    assert LogFollower(path).poll(everything=True).new_bytes == path.stat().st_size


def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    path.mkdir()
    assert "is no regular file" in LogFollower(path).poll().problem
    path.rmdir()
    path.write_text("x\n")
    follower = LogFollower(path)
    assert not follower.poll().problem
    path.unlink()
    assert "is gone" in follower.poll().problem
    path.write_text("back again\n")
    found = follower.poll()
    assert (found.problem, found.last_lines) == ("", ("back again",))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    os.mkfifo(path)
    assert LogFollower(path).poll(everything=True).problem


def test_lines_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    follower = TextFollower(path)

    def poll() -> list[str]:
        return [line for line, _ in follower.poll()]

    assert poll() == []
    path.write_bytes(
        f"\x1b[1mhello\x1b[0m\n\n{bar(1, 9, 'steps:', '1.5')}{bar(2, 9, 'steps:')}Traceback\nunfin".encode()
    )
    assert poll() == [
        "hello",
        bar(1, 9, "steps:", "1.5")[1:],
        bar(2, 9, "steps:")[1:],
        "Traceback",
    ]
    with path.open("ab") as file:
        file.write(b"ished\nno end")
    assert poll() == ["unfinished"]
    assert poll() == []
    assert follower.rest() == [("no end", None)]
    path.write_text("new\n")
    assert poll() == ["new"]
