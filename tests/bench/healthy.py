"""Healthy runs that a hasty watchdog would kill: each maker is one reason why a run may look dead and is not."""

from __future__ import annotations

import random
from collections.abc import Callable

from fluxgym_watchdog.records import Phase
from tests.bench.world import GB, MB, Life, Timeline, between, prepare, train, trait

Maker = Callable[[random.Random], tuple[Life, dict[str, object]]]


def healthy(rng: random.Random, number: int) -> list[Timeline]:
    """`number` healthy timelines, each maker in turn."""
    makers = list(MAKERS.items())
    return [_one(rng, index, *makers[index % len(makers)]) for index in range(number)]


def _one(rng: random.Random, index: int, name: str, maker: Maker) -> Timeline:
    life, more = maker(rng)
    length = life.length_s
    ends = {"ended_at": length + rng.uniform(0.1, 1.0), "exit_code": 0, "model_saved": True}
    watched = length + float(more.pop("watched_after_s", 600.0))  # type: ignore[arg-type]
    given = {**ends, **more}
    pace = f"{life.trait.pace_s:.2g} s/step"
    return Timeline(
        f"{index:03d} {name} ({pace})",
        "healthy",
        life.trait,
        tuple(life.stretches),
        watched,
        seed=rng.getrandbits(32),
        **given,  # type: ignore[arg-type]
    )


def _life(rng: random.Random, pace_s: float | None = None, disk: float | None = None) -> Life:
    return Life(rng, trait(rng, pace_s, disk))


