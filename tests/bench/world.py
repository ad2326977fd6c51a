"""A seeded model of trainings: what a run does, second by second, whoever watches it.

It knows nothing of any rule. Its numbers are measurements of sd-scripts (phases and their order, the process tree, what
a hung trainer looks like, how long a dying tree takes) and reports in FluxGym's issues (56, 95, 249, 426: benign phases
with an idle GPU of minutes to an hour); where neither gives a number the docstring of the part says what was assumed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from fluxgym_watchdog.records import Phase

MB = 1_000_000
GB = 1000 * MB
BAR_BYTES = 90
"""What one redraw of the step bar writes; three of its characters are UTF-8 of three bytes."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which the run goes on in one way; where `beat` is true it ends in a sign of progress.

    `gpu` is the utilisation in percent that the run itself causes, `cpu` the trainer's use in cores, `io` its bytes a
    second. `trainer`, `worker` and the two waits are process states and kernel functions as a look finds them.
    """

    phase: Phase
    length_s: float
    beat: bool = True
    gpu: float = 0.0
    cpu: float = 0.0
    io: float = 0.0
    trainer: str = "sleeping"
    worker: str = "sleeping"
    trainer_wait: str = ""
    worker_wait: str = ""
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class Trait:
    """What distinguishes one run from another for its whole life.

    `gpu_bound` is how busy its steps keep the GPU; `spins` whether CUDA waits by spinning (a core at 100 %) or blocks;
    `memory` the share of GPU memory in use; `disk` bytes a second that its disk gives; `waits_seen` whether the kernel
    tells in which function a process sleeps (not on Windows, nor in some containers).
    """

    pace_s: float
    gpu_bound: float
    spins: bool
    memory: float
    disk: float
    waits_seen: bool
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run to be judged. Times are seconds since its start, in the run's own time.

    `label` is healthy, hang or crash. A hang begins at `fault_at`; a crash's trainer dies then, its tree is gone at
    `ended_at`. `sleeps` are (at, length, whether the monotonic clock counts it), `frozen` are (from, to) in which the
    watchdog does not look, `clock_steps` are (at, seconds), `gpu_unseen` and `log_unseen` are (from, to).
    """

    name: str
    label: str
    trait: Trait
    stretches: tuple[Stretch, ...]
    watched_s: float
    fault_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    cause: str = ""
    last_text: str = ""
    model_saved: bool = False
    log: bool = True
    gpu_readable: bool = True
    gpu_index: int = 0
    other_program: tuple[float, float] | None = None
    sleeps: tuple[tuple[float, float, bool], ...] = ()
    frozen: tuple[tuple[float, float], ...] = ()
    clock_steps: tuple[tuple[float, float], ...] = ()
    gpu_unseen: tuple[float, float] | None = None
    log_unseen: tuple[float, float] | None = None
    seed: int = 0
    resumed: bool = False
    phase: Phase = Phase.TRAINING
    by_chance: bool = False

    @property
    def longest_gap_s(self) -> float:
        """The longest healthy silence of this run before its fault, in seconds."""
        until = self.fault_at if self.fault_at is not None else math.inf
        at = last = longest = 0.0
        for stretch in self.stretches:
            at += stretch.length_s
            if at > until:
                break
            if stretch.beat:
                longest, last = max(longest, at - last), at
        return longest


