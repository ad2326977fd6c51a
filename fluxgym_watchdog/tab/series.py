"""Samples → what can be drawn: gaps kept, spikes kept, few points. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fluxgym_watchdog.tab.history import History, Numbers

Point = tuple[float, float]
"""A time in seconds since the epoch and a value."""

POINTS = 300
"""At most so many points a line; each of half as many buckets of time gives its lowest and its highest."""

GPUS = 8
"""More than so many in one machine are rare."""

GAP_TICKS = 5
"""A silence longer than so many usual intervals is a gap: no line is drawn across it."""


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time that is drawn. Its ends lie on whole buckets, so that thinning does not flicker."""

    start: float
    end: float

    @property
    def bucket_s(self) -> float:
        """The time that one bucket of two points stands for."""
        return (self.end - self.start) / (POINTS // 2)


def window(history: History, span_s: float | None, end: float) -> Window:
    """The newest `span_s` seconds before `end`; everything there is where that is less, or where it is None."""
    elapsed_s = max(60.0, end - float(history.column("at")[0])) if len(history) else 60.0
    if span_s is None or elapsed_s < span_s / 2:
        step_s = 2.0 ** math.ceil(math.log2(elapsed_s / 16))  # grows in steps, or every look would shift every point
        span_s = math.ceil(elapsed_s * 1.01 / step_s) * step_s
    bucket_s = span_s / (POINTS // 2)
    aligned = math.ceil(end / bucket_s) * bucket_s
    return Window(aligned - span_s, aligned)


def interval_s(at: Numbers, default: float = 2.0) -> float:
    """The usual time between two points: the median over the newest 500."""
    return float(np.median(np.diff(at[-500:]))) if len(at) > 1 else default


def lines(at: Numbers, values: Numbers, shown: Window, gap_s: float, points: int = POINTS) -> list[list[Point]]:
    """The values as unbroken lines of at most about `points` points, all together.

    What is not known, and a silence of more than `gap_s`, ends a line. Of each bucket of time only the lowest and the
    highest value are kept, in the order in which they came, so that spikes survive.
    """
    at, values, breaks, begins = _buckets(at, values, shown, gap_s, points)
    if not len(at):
        return []
    ends: Numbers = np.append(begins[1:], len(at)) - 1
    low, high = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
    rising, two = values[ends] >= values[begins], high > low
    kept = _pairs(True, two)  # a bucket whose values are all the same gives one point
    breaks = _pairs(~two & breaks[ends], breaks[ends])[kept][:-1]
    at = _pairs(at[begins], at[ends])[kept]
    values = _pairs(np.where(rising, low, high), np.where(rising, high, low))[kept]
    found = list(zip(at.tolist(), values.tolist(), strict=True))
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(found)]
    return [found[a:b] for a, b in pairwise(edges)]


def smooth(
    at: Numbers, values: Numbers, shown: Window, gap_s: float, low: float, high: float, weight: float = 0.2
) -> list[list[Point]]:
    """The exponential moving average of each bucket's mean, in lines as of `lines`; across a gap it goes on.

    Values are clipped to between `low` and `high`, or a single outlier would bend the line long after it.
    """
    at, values, breaks, begins = _buckets(at, values, shown, gap_s, POINTS)
    if not len(at):
        return []
    counts: Numbers = np.diff(np.append(begins, len(at)))
    means = np.add.reduceat(np.clip(values, low, high), begins) / counts
    smoothed: list[list[Point]] = []
    mean = float(means[0])
    for begin, count, value in zip(begins.tolist(), counts.tolist(), means.tolist(), strict=True):
        mean += weight * (value - mean)
        if not smoothed or breaks[begin - 1]:
            smoothed.append([])
        smoothed[-1].append((float(at[begin + count // 2]), mean))
    return smoothed


def _buckets(
    at: Numbers, values: Numbers, shown: Window, gap_s: float, points: int
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The known values and their times, after which of them a line ends, and where each bucket of time begins."""
    known = np.flatnonzero(np.isfinite(values))
    at, values = at[known], values[known]
    breaks: Numbers = np.append((np.diff(known) > 1) | (np.diff(at) > gap_s), True)
    buckets = np.floor((at - shown.start) / (shown.bucket_s * POINTS / points))
    begins = np.flatnonzero(np.append(True, breaks[:-1] | (np.diff(buckets) != 0))) if len(at) else known
    return at, values, breaks, begins


def climbs(history: History) -> list[tuple[Numbers, Numbers]]:
    """The times at which the step count rose and the step then reached, a pair for each stretch without a fall or a
    silence.

    A fall is a resume; in a silence nobody looked, and what the steps took is not known. The first rise of a stretch is
    left out: its time is when the look came, not the step.
    """
    ticks = history.ticks()
    at, step = ticks.column("at"), ticks.column("step")
    at, step = at[step > 0], step[step > 0]
    found = []
    for part in np.split(np.arange(len(step)), np.flatnonzero((np.diff(step) < 0) | _silent(at)) + 1):
        rises = part[1:][np.diff(step[part]) > 0]
        if len(rises):
            found.append((at[rises], step[rises]))
    return found


def _silent(at: Numbers) -> Numbers:
    """Which intervals are silences: longer than usual, and than one beside it: old samples lie further apart."""
    intervals = np.diff(at)
    if len(intervals) < 2:
        return np.zeros(len(intervals), bool)
    before: Numbers = np.append(intervals[1], intervals[:-1])
    after: Numbers = np.append(intervals[1:], intervals[-2])
    return intervals > GAP_TICKS * np.maximum(interval_s(at), np.minimum(before, after))


def seconds_per_step(history: History, over: int = 20) -> tuple[Numbers, Numbers]:
    """Times and seconds per step, each over the newest `over` rises of the step count: a tick is too coarse for one
    step. A step count that falls (a resume) begins anew after a NaN, which is a gap."""
    times, paces = [np.empty(0)], [np.empty(0)]
    for at, step in climbs(history):
        here = np.arange(1, len(at))
        before = np.maximum(0, here - over)
        times += [at[here], at[-1:]]
        paces += [(at[here] - at[before]) / (step[here] - step[before]), np.array([np.nan])]
    return np.concatenate(times), np.concatenate(paces)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per step of late: the median and between which values half of the time lay, without the pauses for
    saving and sampling; and what those add to each step on average."""

    median_s: float
    low_s: float
    high_s: float
    pauses_s: float = 0.0


PAUSE_FACTOR = 5.0
"""A step that takes so many times the usual was not a step: the trainer saved or drew samples before it."""


def pace(history: History, newest: int = 2000, parts: int = 9) -> Pace | None:
    """The pace over the newest samples since the last resume, or before it where since then too little was seen.

    None before ten steps were seen. The steps are cut into parts of equal count; each part's mean is one vote: a tick
    is too coarse for one step.
    """
    ticks = History(history.rows[-GPUS * newest :]).ticks()  # with several GPUs each tick has several rows
    for at, step in reversed(climbs(History(ticks.rows[-newest:]))):
        if len(at) < 5 or step[-1] - step[0] < 10:
            continue
        gaps = np.diff(at)
        usual = float(np.median(gaps))
        extra = np.where(gaps > PAUSE_FACTOR * usual, gaps - usual, 0.0)
        worked = at - np.append(0.0, np.cumsum(extra))
        edges = np.rint(np.linspace(0, len(at) - 1, 1 + min(parts, len(at) - 1))).astype(int)
        means = sorted((np.diff(worked[edges]) / np.diff(step[edges])).tolist())
        pauses_s = float(extra.sum() / (step[-1] - step[0]))
        return Pace(statistics.median(means), means[len(means) // 4], means[-1 - len(means) // 4], pauses_s)
    return None


def _pairs(first: Numbers, second: Numbers) -> Numbers:
    """Two columns as one, taken in turns."""
    return np.column_stack(np.broadcast_arrays(first, second)).ravel()
