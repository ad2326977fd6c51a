"""Samples → lines and SVG: gaps stay gaps, spikes survive, few points, nothing hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from fluxgym_watchdog.records import Event, Sample, Status
from fluxgym_watchdog.tab import plots, series
from fluxgym_watchdog.tab.history import EMPTY, history_of
from fluxgym_watchdog.tab.series import Window

Samples = Callable[..., list[Sample]]
NOW = 10_000.0


def figures(html: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(html).findall(".//figure")


def line(figure: ElementTree.Element, number: int = 0) -> list[list[tuple[float, float]]]:
    """Each piece of a line as shares of the width and values, as the page's script reads them."""
    data = figure.findall(".//path[@data-name]")[number].attrib["data-y"]
    low, high = float(figure.attrib["data-low"]), float(figure.attrib["data-high"])
    places = [data[i : i + 2] for i in range(0, len(data), 2)]
    pieces: list[list[tuple[float, float]]] = [[]]
    for number_, place in enumerate(places):
        if place == plots.GAP:
            pieces.append([])
        elif place != plots.GOES_ON:
            base = len(plots.LETTERS)
            height = (plots.LETTERS.index(place[0]) * base + plots.LETTERS.index(place[1])) / (base * base - 1)
            pieces[-1].append((number_ / len(places), low + height * (high - low)))
    return [piece for piece in pieces if piece]


def gpu(
    samples: list[Sample], events: list[Event] | None = None, status: Status | None = None, span: float = 900
) -> str:
    history = history_of(samples)
    return plots.gpu_panel(history, events or [], series.window(history, span, NOW), status, 5.0)


def training(samples: list[Sample], *, log_scale: bool = False) -> str:
    history = history_of(samples)
    return plots.training_panel(history, [], series.window(history, 900, NOW), log_scale=log_scale)


def drawn(points: list[tuple[float, float | None]], shown: Window, gap_s: float = 10) -> list[list[series.Point]]:
    at, values = np.array(points, float).T
    return series.lines(at, values, shown, gap_s)


def test_a_missing_value_a_nan_and_a_silence_each_end_a_line() -> None:
    points = [(0, 1.0), (2, 1.0), (4, None), (6, 1.0), (8, math.nan), (10, 1.0), (12, 2.0), (40, 3.0)]
    lines = [[(0, 1.0), (2, 1.0)], [(6, 1.0)], [(10, 1.0), (12, 2.0)], [(40, 3.0)]]
    assert drawn(points, Window(0, 100)) == lines
    assert drawn([(0, None)], Window(0, 100)) == []


def test_thinning_keeps_a_spike_of_one_sample_and_at_most_300_points() -> None:
    points = [(2.0 * i, 3.0 if i == 7_777 else 97.0) for i in range(20_000)]
    (thinned,) = drawn(points, Window(0, 40_000))
    assert len(thinned) <= series.POINTS + 2
    assert min(value for _, value in thinned) == 3.0


def test_thinning_keeps_gaps_and_the_order_of_time() -> None:
    points = [(2.0 * i, float(i * 37 % 100)) for i in range(3_000) if not 1_000 < i < 1_500]
    lines = drawn(points, Window(0, 6_000))
    assert [len(lines) for _ in lines] == [2, 2]
    assert lines[0][-1][0] <= 2_000
    assert lines[1][0][0] >= 3_000
    for line in lines:
        assert line == sorted(line, key=lambda point: point[0])


def test_thinning_is_the_same_a_moment_later_but_for_the_newest_bucket() -> None:
    points = [(NOW - 6000 + 2 * i, float(i * 37 % 100)) for i in range(3_000)]
    shown = Window(NOW - 6000, NOW)
    (before,), (after,) = drawn(points[:-1], shown), drawn(points, shown)
    assert before[:-2] == after[: len(before) - 2]


