"""Which checkpoints are found, and which of them are sound: every way a state was seen, or can be thought, to break."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxgym_watchdog.observe import checkpoints
from fluxgym_watchdog.observe.checkpoints import MARKER, STATE_FILES, CheckpointReader
from fluxgym_watchdog.records import Checkpoint, CheckpointKind

NOW = 1_700_000_000.0
"""When the checkpoints of these tests were written: long ago, so that they are remembered."""


def write_weights(path: Path, data: bytes = b"01234567", header: bytes | None = None) -> None:
    if header is None:
        half = len(data) // 2
        tensors = {
            "__metadata__": {"ss_output_name": "猫"},
            "lora.up": {"dtype": "F16", "shape": [half // 2], "data_offsets": [half, len(data)]},
            "lora.down": {"dtype": "F16", "shape": [half // 2], "data_offsets": [0, half]},
        }
        header = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_zip(path: Path, content: bytes = b"\x80\x02}q\x00.") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"weights" * 50)


def write_state(folder: Path, epoch: int = 2, step: int = 80, at: float = NOW) -> Path:
    folder.mkdir()
    (folder / "train_state.json").write_text(json.dumps({"current_epoch": epoch, "current_step": step}))
    write_weights(folder / "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", MARKER):
        write_zip(folder / name)
    date(folder, at)
    return folder


def date(folder: Path, at: float = NOW) -> None:
    """Dates a state's files as the trainer would, a hundredth of a second apart."""
    for place, name in enumerate(STATE_FILES):
        if (folder / name).is_file():
            os.utime(folder / name, (at, at - (len(STATE_FILES) - 1 - place) / 100))
    os.utime(folder, (at, at))


def only(folder: Path, name: str = "cat") -> Checkpoint:
    (found,) = CheckpointReader(folder, name).read()
    return found


# names


def test_a_sound_epoch_state(tmp_path: Path) -> None:
    state = write_state(tmp_path / "cat-000002-state", epoch=2, step=80)
    found = only(tmp_path)
    assert found == Checkpoint(
        name="cat-000002-state",
        kind=CheckpointKind.STATE,
        saved_at=NOW,
        size_bytes=sum(file.stat().st_size for file in state.iterdir()),
        sound=True,
        epoch=2,
        attempt_step=80,
    )


def test_a_step_state_says_its_epoch_itself(tmp_path: Path) -> None:
    write_state(tmp_path / "cat-step00000050-state", epoch=4, step=50)
    found = only(tmp_path)
    assert (found.sound, found.epoch, found.attempt_step, found.step_in_name, found.final) == (True, 4, 50, 50, False)


def test_the_final_state_and_the_final_weights(tmp_path: Path) -> None:
    write_state(tmp_path / "cat-state", epoch=6, step=240)
    write_weights(tmp_path / "cat.safetensors")
    os.utime(tmp_path / "cat.safetensors", (NOW + 2, NOW + 2))
    reader = CheckpointReader(tmp_path, "cat")
    weights, state = reader.read()
    assert (weights.kind, weights.final, weights.epoch, weights.sound) == (CheckpointKind.WEIGHTS, True, None, True)
    assert (state.kind, state.final, state.epoch) == (CheckpointKind.STATE, True, 6)
    assert reader.final_weights_at() == NOW + 2


def test_no_final_weights(tmp_path: Path) -> None:
    reader = CheckpointReader(tmp_path, "cat")
    assert reader.final_weights_at() is None
    write_weights(tmp_path / "cat-000001.safetensors")
    assert reader.final_weights_at() is None
    (tmp_path / "cat.safetensors").write_bytes(b"half")
    assert reader.final_weights_at() is None


def test_weights_say_epoch_and_step_by_their_names(tmp_path: Path) -> None:
    write_weights(tmp_path / "cat-000004.safetensors")
    write_weights(tmp_path / "cat-step00000120.safetensors")
    found = {c.name: c for c in CheckpointReader(tmp_path, "cat").read()}
    assert found["cat-000004.safetensors"].epoch == 4
    assert found["cat-step00000120.safetensors"].step_in_name == 120
    assert all(c.sound for c in found.values())


def test_the_newest_comes_first(tmp_path: Path) -> None:
    write_state(tmp_path / "cat-000001-state", at=NOW + 50)
    write_state(tmp_path / "cat-000003-state", at=NOW + 10)
    write_state(tmp_path / "cat-000002-state", at=NOW + 30)
    assert [c.saved_at for c in CheckpointReader(tmp_path, "cat").read()] == [NOW + 50, NOW + 30, NOW + 10]


