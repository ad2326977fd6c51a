"""How good the judgement is: a labelled corpus through three rules, on a simulated clock, in one run."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.bench.faulty import crashes, hangs
from tests.bench.healthy import healthy
from tests.bench.looks import looks
from tests.bench.rules import FixedTimeout, Rule, Seed, Verdict, Watchdog
from tests.bench.world import Timeline

HEALTHY, HANGS, CRASHES = 220, 220, 66
FAST_S = 5.0
LOOK_S = 2.1
"""The longest time between two looks of the simulated clock."""
RULES = (Watchdog.name, Seed.name, FixedTimeout.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each rule made of one timeline.

    `head_start_s` is for how long the seed's timer had been running, on an innocent idle GPU, when the fault began.
    """

    timeline: Timeline
    verdicts: dict[str, Verdict | None]
    suspicions: int
    head_start_s: float
    gap_s: float

    def false_kill(self, rule: str) -> bool:
        """Whether the rule acted against a run that was healthy, or not yet faulty, or finished."""
        found, fault_at = self.verdicts[rule], self.timeline.fault_at
        if found is None or found.kind == "finished":
            return False
        return fault_at is None or found.at < fault_at

    def detection_s(self, rule: str) -> float | None:
        """How long after its beginning the rule found the fault; None where it did not."""
        found, fault_at = self.verdicts[rule], self.timeline.fault_at
        if found is None or fault_at is None or found.at < fault_at or found.kind == "finished":
            return None
        return found.at - fault_at

    @property
    def later_than_seed(self) -> bool:
        """Whether both found the fault, and the seed rule did so earlier."""
        ours, seeds = self.detection_s(Watchdog.name), self.detection_s(Seed.name)
        return ours is not None and seeds is not None and ours > seeds

    @property
    def by_head_start(self) -> bool:
        """Whether the seed rule, its timer starting with the fault, would not have been earlier by more than a look."""
        ours, seeds = self.detection_s(Watchdog.name), self.detection_s(Seed.name)
        return self.later_than_seed and (seeds or 0.0) + self.head_start_s + LOOK_S >= (ours or 0.0)


def corpus(
    seed: int, healthy_count: int = HEALTHY, hang_count: int = HANGS, crash_count: int = CRASHES
) -> list[Timeline]:
    """The labelled timelines of a seed."""
    rng = random.Random(seed)
    return [*healthy(rng, healthy_count), *hangs(rng, hang_count), *crashes(rng, crash_count)]


def judge_timeline(timeline: Timeline, rules: Sequence[type[Rule]] = (Watchdog, Seed, FixedTimeout)) -> Outcome:
    """Plays one timeline to the rules."""
    waiting = {rule.name: rule() for rule in rules}
    played = dict(waiting)
    verdicts: dict[str, Verdict | None] = dict.fromkeys(waiting)
    for at, snapshot in looks(timeline):
        for name, rule in list(waiting.items()):
            verdict = rule.hear(at, snapshot)
            if verdict is not None:
                verdicts[name] = verdict
                del waiting[name]
        if not waiting:
            break
    ours, seed, fault_at = played.get(Watchdog.name), played.get(Seed.name), timeline.fault_at
    timer = seed.timer_began_at if isinstance(seed, Seed) else None
    head_start_s = max(0.0, fault_at - timer) if fault_at is not None and timer is not None else 0.0
    suspicions = ours.suspicions if isinstance(ours, Watchdog) else 0
    return Outcome(timeline, verdicts, suspicions, head_start_s, max(timeline.longest_gap_s, 1.0))


