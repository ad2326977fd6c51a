"""The ways for a training to die, as data: how each is recognised, whether a retry can help, and what to advise."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Cause:
    """One way for a training to die.

    `patterns` are looked for in the last lines; `retry` says whether the same command may work the next time, and
    `retry_after_steps` that it may only if this attempt had trained at all. `wait_for` names the condition (disk, gpu,
    memory) that must clear first; `cure` an environment variable (NAME=VALUE) with which the same may work. `advice` is
    for the user; `source` is where the pattern was seen.
    """

    name: str
    patterns: tuple[str, ...]
    words: str
    advice: str
    source: str
    retry: bool = True
    retry_after_steps: bool = False
    wait_for: str = ""
    cure: str = ""


LOAD_WHOLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
"""Lets torch 2.6 and later load what an accelerate from before it has saved: its states are the trainer's own files."""
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
            r"(?:CUDA error: )?CUBLAS_STATUS_ALLOC_FAILED",
            r"CUDA driver error: out of memory",
            r"hipErrorOutOfMemory",
        ),
        "video memory ran out",
        "Close other programs on the GPU, or choose a smaller VRAM preset, resolution, batch size or rank.",
        "FluxGym issues 40, 337, 444",
        retry_after_steps=True,
    ),
    Cause(
        "state_unloadable",
        (r"KeyError: 'step'$",),
        "this version of accelerate cannot load the states that it saves with this version of torch",
        "Update accelerate in FluxGym's environment (1.6.0 works). Until then the watchdog resumes with "
        f"{LOAD_WHOLE} in the trainer's environment.",
        "measured: accelerate 0.32 and 0.33 with torch 2.6 and later",
        cure=LOAD_WHOLE,
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
            r"Found no NVIDIA driver",
            r"(?:CUDA error: )?(?:all )?CUDA-capable device\(s\) is/are busy or unavailable",
            r"(?:CUDA error: )?no CUDA-capable device is detected",
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
            r"CUDA (?:driver )?error:",
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
            r"MemoryError(?=:|$)",
            r": line \d+: +\d+ Killed",
            r"DefaultCPUAllocator: (?:can't|not enough)",
            r"Cannot allocate memory",
            r"\[Errno 12\]",
            r"died with <Signals\.SIGKILL: 9>",
            r"3221225477",
            r"paging file is too small",
            r"os error 1455",
        ),
        "it was killed or failed for want of memory: most often the machine ran out of RAM",
        "Close other programs, add swap, use fewer data loader workers, or a machine with more RAM.",
        "FluxGym issues 78, 417; the kernel's out-of-memory killer sends SIGKILL",
        wait_for="memory",
    ),
    Cause(
        "bad_arguments",
        (
            r"error: unrecognized arguments",
            r"error: argument ",
            r"error: the following arguments are required",
            r"error: ambiguous option",
            r"ValueError: .*(?:must be specified|is not supported|cannot be used)",
            r"Invalid user config",
            r"TomlDecodeError",
        ),
        "the trainer did not accept its arguments",
        "Correct the train script; the line names the argument.",
        "Python argparse; sd-scripts reading dataset.toml",
        retry=False,
    ),
    Cause(
        "import_error",
        (
            r"ModuleNotFoundError:(?! No module named 'triton)",  # torch only mentions that one
            r"ImportError(?=:|$)",
            r"DLL load failed",
            r"cannot open shared object file",
            r"Torch not compiled with CUDA enabled",
        ),
        "a Python package is missing or broken",
        "Reinstall FluxGym's requirements in its environment.",
        "Python import system",
        retry=False,
    ),
    Cause(
        "missing_file",
        (
            r"FileNotFoundError(?=:|$)",
            r"No such file or directory",
            r"command not found",
            r"No data found\. Please verify arguments",
            r"is not a directory",
        ),
        "a file that the train script names is missing",
        "Check the paths in the train script and that the models were downloaded. If accelerate itself was not found, "
        "activate FluxGym's environment first.",
        "Python, bash; sd-scripts dataset check",
        retry_after_steps=True,
    ),
    Cause(
        "killed",
        (
            r"KeyboardInterrupt(?=:|$)",
            r"SignalException",
            r"died with <Signals\.SIG(?:TERM|INT|HUP): \d+>",
            r": line \d+: +\d+ (?:Terminated|Hangup)",
        ),
        "somebody or something ended it by a signal",
        "If it was not you, look for a memory or time limit of the machine.",
        "Python, accelerate",
    ),
    Cause(
        "cuda_error",
        (
            r"died with <Signals\.SIG(?:SEGV|ABRT|BUS|ILL|FPE): \d+>",
            r": line \d+: +\d+ (?:Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception)",
            r"Segmentation fault",
            r"core dumped",
        ),
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
LOST = replace(UNKNOWN, name="lost")
"""Nobody saw the end and the log tells nothing: what starts it was gone too, as when the machine goes down."""
_KILLED = next(c for c in CAUSES if c.name == "killed")
_HOST_MEMORY = next(c for c in CAUSES if c.name == "host_memory")
NAN_LOSS = next(c for c in CAUSES if c.name == "nan_loss")
_BY_SIGNAL = {1: _KILLED, 2: _KILLED, 9: _HOST_MEMORY, 15: _KILLED} | dict.fromkeys((4, 6, 7, 8, 11), CAUSES[-1])
_WINDOWS_ACCESS_VIOLATION, _WINDOWS_CONTROL_C = 0xC0000005, 0xC000013A
BY_EXIT_CODE: dict[int, Cause] = {
    **{-number: cause for number, cause in _BY_SIGNAL.items()},
    **{128 + number: cause for number, cause in _BY_SIGNAL.items()},
    _WINDOWS_ACCESS_VIOLATION: _HOST_MEMORY,
    _WINDOWS_ACCESS_VIOLATION - 2**32: _HOST_MEMORY,  # as cmd shows it
    _WINDOWS_CONTROL_C: _KILLED,
    _WINDOWS_CONTROL_C - 2**32: _KILLED,
}
NEVER_THE_STATES_FAULT = frozenset(
    {
        "already_finished",
        "video_memory",
        "gpu_lost",
        "disk_full",
        "host_memory",
        "cuda_error",
        "import_error",
        "killed",
        "lost",
        "worker_died",
        "nan_loss",
    }
)
"""Causes of an early death that say nothing about the state that the attempt began from."""
