"""The stand-in's checkpoints: weights and state folders in the real formats, tiny, written the way they really are.

A state is five files written one after the other, in place and without care for a crash in between; the last one
marks it complete. Loading fails where, and with what, the real libraries fail.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxgym_watchdog.demo.console import Console

TENSOR = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"
TENSOR_COLUMNS = 64
ABSOLUTE = "demo_absolute_step"
"""What the stand-in's files remember beyond the real ones: how many steps were really executed to make them."""
LONGEST_HEADER_BYTES = 100_000_000
ZIP_START = b"PK\x03\x04"
ZIP_END_BYTES = 22


class SafetensorError(Exception):
    """Shown in a traceback under the name that the safetensors library gives it."""

    __module__ = "safetensors_rust"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a checkpoint remembers. `relative_step` counts from the start of the attempt: upstream's flaw."""

    epoch: int
    relative_step: int
    absolute_step: int
    network_dim: int
    batches_per_epoch: int
    accumulation: int


def write_weights(file: Path, progress: Progress) -> None:
    """Write the weights as bfloat16: a final state's model.safetensors, cast down, equals the final weights."""
    file.parent.mkdir(parents=True, exist_ok=True)
    remembered = {
        "ss_epoch": str(progress.epoch),
        "ss_steps": str(progress.relative_step),
        "ss_network_dim": str(progress.network_dim),
        "ss_num_batches_per_epoch": str(progress.batches_per_epoch),
        "ss_gradient_accumulation_steps": str(progress.accumulation),
        ABSOLUTE: str(progress.absolute_step),
    }
    file.write_bytes(_safetensors(progress, "BF16", remembered))


