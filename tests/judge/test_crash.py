"""Why a training ended: causes from last lines as trainers, launchers and shells write them, and what follows."""

from __future__ import annotations

import math

import pytest

from fluxgym_watchdog.judge.causes import BY_EXIT_CODE, CAUSES, LOAD_WHOLE, STATE_UNLOADABLE, UNKNOWN
from fluxgym_watchdog.judge.crash import find_cause, judge_end, may_retry
from fluxgym_watchdog.records import FindingKind, Phase
from tests.judge.builders import NOW, ended, log

DOCUMENTED = (
    "video_memory",
    "host_memory",
    "disk_full",
    "nan_loss",
    "cuda_error",
    "gpu_lost",
    "state_unloadable",
    "already_finished",
    "worker_died",
    "bad_arguments",
    "missing_file",
    "import_error",
    "killed",
    "unknown",
)

BAR = "steps:  35%|███▌      | 85/240 [02:10<03:57,  1.53s/it, avr_loss=1.48]"
COMMAND = (
    "Command '['/env/bin/python', 'sd-scripts/flux_train_network.py', '--output_dir', '/data/MemoryError/out',"
    " '--dataset_config', '/data/No such file or directory/CUDA out of memory: FileNotFoundError.toml',"
    " '--sample_prompts', \"/it's/No space left on device.txt\", '--save_state']' "
)
LAUNCHER = (
    "Traceback (most recent call last):",
    '  File "/env/bin/accelerate", line 8, in <module>',
    "    sys.exit(main())",
    '  File "/env/lib/python3.11/site-packages/accelerate/commands/launch.py", line 795, in simple_launcher',
    "    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)",
)
EXIT_1 = (*LAUNCHER, f"subprocess.CalledProcessError: {COMMAND}returned non-zero exit status 1.")


def died(end: str) -> tuple[str, ...]:
    return (BAR, *LAUNCHER, f"subprocess.CalledProcessError: {COMMAND}{end}")


def raised(*last: str, first: str = BAR + "Traceback (most recent call last):") -> tuple[str, ...]:
    """A trainer's traceback behind its bar, then the launcher's."""
    frames = (
        '  File "/fluxgym/sd-scripts/flux_train_network.py", line 547, in <module>',
        "    trainer.train(args)",
        '  File "/opt/MemoryError/ImportError: x/train_util.py", line 1, in handle',
        "    except FileNotFoundError: raise  # CUDA out of memory",
    )
    return (first, *frames, *last, *EXIT_1)


WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch's own name for it": (
        "video_memory",
        raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 96.00 MiB. GPU 0 has 11 MiB free."),
    ),
    "the older name": (
        "video_memory",
        raised("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 23.69 GiB total)"),
    ),
    "out of memory as a CUDA error": ("video_memory", raised("RuntimeError: CUDA error: out of memory")),
    "cuBLAS cannot allocate": (
        "video_memory",
        raised("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ),
    "the kernel's out-of-memory killer": ("host_memory", died("died with <Signals.SIGKILL: 9>.")),
    "Windows out of memory": ("host_memory", died("returned non-zero exit status 3221225477.")),
    "bash says Killed": (
        "host_memory",
        (BAR, "/x/.watchdog/attempt-1.sh: line 3: 4242 Killed                  accelerate launch --a 'ImportError: x'"),
    ),
    "numpy": (
        "host_memory",
        raised("numpy.core._exceptions._ArrayMemoryError: Unable to allocate 1.5 GiB for an array"),
    ),
    "plain MemoryError": ("host_memory", raised("MemoryError")),
    "torch on the CPU": (
        "host_memory",
        raised("RuntimeError: [enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory"),
    ),
    "cannot fork": ("host_memory", raised("OSError: [Errno 12] Cannot allocate memory")),
    "the paging file": (
        "host_memory",
        raised("OSError: The paging file is too small for this operation to complete. (os error 1455)"),
    ),
    "no space": ("disk_full", raised("OSError: [Errno 28] No space left on device: '/data/MemoryError: /x.tmp'")),
    "no space, told by safetensors": (
        "disk_full",
        raised('safetensors_rust.SafetensorError: Error while serializing: I/O error: (os error 28) "ImportError:"'),
    ),
    "no space, told by torch in two tracebacks": (
        "disk_full",
        raised(
            "OSError: [Errno 28] No space left on device",
            "",
            "During handling of the above exception, another exception occurred:",
            "",
            "Traceback (most recent call last):",
            '  File "/env/torch/serialization.py", line 778, in __exit__',
            "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0",
        ),
    ),
    "quota": ("disk_full", raised("OSError: [Errno 122] Disk quota exceeded")),
    "NaN in the cache": ("nan_loss", raised("RuntimeError: NaN detected in latents: /img/MemoryError: 1.png")),
    "an illegal access": ("cuda_error", raised("RuntimeError: CUDA error: an illegal memory access was encountered")),
    "cuDNN": ("cuda_error", raised("RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")),
    "an assertion on the GPU": ("cuda_error", raised("RuntimeError: CUDA error: device-side assert triggered")),
    "a driver that was updated": ("cuda_error", raised("Failed to initialize NVML: Driver/library version mismatch")),
    "a crash in native code": ("cuda_error", died("died with <Signals.SIGSEGV: 11>.")),
    "an abort": ("cuda_error", died("died with <Signals.SIGABRT: 6>.")),
    "bash says Segmentation fault": (
        "cuda_error",
        (BAR, "t.sh: line 3: 42 Segmentation fault      (core dumped) accelerate launch --a 'CUDA out of memory'"),
    ),
    "the GPU fell off the bus": (
        "gpu_lost",
        raised("RuntimeError: Unable to determine the device handle for GPU0000:01:00.0: GPU is lost. Reboot"),
    ),
    "no GPU at the start": ("gpu_lost", raised("RuntimeError: No CUDA GPUs are available")),
    "no device": ("gpu_lost", raised("RuntimeError: CUDA error: no CUDA-capable device is detected")),
    "a busy device": (
        "gpu_lost",
        raised("RuntimeError: CUDA error: all CUDA-capable device(s) is/are busy or unavailable"),
    ),
    "a killed worker": (
        "worker_died",
        raised(
            "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.",
            "The above exception was the direct cause of the following exception:",
            "Traceback (most recent call last):",
            '  File "/env/torch/utils/data/dataloader.py", line 1146, in _try_get_data',
            "RuntimeError: DataLoader worker (pid(s) 4242, 4243) exited unexpectedly",
        ),
    ),
    "a worker without shared memory": (
        "worker_died",
        raised("RuntimeError: DataLoader worker (pid 4242) is killed by signal: Bus error. It is possible that"),
    ),
    "an unknown option": (
        "bad_arguments",
        (
            "usage: flux_train_network.py [-h] [--console_log_level {DEBUG,INFO}]",
            "flux_train_network.py: error: unrecognized arguments: --save_sate MemoryError ImportError: x",
            *EXIT_1,
        ),
    ),
    "a wrong value": (
        "bad_arguments",
        ("flux_train_network.py: error: argument --seed: invalid int value: 'No such file or directory'", *EXIT_1),
    ),
    "a missing option": (
        "bad_arguments",
        ("accelerate <command>: error: the following arguments are required: training_script",),
    ),
    "a combination": ("bad_arguments", raised("ValueError: max_train_epochs must be specified with --x")),
    "a dataset file": ("bad_arguments", raised("toml.decoder.TomlDecodeError: Unbalanced quotes (line 3)")),
    "a missing file": (
        "missing_file",
        raised("FileNotFoundError: [Errno 2] No such file or directory: '/data/CUDA out of memory/MemoryError:'"),
    ),
    "a missing file in a worker": (
        "missing_file",
        raised(
            "FileNotFoundError: Caught FileNotFoundError in DataLoader worker process 0.",
            "Original Traceback (most recent call last):",
            '  File "/env/torch/utils/data/_utils/worker.py", line 351, in _worker_loop',
            "FileNotFoundError: [Errno 2] No such file or directory: '/img/1.png'",
        ),
    ),
    "a trainer that is not there": (
        "missing_file",
        ("python: can't open file '/fluxgym/sd-scripts/x_train_network.py': [Errno 2] No such file or directory",),
    ),
    "no accelerate": ("missing_file", ("/x/attempt-1.sh: line 1: accelerate: command not found",)),
    "an empty dataset": (
        "missing_file",
        ("ERROR    No data found. Please verify arguments (train_data_dir must be the parent of folders)",),
    ),
    "the same, as rich indents it": (
        "missing_file",
        ("                    ERROR    No data found. Please verify arguments     train_network.py:271",),
    ),
    "a missing package": ("import_error", raised("ModuleNotFoundError: No module named 'bitsandbytes'")),
    "a broken package": ("import_error", raised("ImportError: cannot import name 'x' from 'y' (/MemoryError:/y.py)")),
    "a missing library": ("import_error", raised("OSError: libcudart.so.12: cannot open shared object file")),
    "torch for the CPU": ("import_error", raised("AssertionError: Torch not compiled with CUDA enabled")),
    "control-C": ("killed", (*raised("KeyboardInterrupt")[:-6], *LAUNCHER[:-1], "KeyboardInterrupt")),
    "TERM": ("killed", died("died with <Signals.SIGTERM: 15>.")),
    "HUP": ("killed", died("died with <Signals.SIGHUP: 1>.")),
    "bash says Terminated": ("killed", ("t.sh: line 3: 42 Terminated              accelerate launch 'MemoryError'",)),
    "the state of the last step": (
        "already_finished",
        raised("AssertionError: max_train_steps should be greater than initial step: 240 vs 240"),
    ),
    "an error of no known kind": ("unknown", raised("RuntimeError: the moon is full")),
    "an image that cannot be read": (
        "unknown",
        raised("PIL.UnidentifiedImageError: cannot identify image file '/img/MemoryError/No CUDA.png'"),
    ),
    "nothing but the launcher": ("unknown", (BAR, *EXIT_1)),
    "no line at all": ("unknown", ()),
    "a worker's echo behind the trainer's words": (
        "video_memory",
        (
            *raised("torch.OutOfMemoryError: CUDA out of memory.")[:-6],
            "Traceback (most recent call last):",
            '  File "/usr/lib/python3.11/multiprocessing/connection.py", line 395, in _recv',
            "ConnectionResetError: [Errno 104] Connection reset by peer",
            *EXIT_1,
        ),
    ),
}


@pytest.mark.parametrize("said", WORDS, ids=str)
def test_a_cause_is_found_in_the_last_lines(said: str) -> None:
    name, lines = WORDS[said]
    assert find_cause(log(lines), 1).name == name


def test_every_documented_cause_has_its_words_and_there_is_no_other() -> None:
    names = {name for name, _ in WORDS.values()} | {STATE_UNLOADABLE.name}
    assert names == set(DOCUMENTED)
    assert {c.name for c in (*CAUSES, STATE_UNLOADABLE, UNKNOWN)} == set(DOCUMENTED)


def test_every_cause_is_told_in_plain_words_with_advice_and_source() -> None:
    for c in (*CAUSES, STATE_UNLOADABLE, UNKNOWN):
        assert c.words and c.advice.endswith(".")
        assert c.source or c is UNKNOWN
        assert c.wait_for in ("", "disk", "gpu", "memory")


HARMLESS = (
    "INFO     prompt: a poster that says CUDA out of memory",
    "prompt: No space left on device, ImportError: x",
    "saving checkpoint: /data/No such file or directory/x-000002.safetensors",
    "2026-11-23 14:00:00 INFO     loading /data/MemoryError: /x.png     train_util.py:1",
    "                    WARNING  FileNotFoundError: caption of 1.png, skipped     train_util.py:2",
    "                             /data/No such file or directory/captions",
    "/env/lib/x.py:10: UserWarning: Torch was not compiled with flash attention. ImportError: no",
    "A matching Triton is not available, some optimizations will not be enabled.",
    "ModuleNotFoundError: No module named 'triton'",
    "accelerator device: cuda",
    "epoch 2/6",
    BAR,
)


def test_no_cause_is_guessed_from_harmless_lines() -> None:
    assert find_cause(log(HARMLESS), 1) is UNKNOWN
    assert find_cause(log((*HARMLESS, *EXIT_1)), 1) is UNKNOWN


def test_what_came_before_the_last_traceback_is_history() -> None:
    warned = ("RuntimeError: CUDA error: out of memory", "retrying with a smaller batch")
    assert find_cause(log((*warned, *raised("RuntimeError: the moon is full"))), 1) is UNKNOWN


def test_the_newest_line_counts() -> None:
    assert find_cause(log((*HARMLESS, "MemoryError", *died("died with <Signals.SIGTERM: 15>."))), 1).name == "killed"


def test_a_launchers_line_that_was_cut_in_its_command_tells_nothing() -> None:
    cut = f"subprocess.CalledProcessError: {COMMAND}"[:200]
    assert find_cause(log((BAR, *LAUNCHER, cut)), 1) is UNKNOWN


@pytest.mark.parametrize(
    ("exit_code", "name"),
    [
        (137, "host_memory"),
        (-9, "host_memory"),
        (3221225477, "host_memory"),
        (-1073741819, "host_memory"),
        (143, "killed"),
        (-15, "killed"),
        (130, "killed"),
        (-2, "killed"),
        (129, "killed"),
        (3221225786, "killed"),
        (139, "cuda_error"),
        (-11, "cuda_error"),
        (134, "cuda_error"),
        (1, "unknown"),
        (2, "unknown"),
        (None, "unknown"),
    ],
)
def test_without_words_the_exit_code_tells(exit_code: int | None, name: str) -> None:
    assert find_cause(log((BAR,)), exit_code).name == name
    assert find_cause(None, exit_code).name == name


def test_words_tell_more_than_the_exit_code() -> None:
    assert find_cause(log(raised("RuntimeError: No CUDA GPUs are available")), 137).name == "gpu_lost"
    assert set(BY_EXIT_CODE.values()) <= set(CAUSES)


# resuming

UNLOADABLE = {
    "optimizer.bin is missing": "FileNotFoundError: [Errno 2] No such file or directory: '/x-state/optimizer.bin'",
    "a truncated archive": "RuntimeError: PytorchStreamReader failed reading zip archive: no central directory",
    "an empty file": "EOFError: Ran out of input",
    "truncated weights": "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    "no folder": "ValueError: Tried to find /x-000002-state but folder does not exist",
    "broken train_state.json": "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "another rank": "RuntimeError: Error(s) in loading state_dict for LoRANetwork:",
}


@pytest.mark.parametrize("words", UNLOADABLE.values(), ids=UNLOADABLE.keys())
def test_a_resume_that_failed_to_load(words: str) -> None:
    lines = raised(words, first="Traceback (most recent call last):")
    assert find_cause(log(lines, step=0, resumed=True), 1) is STATE_UNLOADABLE
    finding = judge_end(ended(log(lines, step=0, resumed=True)), NOW)
    assert (finding.cause, finding.retry) == ("state_unloadable", True)


def test_a_state_that_failed_to_load_needs_no_known_words_but_a_failure() -> None:
    resumed = log((), step=0, resumed=True)
    assert find_cause(resumed, 1) is STATE_UNLOADABLE
    assert find_cause(resumed, None) is UNKNOWN  # a machine that was switched off
    assert find_cause(log(raised("FileNotFoundError: x"), step=0, resumed=True), None) is STATE_UNLOADABLE


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("video_memory", WORDS["torch's own name for it"][1]),
        ("host_memory", WORDS["the kernel's out-of-memory killer"][1]),
        ("gpu_lost", WORDS["no GPU at the start"][1]),
        ("disk_full", WORDS["no space"][1]),
        ("worker_died", WORDS["a killed worker"][1]),
        ("already_finished", WORDS["the state of the last step"][1]),
        ("import_error", WORDS["a missing package"][1]),
        ("killed", WORDS["TERM"][1]),
    ],
)
def test_what_is_not_the_states_fault(name: str, lines: tuple[str, ...]) -> None:
    assert find_cause(log(lines, step=0, resumed=True), 1).name == name