def test_other_names_are_not_ours(tmp_path: Path) -> None:
    for name in (
        "dog-000001-state",
        "cat2-state",
        "cat-00001-state",
        "cat-step0001-state",
        "cat-state-old",
        "xcat-state",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "cat.json").touch()
    (tmp_path / "cat.safetensors.tmp").touch()
    assert CheckpointReader(tmp_path, "cat").read() == ()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
@pytest.mark.parametrize("name", ["猫", "a\nb", 'it\'s "x"', "a.*+(b", "-rf", "$(touch x)"])
def test_strange_names(tmp_path: Path, name: str) -> None:
    write_state(tmp_path / f"{name}-000002-state")
    assert only(tmp_path, name).sound


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert CheckpointReader(tmp_path / "none", "cat").read() == ()


# soundness


def drop(name: str) -> Callable[[Path], object]:
    return lambda state: (state / name).unlink()


def empty(name: str) -> Callable[[Path], object]:
    return lambda state: (state / name).write_bytes(b"")


def cut(name: str, keep: float = 0.5) -> Callable[[Path], object]:
    def act(state: Path) -> None:
        data = (state / name).read_bytes()
        (state / name).write_bytes(data[: int(len(data) * keep)])

    return act


def zeroed(name: str) -> Callable[[Path], object]:
    return lambda state: (state / name).write_bytes(bytes((state / name).stat().st_size))


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda state: (state / name).write_text(content)


def header(content: bytes, data: bytes = b"01234567") -> Callable[[Path], object]:
    return lambda state: write_weights(state / "model.safetensors", data, content)


def folder(name: str) -> Callable[[Path], object]:
    def act(state: Path) -> None:
        (state / name).unlink()
        (state / name).mkdir()

    return act


def zip_losing_its_middle(state: Path) -> None:
    data = (state / "optimizer.bin").read_bytes()
    (state / "optimizer.bin").write_bytes(data[:40] + data[60:])


def no_marker_yet(state: Path) -> None:
    for name in ("optimizer.bin", "scheduler.bin", MARKER):
        (state / name).unlink()


TENSOR = '{"dtype":"F16","shape":[2],"data_offsets":[%d,%d]}'
BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (drop("train_state.json"), "train_state.json is missing"),
    (drop(MARKER), "random_states_0.pkl is missing"),
    (no_marker_yet, "optimizer.bin, scheduler.bin and random_states_0.pkl are missing"),
    *((empty(name), f"{name} is empty") for name in STATE_FILES),
    *((cut(name), f"{name} is cut off") for name in STATE_FILES[1:]),
    *((cut(name, 0.99), f"{name} is cut off") for name in STATE_FILES[1:]),
    (cut("train_state.json"), "train_state.json is not valid JSON"),
    (zeroed("optimizer.bin"), "optimizer.bin is damaged"),
    (zeroed("model.safetensors"), "model.safetensors is damaged"),
    (zip_losing_its_middle, "optimizer.bin is damaged"),
    (text("train_state.json", "[" * 60_000), "train_state.json is not valid JSON"),
    (text("train_state.json", " " * 70_000), "train_state.json is too long"),
    (text("train_state.json", '{"current_epoch": 2}'), "train_state.json does not say"),
    (text("train_state.json", '{"current_epoch": true, "current_step": 1}'), "train_state.json does not say"),
    (text("train_state.json", '{"current_epoch": 2.0, "current_step": 1}'), "train_state.json does not say"),
    (text("train_state.json", '{"current_epoch": -2, "current_step": 1}'), "train_state.json does not say"),
    (text("train_state.json", '{"current_epoch": 2, "current_epoch": 3, "current_step": 1}'), "is not valid JSON"),
    (text("train_state.json", "[1, 2]"), "train_state.json is not valid JSON"),
    (text("optimizer.bin", "Not Found"), "optimizer.bin is damaged (not written by torch)"),
    (lambda s: (s / "model.safetensors").write_bytes(struct.pack("<Q", 2**63)), "model.safetensors is damaged"),
    (lambda s: (s / "model.safetensors").write_bytes(struct.pack("<Q", 5000) + b"{"), "model.safetensors is cut off"),
    (header(b"[" * 5000), "model.safetensors is damaged"),
    (header(b'{"a":' * 5000), "its header is not valid JSON"),
    (header(b"{}"), "model.safetensors holds no tensors"),
    (header(b'{"a":{"data_offsets":"ab"}}'), "does not say where the tensors are"),
    (header(b'{"a":{"data_offsets":[9,1]}}'), "does not say where the tensors are"),
    (header(b'{"a":[1]}'), "does not say where the tensors are"),
    (header(f'{{"a":{TENSOR % (0, 4)},"b":{TENSOR % (5, 8)}}}'.encode()), "do not lie end to end"),
    (header(f'{{"a":{TENSOR % (0, 4)},"b":{TENSOR % (2, 8)}}}'.encode()), "do not lie end to end"),
    (header(f'{{"a":{TENSOR % (0, 4)},"a":{TENSOR % (4, 8)}}}'.encode()), "its header is not valid JSON"),
    (header(f'{{"a":{TENSOR % (0, 4)}}}'.encode()), "is longer than its header says"),
    (folder("optimizer.bin"), "optimizer.bin is a folder"),
    (folder(MARKER), "random_states_0.pkl is a folder"),
]