def write_state(
    folder: Path, progress: Progress, console: Console, *, pause_s: float, disturb: Callable[[str], None]
) -> None:
    """Write the five files of a state into `folder`, over what is there, `pause_s` seconds in all.

    `disturb` is called with each file's name when half of that file is on the disk; faults do their harm there.
    """
    console.info(f"Saving current state to {folder}", "accelerator.py:3241")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content, message, source in _state_files(folder, progress):
        with (folder / name).open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            disturb(name)
            file.write(content[len(content) // 2 :])
        time.sleep(pause_s / 5)
        console.info(message, source)


def load_state(folder: Path, network_dim: int, console: Console) -> tuple[int | None, int]:
    """Load a state as accelerate does and return the step it remembers, None if train_state.json is missing, and the
    steps that were executed to make it.

    Raises what the real libraries raise for a state that is missing or broken. A missing train_state.json and
    unreadable random states are passed over in silence, as upstream does.
    """
    if not folder.is_dir():
        raise ValueError(f"Tried to find {folder} but folder does not exist")
    console.info(f"Loading states from {folder}", "accelerator.py:3390")
    steps_from_state: int | None = None
    train_state = folder / "train_state.json"
    if train_state.exists():
        remembered = json.loads(train_state.read_text(encoding="utf-8"))
        steps_from_state = remembered["current_step"]
        console.info(f"load train state from {train_state}: {remembered}", "train_network.py:969")
    model = folder / "model.safetensors"
    if model.exists():
        executed = load_weights(model, network_dim)
    else:
        executed = 0
        _load_zip(folder / "pytorch_model.bin")
    console.info("All model weights loaded successfully", "checkpointing.py:232")
    _load_zip(folder / "optimizer.bin")
    console.info("All optimizer states loaded successfully", "checkpointing.py:240")
    _load_zip(folder / "scheduler.bin")
    console.info("All scheduler states loaded successfully", "checkpointing.py:248")
    try:
        _load_zip(folder / "random_states_0.pkl")
        console.info("All random states loaded successfully", "checkpointing.py:295")
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        console.info("Could not load random states", "checkpointing.py:297")
    return steps_from_state, executed


def load_weights(file: Path, network_dim: int) -> int:
    """Check a safetensors file as its library would, and that it fits a network of rank `network_dim`.

    Return the steps that were executed to make it.
    """
    content = file.read_bytes()
    if len(content) < 8:
        raise SafetensorError("Error while deserializing header: HeaderTooSmall")
    (header_bytes,) = struct.unpack("<Q", content[:8])
    if header_bytes > LONGEST_HEADER_BYTES:
        raise SafetensorError("Error while deserializing header: HeaderTooLarge")
    if 8 + header_bytes > len(content):
        raise SafetensorError("Error while deserializing header: InvalidHeaderLength")
    try:
        header = json.loads(content[8 : 8 + header_bytes])
    except ValueError:
        raise SafetensorError("Error while deserializing header: InvalidHeaderDeserialization") from None
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    if 8 + header_bytes + max((entry["data_offsets"][1] for entry in tensors), default=0) != len(content):
        raise SafetensorError("Error while deserializing header: MetadataIncompleteBuffer")
    rank = header[TENSOR]["shape"][0] if TENSOR in header else network_dim
    if rank != network_dim:
        raise RuntimeError(
            f"Error(s) in loading state_dict for LoRANetwork:\n\tsize mismatch for {TENSOR}: copying a param with "
            f"shape torch.Size([{rank}, {TENSOR_COLUMNS}]) from checkpoint, the shape in current model is "
            f"torch.Size([{network_dim}, {TENSOR_COLUMNS}])."
        )
    return int(header.get("__metadata__", {}).get(ABSOLUTE, 0))


def _state_files(folder: Path, progress: Progress) -> Iterator[tuple[str, bytes, str, str]]:
    """Name, content, log message and its source of the five files, in the order in which they are written."""
    numbers = {"current_epoch": progress.epoch, "current_step": progress.relative_step}
    where = f"at epoch {progress.epoch} step {progress.relative_step}"
    name = "train_state.json"
    yield name, json.dumps(numbers).encode(), f"save train state to {folder / name} {where}", "train_network.py:946"
    name = "model.safetensors"
    metadata = {"format": "pt", ABSOLUTE: str(progress.absolute_step)}
    yield name, _safetensors(progress, "F32", metadata), _saved("Model weights", folder / name), f"{_SAVED}:108"
    for name, what, line in (
        ("optimizer.bin", "Optimizer state", 115),
        ("scheduler.bin", "Scheduler state", 122),
        ("random_states_0.pkl", "Random states", 170),
    ):
        yield name, _torch_zip(name, progress), _saved(what, folder / name), f"{_SAVED}:{line}"


_SAVED = "checkpointing.py"


def _saved(what: str, file: Path) -> str:
    return f"{what} saved in {file}"


def _safetensors(progress: Progress, dtype: str, metadata: dict[str, str]) -> bytes:
    """8 bytes of header length (little endian), a JSON header padded to 8 bytes, then the one tensor's data."""
    values = random.Random(progress.absolute_step)
    floats = [struct.pack("<f", values.gauss(0, 0.01)) for _ in range(progress.network_dim * TENSOR_COLUMNS)]
    data = b"".join(floats if dtype == "F32" else map(_bfloat16, floats))
    entry = {"dtype": dtype, "shape": [progress.network_dim, TENSOR_COLUMNS], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": metadata, TENSOR: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def _bfloat16(float32: bytes) -> bytes:
    """Rounded to the nearest, ties to even, as torch does it."""
    bits = int.from_bytes(float32, "little")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).to_bytes(2, "little")


def _torch_zip(name: str, progress: Progress) -> bytes:
    """A zip file with the members that torch.save writes."""
    stem = name.partition(".")[0]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{stem}/data.pkl", pickle.dumps({"step": progress.absolute_step}, protocol=2))
        archive.writestr(f"{stem}/byteorder", "little")
        archive.writestr(f"{stem}/data/0", random.Random(progress.absolute_step).randbytes(512))
        archive.writestr(f"{stem}/version", "3\n")
    return written.getvalue()


def _load_zip(file: Path) -> None:
    """Fail as torch.load does; nothing is unpickled."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if not start:
        raise EOFError("Ran out of input")
    if start != ZIP_START:
        raise pickle.UnpicklingError(f"invalid load key, {chr(start[0])!r}.")
    if file.stat().st_size < ZIP_END_BYTES or not zipfile.is_zipfile(file):
        raise RuntimeError(
            "PytorchStreamReader failed reading zip archive: failed finding central directory. "
            "This is what a file looks like that was not written to its end."
        )