def plain(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Nothing special."""
    life = _life(rng)
    prepare(life)
    life.first_step()
    train(life)
    life.ending()
    return life, {}


def long_caching(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Hundreds of images on a CPU-bound machine: the GPU idles for minutes to an hour, the count rises slowly."""
    life = _life(rng)
    life.imports()
    life.loading()
    total = between(rng, 300, 3600)
    item_s = between(rng, 1, 40)
    life.caching(Phase.CACHING_LATENTS, max(4, int(total / item_s)), item_s, gpu=rng.choice((0, 3, 30)))
    life.caching(Phase.CACHING_TEXT, rng.randint(8, 60), between(rng, 0.2, 5))
    life.first_step()
    train(life, 600)
    life.ending()
    return life, {}


def captions_on_one_core(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """T5-XXL on the CPU: 5 TFLOP a caption; FluxGym gives the trainer one thread, of 5 to 50 GFLOP/s: 2 to 16 min."""
    life = _life(rng)
    life.imports()
    life.loading()
    life.caching(Phase.CACHING_LATENTS, 10, 1.0)
    for _ in range(rng.randint(2, 6)):
        life.add(Phase.CACHING_TEXT, between(rng, 100, 960), cpu=1.0, gpu=rng.choice((0, 0, 2)))
    life.first_step()
    train(life, 600)
    life.ending()
    return life, {}


def download(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """30 GB of models first, with no trainer alive yet, at 1 to 100 MB/s."""
    life = _life(rng)
    rate = between(rng, 4 * MB, 100 * MB)
    life.download(min(30 * GB, rate * 7200), rate)
    prepare(life)
    life.first_step()
    train(life, 600)
    life.ending()
    return life, {}


def idle_with_disk(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Loading for up to an hour: 22 GB from a network volume, or a machine that swaps. GPU 0 %, not a word."""
    life = _life(rng, disk=22 * GB / between(rng, 300, 3600))
    life.imports()
    life.loading()
    life.caching(Phase.CACHING_LATENTS, 20, 2.0)
    life.caching(Phase.CACHING_TEXT, 20, 2.0)
    life.first_step()
    train(life, 600)
    life.ending()
    return life, {}


def idle_with_cpu(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Kernels are compiled for a new GPU before the first latent or the first step: one core, 3 to 25 min."""
    life = _life(rng)
    life.imports()
    life.loading()
    first = rng.random() < 0.5
    if first:
        life.compiling(Phase.CACHING_LATENTS, between(rng, 180, 1500))
    life.caching(Phase.CACHING_LATENTS, 20, 1.0)
    life.caching(Phase.CACHING_TEXT, 20, 1.0)
    if not first:
        life.compiling(Phase.FIRST_STEP, between(rng, 180, 1500))
    life.first_step()
    train(life, 600)
    life.ending()
    return life, {}


def slow_saves(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """States of up to 700 MB to a disk that takes 0.5 to 5 MB/s."""
    life = _life(rng)
    prepare(life)
    slow = Life(rng, trait(rng, life.trait.pace_s, between(rng, 0.5 * MB, 5 * MB)))
    life.first_step()
    for _ in range(3):
        life.steps(max(12, min(600, int(300 / life.trait.pace_s))))
        slow.stretches = life.stretches
        slow.saving()
    slow.ending()
    return life, {}


def sampling(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Sample images every epoch, also before the first step; the step bar stands still for minutes."""
    life = _life(rng)
    prepare(life)
    step_s = between(rng, 0.3, 15)
    life.sampling(rng.randint(1, 4), step_s)
    life.first_step()
    for _ in range(2):
        life.steps(max(12, min(1000, int(300 / life.trait.pace_s))))
        life.sampling(rng.randint(1, 4), step_s)
        life.saving()
    life.ending()
    return life, {}


def laptop_sleep(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """The lid is closed for minutes to a night, twice; Linux's monotonic clock stands still, Windows' goes on."""
    life, _ = plain(rng)
    sleeps = [(rng.uniform(0, life.length_s), between(rng, 20, 30000), rng.random() < 0.5) for _ in range(2)]
    return life, {"sleeps": tuple(sorted(sleeps))}


def frozen_watchdog(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """FluxGym's process is stopped or swapped out for seconds to an hour; the training goes on or is as slow."""
    life, _ = plain(rng)
    start = rng.uniform(0, life.length_s)
    return life, {"frozen": ((start, start + between(rng, 10, 3600)),)}


def clock_steps(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """The wall clock is set by hours, forwards and backwards."""
    life, _ = plain(rng)
    steps = [(rng.uniform(0, life.length_s), rng.choice((-1, 1)) * between(rng, 60, 90000)) for _ in range(3)]
    return life, {"clock_steps": tuple(sorted(steps))}


def shared_gpu(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Another program takes the GPU for a while: steps get 1.5 to 4 times slower, then fast again."""
    life = _life(rng)
    prepare(life)
    life.first_step()
    count = max(15, min(1500, int(500 / life.trait.pace_s)))
    life.steps(count)
    begins = life.length_s
    life.steps(max(6, count // 3), slower=rng.uniform(1.5, 4))
    busy = (begins, life.length_s)
    life.steps(count // 2)
    life.ending()
    return life, {"other_program": busy}


def overnight(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Finished, and left alone for the night; FluxGym stays open, the GPU idles."""
    return plain(rng)[0], {"watched_after_s": 28800.0}


def network_disk(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """A slow network disk that stands still for 5 s to 4 min in any phase, and comes back."""
    life = _life(rng, disk=between(rng, 8 * MB, 60 * MB))
    prepare(life)
    at = rng.randrange(len(life.stretches))
    rest = life.stretches[at:]
    del life.stretches[at:]
    life.hiccup(rest[0].phase, between(rng, 5, 240))
    life.stretches += rest
    life.first_step()
    for _ in range(3):
        life.steps(max(12, min(800, int(300 / life.trait.pace_s))))
        life.hiccup(Phase.TRAINING, between(rng, 5, 240))
    life.steps(10)
    life.saving()
    life.ending()
    return life, {}


def very_slow(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """60 to 300 s a step, as with a model that is moved to the GPU block by block."""
    life = _life(rng, pace_s=between(rng, 60, 300))
    prepare(life)
    life.first_step()
    train(life, 3000, epochs=2)
    life.ending()
    return life, {}


def no_gpu(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """No GPU can be read at all (AMD, or a container without the driver's tools)."""
    return plain(rng)[0], {"gpu_readable": False}


def gpu_lost_from_view(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """The driver's tools stop answering for a while, after they did; the training does not care."""
    life, _ = plain(rng)
    start = rng.uniform(0, life.length_s)
    return life, {"gpu_unseen": (start, start + between(rng, 60, 3000))}


def log_lost_from_view(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """The log cannot be read for a while; the training does not care."""
    life, _ = plain(rng)
    start = rng.uniform(0, life.length_s)
    return life, {"log_unseen": (start, start + between(rng, 60, 3000))}


def long_first_step(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """The first step takes up to an hour at GPU 100 % with video memory spilling into RAM (issues 249, 426)."""
    life = _life(rng, pace_s=between(rng, 1, 60))
    prepare(life)
    life.first_step(between(rng, 300, 3600), memory=rng.uniform(0.98, 0.999))
    life.steps(20)
    life.ending()
    return life, {}


def spilling_memory(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Somebody takes video memory: it spills into RAM, and steps get 5 to 30 times slower at GPU 100 %."""
    life = _life(rng, pace_s=between(rng, 0.5, 10))
    prepare(life)
    life.first_step()
    life.steps(max(20, min(600, int(300 / life.trait.pace_s))))
    life.steps(15, slower=rng.uniform(5, 30), memory=rng.uniform(0.98, 0.999))
    life.steps(20)
    life.ending()
    return life, {}


def second_gpu(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """It trains on the second GPU; the first one idles."""
    return plain(rng)[0], {"gpu_index": 1}


def started_elsewhere(rng: random.Random) -> tuple[Life, dict[str, object]]:
    """Something else started it: there is no log to read."""
    return plain(rng)[0], {"log": False}


MAKERS: dict[str, Maker] = {
    maker.__name__.replace("_", " "): maker
    for maker in (
        plain,
        long_caching,
        captions_on_one_core,
        download,
        idle_with_disk,
        idle_with_cpu,
        slow_saves,
        sampling,
        laptop_sleep,
        frozen_watchdog,
        clock_steps,
        shared_gpu,
        overnight,
        network_disk,
        very_slow,
        no_gpu,
        gpu_lost_from_view,
        log_lost_from_view,
        long_first_step,
        spilling_memory,
        second_gpu,
        started_elsewhere,
    )
}