def test_a_resume_that_somebody_killed_is_not_the_states_fault() -> None:
    assert find_cause(log((), step=0, resumed=True), 143).name == "killed"


def test_after_a_step_the_state_was_loaded() -> None:
    assert find_cause(log(raised("EOFError: Ran out of input"), step=1, resumed=True), 1) is UNKNOWN


# finished or crashed

YES, NO = True, False


@pytest.mark.parametrize(
    ("model_saved", "weights", "exit_code", "kind"),
    [
        (YES, YES, 0, FindingKind.FINISHED),
        (YES, NO, 0, FindingKind.FINISHED),
        (NO, YES, 0, FindingKind.FINISHED),
        (NO, NO, 0, FindingKind.CRASHED),
        (YES, YES, 1, FindingKind.FINISHED),
        (YES, NO, 1, FindingKind.CRASHED),
        (NO, YES, 1, FindingKind.CRASHED),
        (NO, NO, 1, FindingKind.CRASHED),
        (YES, YES, None, FindingKind.FINISHED),
        (YES, NO, None, FindingKind.FINISHED),
        (NO, YES, None, FindingKind.CRASHED),
        (NO, NO, None, FindingKind.CRASHED),
        (YES, YES, -9, FindingKind.FINISHED),
        (NO, NO, 137, FindingKind.CRASHED),
    ],
)
def test_finished_or_crashed(model_saved: bool, weights: bool, exit_code: int | None, kind: FindingKind) -> None:
    seen = ended(log(step=240, model_saved=model_saved), exit_code, NOW + 1 if weights else None)
    assert judge_end(seen, NOW).kind is kind


