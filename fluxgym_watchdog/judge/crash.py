"""Why a training ended: the causes as data, and the judgement of an ended attempt.

Every failure of a training ends in exit 1 of its shell; the reason is only in the text. So the causes are looked for
in the last lines, the newest line first, then in the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fluxgym_watchdog.records import Finding, FindingKind, LogProgress, Snapshot


@dataclass(frozen=True, slots=True)
class Cause:
    """One way for a training to die.

    `patterns` are looked for in the last lines; `retry` says whether the same command may work the next time, and
    `retry_after_steps` that it may only if this attempt had trained at all. `wait_for` names the condition (disk, gpu,
    memory) that must clear first. `advice` is for the user; `source` is where the pattern was seen.
    """

    name: str
    patterns: tuple[str, ...]
    words: str
    advice: str
    source: str
    retry: bool = True
    retry_after_steps: bool = False
    wait_for: str = ""


CAUSES: tuple[Cause, ...] = (
    Cause(
        "already_finished",
        (r"max_train_steps should be greater than initial step",),
        "the state is of the last step: there is nothing left to train",
        "The training had finished. To train longer, ask for more epochs in the train script.",
        "sd-scripts train_network.py, assertion before the training loop",
        retry=False,
    ),
    Cause(
        "video_memory",
        (
            r"OutOfMemoryError",
            r"CUDA out of memory",
            r"CUDA error: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"hipErrorOutOfMemory",
        ),
        "video memory ran out",
        "Close other programs on the GPU, or choose a smaller VRAM preset, resolution, batch size or rank.",
        "FluxGym issues 40, 337, 444",
        retry_after_steps=True,
    ),
    Cause(
        "disk_full",
        (
            r"No space left on device",
            r"\[Errno 28\]",
            r"\[Errno 122\]",
            r"Disk quota exceeded",
            r"os error 28\b",
            r"PytorchStreamWriter failed writing",
            r"There is not enough space on the disk",
        ),
        "the disk is full",
        "Free some disk space: older states, samples, unused models. The training goes on when there is room again.",
        "sd-scripts pull request 1279",
        wait_for="disk",
    ),
    Cause(
        "gpu_lost",
        (
            r"GPU is lost",
            r"fallen off the bus",
            r"Unable to determine the device handle",
            r"No CUDA GPUs are available",
            r"CUDA-capable device\(s\) is/are busy or unavailable",
            r"no CUDA-capable device is detected",
        ),
        "the GPU is gone",
        "The driver no longer sees the GPU: look for Xid messages in the system log; a reboot may be needed.",
        "NVIDIA Xid 79; PyTorch device initialisation",
        wait_for="gpu",
    ),
    Cause(
        "nan_loss",
        (r"NaN detected in latents", r"loss is nan", r"Loss is NaN"),
        "the loss is not a number",
        "Lower the learning rate, look for broken images, or train in bf16; going on from here cannot help.",
        "sd-scripts issues 1464, 1846",
        retry=False,
    ),
    Cause(
        "worker_died",
        (r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\)? (?:is killed|exited unexpectedly)",),
        "a data loader worker died",
        "Often the machine ran out of memory or of shared memory: use fewer workers.",
        "PyTorch DataLoader; measured by killing one worker",
    ),
    Cause(
        "cuda_error",
        (
            r"CUDA error:",
            r"CUDNN_STATUS_",
            r"CUBLAS_STATUS_",
            r"NCCL error",
            r"device-side assert",
            r"NVML: Driver/library version mismatch",
        ),
        "CUDA reported an error",
        "If it comes again, look at the driver, the temperature and any overclocking.",
        "PyTorch CUDA errors",
    ),
    Cause(
        "host_memory",
        (
            r"MemoryError",
            r"DefaultCPUAllocator: (?:can't|not enough)",
            r"Cannot allocate memory",
            r"\[Errno 12\]",
            r"died with <Signals\.SIGKILL: 9>",
            r"3221225477",
            r"paging file is too small",
            r"os error 1455",
        ),
        "the machine ran out of memory",
        "Close other programs, add swap, use fewer data loader workers, or a machine with more RAM.",
        "FluxGym issues 78, 417; the kernel's out-of-memory killer sends SIGKILL",
    ),
    Cause(
        "bad_arguments",
        (
            r"error: unrecognized arguments",
            r"error: argument ",
            r"error: the following arguments are required",
            r"error: ambiguous option",
            r"ValueError: .*(?:must be specified|is not supported|cannot be used)",
        ),
        "the trainer did not accept its arguments",
        "Correct the train script; the line names the argument.",
        "Python argparse",
        retry_after_steps=True,
    ),
    Cause(
        "import_error",
        (r"ModuleNotFoundError", r"ImportError", r"DLL load failed", r"cannot open shared object file"),
        "a Python package is missing or broken",
        "Reinstall FluxGym's requirements in its environment.",
        "Python import system",
        retry_after_steps=True,
    ),
    Cause(
        "missing_file",
        (
            r"FileNotFoundError",
            r"No such file or directory",
            r"command not found",
            r"No data found\. Please verify arguments",
            r"is not a directory",
        ),
        "a file that the train script names is missing",
        "Check the paths in the train script and that the models were downloaded.",
        "Python, bash; sd-scripts dataset check",
        retry_after_steps=True,
    ),
    Cause(
        "killed",
        (r"KeyboardInterrupt", r"SignalException", r"died with <Signals\.SIG(?:TERM|INT|HUP): \d+>"),
        "somebody or something ended it by a signal",
        "If it was not you, look for a memory or time limit of the machine.",
        "Python, accelerate",
    ),
    Cause(
        "cuda_error",
        (r"died with <Signals\.SIG(?:SEGV|ABRT|BUS|ILL|FPE): \d+>", r"Segmentation fault", r"core dumped"),
        "the trainer crashed in native code",
        "If it comes again, look at the driver and at the versions of torch and bitsandbytes.",
        "accelerate's launcher",
    ),
)

STATE_UNLOADABLE = Cause(
    "state_unloadable",
    (),
    "the state could not be loaded",
    "It is set aside (not deleted) and an older one is used.",
    "measured: exit 1, 'resume training from local state' in the log, and no step",
)
UNKNOWN = Cause(
    "unknown",
    (),
    "the reason is not known",
    "Read the last lines of training.log.",
    "",
)
KILLED = next(c for c in CAUSES if c.name == "killed")
BY_EXIT_CODE = {
    137: next(c for c in CAUSES if c.name == "host_memory"),
    -9: next(c for c in CAUSES if c.name == "host_memory"),
    3221225477: next(c for c in CAUSES if c.name == "host_memory"),
    143: KILLED,
    -15: KILLED,
    130: KILLED,
    -2: KILLED,
    129: KILLED,
    -1: KILLED,
}
_NEVER_THE_STATES_FAULT = frozenset(
    {"already_finished", "video_memory", "gpu_lost", "disk_full", "host_memory", "cuda_error", "import_error", "killed"}
)


def judge_end(snapshot: Snapshot, began_at: float) -> Finding:
    """Finished or crashed(cause), for an attempt of which nothing that trains is left.

    Finished needs exit 0 and the final weights (or `model saved.`); where nobody saw the exit code, the weights. A
    trainer that fell over after both were there has finished too: there is nothing to train again.
    """
    exit_code, log = snapshot.tree.exit_code, snapshot.log
    model_saved = log is not None and log.model_saved
    weights = snapshot.final_weights_at is not None and snapshot.final_weights_at >= began_at
    if (model_saved and weights) or ((model_saved or weights) and exit_code in (0, None)):
        return Finding(FindingKind.FINISHED, "the final weights are saved")
    if exit_code == 0:
        text = "it ended with exit 0 but without its final weights"
        return Finding(FindingKind.CRASHED, text, UNKNOWN.name, retry=True, advice=UNKNOWN.advice)
    cause = find_cause(log, exit_code)
    code = "nobody saw the exit code" if exit_code is None else f"exit {exit_code}"
    where = f" at {log.phase.value}" if log is not None and log.step == 0 else ""
    return Finding(
        FindingKind.CRASHED,
        f"{cause.words}{where} ({code})",
        cause.name,
        retry=may_retry(cause, log.step if log else 0),
        advice=cause.advice,
    )


def find_cause(log: LogProgress | None, exit_code: int | None) -> Cause:
    """The cause that an ended attempt's last lines and exit code tell."""
    found = _in_lines(log.last_lines) if log else None
    resume_failed = log is not None and log.resumed and log.step == 0 and exit_code not in (0, None)
    if resume_failed and (found is None or found.name not in _NEVER_THE_STATES_FAULT):
        return STATE_UNLOADABLE
    return found or (UNKNOWN if exit_code is None else BY_EXIT_CODE.get(exit_code, UNKNOWN))


def may_retry(cause: Cause, steps: int) -> bool:
    """Whether the same command may work the next time, `steps` having been trained in this attempt."""
    return cause.retry and (steps > 0 or not cause.retry_after_steps)


def _in_lines(lines: Sequence[str]) -> Cause | None:
    # A traceback's own last line is the reason; what the launcher prints after it repeats the whole command, in which
    # a file may be called anything. So "Command '[...]' returned non-zero exit status" is cut to its end.
    for line in reversed(lines):
        text = re.sub(r"Command '\[.*\]' ", "", line)
        for cause in CAUSES:
            if any(re.search(pattern, text) for pattern in cause.patterns):
                return cause
    return None
