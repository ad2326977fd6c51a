"""How exactly a run is resumed: the steps that the final weights are made of, after 1 to 10 interruptions.

Real processes of the demo's stand-in trainer, which reckons as sd-scripts does, upstream's flaws included, and whose
weights carry their age. Each interruption is a kill at the beginning of a step. This project runs as its command line
does. The two rivals are granted what the tool this one grew out of could not do: they see each end at once, and
their options reach the script. They resume the newest folder with `state` in its name, by its modification time.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tests.trainings import Training, clean_up

MOST_INTERRUPTIONS = 10
EPOCHS, STEPS_PER_EPOCH = 6, 40
ASKED = EPOCHS * STEPS_PER_EPOCH
LAYOUTS = {
    "epoch states, every 40 steps": ("--save_state",),
    "step states, every 25 steps": ("--save_state", "--save_every_n_epochs 999", "--save_every_n_steps 25"),
}
PROJECT, RESUME, SKIP = "this project", "--resume", "--resume --skip_until_initial_step"
RULES = (PROJECT, RESUME, SKIP)
SPARE_ATTEMPTS = 5
"""A rival that has not ended its run after so many attempts more than there were interruptions never will."""
STUB = "from runpy import run_module\n\nrun_module('tests.bench.aging', run_name='__main__')\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `executed` steps are what its final weights are made of (None: it never ended well); `lost` holds the
    steps that each new attempt had to give up."""

    layout: str
    interruptions: int
    rule: str
    executed: int | None
    lost: tuple[int, ...]
    attempts: int


def run(seed: int, most: int = MOST_INTERRUPTIONS) -> list[Outcome]:
    """All runs of a seed, two at a time, with a progress bar on stderr. An interrupt or SIGTERM leaves nothing."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    jobs = [(layout, count, rule) for layout in LAYOUTS for count in range(1, most + 1) for rule in RULES]
    found: list[Outcome] = []
    with ThreadPoolExecutor(2) as pool:
        try:
            for outcome in pool.map(lambda job: one(seed, *job), jobs):
                found.append(outcome)
                print(f"\r{len(found)}/{len(jobs)} runs", end="", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(file=sys.stderr)
    return found


def one(seed: int, layout: str, count: int, rule: str) -> Outcome:
    """One run, interrupted `count` times; no process of it is left."""
    rng = random.Random(f"{seed} {layout} {count}")  # the same interruptions for each rule
    faults = ",".join(f"kill@{step}" for step in sorted(rng.sample(range(2, ASKED + 1), count)))
    with tempfile.TemporaryDirectory() as scratch:
        training = Training(Path(scratch).resolve() / "fluxgym", epochs=EPOCHS)
        training.lay_out(*LAYOUTS[layout])
        (training.root / "sd-scripts" / "flux_train_network.py").write_text(STUB)
        variables = {"DEMO_FAULTS": faults, "BENCH_AGES_FILE": str(training.root / "ages.txt")}
        try:
            if rule == PROJECT:
                ended_well = _supervised(training, variables)
            else:
                ended_well = _relaunched(training, variables, rule, count + 1 + SPARE_ATTEMPTS)
        finally:
            clean_up(training.root)
        ages = list(_ages(training))
    lost = [ended - began for (_, ended), (began, _) in pairwise(ages)]
    return Outcome(layout, count, rule, ages[-1][1] if ended_well else None, tuple(lost), len(ages))


def report(seed: int, outcomes: list[Outcome], command: str, date: str, as_json: bool) -> str:
    """Everything a reader needs, as text or as JSON."""
    if as_json:
        facts = {"command": command, "seed": seed, "date": date, "asked": ASKED, "trainer": "stand-in"}
        return json.dumps({**facts, "runs": [asdict(o) for o in outcomes]}, indent=1)
    wide = max(map(len, RULES)) + 2
    lines = [f"{command}   seed {seed}   {date}   stand-in trainer, real processes; {ASKED} steps asked for"]
    lines += ["Steps that the final weights are made of, and in brackets the steps lost per interruption.", ""]
    for layout in LAYOUTS:
        lines += [f"{layout:<32}" + "".join(f"{rule:>{wide}}" for rule in RULES)]
        ours = [o for o in outcomes if o.layout == layout]
        for count in sorted({o.interruptions for o in ours}):
            row = {o.rule: _shown(o) for o in ours if o.interruptions == count}
            named = f"{count} interruption{'s' * (count > 1)}"
            lines += [f"{named:<32}" + "".join(f"{row[rule]:>{wide}}" for rule in RULES)]
        exact = [f"{_exact(ours, rule)} of {sum(o.rule == rule for o in ours)}" for rule in RULES]
        lines += [f"{'exactly as asked':<32}" + "".join(f"{text:>{wide}}" for text in exact), ""]
    wrong = [o for o in outcomes if o.rule == PROJECT and o.executed != ASKED]
    lines += [f"Runs of this project that are not exact: {len(wrong)}"]
    lines += [f"  {o.layout}, {o.interruptions} interruptions: {o.executed}" for o in wrong]
    return "\n".join(lines)


def _exact(outcomes: list[Outcome], rule: str) -> int:
    return sum(o.executed == ASKED for o in outcomes if o.rule == rule)


def _shown(outcome: Outcome) -> str:
    executed = "never ended" if outcome.executed is None else str(outcome.executed)
    return f"{executed} ({statistics.fmean(outcome.lost):.0f})" if outcome.lost else executed


def _supervised(training: Training, variables: dict[str, str]) -> bool:
    # The kills come closer together than any real ones: its budget and its patience are not what is measured here.
    options = ("--max-restarts", "99", "--backoff-max", "0.2", "--stuck-threshold", "60")
    return training.run(*options, faults=variables.pop("DEMO_FAULTS"), **variables).ends() == 0


def _relaunched(training: Training, variables: dict[str, str], rule: str, most: int) -> bool:
    script = training.script.read_text().rstrip("\\ \n")
    for _ in range(most):
        states = [f for f in training.run_folder.iterdir() if f.is_dir() and "state" in f.name]
        options = ""
        if states:
            newest = max(states, key=lambda f: f.stat().st_mtime)
            options = f" {rule.replace(RESUME, f'{RESUME} {newest}', 1)}"
        relaunch = training.run_folder / "relaunch.sh"
        relaunch.write_text(f"{script}{options}\n")
        if training.start(["bash", str(relaunch)], **variables).ends() == 0:
            return True
    return False


def _ages(training: Training) -> Iterator[tuple[int, int]]:
    """The age at which each attempt began, and the one that it came to."""
    executed = [pid for pid, _ in training.executed]
    for line in (training.root / "ages.txt").read_text().splitlines():
        pid, began = map(int, line.split())
        yield began, began + executed.count(pid)