@pytest.mark.parametrize(("breaks", "reason"), BROKEN, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(BROKEN)])
def test_a_broken_state_says_what_is_wrong(tmp_path: Path, breaks: Callable[[Path], object], reason: str) -> None:
    state = write_state(tmp_path / "cat-000002-state")
    breaks(state)
    date(state)
    found = only(tmp_path)
    assert not found.sound
    assert reason in found.reason
    assert found.epoch == 2


def test_a_state_that_is_being_rewritten(tmp_path: Path) -> None:
    state = write_state(tmp_path / "cat-000002-state")
    os.utime(state / "train_state.json", (NOW + 9, NOW + 9))
    found = only(tmp_path)
    assert "is being rewritten, was cut off while saving" in found.reason
    assert found.saved_at == NOW
    os.utime(state / MARKER, (NOW + 9, NOW + 9))
    assert only(tmp_path).sound


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    state = write_state(tmp_path / "cat-000002-state")
    for name in ("optimizer.bin", "scheduler.bin", MARKER):
        write_zip(state / name, pickle.dumps(Trap()))
    date(state)
    assert only(tmp_path).sound
    (state / MARKER).write_bytes(pickle.dumps(Trap()))
    date(state)
    assert not only(tmp_path).sound
    assert not (tmp_path / "it ran").exists()


def test_a_file_where_a_folder_is_expected_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "cat-000001-state").write_text("x")
    (tmp_path / "cat-000001.safetensors").mkdir()
    found = {c.kind: c.reason for c in CheckpointReader(tmp_path, "cat").read()}
    assert found == {CheckpointKind.STATE: "is not a folder", CheckpointKind.WEIGHTS: "is a folder"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    state = write_state(tmp_path / "cat-000002-state")
    (state / "optimizer.bin").unlink()
    os.mkfifo(state / "optimizer.bin")
    os.mkfifo(tmp_path / "cat.safetensors")
    reasons = {c.reason for c in CheckpointReader(tmp_path, "cat").read()}
    assert reasons == {"optimizer.bin is no regular file", "is no regular file"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    write_state(outside)
    (run / "cat-000001-state").symlink_to(outside)
    inner = write_state(run / "cat-000002-state")
    (inner / "optimizer.bin").unlink()
    (inner / "optimizer.bin").symlink_to(outside / "optimizer.bin")
    good = write_state(run / "cat-000003-state")
    (good / "optimizer.bin").rename(run / "shared.bin")
    (good / "optimizer.bin").symlink_to("../shared.bin")
    (run / "cat-000004-state").symlink_to("nothing")
    (run / "cat-000005-state").symlink_to("cat-000005-state")
    found = {c.name[9]: c.reason for c in CheckpointReader(run, "cat").read()}
    assert found == {
        "1": "is a link that leads out of the run's folder",
        "2": "optimizer.bin is a link that leads out of the run's folder",
        "3": "",
        "4": "is a link that leads nowhere",
        "5": "is a link that leads nowhere",
    }


def test_an_unreadable_file_says_so_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "cat-000002-state")
    reader = CheckpointReader(tmp_path, "cat")

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert reader.read()[0].reason == "train_state.json cannot be read: Permission denied"
    assert reader.read()[0].sound


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(STATE_FILES),
    data=st.binary(max_size=300),
    prefix=st.sampled_from([b"", b"PK\x03\x04", b"\x09" + bytes(7) + b"{"]),
)
def test_no_content_is_too_strange(tmp_path: Path, name: str, data: bytes, prefix: bytes) -> None:
    state = tmp_path / "cat-000002-state"
    if not state.exists():
        write_state(state)
    before = (state / name).read_bytes()
    (state / name).write_bytes(prefix + data)
    date(state)
    assert not only(tmp_path).sound or prefix + data == before
    (state / name).write_bytes(before)
    date(state)
    assert only(tmp_path).sound


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(STATE_FILES[1:]), share=st.floats(0, 1))
def test_a_file_cut_anywhere_is_noticed(tmp_path: Path, name: str, share: float) -> None:
    state = tmp_path / "cat-000002-state"
    if not state.exists():
        write_state(state)
    before = (state / name).read_bytes()
    keep = min(int(len(before) * share), len(before) - 1)
    (state / name).write_bytes(before[:keep])
    date(state)
    assert only(tmp_path).reason.startswith(name)
    (state / name).write_bytes(before)
    date(state)


