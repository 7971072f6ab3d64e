"""Pictures of a comparison: the ranked rows in, PNG or SVG out; see plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from kcnn.canvas import BLUE, GREY, Path, drawing, log_scale, wrap

Row = Mapping[str, Any]


def accuracies(rows: Sequence[Row], path: Path) -> Figure:
    """Draw the mean accuracy of each recipe with its interval, and each seed's.

    Args:
        rows: recipes of `kcnn.comparison.compare`, best first.
        path: where to write it.
    """
    names = [
        wrap(f"{i}  {row['recipe']} (n={row['n']})", 200, 8)
        for i, row in enumerate(rows, 1)
    ]
    with drawing(path, (7.2, 1.2 + _height(names, 0.18))) as figure:
        axes = figure.subplots()
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#F2F2F2", lw=0)
        seeds = [(i, row) for i, row in enumerate(rows) if _of(row) == "seeds"]
        if seeds:
            _intervals(axes, seeds, "D", "-", "mean, 95% interval over seeds")
        single = [(i, row) for i, row in enumerate(rows) if _of(row) == "images"]
        if single:
            label = "one run, 95% interval of its test images"
            _intervals(axes, single, "s", ":", label)
        dots = [
            (100 * run["accuracy"], place + 0.22)
            for place, row in seeds
            for run in row["runs"]
        ]
        if dots:
            x, y = zip(*dots, strict=True)
            axes.plot(x, y, "o", ms=3.5, mfc="white", color=BLUE, label="one seed")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(right=min(100.5, axes.get_xlim()[1]))
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
        axes.grid(True, axis="x")
        axes.set_xlabel("test accuracy (%); the axis does not start at 0")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _of(row: Row) -> str:
    return row["interval_of"]


def _intervals(
    axes: Axes,
    shown: Sequence[tuple[int, Row]],
    marker: str,
    style: Literal["-", ":"],
    label: str,
) -> None:
    places = np.array([place for place, _ in shown]) - 0.1
    mean, reach = percent_intervals([row for _, row in shown])
    drawn = axes.errorbar(
        mean,
        places,
        xerr=reach,
        fmt=marker,
        ms=5,
        color="black",
        mfc="black" if style == "-" else "white",
        capsize=3,
        lw=1.2,
        label=label,
    )
    for bar in drawn.lines[2]:
        bar.set_linestyle(style)


def percent_intervals(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (n,), and how far intervals reach below and above them (2, n).

    All in percent.
    """
    mean, low, high = (
        100 * np.array([row[key] for row in rows])
        for key in ("accuracy", "interval_low", "interval_high")
    )
    return mean, np.maximum([mean - low, high - mean], 0)


def cost(rows: Sequence[Row], path: Path) -> Figure:
    """Draw accuracy against the seconds of training, with the Pareto front.

    A recipe is on the front if no other is as fast and as accurate, and better in one
    of the two. Points bear the numbers of the list below them.

    Args:
        rows: recipes of `kcnn.comparison.compare`, best first.
        path: where to write it.
    """
    seconds = np.array([row["train_seconds"] for row in rows])
    accuracy = 100 * np.array([row["accuracy"] for row in rows])
    front = pareto_front(rows)
    names = [
        wrap(
            f"{row['recipe']}: {row['accuracy']:.2%}, {row['train_seconds']:,.3g} s",
            380,
            8,
        )
        for row in rows
    ]
    listed = 0.1 + _height(names, 0.06)
    with drawing(path, (6.4, 4.2 + listed)) as figure:
        axes, legend = figure.subplots(2, 1, height_ratios=(4.2, listed))
        order = sorted(front, key=lambda i: seconds[i])
        axes.plot(
            seconds[order],
            accuracy[order],
            "k--D",
            ms=6,
            drawstyle="steps-post",
            lw=1,
            zorder=3,  # above others at the same place
            label="Pareto front",
        )
        others = [i for i in range(len(rows)) if i not in front]
        if others:
            axes.plot(
                seconds[others],
                accuracy[others],
                "o",
                color="black",
                mfc=GREY,
                ms=6,
                label="another is as fast and as accurate, or better",
            )
        axes.margins(0.12)
        if seconds.max() > 30 * seconds.min() > 0:
            log_scale(axes, "x")
        axes.grid(True)
        axes.set_xlabel("seconds of training (mean of the seeds)")
        axes.set_ylabel("test accuracy (%), mean")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        _list(legend, names, front)
        _number_points(figure, axes, np.column_stack([seconds, accuracy]))
    return figure


def pareto_front(rows: Sequence[Row]) -> list[int]:
    """Return the positions of the recipes that no other one dominates."""
    points = [(row["train_seconds"], -row["accuracy"]) for row in rows]
    return [
        i
        for i, (s, a) in enumerate(points)
        if not any(t <= s and b <= a and (t, b) != (s, a) for t, b in points)
    ]


def _height(names: Sequence[str], between: float) -> float:
    """Return the inches that rows need, all as high as the highest."""
    return len(names) * (between + 0.14 * max(1 + name.count("\n") for name in names))


def _list(axes: Axes, names: Sequence[str], front: Sequence[int]) -> None:
    """Write the recipes with their numbers, those of the front in bold."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    for i, name in enumerate(names):
        weight = "bold" if i in front else "normal"
        axes.text(0.04, i, str(i + 1), ha="right", va="center", weight=weight, size=8)
        axes.text(0.06, i, name, va="center", size=8)


def _number_points(figure: Figure, axes: Axes, points: np.ndarray) -> None:
    """Write each point's number at the nearest place that is free."""
    FigureCanvasAgg(figure).draw()  # the layout decides where the points lie
    pixels = axes.transData.transform(points)
    unit = figure.dpi / 72
    inside = axes.get_window_extent()
    taken = [
        Bbox.from_bounds(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit)
        for x, y in pixels
    ]
    for i, (x, y) in enumerate(pixels):
        wide, high = (7 if i < 9 else 13) * unit, 10 * unit
        for step in range(400):
            far = (9 + step // 16 * 3) * unit
            angle = np.pi / 4 + 2 * np.pi * (step % 16) / 16
            left = x + far * np.cos(angle) - wide / 2
            low = y + far * np.sin(angle) - high / 2
            box = Bbox.from_bounds(left, low, wide, high)
            free = not any(box.overlaps(other) for other in taken)
            if (
                free
                and inside.containsx(left)
                and inside.containsx(left + wide)
                and (inside.containsy(low) and inside.containsy(low + high))
            ):
                break
        taken.append(box)
        beside = (box.x0 + box.x1) / 2 - x, (box.y0 + box.y1) / 2 - y
        offset = {
            "xy": points[i],
            "xytext": (beside[0] / unit, beside[1] / unit),
            "textcoords": "offset points",
            "ha": "center",
            "va": "center",
            "size": 8,
        }
        if step >= 32:  # too far to be taken for the point's without a line
            line = {"arrowstyle": "-", "lw": 0.5, "color": GREY}
            axes.annotate("", **offset, arrowprops=line, zorder=1)
        halo = {"fc": "white", "ec": "none", "pad": 0.3}
        axes.annotate(str(i + 1), **offset, bbox=halo if step >= 32 else None)