@pytest.mark.parametrize("elapsed_s", [1, 900, 12_345, 900_000])
def test_the_window_of_everything_holds_everything_and_moves_seldom(make_samples: Samples, elapsed_s: float) -> None:
    first = history_of([replace(make_samples(1)[0], at=NOW - elapsed_s)])
    shown = series.window(first, None, NOW)
    assert shown.start <= NOW - elapsed_s
    assert shown.end >= NOW
    assert series.window(first, None, NOW + 0.001).start - shown.start in (0, pytest.approx(shown.bucket_s))


def test_gpu_panel_draws_four_plots_with_the_idle_line_and_labels(make_samples: Samples) -> None:
    found = figures(gpu(make_samples(450, NOW)))
    assert [f.findtext("figcaption/b") for f in found] == ["GPU utilisation", "GPU memory", "Temperature", "Power"]
    assert ["".join(f.find("figcaption/span").itertext()) for f in found] == [
        "97 %",
        "15.0 of 24 GiB",
        "72 °C",
        "324 of 450 W",
    ]
    assert found[0].findall("svg")[0].get("aria-label") == "GPU utilisation, now 97 %"
    assert [f.find(".//path[@class='wd-threshold']") is not None for f in found] == [True, False, False, False]


def test_a_gap_in_the_samples_is_a_gap_in_the_line(make_samples: Samples) -> None:
    samples = make_samples(60, NOW - 300) + make_samples(60, NOW)
    pieces = line(figures(gpu(samples))[0])
    assert len(pieces) == 2
    assert pieces[1][0][0] - pieces[0][-1][0] > 0.15


def test_the_line_of_a_value_lies_where_the_axis_says(make_samples: Samples) -> None:
    (piece,) = line(figures(gpu(make_samples(450, NOW, utilization_percent=25.0)))[0])
    assert {round(value, 1) for _, value in piece} == {25.0}
    assert piece[0][0] < 0.01
    assert piece[-1][0] > 0.98


def test_what_a_line_is_written_in_needs_no_escape() -> None:
    assert not set(plots.LETTERS) & set("'\"&<>\\ ~")
    assert json.dumps(plots.LETTERS) == f'"{plots.LETTERS}"'


@pytest.mark.parametrize("count", [5, 100, 299, 300, 450, 3000])
def test_a_spike_of_one_sample_is_in_the_picture(make_samples: Samples, count: int) -> None:
    samples = make_samples(count, NOW)
    spike = count // 2 + 1
    samples[spike] = replace(samples[spike], utilization_percent=3.0)
    values = [value for piece in line(figures(gpu(samples, span=2 * count))[0]) for _, value in piece]
    assert min(values) == pytest.approx(3.0, abs=0.02)
    assert max(values) == pytest.approx(97.0, abs=0.02)
    assert len(line(figures(gpu(samples, span=2 * count))[0])) == 1, "few samples are far apart, but no gap"


def test_each_gpu_has_a_line_of_its_own(make_samples: Samples) -> None:
    one, two = make_samples(100, NOW), make_samples(100, NOW, gpu=1, utilization_percent=2.0)
    samples = [sample for pair in zip(one, two, strict=True) for sample in pair]
    figure = figures(gpu(samples))[0]
    assert [path.get("data-name") for path in figure.findall(".//path[@data-name]")] == ["GPU 0", "GPU 1"]
    assert "".join(figure.find("figcaption/span").itertext()) == "0: 97 % · 1: 2 %"


def test_a_simulated_gpu_says_so_in_every_title(make_samples: Samples, make_status: Callable[..., Status]) -> None:
    html = gpu(make_samples(50, NOW), status=make_status(gpu_source="simulated"))
    assert all("simulated" in (f.findtext("figcaption/b") or "") for f in figures(html))


def test_without_a_gpu_the_panel_says_why(make_samples: Samples, make_status: Callable[..., Status]) -> None:
    samples = make_samples(50, NOW, gpu=-1, utilization_percent=None)
    html = gpu(samples, status=make_status(gpu_source="none", gpus=(), gpu_problem="no <driver>"))
    assert "No NVIDIA GPU can be read: no &lt;driver&gt;" in html
    assert not figures(html)


