"""Samples and events → plots as inline SVG. Pure; the same on every Gradio.

Coordinates are whole numbers, each relative to the one before: a line of 300 points costs about 1.3 KB. The marks of
events are drawn once and used by every plot of a panel. The page's script reads values under the pointer back from the
path and the figure's data attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fluxgym_watchdog.records import Event, Sample, Status
from fluxgym_watchdog.tab import series
from fluxgym_watchdog.tab.series import Point, Window
from fluxgym_watchdog.tab.words import clock, escape, number

WIDTH = 600
HEIGHT = 100
MARKS = 40
"""At most so many events are marked, the newest."""

_GIB = 1024**3
_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: its name, where it is drawn in unbroken pieces, and how."""

    name: str
    pieces: list[list[Point]]
    colour: int
    faint: bool = False
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: `low` and `high` are the ends of its axis in `unit`; `now` is the newest value in words."""

    title: str
    now: str
    unit: str
    low: float
    high: float
    lines: tuple[Line, ...]
    threshold: float | None = None


def gpu_panel(
    samples: Sequence[Sample], events: Sequence[Event], shown: Window, status: Status | None, idle_percent: float
) -> str:
    """Utilisation with the line of `idle_percent`, memory, temperature and power, one line for each GPU."""
    simulated = status is not None and status.gpu_source == "simulated"
    note = (
        '<p class="wd-note wd-act">Simulated GPU: these values are invented, for trying out.</p>' if simulated else ""
    )
    unseen = status is not None and status.gpu_source == "none" and (bool(samples) and samples[-1].gpu < 0)
    if status is not None and (unseen or status.gpu_problem):
        why = status.gpu_problem.rstrip(".")
        text = f"No NVIDIA GPU can be read{': ' if why else ''}{why}. Progress is judged by the log alone."
        note = f'<p class="wd-note wd-act">{escape(text)}</p>'
    seen = [s for s in series.within(samples, shown) if s.gpu >= 0]
    indexes = sorted({s.gpu for s in seen})
    if not indexes:
        empty = "" if note else '<p class="wd-empty">Nothing was measured in this time.</p>'
        return _panel("GPU", shown, note + empty, "", "")
    of_gpu = {index: [s for s in seen if s.gpu == index] for index in indexes}
    gap_s = series.GAP_TICKS * max(series.interval_s([s.at for s in found]) for found in of_gpu.values())
    newest = {index: found[-1] for index, found in of_gpu.items()}
    mark = ", simulated" if simulated else ""

    def lines(value: str, colour: int, scale: float = 1.0, filled: bool = True) -> tuple[Line, ...]:
        return tuple(
            Line(
                f"GPU {index}",
                series.thin(series.segments(((s.at, _times(getattr(s, value), scale)) for s in found), gap_s), shown),
                colour if len(indexes) == 1 else index % _COLOURS,
                filled=filled and len(indexes) == 1,
            )
            for index, found in of_gpu.items()
        )

    def now(value: str, scale: float = 1.0, of: str = "", unit: str = "", digits: int = 0) -> str:
        each = []
        for index, sample in newest.items():
            text = number(_times(getattr(sample, value), scale), digits)
            limit = _times(getattr(sample, of), scale) if of else None
            text += f" of {number(limit, 2)} {unit}" if limit else f" {unit}"
            each.append(text if len(indexes) == 1 else f"{index}: {text}")
        return " · ".join(each)

    totals = [(s.memory_total_bytes or s.memory_used_bytes or 0) / _GIB for s in newest.values()]
    limits = [s.power_limit_w or _nice(max((p.power_w or 0) for p in of_gpu[i])) for i, s in newest.items()]
    plots = [
        Plot(
            f"GPU utilisation{mark}",
            now("utilization_percent", unit="%"),
            "%",
            0,
            100,
            lines("utilization_percent", 0),
            idle_percent,
        ),
        Plot(
            f"GPU memory{mark}",
            now("memory_used_bytes", 1 / _GIB, "memory_total_bytes", "GiB", digits=3),
            "GiB",
            0,
            max(totals) or 1,
            lines("memory_used_bytes", 1, 1 / _GIB),
        ),
        Plot(
            f"Temperature{mark}",
            now("temperature_c", unit="°C"),
            "°C",
            20,
            100,
            lines("temperature_c", 2, filled=False),
        ),
        Plot(f"Power{mark}", now("power_w", 1, "power_limit_w", "W"), "W", 0, max([*limits, 1]), lines("power_w", 3)),
    ]
    title = _names(indexes, status)
    title += "" if "simulated" in title else mark
    return _panel(title, shown, note, _marks("gpu", events, shown), _figures("gpu", plots, shown))


def training_panel(samples: Sequence[Sample], events: Sequence[Event], shown: Window) -> str:
    """Loss, raw and smoothed with outliers clipped, and seconds per step."""
    seen = series.ticks(series.within(samples, shown))
    gap_s = series.GAP_TICKS * series.interval_s([s.at for s in seen])
    raw = series.segments(((s.at, s.loss) for s in seen), gap_s)
    paces = series.seconds_per_step(seen)
    pace_gap_s = max(gap_s, series.GAP_TICKS * series.interval_s([at for at, _ in paces]))
    per_step = series.segments(paces, pace_gap_s)
    plots = []
    if raw:
        low, high = _axis([value for line in raw for _, value in line])
        last = seen[-1].loss
        lines: tuple[Line, ...] = (
            Line("loss", series.thin(raw, shown), 4, faint=True),
            Line("smoothed", series.thin(series.smooth(raw), shown), 4),
        )
        plots.append(Plot("Loss", number(raw[-1][-1][1] if last is None else last), "", low, high, lines))
    if per_step:
        values = [value for line in per_step for _, value in line]
        middle = sorted(values)[len(values) // 2]
        around = [0.7 * middle, 1.3 * middle] * (1 + len(values) // 50)  # a steady pace is a level line, not noise
        low, high = _axis(values + around)
        lines = (Line("per step", series.thin(per_step, shown), 5),)
        plots.append(Plot("Seconds per step", f"{number(values[-1])} s", "s", max(0.0, low), high, lines))
    if not plots:
        return _panel("Training", shown, '<p class="wd-empty">No steps in this time.</p>', "", "")
    return _panel("Training", shown, "", _marks("training", events, shown), _figures("training", plots, shown))


def _panel(title: str, shown: Window, note: str, marks: str, figures: str) -> str:
    times = f'<span class="wd-mut">{clock(shown.start)} to {clock(shown.end)}</span>' if figures else ""
    charts = f'<div class="wd-charts">{marks}{figures}</div>' if figures else ""
    return f'<section class="wd wd-box"><h3>{title}{times}</h3>{note}{charts}</section>'


def _figures(panel: str, plots: list[Plot], shown: Window) -> str:
    return "".join(_figure(panel, plot, shown) for plot in plots)


def _figure(panel: str, plot: Plot, shown: Window) -> str:
    drawn = []
    for line in plot.lines:
        paths = [_path(piece, plot, shown) for piece in line.pieces]
        colour = f"wd-c{line.colour}"
        if line.filled:
            area = "".join(f"{path}V{HEIGHT}H{start}Z" for path, start in paths)
            drawn.append(f'<path class="wd-area {colour}" d="{area}"/>')
        faint = " wd-faint" if line.faint else ""
        d = "".join(path for path, _ in paths)
        drawn.append(f'<path class="wd-line {colour}{faint}" data-name="{escape(line.name)}" d="{d}"/>')
    threshold = ""
    if plot.threshold is not None:
        y = _y(plot.threshold, plot)
        threshold = (
            f'<path class="wd-threshold" d="M0 {y}H{WIDTH}"><title>idle under {plot.threshold:g} %</title></path>'
        )
    label = escape(f"{plot.title}, now {plot.now}")
    return (
        f'<figure class="wd-figure" data-from="{shown.start:.0f}" data-to="{shown.end:.0f}" data-low="{plot.low:.6g}" '
        f'data-high="{plot.high:.6g}" data-unit="{escape(plot.unit)}">'
        f"<figcaption><b>{escape(plot.title)}</b><span>{escape(plot.now)}</span></figcaption>"
        f'<div class="wd-axis" aria-hidden="true"><i>{plot.high:.4g} {escape(plot.unit)}</i><i>{plot.low:.4g}</i></div>'
        f'<svg class="wd-plot" viewBox="0 -3 {WIDTH} {HEIGHT + 4}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><path class="wd-grid" d="M0 0H{WIDTH}M0 {HEIGHT // 2}H{WIDTH}M0 {HEIGHT}H{WIDTH}"/>'
        f'{"".join(drawn)}{threshold}<use href="#wd-marks-{panel}"/></svg></figure>'
    )


def _path(piece: list[Point], plot: Plot, shown: Window) -> tuple[str, int]:
    """A path of whole, relative coordinates, and the x it begins at; points on the way of a straight line are left
    out. A lonely point becomes a short dash."""
    scale = WIDTH / (shown.end - shown.start)
    corners: list[tuple[int, int]] = []
    for at, value in piece:
        point = (min(WIDTH, max(0, round((at - shown.start) * scale))), _y(value, plot))
        if corners and point == corners[-1]:
            continue
        if len(corners) > 1 and corners[-1][1] == point[1] == corners[-2][1]:
            corners.pop()
        corners.append(point)
    if len(corners) == 1:
        corners.append((corners[0][0] + 1, corners[0][1]))
    steps = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        dy = str(y1 - y0)
        steps.append(f"{x1 - x0}{'' if dy.startswith('-') else ' '}{dy}")
    return f"M{corners[0][0]} {corners[0][1]}l{' '.join(steps)}", corners[0][0]


def _y(value: float, plot: Plot) -> int:
    share = (value - plot.low) / (plot.high - plot.low)
    return round(HEIGHT * (1 - min(1.0, max(0.0, share))))


def _marks(panel: str, events: Sequence[Event], shown: Window) -> str:
    """The events of the window as one group, which every plot of the panel uses."""
    drawn = []
    marked = [e for e in events if shown.start <= e.at <= shown.end and e.tone != "info" and e.kind != "checkpoint"]
    for event in marked[-MARKS:]:
        x = round((event.at - shown.start) / (shown.end - shown.start) * WIDTH)
        tone = event.tone if event.tone in ("ok", "act", "bad") else "info"
        text = event.text if len(event.text) <= 120 else event.text[:119] + "…"
        drawn.append(
            f'<path class="wd-mark wd-{tone}" data-x="{x}" d="M{x} 0V{HEIGHT}"><title>{escape(text)}</title></path>'
        )
    group = f'<g id="wd-marks-{panel}">{"".join(drawn)}</g>'
    return f'<svg class="wd-defs" width="0" height="0" aria-hidden="true"><defs>{group}</defs></svg>'


def _names(indexes: list[int], status: Status | None) -> str:
    names = {gpu.index: f" · {escape(gpu.name)}" for gpu in status.gpus if gpu.name} if status else {}
    keys = {i: f'<i class="wd-key wd-c{i % _COLOURS}"></i>' for i in indexes} if len(indexes) > 1 else {}
    return ", ".join(f"{keys.get(i, '')}GPU {i}{names.get(i, '')}" for i in indexes)


def _axis(values: list[float]) -> tuple[float, float]:
    """The ends of an axis: round numbers around all but the outermost hundredth on either side."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    if high <= low:
        return low - abs(low or 1) / 10, low + abs(low or 1) / 10
    step = _nice((high - low) / 4)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _nice(value: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if value <= factor * power * 1.0001)


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
