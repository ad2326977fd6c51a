"""The vocabulary: every fact that passes between the rooms of the house, as a frozen record.

This module imports nothing of ours. Times named `at` or `*_at` are seconds since the epoch (wall clock) unless the
name says `monotonic`; durations end in `_s`; sizes end in `_bytes`; shares end in `_percent` and run from 0 to 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

SCHEMA_VERSION = 1


class RunState(str, Enum):
    """Where a run stands in its life; `judge.lifecycle` says which moves are legal."""

    IDLE = "idle"
    STARTING = "starting"
    TRAINING = "training"
    SUSPECT = "suspect"
    STALLED = "stalled"
    STOPPING = "stopping"
    CRASHED = "crashed"
    WAITING = "waiting"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE_STATES = frozenset(
    {RunState.STARTING, RunState.TRAINING, RunState.SUSPECT, RunState.STALLED, RunState.STOPPING, RunState.WAITING}
)
"""States in which somebody supervises the run; `crashed` joins them only while a restart is being decided."""


class Phase(str, Enum):
    """What the trainer is doing, as its log tells; `unknown` where there is no log."""

    UNKNOWN = "unknown"
    IMPORTS = "imports"
    DOWNLOAD = "download"
    LOADING = "loading"
    CACHING_LATENTS = "caching latents"
    CACHING_TEXT = "caching text encoder outputs"
    FIRST_STEP = "first step"
    TRAINING = "training"
    SAVING = "saving"
    SAMPLING = "sampling"
    ENDING = "ending"


class Role(str, Enum):
    """A process's place in a training's tree. Workers have the trainer's command line; only the parent differs."""

    WRAPPER = "wrapper"
    LAUNCHER = "launcher"
    TRAINER = "trainer"
    WORKER = "worker"
    OTHER = "other"


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """A process for certain: pids are used again, a pid with its create time (seconds, wall clock) is not."""

    pid: int
    create_time: float


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a training at one tick. CPU and I/O are totals since it began; None: not readable here."""

    id: ProcessId
    parent_pid: int
    role: Role
    name: str
    status: str
    cpu_s: float | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    rss_bytes: int | None = None
    wchan: str = ""


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """The living processes of an attempt (zombies count as gone) and how the attempt's top process ended."""

    processes: tuple[Process, ...] = ()
    exit_code: int | None = None

    @property
    def training_alive(self) -> bool:
        """Whether anything that trains is left. A worker without its trainer trains nothing."""
        return any(p.role in (Role.WRAPPER, Role.LAUNCHER, Role.TRAINER) for p in self.processes)

    @property
    def cpu_s(self) -> float:
        """CPU seconds used so far by all living processes."""
        return sum(p.cpu_s or 0.0 for p in self.processes)

    @property
    def io_bytes(self) -> int:
        """Bytes read and written so far by all living processes."""
        return sum((p.read_bytes or 0) + (p.write_bytes or 0) for p in self.processes)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one tick; None: the driver does not tell. `processes` maps pid to its GPU memory in bytes.

    `slowed` is why its clocks are held down, in words; '' where they are not, or the driver does not tell.
    """

    index: int
    uuid: str
    name: str
    utilization_percent: float | None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    processes: Mapping[int, int] = field(default_factory=dict)
    slowed: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All GPUs at one tick. `source` is nvml, nvidia-smi, simulated or none; `problem` says why nothing is seen.

    `expected` is true where a GPU could be read before: then an empty reading means blindness, not a machine without.
    """

    source: str = "none"
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    expected: bool = False


