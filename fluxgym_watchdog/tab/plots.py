"""Samples and events → plots as inline SVG. Pure; the same on every Gradio.

What is sent is small: a line is two letters for each of its places on the axis of time, 600 bytes whatever it shows,
and the page's script draws it, fills the area under it and reads the values under the pointer from it. Attributes stand
in single quotes, which JSON need not escape. The marks of events are drawn once and used by every plot of a panel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluxgym_watchdog.records import Event, Status
from fluxgym_watchdog.tab import series
from fluxgym_watchdog.tab.history import History, Numbers
from fluxgym_watchdog.tab.marks import HEIGHT, WIDTH, Marks
from fluxgym_watchdog.tab.series import Point, Window
from fluxgym_watchdog.tab.words import clock, escape, number

LETTERS = "".join(chr(c) for c in range(ord("#"), ord("~")) if chr(c) not in "'&<>\\`")
"""What values are written in: letters that neither HTML nor JSON must escape; two of them tell 7,225 heights apart."""
_PAIRS = np.array([first + second for first in LETTERS for second in LETTERS])
GAP, GOES_ON = "  ", "~~"
"""At a place without a value: no line, or a line on its way to the next value."""
LEAST_POINTS = 75
"""Several GPUs share the points of a plot; each line keeps at least so many."""

SEPARATOR = " · "
"""Between the newest values of several GPUs."""

_GIB = 1024**3
_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: its name, its unbroken pieces of at most about `points` points in all, and how it is drawn.

    `style` is '', 'faint' or 'dashed'.
    """

    name: str
    pieces: list[list[Point]]
    colour: int
    style: str = ""
    filled: bool = False
    points: int = series.POINTS


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
    logarithmic: bool = False


def gpu_panel(
    history: History, events: Sequence[Event], shown: Window, status: Status | None, idle_percent: float
) -> str:
    """Utilisation with the line of `idle_percent`, memory, temperature and power, one line for each GPU."""
    simulated = status is not None and status.gpu_source == "simulated"
    note = (
        "<p class='wd-note wd-act'>Simulated GPU: these values are invented, for trying out.</p>" if simulated else ""
    )
    unseen = status is not None and status.gpu_source == "none" and (history.newest("gpu") or 0) < 0
    if status is not None and (unseen or status.gpu_problem):
        why = status.gpu_problem.rstrip(".")
        text = f"No NVIDIA GPU can be read{': ' if why else ''}{why}. Progress is judged by the log alone."
        note = f"<p class='wd-note wd-act'>{escape(text)}</p>"
    seen = history.since(shown.start)
    of_gpu = {int(i): seen.of_gpu(i) for i in np.unique(seen.column("gpu")) if i >= 0}
    if not of_gpu:
        empty = "" if note else "<p class='wd-empty'>Nothing was measured in this time.</p>"
        return _panel("GPU", shown, note + empty, "", "")
    one = len(of_gpu) == 1
    gap_s = series.GAP_TICKS * max(series.interval_s(found.column("at")) for found in of_gpu.values())
    points = max(LEAST_POINTS, series.POINTS // len(of_gpu))

    def lines(
        value: str, colour: int, scale: float = 1.0, *, filled: bool = True, name: str = "", style: str = ""
    ) -> tuple[Line, ...]:
        drawn = []
        for index, found in of_gpu.items():
            pieces = series.lines(found.column("at"), found.column(value) * scale, shown, gap_s, points)
            title = (f"GPU {index}, {name}" if name else f"GPU {index}") if not one else name or f"GPU {index}"
            drawn.append(Line(title, pieces, colour if one else index % _COLOURS, style, filled and one, points))
        return tuple(drawn)

    def now(value: str, scale: float = 1.0, of: str = "", unit: str = "", digits: int = 0) -> str:
        each = []
        for index, found in of_gpu.items():
            text = number(_times(found.newest(value), scale), digits)
            limit = _times(found.newest(of), scale) if of and one else None  # of several the axis says it
            text += f" of {number(limit, 2)} {unit}" if limit else f" {unit}"
            each.append(text if one else f"{index}: {text}")
        return SEPARATOR.join(each)

    totals, limits = [1.0], [1.0]
    for found in of_gpu.values():
        totals.append((found.newest("memory_total_bytes") or found.newest("memory_used_bytes") or 0) / _GIB)
        most = float(np.nanmax(found.column("power_w"), initial=0))
        limits.append(found.newest("power_limit_w") or _nice(most))
    memory = lines("memory_used_bytes", 1, 1 / _GIB, name="in use")
    of_run = lines("memory_run_bytes", 1, 1 / _GIB, filled=False, name="this run", style="dashed")
    of_run = tuple(line for line in of_run if line.pieces)
    mark = ", simulated" if simulated else ""
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
            max(totals),
            (*memory, *of_run),
        ),
        Plot(
            f"Temperature{mark}",
            now("temperature_c", unit="°C"),
            "°C",
            20,
            100,
            lines("temperature_c", 2, filled=False),
        ),
        Plot(f"Power{mark}", now("power_w", 1, "power_limit_w", "W"), "W", 0, max(limits), lines("power_w", 3)),
    ]
    title = _names(list(of_gpu), status)
    title += "" if "simulated" in title else mark
    legend = [f"<span><i class='wd-key wd-idle'></i>idle under {idle_percent:g} %</span>"]
    if of_run:
        legend.append("<span><i class='wd-key wd-dashed'></i>memory of this run alone</span>")
    marks = Marks(events, shown)
    return _panel(title, shown, note, marks.drawn("gpu") + _figures("gpu", plots, shown), marks.legend(legend))


