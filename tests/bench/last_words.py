"""What dying trainings write: the tails of real logs, or the messages of the libraries' own sources."""

from __future__ import annotations

from dataclasses import dataclass

_TRACE = (
    'Traceback (most recent call last):\n  File "/app/sd-scripts/flux_train_network.py", line 559, in <module>\n'
    '    trainer.train(args)\n  File "/app/sd-scripts/train_network.py", line 1409, in train\n'
)
_LAUNCHER = (
    'Traceback (most recent call last):\n  File "/app/env/bin/accelerate", line 8, in <module>\n    sys.exit(main())\n'
    '             ^^^^^^\n  File "/app/env/lib/python3.10/site-packages/accelerate/commands/accelerate_cli.py", '
    'line 50, in main\n    args.func(args)\n  File "/app/env/lib/python3.10/accelerate/commands/launch.py", '
    "line 795, in simple_launcher\n    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)\n"
    "subprocess.CalledProcessError: Command '['/app/env/bin/python', 'sd-scripts/flux_train_network.py', "
    "'--output_dir', '/app/outputs/MemoryError CUDA error: lost', '--loss_type', 'l2', '--save_state']' "
)


@dataclass(frozen=True, slots=True)
class Words:
    """How one crash ends: its cause, when it comes (start, resume, saving or training), and what is written."""

    cause: str
    name: str
    when: str
    text: str
    exit_code: int = 1


def _raised(cause: str, name: str, when: str, error: str) -> Words:
    return Words(cause, name, when, f"{_TRACE}{error}\n{_LAUNCHER}returned non-zero exit status 1.\n")


def _signal(cause: str, name: str, signal: str) -> Words:
    return Words(cause, name, "training", f"{_LAUNCHER}died with <Signals.{signal}>.\n")


LAST_WORDS: tuple[Words, ...] = (
    _raised(
        "video_memory",
        "torch allocator",
        "training",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of "
        "11.99 GiB of which 0 bytes is free.",
    ),
    _raised("video_memory", "older torch", "training", "torch.cuda.OutOfMemoryError: CUDA out of memory."),
    _raised(
        "video_memory",
        "cublas",
        "training",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ),
    _signal("host_memory", "the kernel's out-of-memory killer", "SIGKILL: 9"),
    _raised(
        "host_memory",
        "allocator",
        "start",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 37748736 bytes. Error code 12 (Cannot allocate memory)",
    ),
    _raised(
        "host_memory",
        "Windows page file",
        "start",
        "OSError: The paging file is too small for this operation to complete. (os error 1455)",
    ),
    Words(
        "host_memory", "Windows access violation", "start", f"{_LAUNCHER}returned non-zero exit status 3221225477.\n"
    ),
    _raised("disk_full", "safetensors", "saving", "OSError: [Errno 28] No space left on device"),
    _raised(
        "disk_full",
        "torch.save",
        "saving",
        "RuntimeError: [enforce fail at inline_container.cc:626] . PytorchStreamWriter failed writing file data/0",
    ),
    _raised("nan_loss", "latents", "start", "RuntimeError: NaN detected in latents: /app/datasets/x/1.png"),
    _raised("cuda_error", "illegal access", "training", "RuntimeError: CUDA error: an illegal memory access was met"),
    _raised("cuda_error", "cudnn", "training", "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    _signal("cuda_error", "segmentation fault", "SIGSEGV: 11"),
    _raised("gpu_lost", "no device", "start", "RuntimeError: No CUDA GPUs are available"),
    _raised(
        "gpu_lost",
        "handle",
        "training",
        "RuntimeError: Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.",
    ),
    _raised(
        "state_unloadable",
        "missing optimizer",
        "resume",
        "FileNotFoundError: [Errno 2] No such file or directory: '/app/outputs/x/x-000002-state/optimizer.bin'",
    ),
    _raised(
        "state_unloadable",
        "half an optimizer",
        "resume",
        "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory",
    ),
    _raised("state_unloadable", "empty", "resume", "EOFError: Ran out of input"),
    _raised(
        "state_unloadable",
        "header",
        "resume",
        "safetensors_rust.SafetensorError: Error while deserializing header: InvalidHeaderDeserialization",
    ),
    _raised("state_unloadable", "folder", "resume", "ValueError: Tried to find x-state but folder does not exist"),
    _raised("state_unloadable", "json", "resume", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1"),
    _raised(
        "state_unloadable",
        "other rank",
        "resume",
        "RuntimeError: Error(s) in loading state_dict for LoRANetwork:\n\tsize mismatch for lora_unet_x",
    ),
    _raised(
        "already_finished",
        "assertion",
        "resume",
        "AssertionError: max_train_steps should be greater than initial step, but got 240 <= 240",
    ),
    _raised(
        "worker_died",
        "killed",
        "training",
        "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed. ",
    ),
    _raised(
        "worker_died",
        "exited",
        "training",
        "RuntimeError: DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
    ),
    Words(
        "bad_arguments",
        "argparse",
        "start",
        "flux_train_network.py: error: unrecognized arguments: --no_such_option\n"
        f"{_LAUNCHER}returned non-zero exit status 2.\n",
        2,
    ),
    _raised(
        "missing_file",
        "model",
        "start",
        "FileNotFoundError: [Errno 2] No such file or directory: '/app/models/unet/flux1-dev.sft'",
    ),
    Words(
        "missing_file", "accelerate", "start", "/app/outputs/x/train.sh: line 1: accelerate: command not found\n", 127
    ),
    _raised("import_error", "module", "start", "ModuleNotFoundError: No module named 'voluptuous'"),
    _raised("import_error", "library", "start", "ImportError: libGL.so.1: cannot open shared object file"),
    _signal("killed", "terminated", "SIGTERM: 15"),
    Words("killed", "interrupted", "training", f"{_TRACE}KeyboardInterrupt\n", 130),
    Words("unknown", "no word", "training", "", 1),
)