# reading again and again


def test_an_unchanged_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "cat-000001-state")
    write_weights(tmp_path / "cat-000001.safetensors")
    os.utime(tmp_path / "cat-000001.safetensors", (NOW, NOW))
    reader = CheckpointReader(tmp_path, "cat")
    first = reader.read()

    def refuse(_: Path) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(checkpoints, "zip_reason", refuse)
    monkeypatch.setattr(checkpoints, "safetensors_reason", refuse)
    assert reader.read() == first
    write_zip(tmp_path / "cat-000001-state" / MARKER, b"longer than before")
    with pytest.raises(AssertionError, match="read again"):
        reader.read()


def test_a_checkpoint_written_just_now_is_read_again(tmp_path: Path) -> None:
    """A rewrite within the file system's clock tick leaves size and times as they were."""
    now = time.time()
    state = write_state(tmp_path / "cat-000001-state", at=now)
    reader = CheckpointReader(tmp_path, "cat")
    assert reader.read()[0].sound
    zeroed("optimizer.bin")(state)
    date(state, now)
    assert not reader.read()[0].sound


def test_checkpoints_come_and_go(tmp_path: Path) -> None:
    reader = CheckpointReader(tmp_path, "cat")
    assert reader.read() == ()
    state = write_state(tmp_path / "cat-000001-state")
    assert [c.name for c in reader.read()] == ["cat-000001-state"]
    state.rename(tmp_path / "cat-000002-state")
    assert [c.name for c in reader.read()] == ["cat-000002-state"]


def test_an_entry_that_vanishes_while_we_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "cat-000001-state")
    write_state(tmp_path / "cat-000002-state")
    lstat = os.lstat

    def vanishing(path: str) -> os.stat_result:
        if str(path).endswith("cat-000001-state"):
            raise FileNotFoundError(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", vanishing)
    assert [c.epoch for c in CheckpointReader(tmp_path, "cat").read()] == [2]


# what weights tell of their training


def weights_that_tell(path: Path, **told: object) -> None:
    entry = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
    write_weights(path, header=json.dumps({"__metadata__": told, "a": entry}).encode())


def test_weights_tell_how_long_an_epoch_is(tmp_path: Path) -> None:
    weights_that_tell(
        tmp_path / "cat-000004.safetensors",
        ss_num_batches_per_epoch="101",
        ss_gradient_accumulation_steps="4",
        ss_epoch="4",
    )
    told = CheckpointReader(tmp_path, "cat").trained()
    assert (told.steps_per_epoch, told.accumulation, told.epoch) == (26, 4, 4)


def test_the_final_weights_tell_their_epoch(tmp_path: Path) -> None:
    weights_that_tell(tmp_path / "cat.safetensors", ss_epoch="16")
    assert only(tmp_path).epoch == 16


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"ss_num_batches_per_epoch": "many", "ss_epoch": ""},
        {"ss_num_batches_per_epoch": "0", "ss_epoch": "0"},
        {"ss_num_batches_per_epoch": "9" * 400, "ss_epoch": "-3"},
        {"ss_num_batches_per_epoch": 40, "ss_epoch": [16]},
        {"ss_num_batches_per_epoch": "४०", "ss_epoch": "1e3"},
    ],
)
def test_weights_that_tell_nothing_of_use(tmp_path: Path, told: dict[str, object]) -> None:
    weights_that_tell(tmp_path / "cat.safetensors", **told)
    found = CheckpointReader(tmp_path, "cat").trained()
    assert (found.steps_per_epoch, found.epoch) == (None, None)
    assert only(tmp_path).sound
    assert only(tmp_path).epoch is None
