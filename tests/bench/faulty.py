"""Faulty runs: every hang that was measured, in every phase it can come in, and a crash of every documented cause.

Half of the hangs are a grid, so that no case is left out; the other half begin at a moment drawn evenly from the run's
life, which is where hangs fall in reality: mostly between two steps.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

from fluxgym_watchdog.records import Phase
from tests.bench.last_words import LAST_WORDS, Words
from tests.bench.world import MB, Life, Stretch, Timeline, between, prepare, train, trait

WATCHED_AFTER_HANG_S = 14400.0
"""What is not found in four hours is missed."""

WITH_WORKERS = (Phase.FIRST_STEP, Phase.TRAINING, Phase.SAVING, Phase.SAMPLING, Phase.ENDING)
EARLY = (Phase.IMPORTS, Phase.DOWNLOAD, Phase.LOADING, Phase.CACHING_LATENTS, Phase.CACHING_TEXT)
ANY = (*EARLY, *WITH_WORKERS)

HANGS: dict[str, tuple[Stretch, tuple[Phase, ...]]] = {
    name: (Stretch(Phase.UNKNOWN, WATCHED_AFTER_HANG_S, beat=False, **what), phases)
    for name, phases, what in (
        ("trainer stopped", ANY, {"trainer": "stopped", "trainer_wait": "do_signal_stop"}),
        (
            "worker stopped",
            WITH_WORKERS,
            {"worker": "stopped", "worker_wait": "do_signal_stop", "trainer_wait": "unix_stream_read_generic"},
        ),
        (
            "blocked read in a worker (S)",
            (Phase.FIRST_STEP, Phase.TRAINING),
            {"worker_wait": "wait_for_partner", "trainer_wait": "unix_stream_read_generic"},
        ),
        (
            "blocked read in a worker (D)",
            (Phase.FIRST_STEP, Phase.TRAINING),
            {
                "worker": "disk-sleep",
                "worker_wait": "rpc_wait_bit_killable",
                "trainer_wait": "unix_stream_read_generic",
            },
        ),
        (
            "blocked read (S)",
            (Phase.IMPORTS, Phase.LOADING, Phase.CACHING_LATENTS, Phase.CACHING_TEXT),
            {"trainer_wait": "wait_for_partner"},
        ),
        (
            "blocked read or write (D)",
            (Phase.IMPORTS, Phase.LOADING, Phase.CACHING_LATENTS, Phase.SAVING, Phase.ENDING),
            {"trainer": "disk-sleep", "trainer_wait": "rpc_wait_bit_killable"},
        ),
        ("busy loop, GPU 100 %", ANY[2:], {"trainer": "running", "cpu": 0.95, "gpu": 100.0}),
        ("busy loop, GPU 0 %", ANY, {"trainer": "running", "cpu": 0.95}),
        ("deadlock", ANY, {"trainer_wait": "futex_do_wait"}),
        ("pipe nobody reads", ANY[2:], {"trainer_wait": "anon_pipe_write"}),
        ("masked by another program's GPU load", ANY, {"trainer_wait": "futex_do_wait"}),
        ("masked, trainer stopped", ANY, {"trainer": "stopped", "trainer_wait": "do_signal_stop"}),
        ("no GPU to read, deadlock", ANY, {"trainer_wait": "futex_do_wait"}),
        ("started elsewhere, deadlock", ANY, {"trainer_wait": "futex_do_wait"}),
        ("started elsewhere, busy loop, GPU 100 %", ANY[2:], {"trainer": "running", "cpu": 0.95, "gpu": 100.0}),
        ("connection stands", (Phase.DOWNLOAD,), {"trainer_wait": "sk_wait_data"}),
    )
}


def hangs(rng: random.Random, number: int) -> list[Timeline]:
    """`number` hangs: first the grid of kinds and phases over all paces, or an even part of it, then at random."""
    grid = [(name, phase) for name, (_, phases) in HANGS.items() for phase in phases]
    size = min(len(grid), number // 2)
    chosen = [grid[at * len(grid) // size] for at in range(size)] if size else []
    found = []
    for index in range(number):
        name, phase = chosen[index] if index < size else ("", None)
        pace = 0.2 * 1500 ** ((index * 0.381966) % 1.0)  # spread evenly over 0.2 to 300 s, whatever the number
        found.append(_hang(rng, index, name, phase, pace))
    return found


def crashes(rng: random.Random, number: int) -> list[Timeline]:
    """`number` crashes, each cause in turn."""
    return [_crash(rng, index, LAST_WORDS[index % len(LAST_WORDS)]) for index in range(number)]


def _life(rng: random.Random, pace_s: float | None) -> Life:
    life = Life(rng, trait(rng, pace_s))
    if rng.random() < 0.3:
        life.download(between(rng, 100 * MB, 2000 * MB))
    prepare(life)
    life.first_step()
    if rng.random() < 0.5:
        life.sampling(1, between(rng, 0.3, 10))
    train(life, rng.uniform(600, 2400))
    if rng.random() < 0.3:
        life.sampling(1, between(rng, 0.3, 10))
    life.ending()
    return life


def _hang(rng: random.Random, index: int, name: str, phase: Phase | None, pace_s: float) -> Timeline:
    while True:
        life = _life(rng, pace_s)
        if phase is None:
            at = _moment(rng, life)
            name = rng.choice([kind for kind, (_, phases) in HANGS.items() if life.stretches[at].phase in phases])
            break
        places = [at for at, s in enumerate(life.stretches) if s.phase is phase]
        if phase is Phase.TRAINING:
            places = places[10:]
        if places:
            at = rng.choice(places)
            break
    stuck = HANGS[name][0]
    here = life.stretches[at]
    begun = here.length_s * rng.random()
    before = (*life.stretches[:at], replace(here, length_s=max(begun, 1e-3), beat=False))
    memory = life.trait.memory
    fault_at = sum(s.length_s for s in before)
    masked, elsewhere = name.startswith("masked"), name.startswith("started elsewhere")
    return Timeline(
        f"{index:03d} {name} in {here.phase.value} ({pace_s:.2g} s/step)",
        "hang",
        life.trait,
        (*before, replace(stuck, phase=here.phase, memory=memory)),
        fault_at + WATCHED_AFTER_HANG_S,
        fault_at=fault_at,
        other_program=(fault_at - 60, fault_at + WATCHED_AFTER_HANG_S) if masked else None,
        log=not (elsewhere or name.startswith("pipe")),
        gpu_readable=not name.startswith("no GPU"),
        seed=rng.getrandbits(32),
        phase=here.phase,
        by_chance=phase is None,
    )


def _moment(rng: random.Random, life: Life) -> int:
    """Where a hang falls by chance. Only minutes of the training are played; in reality it lasts 1 to 8 hours."""
    played = sum(s.length_s for s in life.stretches if s.phase is Phase.TRAINING)
    stands_for = max(1.0, between(rng, 3600, 28800) / played)
    ends = list(accumulate(s.length_s * (stands_for if s.phase is Phase.TRAINING else 1) for s in life.stretches))
    return bisect_right(ends, rng.uniform(0, ends[-1] - 1e-6))


def _crash(rng: random.Random, index: int, words: Words) -> Timeline:
    pace_s = 0.2 * 1500 ** ((index * 0.381966) % 1.0)
    life = _life(rng, pace_s)
    if words.when == "start":
        places = [at for at, s in enumerate(life.stretches) if s.phase in (Phase.IMPORTS, Phase.LOADING)]
    elif words.when == "resume":
        places = [max(at for at, s in enumerate(life.stretches) if s.phase in EARLY)]
    elif words.when == "saving":
        places = [at for at, s in enumerate(life.stretches) if s.phase in (Phase.SAVING, Phase.ENDING)]
    else:
        places = [at for at, s in enumerate(life.stretches) if s.phase in WITH_WORKERS]
    at = rng.choice(places)
    here = life.stretches[at]
    before = (*life.stretches[:at], replace(here, length_s=max(here.length_s * rng.random(), 1e-3), beat=False))
    fault_at = sum(s.length_s for s in before)
    lingers = rng.uniform(0.8, 3.0)  # measured: accelerate and bash end 0.8 to 3 s after the trainer
    return Timeline(
        f"{index:03d} {words.cause}: {words.name} in {here.phase.value} ({pace_s:.2g} s/step)",
        "crash",
        life.trait,
        (*before, Stretch(here.phase, lingers, beat=False)),
        fault_at + 7200,
        fault_at=fault_at,
        ended_at=fault_at + lingers,
        exit_code=words.exit_code,
        cause=words.cause,
        last_text=words.text,
        resumed=words.when == "resume",
        other_program=(0.0, fault_at + 7200) if rng.random() < 0.1 else None,
        seed=rng.getrandbits(32),
        phase=here.phase,
    )