@dataclass(frozen=True, slots=True)
class LogProgress:
    """What an attempt's part of training.log says so far.

    `step` and `bar_total` are the progress bar's own: they belong to the attempt, not to the run (a resumed trainer's
    bar starts at 0 again). `steps_per_epoch` counts optimizer steps: batches over accumulation. `advances` rises by one
    with each sign of progress: a step, a caching count, a phase reached, a checkpoint announced. `new_bytes` is what
    came since the last look.
    """

    phase: Phase = Phase.IMPORTS
    step: int = 0
    bar_total: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    accumulation: int | None = None
    loss: float | None = None
    count: int = 0
    count_total: int | None = None
    advances: int = 0
    resumed: bool = False
    model_saved: bool = False
    new_bytes: int = 0
    size_bytes: int = 0
    last_lines: tuple[str, ...] = ()
    problem: str = ""


class CheckpointKind(str, Enum):
    """A state can be resumed from with its optimizer; weights are the LoRA alone."""

    STATE = "state"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint in the run's folder.

    `name` is the folder's or file's own name. `epoch` is absolute: the last finished epoch, or for a step state the
    epoch it lies in. `attempt_step` is `current_step` of train_state.json, relative to the attempt that wrote it.
    `saved_at` is the time of the commit marker (random_states_0.pkl) or of the weights file. `sound` is what the
    soundness test says, `reason` why not.

    What needs the run's record is filled in by `judge.resume.placed`: `step` is the optimizer step that it holds,
    counted over the whole run (None: it cannot be told); `aside` says why a sound one is not gone on from by itself
    (set aside after a failure, of an earlier training, ...), '' where it is.
    """

    name: str
    kind: CheckpointKind
    saved_at: float
    size_bytes: int
    sound: bool
    reason: str = ""
    epoch: int | None = None
    attempt_step: int | None = None
    step_in_name: int | None = None
    final: bool = False
    step: int | None = None
    aside: str = ""

    @property
    def stamp(self) -> str:
        """Name and time: states are rewritten in place, and a quarantine must not outlive the content it was for."""
        return f"{self.name}@{self.saved_at:.3f}"


def name_in(stamp: str) -> str:
    """The checkpoint's name in its `Checkpoint.stamp`."""
    return stamp.rpartition("@")[0]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a weights file tells of the training that wrote it; None: nothing. `metadata` is all of it, as it stands.

    `steps_per_epoch` counts optimizer steps. `epoch` is the last one that the weights have seen.
    """

    steps_per_epoch: int | None = None
    accumulation: int | None = None
    epoch: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SaveOffer:
    """A closer interval between saves: `option` and `every` are the trainer's, `steps` is the interval in steps.

    `most_s` is what can be lost at most then, in seconds (None: the pace is not known yet); `more_files` and
    `more_bytes` are what it costs by the end of the run (None: sizes are not known).
    """

    option: str
    every: int
    steps: int
    most_s: float | None = None
    more_files: int = 0
    more_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Saves:
    """How much work hangs on the run's saves, and whether the next ones fit on the disk.

    `every_steps`: steps between two states (None: not known, or none is saved). `since_steps`, `since_s`: the work
    since the last sound state. `most_s`: the most that can be lost between two saves; None while the pace is unknown.
    `next_in_steps`: when the next one comes. `next_bytes`: what it takes, `estimated` where none was saved yet;
    `fits`: whether there is room for it (None: not known). `warning`: what the user should know and may do, or ''.
    `offer`: a closer interval, where this one risks more than the setting `max_work_at_risk`.
    """

    every_steps: int | None = None
    since_steps: int = 0
    since_s: float | None = None
    most_s: float | None = None
    next_in_steps: int | None = None
    next_bytes: int | None = None
    estimated: bool = False
    fits: bool | None = None
    warning: str = ""
    offer: SaveOffer | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """The machine at one tick: memory, swap and the disk under the run's folder."""

    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything observed about a run at one tick.

    `log` is None where the training writes no log that we can read; `run_gpus` are the GPUs of `gpu` that are its own.
    """

    monotonic_at: float
    at: float
    tree: ProcessTree
    log: LogProgress | None
    gpu: GpuReading
    run_gpus: tuple[Gpu, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    final_weights_at: float | None = None
    host: Host | None = None


class FindingKind(str, Enum):
    """What judgement makes of a run's snapshots."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    STALLED = "stalled"
    CRASHED = "crashed"
    FINISHED = "finished"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Finding:
    """A judgement with its reason in plain words. `retry` is None where a retry is no question.

    `cure` is an environment variable (NAME=VALUE) with which a retry may work.
    """

    kind: FindingKind
    text: str
    cause: str = ""
    retry: bool | None = None
    advice: str = ""
    silence_s: float = 0.0
    patience_s: float = 0.0
    cure: str = ""