def test_final_weights_of_an_earlier_training_finish_nothing() -> None:
    assert judge_end(ended(log(step=85), 0, NOW - 1), NOW).kind is FindingKind.CRASHED


def test_a_full_bar_is_no_success() -> None:
    seen = log(step=160, bar_total=160, total_steps=240)
    assert judge_end(ended(seen, 1), NOW).kind is FindingKind.CRASHED


def test_without_a_log_the_weights_and_the_exit_code_tell() -> None:
    assert judge_end(ended(None, None, NOW + 1), NOW).kind is FindingKind.FINISHED
    assert judge_end(ended(None, 137), NOW).cause == "host_memory"
    assert judge_end(ended(None, None), NOW).cause == "lost"


def test_exit_0_without_the_final_weights() -> None:
    finding = judge_end(ended(log(), 0), NOW)
    assert (finding.cause, finding.retry) == ("unknown", True)
    assert "without its final weights" in finding.text


def test_exit_0_because_there_was_nothing_to_train() -> None:
    finding = judge_end(ended(log(WORDS["an empty dataset"][1], step=0), 0), NOW)
    assert (finding.cause, finding.retry) == ("missing_file", False)


def test_a_finding_tells_where_and_how_it_ended() -> None:
    loading = log(WORDS["a missing file"][1], step=0, phase=Phase.LOADING)
    assert judge_end(ended(loading), NOW).text == "a file that the train script names is missing at loading (exit 1)"
    assert judge_end(ended(None, None), NOW).text == "the reason is not known (nobody saw the exit code)"