def test_nothing_measured_says_so() -> None:
    shown = Window(NOW - 900, NOW)
    assert "Nothing was measured" in plots.gpu_panel(EMPTY, [], shown, None, 5.0)
    assert "No steps" in plots.training_panel(EMPTY, [], shown)


def test_events_are_marked_once_escaped_and_only_where_they_happened(make_samples: Samples) -> None:
    events = [
        Event(NOW - 5000, "old", "before the window", "bad"),
        Event(NOW - 450, "stalled", '</title><script>alert("x")</script>', "bad"),
        Event(NOW - 400, "saved", "an info is no mark", "info"),
    ]
    html = gpu(make_samples(450, NOW), events)
    assert html.count("wd-mark wd-") == 1
    assert "<script" not in html
    assert ElementTree.fromstring(html) is not None
    mark = ElementTree.fromstring(html).find(".//g/path")
    assert mark is not None
    assert abs(int(mark.attrib["data-x"]) - plots.WIDTH // 2) <= 5


def test_loss_outliers_are_clipped_and_nan_is_a_gap(make_samples: Samples) -> None:
    samples = make_samples(400, NOW)
    samples = [replace(s, loss=0.4 + (i % 10) / 100) for i, s in enumerate(samples)]
    samples[200] = replace(samples[200], loss=5000.0)
    samples[300] = replace(samples[300], loss=math.nan)
    figure = figures(training(samples))[0]
    assert figure.findtext("figcaption/b") == "Loss"
    assert float(figure.attrib["data-high"]) < 1
    assert len(line(figure)) == 2


def test_the_loss_can_have_a_log_scale(make_samples: Samples) -> None:
    samples = [replace(s, loss=10.0 ** -(i / 100)) for i, s in enumerate(make_samples(300, NOW))]
    figure = figures(training(samples, log_scale=True))[0]
    assert figure.findtext("figcaption/b") == "Loss, log scale"
    (piece,) = line(figure)
    low, high = float(figure.attrib["data-low"]), float(figure.attrib["data-high"])
    half = (piece[0][0] + piece[-1][0]) / 2
    _, linear = min(piece, key=lambda corner: abs(corner[0] - half))
    assert low * (high / low) ** ((linear - low) / (high - low)) == pytest.approx(10**-1.5, rel=0.1)
    below_zero = [replace(s, loss=-1.0) for s in samples]
    assert figures(training(below_zero, log_scale=True))[0].findtext("figcaption/b") == "Loss"
    level = [replace(s, loss=0.5) for s in samples]
    assert line(figures(training(level, log_scale=True))[0])


def test_the_memory_of_the_run_itself_is_a_line_of_its_own(make_samples: Samples) -> None:
    html = gpu(make_samples(50, NOW, memory_run_bytes=9 * 1024**3))
    figure = figures(html)[1]
    assert [path.get("data-name") for path in figure.findall(".//path[@data-name]")] == ["in use", "this run"]
    assert "memory of this run alone" in html
    assert "memory of this run" not in gpu(make_samples(50, NOW))


def test_the_legend_tells_what_is_drawn(make_samples: Samples) -> None:
    samples = make_samples(50, NOW)
    assert "idle under 5 %" in gpu(samples)
    assert "trouble" not in gpu(samples)
    assert "trouble" in gpu(samples, [Event(NOW - 4, "stalled", "Stuck.", "bad")])


def test_seconds_per_step_are_of_the_run_and_break_at_a_resume(make_samples: Samples) -> None:
    samples = make_samples(60, NOW - 130, first_step=100) + make_samples(60, NOW, first_step=90)
    at, paces = series.seconds_per_step(history_of(samples))
    assert set(paces[np.isfinite(paces)]) == {2.0}
    assert len(series.lines(at, paces, Window(NOW - 300, NOW), 1000)) == 2


def test_pace_is_the_median_of_steps_with_the_pauses_apart(make_samples: Samples) -> None:
    samples = []
    for i, sample in enumerate(make_samples(200, NOW)):
        saving = 15 if i % 50 == 0 and i else 0
        samples += [replace(samples[-1], at=samples[-1].at + 2 * (1 + tick)) for tick in range(saving)]
        samples.append(replace(sample, at=sample.at + 30 * (i // 50)))
    pace = series.pace(history_of(samples))
    assert pace is not None
    assert pace.median_s == pytest.approx(2.0)
    assert pace.low_s <= pace.median_s <= pace.high_s
    assert pace.pauses_s == pytest.approx(90 / 198)
    assert series.pace(history_of(samples[:5])) is None


def test_right_after_a_resume_the_pace_is_the_one_before_it(make_samples: Samples) -> None:
    samples = make_samples(60, NOW - 130, first_step=100) + make_samples(3, NOW, first_step=90)
    pace = series.pace(history_of(samples))
    assert pace is not None
    assert pace.median_s == pytest.approx(2.0)


@pytest.mark.parametrize("again", [101, 14_000])
def test_a_time_in_which_nobody_looked_is_no_pause(make_samples: Samples, again: int) -> None:
    """A resume that repeats no step, or a watchdog that was off while the training went on."""
    samples = make_samples(100, NOW - 28_800) + make_samples(30, NOW, first_step=again)
    pace = series.pace(history_of(samples))
    assert pace is not None
    assert (pace.median_s, pace.pauses_s) == (pytest.approx(2.0), 0.0)
    _, paces = series.seconds_per_step(history_of(samples))
    assert set(paces[np.isfinite(paces)]) == {2.0}


def test_a_thinned_history_is_no_silence(make_samples: Samples) -> None:
    samples = make_samples(1000, NOW)
    thinned = [*samples[:320:16], *samples[320:480:8], *samples[480:640:4], *samples[640:800:2], *samples[800:]]
    assert len(series.climbs(history_of(thinned))) == 1


@pytest.mark.parametrize("gpus", [1, 4])
def test_panels_of_a_noisy_hour_stay_small(make_samples: Samples, gpus: int) -> None:
    samples = [
        replace(
            s,
            gpu=g,
            utilization_percent=float((i + g) * 37 % 100),
            power_w=float(i * 53 % 450),
            loss=(i * 29 % 100) / 100,
        )
        for i, s in enumerate(make_samples(1800, NOW))
        for g in range(gpus)
    ]
    history = history_of(samples)
    assert len(gpu(samples, span=3600)) < 8_500
    assert len(plots.training_panel(history, [], series.window(history, 3600, NOW))) < 6_500


def test_a_short_history_fills_the_plot(make_samples: Samples) -> None:
    samples = make_samples(20, NOW)
    shown = series.window(history_of(samples), 21600, NOW)
    assert samples[0].at - shown.start < 60
    assert shown.end >= NOW


def test_saved_checkpoints_are_not_marked(make_samples: Samples) -> None:
    events = [Event(NOW - 5, "checkpoint", "Saved x.", "ok"), Event(NOW - 4, "stalled", "Stuck.", "bad")]
    panel = gpu(make_samples(20, NOW), events)
    assert "Stuck." in panel
    assert "Saved" not in panel


def test_the_smoothed_loss_is_a_mean_in_every_range_and_no_outlier_bends_it() -> None:
    at = np.arange(0, 28_800, 2.0)
    loss = np.random.default_rng(1).exponential(0.5, len(at))
    loss[5000] = 1000.0
    for span_s in (900.0, 3600.0, 28_800.0):
        shown = series.Window(28_800 - span_s, 28_800)
        inside = at >= shown.start
        (line,) = series.smooth(at[inside], loss[inside], shown, 10.0, 0.0, 5.0)
        assert np.mean([value for _, value in line[20:]]) == pytest.approx(0.5, rel=0.15)


def test_a_gap_ends_the_smoothed_line_too() -> None:
    at = np.append(np.arange(0, 300, 2.0), np.arange(600, 900, 2.0))
    lines = series.smooth(at, np.full(len(at), 0.4), series.Window(0, 900), 10.0, 0.0, 1.0)
    assert [line[0][0] < 10 or line[0][0] >= 600 for line in lines] == [True, True]
    assert [value for line in lines for _, value in line] == pytest.approx([0.4] * sum(map(len, lines)))