class DecisionKind(str, Enum):
    """What to do about a finding."""

    NOTHING = "nothing"
    GATHER_EVIDENCE = "gather evidence"
    STOP_AND_RESTART = "stop and restart"
    RESTART = "restart"
    STOP_AND_FINISH = "stop and finish"
    FINISH = "finish"
    COMPLETE = "complete"
    GIVE_UP = "give up"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, why, and after how long a wait; what to set aside, and which variable to add from now on."""

    kind: DecisionKind
    text: str = ""
    delay_s: float = 0.0
    quarantine: tuple[str, ...] = ()
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a train script asks of the trainer, as far as its options say so in plain text; None: they do not.

    `epochs` (--max_train_epochs) overrides `steps` (--max_train_steps). `saves_states` and `keeps` say that the script
    itself has states saved, and itself says how many are kept. `rank` is --network_dim. `begins_within`: its own
    options begin somewhere else than at the first step; `sets_initial_step`: one of them is --initial_step, which
    overrides --initial_epoch and cannot be unset.
    """

    epochs: int | None = None
    steps: int | None = None
    save_every_epochs: int | None = None
    save_every_steps: int | None = None
    saves_states: bool = False
    keeps: bool = False
    accumulation: int = 1
    rank: int | None = None
    optimizer: str = ""
    lr_scheduler: str = "constant"
    save_precision: str = ""
    save_model_as: str = "safetensors"
    begins_within: bool = False
    sets_initial_step: bool = False

    def total_steps(self, steps_per_epoch: int | None) -> int | None:
        """The optimizer steps asked for; None where that depends on an epoch's unknown length, or is not said."""
        if self.epochs is None:
            return self.steps
        return self.epochs * steps_per_epoch if steps_per_epoch else None


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where an attempt begins: a checkpoint's stamp (None: the beginning), its absolute step, the options to append.

    `counted_from`, `epochs_before` and `renumbered` are those of the Attempt that begins here.
    """

    checkpoint: str | None
    first_step: int
    options: tuple[str, ...] = ()
    text: str = "from the beginning"
    counted_from: int | None = 0
    epochs_before: int | None = 0
    renumbered: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch of a run's training command.

    `first_step` is the absolute step it began at, `last_step` the absolute step it reached. `fresh` marks the first
    attempt of a training that began from nothing: checkpoints older than it belong to an earlier training.
    `log_offset` is where its part of training.log begins. `resumed_from` is the stamp of its checkpoint. `process` is
    the top process, `boot_id` the boot it lives in. `files_since` is `started_at` by the file system's clock, which is
    not the machine's on a network volume: what is older was not written by this attempt.

    `counted_from` is the absolute step at which the trainer's own counter stood at 0 (None: not known); what it calls
    `current_step` counts from there. `epochs_before` is set where the attempt begins with a whole epoch: how many lie
    before it. `renumbered`: its epochs count from 1 again (see `judge.resume`).
    """

    number: int
    started_at: float
    log_offset: int = 0
    first_step: int = 0
    last_step: int = 0
    fresh: bool = True
    resumed_from: str | None = None
    process: ProcessId | None = None
    boot_id: str = ""
    supervised: bool = True
    files_since: float = 0.0
    counted_from: int | None = None
    epochs_before: int | None = None
    renumbered: bool = False
    ended_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """A state as it was when it was written: its stamp, the absolute step it holds, the attempt that wrote it (0: of an
    earlier training, to which the user went back).

    `step` is None where the attempt's count and the state's own files do not agree.
    """

    stamp: str
    step: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's run.json: what must survive us.

    `restarts` counts restarts in a row without a checkpoint beyond `furthest_step`, the furthest ever saved.
    `next_start_at` is set while waiting. `learned` maps a phase to the longest normal gap between two signs of progress
    in it, in seconds. `quarantined` holds stamps of checkpoints that must not be used. `stopping_for` is the state that
    follows once everything is gone. `fresh_next` and `chosen_next` say how the next attempt was asked to begin: from
    nothing, or from the checkpoint of that name. `ledger` holds the states that were seen being written and are still
    there. `pace_s` is the usual time of a step, in seconds. `offered` is the offer of closer saves that its owner was
    told of last, `closer_saves` the answer (None: none yet), `save_options` what was chosen then. `unresumable` says
    why this run is watched but never started again by itself: its script is not understood. `interpreter` is the
    trainer's Python; `cures` are the environment variables (NAME=VALUE) without which it cannot load its states.
    """

    name: str
    state: RunState = RunState.IDLE
    auto_resume: bool = True
    script: str = ""
    attempts: tuple[Attempt, ...] = ()
    restarts: int = 0
    next_start_at: float | None = None
    steps_per_epoch: int | None = None
    total_steps: int | None = None
    accumulation: int | None = None
    furthest_step: int = 0
    quarantined: tuple[str, ...] = ()
    learned: Mapping[str, float] = field(default_factory=dict)
    stopping_for: RunState | None = None
    fresh_next: bool = False
    chosen_next: str | None = None
    reason: str = ""
    cause: str = ""
    advice: str = ""
    retry: bool | None = None
    ledger: tuple[LedgerLine, ...] = ()
    pace_s: float | None = None
    offered: SaveOffer | None = None
    closer_saves: bool | None = None
    save_options: tuple[str, ...] = ()
    unresumable: str = ""
    interpreter: str = ""
    cures: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def began_at(self) -> float:
        """When this training began from nothing."""
        return next((a.started_at for a in reversed(self.attempts) if a.fresh), 0.0)

    @property
    def files_since(self) -> float:
        """The same by the clock of the file system; checkpoints older than that are not this training's own."""
        return next((a.files_since or a.started_at for a in reversed(self.attempts) if a.fresh), 0.0)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's timeline: what happened, in plain words, and the evidence that led to it.

    `tone` is what the line means to its reader: ok, act, bad or info.
    """

    at: float
    kind: str
    text: str
    tone: str = "info"
    attempt: int = 0
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of samples.csv: a GPU (index -1: none readable) and the training at one tick.

    `memory_run_bytes` is what the run's own processes hold of it (None: the driver does not tell, or knows none).
    """

    at: float
    gpu: int
    utilization_percent: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: float | None
    power_w: float | None
    power_limit_w: float | None
    step: int
    loss: float | None
    memory_run_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the last tick saw, for whoever looks: the tab, the command line, another process.

    `step` is of the run, over all attempts. `problem` says that the watcher cannot see the training or has failed
    itself, `gpu_problem` why no GPU can be read. `interval_s` lies between two looks.
    """

    at: float
    state: RunState
    finding: FindingKind
    text: str
    phase: Phase
    attempt: int
    step: int
    total_steps: int | None
    epoch: int | None
    epochs: int | None
    loss: float | None
    seconds_per_step: float | None
    heartbeat_at: float | None
    count: int
    count_total: int | None
    processes: int
    gpu_source: str
    gpus: tuple[Gpu, ...]
    checkpoints: tuple[Checkpoint, ...]
    host: Host | None
    next_start_at: float | None = None
    problem: str = ""
    gpu_problem: str = ""
    saves: Saves | None = None
    interval_s: float = 2.0