@dataclass(slots=True)
class Life:
    """A healthy run being written down, phase by phase."""

    rng: random.Random
    trait: Trait
    stretches: list[Stretch] = field(default_factory=list)

    def add(self, phase: Phase, length_s: float, **what: object) -> None:
        """Adds a stretch."""
        self.stretches.append(Stretch(phase, max(length_s, 1e-3), **what))  # type: ignore[arg-type]

    @property
    def length_s(self) -> float:
        """How long the run is so far."""
        return sum(s.length_s for s in self.stretches)

    def imports(self) -> None:
        """Silent, a core busy and the packages read; 3-5 s were measured on a fast disk, minutes on a network disk."""
        self.add(Phase.IMPORTS, between(self.rng, 3, 20 if self.trait.disk > 50 * MB else 180), cpu=0.8, io=4 * MB)

    def download(self, total: float = 30 * GB, rate: float = 20 * MB) -> None:
        """Bars that move about once a second; now and then the connection stands for seconds to minutes."""
        left = total
        while left > 0:
            length = self.rng.uniform(0.7, 3.0)
            left -= length * rate
            self.add(Phase.DOWNLOAD, length, cpu=0.2, io=rate)
            if self.rng.random() < 0.002:
                self.add(Phase.DOWNLOAD, between(self.rng, 5, 200), beat=False)

    def loading(self, size: float = 22 * GB) -> None:
        """Models are read at the disk's speed, in silence; then a core casts them for seconds to a minute."""
        length = size / self.trait.disk
        while length > 0:
            piece = min(length, self.rng.uniform(10, 60))
            self.add(Phase.LOADING, piece, beat=False, cpu=self.rng.uniform(0.05, 0.9), io=self.trait.disk)
            length -= piece
        self.add(Phase.LOADING, between(self.rng, 2, 60), cpu=1.0)

    def compiling(self, phase: Phase, length_s: float) -> None:
        """The driver translates kernels for a GPU newer than the wheel: one core, nothing else, no word of it."""
        self.add(phase, length_s, beat=False, cpu=1.0)

    def caching(self, phase: Phase, items: int, item_s: float, *, gpu: float = 40.0, cpu: float = 1.0) -> None:
        """A count rises with each image or caption; large images take several times as long."""
        for _ in range(items):
            length = item_s * self.rng.lognormvariate(0, 0.4) * (5 if self.rng.random() < 0.02 else 1)
            self.add(phase, length, gpu=gpu, cpu=cpu, io=min(3 * MB / item_s, self.trait.disk))

    def first_step(self, length_s: float | None = None, memory: float | None = None) -> None:
        """Warm-up: kernels are chosen, workers forked."""
        length = length_s or between(self.rng, 2, 90) + self.trait.pace_s * self.rng.uniform(1, 4)
        self.add(Phase.FIRST_STEP, length, gpu=99.0 if memory else self.trait.gpu_bound, cpu=1.0, memory=memory)

    def steps(self, count: int, slower: float = 1.0, memory: float | None = None) -> None:
        """Steps vary by a tenth; one in fifty takes up to 2.5 times as long (aspect buckets, garbage, throttling)."""
        trait = self.trait
        for _ in range(count):
            length = trait.pace_s * slower * self.rng.lognormvariate(0, 0.1)
            if self.rng.random() < 0.02:
                length *= self.rng.uniform(1.5, 2.5)
            cpu = 1.0 if trait.spins else 0.25
            self.add(Phase.TRAINING, length, gpu=99.0 if memory else trait.gpu_bound, cpu=cpu, io=40_000, memory=memory)

    def new_epoch(self) -> None:
        """The workers are forked again, or asked for their first batch."""
        self.add(Phase.TRAINING, between(self.rng, 0.3, 15), beat=False, cpu=0.5, io=MB)

    def saving(self, size: float | None = None, phase: Phase = Phase.SAVING) -> None:
        """Weights, then a state; the disk takes bursts and lets the writer wait up to a minute in between (state D)."""
        size = size or self.rng.choice((120, 240, 700)) * MB
        self.add(phase, 0.2)
        for share in (0.25, 0.75):
            left = size * share / self.trait.disk
            while left > 0:
                piece = min(left, self.rng.uniform(2, 40))
                burst = min(piece, 2.0)
                self.add(phase, burst, beat=False, cpu=0.3, io=self.trait.disk * piece / burst)
                if piece > burst:
                    self.add(phase, piece - burst, beat=False, trainer="disk-sleep", trainer_wait="folio_wait_bit")
                left -= piece
            self.add(phase, 0.3)

    def sampling(self, images: int, step_s: float) -> None:
        """Captions are encoded, each image has a bar of 20 steps, then the picture is decoded in silence."""
        for _ in range(images):
            self.add(Phase.SAMPLING, between(self.rng, 1, 60), beat=False, gpu=20, cpu=1.0)
            for _ in range(20):
                self.add(Phase.SAMPLING, step_s * self.rng.lognormvariate(0, 0.1), gpu=self.trait.gpu_bound, cpu=1.0)
            self.add(Phase.SAMPLING, between(self.rng, 2, 120), gpu=50, cpu=1.0)

    def hiccup(self, phase: Phase, length_s: float) -> None:
        """The network disk stands still and comes back: state D with a kernel client, S with one in user space."""
        state, wait = self.rng.choice((("disk-sleep", "rpc_wait_bit_killable"), ("sleeping", "request_wait_answer")))
        if phase in (Phase.TRAINING, Phase.FIRST_STEP) and self.rng.random() < 0.6:
            reader = {"worker": state, "worker_wait": wait, "trainer_wait": "unix_stream_read_generic"}
        else:
            reader = {"trainer": state, "trainer_wait": wait}
        self.add(phase, length_s, beat=False, **reader)

    def ending(self) -> None:
        """The last state, the final weights, `model saved.`, two seconds of silence."""
        self.saving(phase=Phase.ENDING)
        self.add(Phase.ENDING, 2.0)


def between(rng: random.Random, low: float, high: float) -> float:
    """A number whose logarithm is evenly spread: as often from 1 to 10 as from 10 to 100."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def trait(rng: random.Random, pace_s: float | None = None, disk: float | None = None) -> Trait:
    """A run drawn at random: 0.2 s to 300 s a step; a local disk four times in five, else a slow one."""
    kind = rng.random()
    gpu_bound = rng.uniform(85, 100) if kind < 0.75 else rng.uniform(20, 80) if kind < 0.9 else rng.uniform(8, 30)
    fast = between(rng, 100 * MB, 2 * GB)
    return Trait(
        pace_s=between(rng, 0.2, 300) if pace_s is None else pace_s,
        gpu_bound=gpu_bound,
        spins=rng.random() < 0.7,
        memory=rng.uniform(0.5, 0.99),
        disk=disk or (fast if rng.random() < 0.8 else between(rng, 5 * MB, 60 * MB)),
        waits_seen=rng.random() < 0.85,
    )


def prepare(life: Life) -> None:
    """Everything before the first step, as in an ordinary run."""
    rng = life.rng
    life.imports()
    life.loading()
    life.caching(Phase.CACHING_LATENTS, rng.randint(8, 60), between(rng, 0.3, 3))
    life.caching(Phase.CACHING_TEXT, rng.randint(8, 60), between(rng, 0.2, 5))


def train(life: Life, seconds: float | None = None, epochs: int = 2) -> None:
    """Epochs of steps, each with a save at its end; at least 12 steps an epoch, at most `seconds` in all."""
    seconds = seconds or life.rng.uniform(600, 2400)
    per_epoch = max(12, min(2000, int(seconds / epochs / life.trait.pace_s)))
    for epoch in range(epochs):
        if epoch:
            life.new_epoch()
        life.steps(per_epoch)
        life.saving()
