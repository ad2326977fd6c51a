"""Samples → what can be drawn: gaps kept, spikes kept, few points. Pure."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fluxgym_watchdog.records import Sample

Point = tuple[float, float]
"""A time in seconds since the epoch and a value."""

POINTS = 300
"""At most so many points a line; each of half as many buckets of time gives its lowest and its highest."""

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


def window(samples: Sequence[Sample], span_s: float | None, end: float) -> Window:
    """The newest `span_s` seconds before `end`; everything there is where that is less, or where it is None."""
    elapsed_s = max(60.0, end - samples[0].at) if samples else 60.0
    if span_s is None or elapsed_s < span_s / 2:
        step_s = 2.0 ** math.ceil(math.log2(elapsed_s / 16))  # grows in steps, or every look would shift every point
        span_s = math.ceil(elapsed_s * 1.01 / step_s) * step_s
    bucket_s = span_s / (POINTS // 2)
    aligned = math.ceil(end / bucket_s) * bucket_s
    return Window(aligned - span_s, aligned)


def within(samples: Sequence[Sample], shown: Window) -> Sequence[Sample]:
    """The samples of a window; samples are in the order of time."""
    return samples[bisect_left(samples, shown.start, key=lambda s: s.at) :]


def ticks(samples: Sequence[Sample]) -> list[Sample]:
    """One sample for each tick: with several GPUs each tick has several, which say the same of the training."""
    found: list[Sample] = []
    for sample in samples:
        if not found or sample.at > found[-1].at:
            found.append(sample)
    return found


def interval_s(times: Sequence[float], default: float = 2.0) -> float:
    """The usual time between two points: the median over the newest 500."""
    recent = times[-500:]
    return statistics.median(b - a for a, b in pairwise(recent)) if len(recent) > 1 else default


def segments(points: Iterable[tuple[float, float | None]], gap_s: float) -> list[list[Point]]:
    """The points as unbroken lines: a missing value, a NaN or a silence of more than `gap_s` ends a line."""
    found: list[list[Point]] = []
    line: list[Point] = []
    for at, value in points:
        usable = value is not None and math.isfinite(value)
        if line and (not usable or at - line[-1][0] > gap_s):
            found.append(line)
            line = []
        if usable and value is not None:
            line.append((at, value))
    if line:
        found.append(line)
    return found


def thin(lines: list[list[Point]], shown: Window) -> list[list[Point]]:
    """At most two points a bucket, its lowest and its highest in the order they came, so that spikes survive."""
    bucket_s = shown.bucket_s
    if not bucket_s or sum(map(len, lines)) <= POINTS:
        return lines
    found = []
    for line in lines:
        kept: list[Point] = []
        bucket: list[Point] = []
        number = None
        for point in line:
            if (here := int((point[0] - shown.start) / bucket_s)) != number:
                kept += _extremes(bucket)
                bucket, number = [], here
            bucket.append(point)
        found.append(kept + _extremes(bucket))
    return found


def smooth(lines: list[list[Point]], weight: float = 0.1) -> list[list[Point]]:
    """Each line's exponential moving average; across a gap it goes on from where it was."""
    found = []
    mean: float | None = None
    for line in lines:
        smoothed = []
        for at, value in line:
            mean = value if mean is None else mean + weight * (value - mean)
            smoothed.append((at, mean))
        found.append(smoothed)
    return found


def seconds_per_step(samples: Sequence[Sample], over: int = 20) -> list[tuple[float, float | None]]:
    """Seconds per step over time, each over the newest `over` rises of the step count: a tick is too coarse for one
    step. A step count that falls (a resume) begins anew after a None, which is a gap."""
    found: list[tuple[float, float | None]] = []
    rises: list[tuple[float, int]] = []
    for sample in samples:
        if rises and sample.step < rises[-1][1]:
            found.append((sample.at, None))
            rises = []
        if sample.step and (not rises or sample.step > rises[-1][1]):
            rises.append((sample.at, sample.step))
            if len(rises) > 2:
                (t0, s0), (t1, s1) = rises[max(1, len(rises) - 1 - over)], rises[-1]
                found.append((t1, (t1 - t0) / (s1 - s0)))
    return found


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per step of late: the median, and between which values half of the time lay."""

    median_s: float
    low_s: float
    high_s: float


def pace(samples: Sequence[Sample], newest: int = 2000, parts: int = 9) -> Pace | None:
    """The pace over the newest samples, saving and sampling pauses counted in; None before ten steps were seen.

    The steps seen since the last resume are cut into parts of equal count; each part's mean is one vote.
    """
    rises: list[tuple[float, int]] = []
    for sample in ticks(samples[-newest:]):
        if rises and sample.step < rises[-1][1]:
            rises = []
        if sample.step and (not rises or sample.step > rises[-1][1]):
            rises.append((sample.at, sample.step))
    rises = rises[1:]  # the first rise's time is when we began to look, not when the step was made
    if len(rises) < 5 or rises[-1][1] - rises[0][1] < 10:
        return None
    parts = min(parts, len(rises) - 1)
    edges = [rises[round(i * (len(rises) - 1) / parts)] for i in range(parts + 1)]
    means = sorted((b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(edges))
    return Pace(statistics.median(means), means[len(means) // 4], means[-1 - len(means) // 4])


def _extremes(bucket: list[Point]) -> list[Point]:
    if len(bucket) <= 2:
        return bucket
    low = min(bucket, key=lambda p: p[1])
    high = max(bucket, key=lambda p: p[1])
    return [low] if low[1] == high[1] else sorted((low, high))
