"""Completes a training that died between its final state and its final weights: no step is missing, only a file.

The trainer's final weights are the tensors of the final state's model.safetensors in the precision of
`--save_precision`, with a description of the training. Measured on sd-scripts, branch sd3: they are equal.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PRECISIONS = {"": None, "float": "F32", "fp16": "F16", "bf16": "BF16"}
"""--save_precision to the safetensors name of it; None: as trained."""
HASHES = ("sshs_model_hash", "sshs_legacy_hash")
"""What other programs may look a model up by: left out, since it would have to be computed over other content."""


class CannotComplete(Exception):
    """The final weights cannot be made from the state; the message says why. Nothing was written."""


def complete(state: Path, target: Path, precision: str, metadata: Mapping[str, str]) -> None:
    """Writes the final weights `target` from a final state's folder; whole, or not at all.

    `metadata` is what the weights shall tell of their training. Raises CannotComplete, OSError.
    """
    if precision not in PRECISIONS:
        raise CannotComplete(f"--save_precision {precision} is not one that can be written here")
    if target.suffix != ".safetensors":
        raise CannotComplete(f"{target.name} is asked for; only .safetensors can be written here")
    scratch = target.with_name(f".{target.name}.part")
    source = state / "model.safetensors"
    try:
        with source.open("rb") as file, scratch.open("wb") as out:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, os.fstat(file.fileno()).st_size)))
            if not isinstance(header, dict):
                raise ValueError("its header is no object")
            _convert(header, file, 8 + length, out, PRECISIONS[precision], metadata)
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(target)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CannotComplete(f"{source}: is not what a trainer writes ({error})") from error
    finally:
        scratch.unlink(missing_ok=True)


def describe(told: Mapping[str, str], *, name: str, steps: int, epoch: int) -> dict[str, str]:
    """The metadata of the final weights, after those of the newest weights before them."""
    kept = {key: value for key, value in told.items() if key not in HASHES}
    now = {
        "ss_output_name": name,
        "ss_steps": str(steps),
        "ss_epoch": str(epoch),
        "ss_training_finished_at": str(time.time()),
    }
    return {**kept, **now}


def _convert(
    header: dict[str, Any], file: IO[bytes], begins_at: int, out: IO[bytes], to: str | None, metadata: Mapping[str, str]
) -> None:
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    wider = {"BF16": 2, "F16": 2, "F32": 4}
    new: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        begin, end = tensor["data_offsets"]
        if tensor["dtype"] not in wider:
            raise CannotComplete(f"{name} is of the type {tensor['dtype']}, which is not known here")
        kind = to or tensor["dtype"]
        size = (end - begin) // wider[tensor["dtype"]] * wider[kind]
        new[name] = {"dtype": kind, "shape": tensor["shape"], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(new, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as the format asks for
    out.write(struct.pack("<Q", len(text)) + text)
    for name, tensor in tensors.items():
        begin, end = tensor["data_offsets"]
        file.seek(begins_at + begin)
        out.write(_cast(file.read(end - begin), tensor["dtype"], new[name]["dtype"]))


def _cast(data: bytes, kind: str, to: str) -> bytes:
    """Tensor data in another precision, rounded to the nearest, ties to even, as torch rounds."""
    if kind == to:
        return data
    import numpy  # noqa: PLC0415 - comes with gradio; FluxGym's start need not wait for it

    if kind == "BF16":
        bits = numpy.frombuffer(data, "<u2").astype("<u4") << 16
        values = bits.view("<f4")
    else:
        values = numpy.frombuffer(data, "<f4" if kind == "F32" else "<f2").astype("<f4")
    if to == "F32":
        return bytes(values.tobytes())
    if to == "F16":
        with numpy.errstate(over="ignore"):  # what is too large becomes infinite, as torch has it
            return bytes(values.astype("<f2").tobytes())
    bits = values.view("<u4")
    rounded = ((bits + numpy.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return bytes(numpy.where(numpy.isnan(values), numpy.uint16(0x7FC0), rounded).astype("<u2").tobytes())
