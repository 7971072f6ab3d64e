"""Pictures of recipes over epochs, and over the values of a knob; see plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from kcnn.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Path,
    Rows,
    drawing,
    floats,
    log_scale,
    wrap,
)
from kcnn.comparison_plots import percent_intervals
from kcnn.knobs import show

_COLORS = ("black", BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, "#666666")
_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", "-.", ":")
MOST_CURVES = len(_COLORS)  # beyond, they cannot be told apart

_NAMED_VALUES = 9  # of a knob; beyond, an axis has no room for each


class Band(NamedTuple):
    """A measure over the epochs: mean, lowest and highest of some runs, each (n,)."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(runs: Sequence[Rows], key: str) -> Band | None:
    """Return a measure's band over runs, as far as all of them go.

    So every epoch speaks of the same runs. None where a run lacks the measure.

    Args:
        runs: the rows of each run's metrics.csv.
        key: the column.
    """
    length = min(map(len, runs))
    values = np.array([floats(rows[:length], key) for rows in runs])
    if not length or not np.isfinite(values).all():
        return None
    epochs = floats(runs[0][:length], "epoch")
    return Band(epochs, values.mean(0), values.min(0), values.max(0))


def learning_curves(recipes: Sequence[Mapping[str, Any]], path: Path) -> Figure:
    """Draw validation accuracy and training loss of recipes over their epochs.

    A line is the mean of a recipe's seeds, its band goes from the lowest to the
    highest of them. Lines bear the number that their recipe has in the legend.

    Args:
        recipes: up to MOST_CURVES, each with name and runs, the rows of each run's
            metrics.csv: epoch, loss, val_accuracy (in [0, 1], or None).
        path: where to write it.

    Raises:
        ValueError: there are more than MOST_CURVES.
    """
    if len(recipes) > MOST_CURVES:
        raise ValueError(f"got {len(recipes)} recipes, expected {MOST_CURVES} at most")
    accuracy = [band(recipe["runs"], "val_accuracy") for recipe in recipes]
    loss = [band(recipe["runs"], "loss") for recipe in recipes]
    names = [
        wrap(
            f"{i}  {recipe['name']} (n={len(recipe['runs'])}"
            f"{', no validation images' * (found is None and any(accuracy))})",
            400,
            8,
        )
        for i, (recipe, found) in enumerate(zip(recipes, accuracy, strict=True), 1)
    ]
    panels = [(loss, 1, "training loss (average during the epoch)")]
    if any(accuracy):
        panels.insert(0, (accuracy, 100, "validation accuracy (%)"))
    listed = sum(0.19 + 0.14 * name.count("\n") for name in names)
    with drawing(path, (6.4, 0.8 + listed + 2.9 * len(panels))) as figure:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        every: list[Axes] = list(grid[:, 0])
        for axes, (bands, scale, label) in zip(every, panels, strict=True):
            for i, found in enumerate(bands):
                if found is not None:
                    _draw_band(axes, found, scale, i)
            axes.set_ylabel(label)
            axes.grid(True)
        _log_where_wide(every[-1], loss)
        if not any(accuracy):
            every[0].set_title("no recipe set images aside for validation", fontsize=9)
        every[-1].set_xlabel("epoch")
        every[-1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        last = max(found.epochs[-1] for found in loss if found)
        every[-1].set_xlim(0.5, last + max(0.5, 0.06 * last))
        figure.align_ylabels()
        handles: list[Any] = [_line(every[-1], i) for i in range(len(recipes))]
        if any(len(recipe["runs"]) > 1 for recipe in recipes):
            handles.append(Patch(fc=GREY, alpha=0.6))
            names.append("band: from the lowest to the highest of the seeds")
        figure.legend(
            handles, names, loc="outside upper left", frameon=False, fontsize=8
        )
        _number_ends(figure, every, [(p[0], p[1]) for p in panels])
    return figure


def _style(i: int) -> dict[str, Any]:
    return {
        "color": _COLORS[i],
        "marker": _MARKERS[i],
        "ls": _STYLES[i % len(_STYLES)],
        "mfc": _COLORS[i] if i < len(_STYLES) else "white",
        "ms": 5,
        "lw": 1.4,
    }


def _line(axes: Axes, i: int) -> Any:
    return axes.plot([], [], **_style(i))[0]


def _draw_band(axes: Axes, found: Band, scale: float, i: int) -> None:
    n = len(found.epochs)
    every = (i % max(1, n // 12), max(1, n // 12))  # so that markers do not meet
    axes.plot(found.epochs, scale * found.mean, markevery=every, **_style(i))
    low, high = scale * found.low, scale * found.high
    if (high > low).any():
        axes.fill_between(found.epochs, low, high, color=_COLORS[i], alpha=0.13, lw=0)
        if n == 1:  # an area without width is not seen
            axes.vlines(found.epochs, low, high, color=_COLORS[i], lw=1)


def _log_where_wide(axes: Axes, bands: Sequence[Band | None]) -> None:
    low = min((found.low.min() for found in bands if found), default=0)
    high = max((found.high.max() for found in bands if found), default=0)
    if high > 30 * low > 0:
        log_scale(axes)


def _number_ends(
    figure: Figure, every: Sequence[Axes], panels: Sequence[tuple[Any, float]]
) -> None:
    """Write each line's number at its end, apart from the others' there."""
    FigureCanvasAgg(figure).draw()  # the layout decides where the lines end
    unit = figure.dpi / 72
    line = {"arrowstyle": "-", "lw": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 3}
    for axes, (bands, scale) in zip(every, panels, strict=True):
        ends = [
            (i, (found.epochs[-1], scale * found.mean[-1]))
            for i, found in enumerate(bands)
            if found is not None
        ]
        inside = axes.get_window_extent()
        heights = [axes.transData.transform(end)[1] for _, end in ends]
        placed = spread(heights, 10 * unit, inside.y0, inside.y1)
        for (i, end), height, place in zip(ends, heights, placed, strict=True):
            beside: dict[str, Any] = {
                "xy": end,
                "xytext": (12, (place - height) / unit),
                "textcoords": "offset points",
                "ha": "center",
                "va": "center",
                "size": 8,
            }
            if abs(place - height) > 5 * unit:
                axes.annotate("", **beside, arrowprops=line)
            axes.annotate(str(i + 1), **beside, color=_COLORS[i], weight="bold")


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart to at least `gap`, in their order, between low and high.

    Those that meet are spread evenly about their middle.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[tuple[float, int]] = []  # the first place of each, and how many
    for i in order:
        first, count = places[i], 1
        while groups and groups[-1][0] + groups[-1][1] * gap > first:
            start, before = groups.pop()
            total = start * before + (first - before * gap) * count
            count += before
            first = total / count
        groups.append((first, count))
    spaced = [first + k * gap for first, count in groups for k in range(count)]
    for k in range(len(spaced)):
        spaced[k] = max(spaced[k], low + k * gap, spaced[k - 1] + gap if k else low)
    for k in range(1, len(spaced) + 1):
        spaced[-k] = min(spaced[-k], high - (k - 1) * gap)
    return [spaced[order.index(i)] for i in range(len(places))]


def against_knob(knob: str, values: Sequence[float], rows: Rows, path: Path) -> Figure:
    """Draw accuracy against the values of a knob, with intervals and each seed's dot.

    Args:
        knob: its name.
        values: of each recipe.
        rows: the recipes, as `kcnn.comparison.compare` has them, in the same order.
        path: where to write it.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    x = np.array([values[i] for i in order], float)
    sorted_rows = [rows[i] for i in order]
    mean, reach = percent_intervals(sorted_rows)
    with drawing(path, (6.4, 4.0)) as figure:
        axes = figure.subplots()
        axes.plot(x, mean, "-", color=GREY, lw=1)
        several = np.array([row["interval_of"] == "seeds" for row in sorted_rows])
        kinds: list[tuple[np.ndarray, str, str, Literal["-", ":"], str]] = [
            (several, "D", "black", "-", "mean, 95% interval over seeds"),
            (~several, "s", "white", ":", "one run, 95% interval of its test images"),
        ]
        for which, marker, fill, style, label in kinds:
            if which.any():
                bars = axes.errorbar(
                    x[which],
                    mean[which],
                    yerr=reach[:, which],
                    fmt=marker,
                    ms=5,
                    color="black",
                    mfc=fill,
                    capsize=3,
                    lw=1.2,
                    label=label,
                )
                bars.lines[2][0].set_linestyle(style)
        dots = [
            (value, 100 * run["accuracy"])
            for value, row, shown in zip(x, sorted_rows, several, strict=True)
            if shown
            for run in row["runs"]
        ]
        if dots:
            aside = ScaledTranslation(7 / 72, 0, figure.dpi_scale_trans)
            axes.plot(
                *zip(*dots, strict=True),
                "o",
                ms=3.5,
                mfc="white",
                color=BLUE,
                transform=axes.transData + aside,
                label="one seed",
            )
        _knob_axis(axes, knob, x, [show(values[i]) for i in order])
        axes.set_ylim(top=min(100.5, axes.get_ylim()[1]))
        axes.set_ylabel("test accuracy (%); the axis does not start at 0")
        axes.grid(True, axis="y")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def wants_log(values: Sequence[float]) -> bool:
    """Whether values ask for a log axis: all above 0, the largest 10 times the least.

    A hair less counts as 10 times too, as 0.2 is of 0.02 in floating point.
    """
    return min(values) > 0 and max(values) >= 9.999 * min(values)


def _knob_axis(axes: Axes, knob: str, x: np.ndarray, texts: Sequence[str]) -> None:
    log = wants_log(x.tolist())
    axes.margins(x=0.08)
    if log:
        log_scale(axes, "x")
    places = np.log(x) if log else x
    apart = len(x) < 2 or np.diff(places).min() > 0.07 * np.ptp(places)
    if len(x) <= _NAMED_VALUES and apart and max(map(len, texts)) <= 7:
        axes.set_xticks(x, texts)
        axes.set_xticks([], minor=True)
    axes.set_xlabel(f"{knob} (log scale)" if log else knob)