def run(seed: int, counts: Sequence[int] = (HEALTHY, HANGS, CRASHES), processes: int = 2) -> list[Outcome]:
    """All outcomes of a seed's corpus, with a progress bar on stderr."""
    timelines = corpus(seed, *counts)
    found = []
    with ProcessPoolExecutor(processes) as pool:
        for number, outcome in enumerate(pool.map(judge_timeline, timelines, chunksize=4), 1):
            found.append(outcome)
            if sys.stderr.isatty() or number % 100 == 0:
                print(f"\r{number}/{len(timelines)} timelines", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def figures(outcomes: Sequence[Outcome]) -> dict[str, dict[str, object]]:
    """The table: a row a figure, a column a rule."""
    healthy_ones = [o for o in outcomes if o.timeline.label == "healthy"]
    hung = [o for o in outcomes if o.timeline.label == "hang"]
    crashed = [o for o in outcomes if o.timeline.label == "crash"]
    fast = [o for o in hung if o.timeline.trait.pace_s < FAST_S]
    table: dict[str, dict[str, object]] = {}
    for rule in RULES:
        column: dict[str, object] = {
            f"false kills of {len(healthy_ones)} healthy": sum(o.false_kill(rule) for o in healthy_ones),
            f"killed before its fault, of {len(hung) + len(crashed)}": sum(o.false_kill(rule) for o in hung + crashed),
            f"hangs found of {len(hung)}": sum(o.detection_s(rule) is not None for o in hung),
            f"crashes found of {len(crashed)}": sum(o.detection_s(rule) is not None for o in crashed),
            f"crash causes right of {len(crashed)}": sum(_cause_right(o, rule) for o in crashed),
        }
        for words, group in (
            ("all faults", hung + crashed),
            ("hangs", hung),
            (f"hangs under {FAST_S:g} s/step", fast),
            (f"hangs that fall by chance, under {FAST_S:g} s/step", [o for o in fast if o.timeline.by_chance]),
            (f"faults under {FAST_S:g} s/step", fast + [o for o in crashed if o.timeline.trait.pace_s < FAST_S]),
            (
                f"hangs between steps, under {FAST_S:g} s/step",
                [o for o in fast if o.timeline.phase.value == "training"],
            ),
            ("crashes", crashed),
        ):
            column |= _times(words, group, rule)
        table[rule] = column
    return table


def offenders(outcomes: Iterable[Outcome]) -> list[str]:
    """Every timeline on which this project was wrong, or later than the seed rule."""
    rule, named = Watchdog.name, []
    for o in outcomes:
        seconds, seeds = o.detection_s(rule), o.detection_s(Seed.name)
        if o.false_kill(rule):
            found = o.verdicts[rule]
            named.append(
                f"FALSE KILL {o.timeline.name}: {found.kind if found else ''} at {found.at if found else 0:.0f} s"
            )
        elif o.timeline.label != "healthy" and seconds is None:
            named.append(f"MISSED {o.timeline.name}")
        elif o.timeline.label == "crash" and not _cause_right(o, rule):
            found = o.verdicts[rule]
            named.append(f"WRONG CAUSE {o.timeline.name}: {found.cause if found else ''}")
        elif o.later_than_seed:
            why = "a head start" if o.by_head_start else "CPU or disk use excuses"
            began = f"its timer began {o.head_start_s:.0f} s before the fault" if o.head_start_s else "no head start"
            named.append(f"LATER THAN SEED by {why}: {o.timeline.name}: {seconds:.0f} s, seed {seeds:.0f} s, {began}")
    return named


def later_than_seed(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How often the seed rule was earlier where both found the fault, by the reason for it."""
    later = [o for o in outcomes if o.later_than_seed]
    head_start = sum(o.by_head_start for o in later)
    return {
        "all": len(later),
        "by its head start alone": head_start,
        "CPU or disk use excuses": len(later) - head_start,
    }


def report(seed: int, outcomes: Sequence[Outcome], command: str, date: str, as_json: bool) -> str:
    """Everything a reader needs, as text or as JSON."""
    table, wrong = figures(outcomes), offenders(outcomes)
    suspicions = sum(o.suspicions for o in outcomes if o.timeline.label == "healthy")
    hours = sum(o.timeline.watched_s for o in outcomes if o.timeline.label == "healthy") / 3600
    rivals = {
        r: [o.timeline.name for o in outcomes if o.false_kill(r) or (o.timeline.fault_at and o.detection_s(r) is None)]
        for r in RULES[1:]
    }
    if as_json:
        return json.dumps(
            {"command": command, "seed": seed, "date": date, "figures": table, "offenders": wrong}
            | {"later_than_seed": later_than_seed(outcomes)}
            | {"suspicions_in_healthy_runs": suspicions, "wrong_by_rule": rivals},
            indent=1,
        )
    rows = list(table[RULES[0]])
    wide = max(map(len, rows))
    lines = [f"{command}   seed {seed}   {date}   simulated clock, a look every 2 s", ""]
    lines += [f"{'':<{wide}}" + "".join(f"{r:>18}" for r in RULES)]
    lines += [f"{row:<{wide}}" + "".join(f"{_shown(table[r][row]):>18}" for r in RULES) for row in rows]
    lines += ["", "x gap: as a multiple of the longest healthy gap of that run. Crashes: from the trainer's death on;"]
    lines += ["its launcher takes 0.8 to 3 s to end. The fixed timeout sees exit codes, as a launcher does, no causes."]
    lines += [
        f"Suspicions (evidence gathered, nothing touched) in healthy runs: {suspicions} in {hours:.0f} h of them."
    ]
    later = later_than_seed(outcomes)
    lines += [f"Never later than the seed rule where both find it: {'MISSED' if later['all'] else 'met'}."]
    lines += [f"  {number:>3} {reason}" for reason, number in later.items()]
    lines += ["  A head start: its timer ran before the fault, on the idle GPU of a healthy run that loads or caches;"]
    lines += ["  that earns it the minute here and the false kills above. Counted from the fault on it is not earlier."]
    lines += ["", f"Offenders of this project: {len(wrong)}", *(f"  {w}" for w in wrong)]
    for rule, names in rivals.items():
        kinds = sorted({_kind(n) for n in names})
        lines += [f"Wrong by the {rule}: {len(names)} timelines: {'; '.join(kinds)}"]
    return "\n".join(lines)


def _kind(name: str) -> str:
    return name.partition(" ")[2].partition(" (")[0].partition(" in ")[0]


def _cause_right(o: Outcome, rule: str) -> bool:
    found = o.verdicts[rule]
    return found is not None and found.cause == o.timeline.cause and found.kind == "crashed"


def _times(words: str, group: Sequence[Outcome], rule: str) -> dict[str, object]:
    found = [(s, s / o.gap_s) for o in group if (s := o.detection_s(rule)) is not None]
    seconds, multiples = sorted(s for s, _ in found), sorted(m for _, m in found)
    return {
        f"{words} ({len(group)}): median s": _quantile(seconds, 0.5),
        f"{words} ({len(group)}): p95 s": _quantile(seconds, 0.95),
        f"{words} ({len(group)}): median x gap": _quantile(multiples, 0.5),
        f"{words} ({len(group)}): p95 x gap": _quantile(multiples, 0.95),
    }


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    return round(
        statistics.median(values) if share == 0.5 else values[min(len(values) - 1, int(share * len(values)))], 2
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
