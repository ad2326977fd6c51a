"""What a log says, for every kind of log that people have."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from fluxgym_watchdog.explain import CAUSE_NAMES, TAIL_BYTES, Explanation, explain, in_words
from tests.bench.last_words import LAST_WORDS, Words

NOW = 2_000_000_000.0
OLD = 1_000_000_000.0
HEAD = (
    "The following values were not passed to `accelerate launch` and had defaults used instead:\n"
    "2026-11-23 11:55:28 INFO     highvram is enabled /            train_util.py:4409\n"
    "                    INFO     Loading dataset config from    train_network.py:519\n"
    "                             /gym/outputs/x/dataset.toml                        \n"
    "                    INFO     Building Flux model dev         flux_utils.py:101\n"
)
CACHING = "caching latents...\n\r  0%|          | 0/4 [00:00<?, ?it/s]\r 50%|█████     | 2/4 [00:01<00:01,  1.9it/s]"
RESUME = (
    "\n                    INFO     resume training from local     train_util.py:4900\n"
    "                             state: /gym/outputs/x/x-000002-state\n"
)
RUNNING = "\nrunning training / 学習開始\n  num epochs / epoch数: 6\n  total optimization steps / 学習ステップ数: 240\n"
SAVED = "\n                    INFO     model saved.                  train_network.py:1729\n"


def bars(count: int, loss: str = "1.48") -> str:
    return "".join(
        f"\rsteps:  {n // 3:3d}%|█▋        | {n}/240 [00:01<00:07, 26.23it/s, avr_loss={loss}]"
        for n in range(count + 1)
    )


def training(count: int = 15, loss: str = "1.48") -> str:
    return HEAD + CACHING + RUNNING + "epoch 1/6\n" + bars(count, loss)


@pytest.fixture
def said(tmp_path: Path):  # type: ignore[no-untyped-def]
    def explained(text: str | bytes, exit_code: int | None = None, changed_at: float = OLD) -> Explanation:
        path = tmp_path / "training.log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (changed_at, changed_at))
        return explain(path, exit_code, now=NOW)

    return explained


def test_documented_names_and_keys(said) -> None:  # type: ignore[no-untyped-def]
    assert set(CAUSE_NAMES) == {
        *("video_memory", "host_memory", "disk_full", "nan_loss", "cuda_error", "gpu_lost", "state_unloadable"),
        *("already_finished", "worker_died", "bad_arguments", "missing_file", "import_error", "killed", "unknown"),
    }
    keys = ["phase", "step", "total_steps", "outcome", "cause", "retry", "advice", "attempts"]
    assert list(asdict(said(training()))) == keys


def test_finished(said) -> None:  # type: ignore[no-untyped-def]
    found = said(training(240) + SAVED + bars(240)[-70:])
    assert (found.outcome, found.step, found.total_steps, found.cause, found.retry) == (
        "finished",
        240,
        240,
        None,
        False,
    )
    assert said(training(240) + SAVED, 0).outcome == "finished"


@pytest.mark.parametrize("words", LAST_WORDS, ids=lambda w: f"{w.cause}-{w.name}")
@pytest.mark.parametrize("exit_known", [True, False])
def test_every_cause(said, words: Words, exit_known: bool) -> None:  # type: ignore[no-untyped-def]
    if not words.text and not exit_known:
        pytest.skip("a log that says nothing")
    begun = HEAD + (RESUME if words.when == "resume" else "") if words.when in ("start", "resume") else training()
    found = said(begun + words.text, words.exit_code if exit_known else None)
    assert (found.outcome, found.cause) == ("crashed", words.cause)
    assert found.advice


def test_out_of_video_memory_is_worth_a_retry_only_after_steps(said) -> None:  # type: ignore[no-untyped-def]
    words = next(w for w in LAST_WORDS if w.cause == "video_memory")
    assert said(training() + words.text).retry
    assert not said(HEAD + CACHING + words.text).retry


@pytest.mark.parametrize("changed_at,outcome", [(NOW - 60, "running"), (NOW - 3600, "unknown")])
def test_a_log_that_just_stops(said, changed_at: float, outcome: str) -> None:  # type: ignore[no-untyped-def]
    found = said(training(), changed_at=changed_at)
    assert (found.outcome, found.phase, found.step, found.cause) == (outcome, "training", 15, None)
    assert found.retry is (outcome == "unknown")


def test_exit_code_alone(said) -> None:  # type: ignore[no-untyped-def]
    assert said(training(), 137).cause == "host_memory"
    assert said(training(), 1).cause == "unknown"
    assert said(training(), 0).outcome == "crashed"


def test_loss_that_is_no_number(said) -> None:  # type: ignore[no-untyped-def]
    found = said(training(60, "nan"))
    assert (found.outcome, found.cause, found.retry) == ("unknown", "nan_loss", False)
    oom = next(w for w in LAST_WORDS if w.cause == "video_memory")
    assert said(training(60, "nan") + oom.text).cause == "video_memory"


def test_an_error_that_was_overcome_is_no_crash(said) -> None:  # type: ignore[no-untyped-def]
    overcome = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'triton'\n"
    assert said(HEAD + overcome + CACHING + RUNNING + bars(3)).outcome == "unknown"


@pytest.mark.parametrize(
    "first",
    [
        training() + LAST_WORDS[0].text,
        training(240) + SAVED,
        training(),
        HEAD + LAST_WORDS[0].text,
        "[FluxGym Watchdog] attempt 1, from the beginning\n" + training(),
    ],
)
def test_the_last_attempt_is_explained(said, first: str) -> None:  # type: ignore[no-untyped-def]
    second = said(first + training(40) + LAST_WORDS[3].text)
    assert (second.attempts, second.step, second.cause) == (2, 40, "host_memory")
    third = said(first + "\n[FluxGym Watchdog] attempt 7, from epoch 2\n" + HEAD)
    assert (third.attempts, third.step, third.outcome) == (7, 0, "unknown")


def test_colours_links_and_wrapped_paths(said) -> None:  # type: ignore[no-untyped-def]
    coloured = training(240).replace("INFO    ", "\x1b[34mINFO    \x1b[0m")
    saved = "\x1b[2;36m         \x1b[0m\x1b[34mINFO    \x1b[0m model saved.   \x1b]8;id=1;file:///x.py\x1b\\x.py\x1b]8;;\x1b\\\n"
    assert said(coloured + "\n" + saved).outcome == "finished"


def test_terminal_recording(said) -> None:  # type: ignore[no-untyped-def]
    recorded = (
        'Script started on 2026-11-23 [COMMAND="bash train.sh"]\n{}\nScript done on 2026 [COMMAND_EXIT_CODE="{}"]\n'
    )
    assert said(recorded.format(training(240) + SAVED, 0)).outcome == "finished"
    found = said(recorded.format(training(), 137))
    assert (found.outcome, found.cause, found.attempts) == ("crashed", "host_memory", 1)


def test_text_cut_within_a_character_and_powershells_encoding(said) -> None:  # type: ignore[no-untyped-def]
    whole = training().encode()
    cut = whole[: whole.rindex("█".encode()) + 1]
    assert said(cut).step == 14
    assert said(training().encode("utf-16")).step == 15


def test_gigabytes_are_read_from_their_end(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    with path.open("wb") as file:
        file.write(training(3).encode())
        file.seek(3_000_000_000)
        file.write(b"\n" * TAIL_BYTES + bars(40).encode() + LAST_WORDS[0].text.encode())
    found = explain(path, now=NOW)
    assert (found.step, found.total_steps, found.outcome, found.cause) == (40, 240, "crashed", "video_memory")


@pytest.mark.parametrize("line", ["hello world\n", "x", "a.", "\r  1%|▏| 1/9 [00:01<00:02]"])
def test_eight_megabytes_of_anything_take_seconds(said, line: str) -> None:  # type: ignore[no-untyped-def]
    found = said(line * (TAIL_BYTES // len(line.encode()) + 10))
    assert found.outcome == "unknown"


def test_zeros_of_a_hole_or_a_power_cut_are_no_text_and_hide_none(tmp_path: Path, said) -> None:  # type: ignore[no-untyped-def]
    told = training(40) + LAST_WORDS[0].text
    assert said(told.encode() + bytes(4096)).cause == LAST_WORDS[0].cause
    path = tmp_path / "sparse.log"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(told.encode())
    found = explain(path, now=NOW)
    assert (found.outcome, found.step, found.cause) == ("crashed", 40, LAST_WORDS[0].cause)
    path.write_bytes(b"")
    os.truncate(path, 3_000_000_000)
    assert "not text" in explain(path, now=NOW).advice


@pytest.mark.parametrize("after", ["Press any key to continue . . . ", "done", "Fehler: ge\xf6ffnet", "$ "])
def test_what_the_script_says_after_the_training_is_no_attempt(said, after: str) -> None:  # type: ignore[no-untyped-def]
    told = training(40) + next(w for w in LAST_WORDS if "returned non-zero" in w.text).text
    found = said((told + "\n" + after).encode("latin-1", "replace") if "\xf6" in after else told + "\n" + after)
    assert (found.attempts, found.outcome, found.step) == (1, "crashed", 40)
    assert found == said(told)
    again = said(told + "\n" + after + "\ntrain.sh: line 2: accelerate: command not found\n", 127)
    assert (again.attempts, again.cause) == (2, "missing_file")


@pytest.mark.parametrize(
    "content,word", [(b"", "empty"), (bytes(range(256)) * 400, "not text"), (b"hello\n", "right file")]
)
def test_what_is_no_log_is_said(said, content: bytes, word: str) -> None:  # type: ignore[no-untyped-def]
    found = said(content, changed_at=NOW)
    assert (found.outcome, found.phase, found.cause, found.retry) == ("unknown", "unknown", None, False)
    assert word in found.advice
    assert in_words(found)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        explain(tmp_path / "no.log")
    assert missing.value.filename == str(tmp_path / "no.log") or missing.value.filename == tmp_path / "no.log"
    with pytest.raises(IsADirectoryError) as folder:
        explain(tmp_path)
    assert folder.value.filename == str(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names there")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        explain(tmp_path / "pipe")
