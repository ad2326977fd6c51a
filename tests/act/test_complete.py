"""The final weights made from a final state: rounded as torch rounds, whole or not at all."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fluxgym_watchdog.act.complete import CannotComplete, complete, describe
from fluxgym_watchdog.observe.soundness import safetensors_reason, trained


def state_with(folder: Path, *tensors: tuple[str, str, list[int], bytes]) -> Path:
    """A state folder whose model.safetensors holds tensors of (name, type, shape, data)."""
    header, at, data = {}, 0, b""
    for name, kind, shape, content in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(content)]}
        at, data = at + len(content), data + content
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def tensors_of(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return {
        name: (found["dtype"], found["shape"], content[8 + length :][slice(*found["data_offsets"])])
        for name, found in header.items()
        if name != "__metadata__"
    }


def nearest_bfloat16(value: float) -> float:
    """By trying: of the two bfloat16 beside a float the nearer one, the even one where both are as near."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    below, above = bits & 0xFFFF0000, (bits & 0xFFFF0000) + 0x10000

    def as_float(pattern: int) -> float:
        return math.inf if pattern & 0x7FFFFFFF >= 0x7F800000 else struct.unpack("<f", struct.pack("<I", pattern))[0]

    distances = abs(abs(value) - abs(as_float(below))), abs(abs(as_float(above)) - abs(value))
    if as_float(above) == math.inf:  # torch goes to infinity from half a step beyond the largest
        distances = float(bits & 0xFFFF), float(0x10000 - (bits & 0xFFFF))
    if distances[0] == distances[1]:
        chosen = below if not (below >> 16) & 1 else above
    else:
        chosen = below if distances[0] < distances[1] else above
    return math.copysign(as_float(chosen), value)


@hypothesis_settings(deadline=None, max_examples=200)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_bf16_is_the_nearest_one(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("run")
    state = state_with(folder / "x-state", ("w", "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)))
    complete(state, folder / "x.safetensors", "bf16", {})
    kind, shape, data = tensors_of(folder / "x.safetensors")["w"]
    assert (kind, shape) == ("BF16", [len(values)])
    found = [struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(0, len(data), 2)]
    assert found == [nearest_bfloat16(value) for value in values]


def test_what_is_no_number_stays_none(tmp_path: Path) -> None:
    state = state_with(tmp_path / "x-state", ("w", "F32", [2], struct.pack("<2f", math.nan, -math.inf)))
    complete(state, tmp_path / "x.safetensors", "bf16", {})
    assert tensors_of(tmp_path / "x.safetensors")["w"][2] == b"\xc0\x7f\x80\xff"


@pytest.mark.parametrize(
    ("precision", "kind", "width"), [("", "F32", 4), ("float", "F32", 4), ("fp16", "F16", 2), ("bf16", "BF16", 2)]
)
def test_each_precision(tmp_path: Path, precision: str, kind: str, width: int) -> None:
    data = struct.pack("<6f", *range(6))
    state = state_with(tmp_path / "x-state", ("b", "F32", [2, 2], data[:16]), ("a", "F32", [2], data[16:]))
    target = tmp_path / "x.safetensors"
    complete(state, target, precision, {"ss_epoch": "6", "ss_num_batches_per_epoch": "40"})
    assert safetensors_reason(target) == ""
    assert (trained(target).epoch, trained(target).steps_per_epoch) == (6, 40)
    found = tensors_of(target)
    assert {name: (found[name][0], found[name][1], len(found[name][2])) for name in found} == {
        "b": (kind, [2, 2], 4 * width),
        "a": (kind, [2], 2 * width),
    }
    if kind == "F16":
        assert numpy.frombuffer(found["a"][2], "<f2").tolist() == [4.0, 5.0]


def test_half_precision_is_widened_and_narrowed(tmp_path: Path) -> None:
    state = state_with(tmp_path / "x-state", ("w", "BF16", [1], b"\x80\x3f"), ("v", "F16", [1], b"\x00\x3c"))
    complete(state, tmp_path / "x.safetensors", "float", {})
    assert {data for _, _, data in tensors_of(tmp_path / "x.safetensors").values()} == {struct.pack("<f", 1.0)}


@pytest.mark.parametrize(
    ("spoil", "precision", "name", "said"),
    [
        (None, "fp8", "x.safetensors", "fp8"),
        (None, "bf16", "x.ckpt", "only .safetensors"),
        (b"not a header", "bf16", "x.safetensors", "not what a trainer writes"),
        (struct.pack("<Q", 2) + b"[]", "bf16", "x.safetensors", "not what a trainer writes"),
    ],
)
def test_what_cannot_be_made_leaves_everything_as_it_was(
    tmp_path: Path, spoil: bytes | None, precision: str, name: str, said: str
) -> None:
    state = state_with(tmp_path / "x-state", ("w", "F32", [1], b"\0\0\0\0"))
    if spoil is not None:
        (state / "model.safetensors").write_bytes(spoil)
    (tmp_path / name).write_bytes(b"of an earlier training")
    with pytest.raises(CannotComplete, match=said):
        complete(state, tmp_path / name, precision, {})
    assert (tmp_path / name).read_bytes() == b"of an earlier training"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "x-state"])


def test_a_tensor_of_an_unknown_kind_is_not_guessed_at(tmp_path: Path) -> None:
    state = state_with(tmp_path / "x-state", ("w", "I64", [1], b"\0" * 8))
    with pytest.raises(CannotComplete, match="I64"):
        complete(state, tmp_path / "x.safetensors", "bf16", {})


def test_the_description_follows_the_newest_weights() -> None:
    told = {"ss_network_dim": "4", "ss_epoch": "4", "ss_steps": "160", "sshs_model_hash": "of other content"}
    found = describe(told, name="x", steps=240, epoch=6)
    assert found.pop("ss_training_finished_at")
    assert found == {"ss_network_dim": "4", "ss_output_name": "x", "ss_epoch": "6", "ss_steps": "240"}