# may a retry help?

RETRY = {  # cause: (at step 0, later)
    "video_memory": (False, True),
    "host_memory": (True, True),
    "disk_full": (True, True),
    "nan_loss": (False, False),
    "cuda_error": (True, True),
    "gpu_lost": (True, True),
    "already_finished": (False, False),
    "worker_died": (True, True),
    "bad_arguments": (False, False),
    "missing_file": (False, True),  # later: it was there when the training began, so a disk went away
    "import_error": (False, False),
    "killed": (True, True),
    "state_unloadable": (True, True),
    "unknown": (True, True),
}


def test_what_is_retried() -> None:
    assert set(RETRY) == set(DOCUMENTED)
    for c in (*CAUSES, STATE_UNLOADABLE, UNKNOWN):
        assert (may_retry(c, 0), may_retry(c, 85)) == RETRY[c.name]


@pytest.mark.parametrize("said", WORDS, ids=str)
@pytest.mark.parametrize("step", [0, 85])
def test_a_finding_carries_the_retry_and_the_advice(said: str, step: int) -> None:
    name, lines = WORDS[said]
    finding = judge_end(ended(log(lines, step=step)), NOW)
    assert (finding.kind, finding.cause) == (FindingKind.CRASHED, name)
    assert finding.retry is RETRY[name][step > 0]
    assert finding.advice


def test_a_loss_that_is_not_a_number_is_the_cause_where_no_other_is_told() -> None:
    assert find_cause(log((BAR,), loss=math.nan), 1).name == "nan_loss"
    assert find_cause(log(WORDS["no space"][1], loss=math.nan), 1).name == "disk_full"
    assert judge_end(ended(log(loss=math.nan, model_saved=True), 0, NOW), NOW).kind is FindingKind.FINISHED


def test_weights_that_nothing_bears_out_may_be_a_copy_that_the_user_made() -> None:
    weights_at = NOW + 1
    training, ending = log(step=131), log(step=240, phase=Phase.ENDING)
    assert judge_end(ended(training, None, weights_at), NOW).kind is FindingKind.CRASHED
    assert judge_end(ended(ending, None, weights_at), NOW).kind is FindingKind.FINISHED
    assert judge_end(ended(None, None, weights_at), NOW).kind is FindingKind.FINISHED


def test_an_accelerate_that_cannot_load_its_own_states_is_told_from_a_broken_state() -> None:
    lines = raised("KeyError: 'step'", first="Traceback (most recent call last):")
    cause = find_cause(log(lines, step=0, resumed=True), 1)
    assert (cause.name, cause.cure) == ("state_unloadable", LOAD_WHOLE)
    assert judge_end(ended(log(lines, step=0, resumed=True)), NOW).cure == LOAD_WHOLE
    assert find_cause(log(lines, step=0), 1) is UNKNOWN  # nothing was resumed: some other KeyError
    assert find_cause(log(lines, step=9, resumed=True), 1) is UNKNOWN


def test_what_fails_once_the_state_is_loaded_is_not_its_doing() -> None:
    lines = raised(
        "OSError: [Errno 5] Input/output error: '/mnt/nas/1.png'", first="Traceback (most recent call last):"
    )
    assert find_cause(log(lines, step=0, resumed=True), 1) is STATE_UNLOADABLE
    assert find_cause(log(lines, step=0, resumed=True, total_steps=240), 1) is UNKNOWN