def training_panel(history: History, events: Sequence[Event], shown: Window, *, log_scale: bool = False) -> str:
    """Loss, raw and smoothed with outliers clipped, and seconds per step."""
    seen = history.since(shown.start).ticks()
    at = seen.column("at")
    gap_s = series.GAP_TICKS * series.interval_s(at)
    loss = seen.column("loss")
    raw = series.lines(at, loss, shown, gap_s)
    paced_at, paces = series.seconds_per_step(seen)
    per_step = series.lines(paced_at, paces, shown, max(gap_s, series.GAP_TICKS * series.interval_s(paced_at)))
    plots, legend = [], []
    if raw:
        values = [value for piece in raw for _, value in piece]
        logarithmic = log_scale and min(values) > 0
        low, high = _axis(values, logarithmic=logarithmic)
        smoothed = series.smooth(at, loss, shown, gap_s, low, high)
        lines: tuple[Line, ...] = (Line("loss", raw, 4, "faint"), Line("smoothed", smoothed, 4))
        title = "Loss, log scale" if logarithmic else "Loss"
        plots.append(Plot(title, number(seen.newest("loss")), "", low, high, lines, logarithmic=logarithmic))
        legend = [
            "<span><i class='wd-key wd-c4 wd-faint'></i>as logged</span>",
            "<span><i class='wd-key wd-c4'></i>smoothed</span>",
        ]
        if max(values) > high or min(values) < low:
            legend.append("<span>Outliers lie beyond the edge.</span>")
    if per_step:
        values = [value for piece in per_step for _, value in piece]
        middle = sorted(values)[len(values) // 2]
        around = [0.7 * middle, 1.3 * middle] * (1 + len(values) // 50)  # a steady pace is a level line, not noise
        low, high = _axis(values + around)
        lines = (Line("per step", per_step, 5),)
        plots.append(Plot("Seconds per step", f"{number(values[-1])} s", "s", max(0.0, low), high, lines))
    if not plots:
        return _panel("Training", shown, "<p class='wd-empty'>No steps in this time.</p>", "", "")
    marks = Marks(events, shown)
    return _panel(
        "Training", shown, "", marks.drawn("training") + _figures("training", plots, shown), marks.legend(legend)
    )


def _panel(title: str, shown: Window, note: str, figures: str, legend: str) -> str:
    times = f"<span class='wd-mut'>{clock(shown.start)} to {clock(shown.end)}</span>" if figures else ""
    charts = f"<div class='wd-charts'>{figures}</div>{legend}" if figures else ""
    return f"<section class='wd wd-box'><h3>{title}{times}</h3>{note}{charts}</section>"


def _figures(panel: str, plots: list[Plot], shown: Window) -> str:
    return "".join(_figure(panel, plot, shown) for plot in plots)


def _figure(panel: str, plot: Plot, shown: Window) -> str:
    drawn = []
    for line in plot.lines:
        style = f" wd-{line.style}" if line.style else ""
        filled = " data-fill=''" if line.filled else ""
        drawn.append(
            f"<path class='wd-line wd-c{line.colour}{style}' data-name='{escape(line.name)}'{filled} "
            f"data-y='{_written(line, plot, shown)}'/>"
        )
    threshold = ""
    if plot.threshold is not None:
        threshold = (
            f"<path class='wd-threshold' d='M0 {HEIGHT * (1 - _share(np.array(plot.threshold), plot)):.1f}H{WIDTH}'/>"
        )
    label = escape(f"{plot.title}, now {plot.now}")
    now = SEPARATOR.join(f"<i>{escape(each)}</i>" for each in plot.now.split(SEPARATOR))
    scale = " data-log=''" if plot.logarithmic else ""
    return (
        f"<figure class='wd-figure' data-from='{shown.start:.0f}' data-to='{shown.end:.0f}' data-low='{plot.low:.6g}' "
        f"data-high='{plot.high:.6g}' data-unit='{escape(plot.unit)}'{scale}>"
        f"<figcaption><b>{escape(plot.title)}</b><span>{now}</span></figcaption>"
        f"<div class='wd-axis' aria-hidden='true'><i>{plot.high:.4g} {escape(plot.unit)}</i><i>{plot.low:.4g}</i></div>"
        f"<svg class='wd-plot' viewBox='0 -3 {WIDTH} {HEIGHT + 4}' preserveAspectRatio='none' role='img' tabindex='0' "
        f"aria-label='{label}'><path class='wd-grid' d='M0 0H{WIDTH}M0 {HEIGHT // 2}H{WIDTH}M0 {HEIGHT}H{WIDTH}'/>"
        f"{''.join(drawn)}{threshold}<use href='#wd-marks-{panel}'/></svg></figure>"
    )


def _written(line: Line, plot: Plot, shown: Window) -> str:
    """The line in letters. Two values that fall on one place take the next one as well: a spike must not be lost; and
    a gap takes one, however short it was."""
    places = np.full(line.points, GAP)
    if line.pieces:
        at, values = np.array([point for piece in line.pieces for point in piece]).T
        lasts = np.cumsum([len(piece) for piece in line.pieces]) - 1
        firsts: Numbers = np.append(0, lasts[:-1] + 1)
        least = np.arange(len(at))
        least += np.searchsorted(firsts, least, side="right")  # a place more for each gap before it
        wanted = np.floor((at - shown.start) / (shown.end - shown.start) * line.points).astype(int)
        here = np.clip(least + np.maximum.accumulate(wanted - least), 0, line.points - 1)
        places[_between(here[firsts], here[lasts], line.points)] = GOES_ON
        places[here] = _PAIRS[np.rint(_share(values, plot) * (len(_PAIRS) - 1)).astype(int)]
    return "".join(places.tolist())


def _between(firsts: Numbers, lasts: Numbers, count: int) -> Numbers:
    """Which of so many places lie between one of the first and the last that belongs to it."""
    steps: Numbers = np.zeros(count + 1, int)
    np.add.at(steps, firsts, 1)
    np.add.at(steps, lasts, -1)
    return np.cumsum(steps)[:count] > 0


def _share(values: Numbers, plot: Plot) -> Numbers:
    """How high the values lie on the plot's axis, from 0 to 1."""
    low, high = plot.low, plot.high
    if plot.logarithmic:
        low, high, values = math.log10(low), math.log10(high), np.log10(np.maximum(values, low))
    return np.clip((values - low) / (high - low), 0, 1)


def _names(indexes: list[int], status: Status | None) -> str:
    names = {gpu.index: f" · {escape(gpu.name)}" for gpu in status.gpus if gpu.name} if status else {}
    keys = {i: f"<i class='wd-key wd-c{i % _COLOURS}'></i>" for i in indexes} if len(indexes) > 1 else {}
    each = [f"{keys.get(i, '')}GPU {i}{names.get(i, '')}" for i in indexes]
    return f"<span>{', '.join(each)}</span>"


def _axis(values: list[float], *, logarithmic: bool = False) -> tuple[float, float]:
    """The ends of an axis: round numbers around all but the outermost hundredth on either side."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    if logarithmic:
        low, high = 1 / _nice(1 / low), _nice(high)
        return (low, high) if low < high else (low / 2, high * 2)
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
