"""The picture of a learning curve: plain figures in, PNG or SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kcnn.canvas import BLUE, VERMILION, Path, drawing


def accuracy_by_size(result: Mapping[str, Any], path: Path) -> Figure:
    """Draw train and test accuracy against the number of training images.

    Lines are means over the seeds, bands the deviation, dots single runs; where a power
    law was fitted it is dashed, with what it predicts for twice the data.

    Args:
        result: of `kcnn.learning_curve.learning_curve`.
        path: where to write it.
    """
    with drawing(path, (7.2, 4.6)) as figure:
        axes = figure.subplots()
        _split(axes, result["sizes"], "train", VERMILION, "s:")
        _split(axes, result["sizes"], "test", BLUE, "o-")
        ticks = [row["train_size"] for row in result["sizes"]]
        if result["power_law"]:
            _law(axes, result["power_law"], ticks)
            ticks.append(result["power_law"]["predicted_size"])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.FixedLocator(_apart(ticks)))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
        axes.grid(True)
        axes.set_xlabel("training images (log scale)")
        axes.set_ylabel("accuracy (%)")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _split(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    split: str,
    color: str,
    style: str,
) -> None:
    sizes = [row["train_size"] for row in rows]
    mean = 100 * np.array([row[f"{split}_accuracy"] for row in rows])
    spread = 100 * np.array([row[f"{split}_deviation"] or 0.0 for row in rows])
    runs = [
        (row["train_size"], 100 * run[f"{split}_accuracy"])
        for row in rows
        for run in row["runs"]
    ]
    if spread.any():
        high = np.minimum(mean + spread, 100)
        axes.fill_between(sizes, mean - spread, high, color=color, alpha=0.18, lw=0)
    axes.plot(*zip(*runs, strict=True), ".", color=color, ms=4, alpha=0.7)
    label = f"{split}, mean ± deviation" if spread.any() else split
    axes.plot(sizes, mean, style, color=color, ms=5, mfc="white", label=label)


def _law(axes: Axes, law: Mapping[str, Any], sizes: Sequence[int]) -> None:
    predicted = 100 * (1 - law["predicted_error"])
    x = np.geomspace(min(sizes), law["predicted_size"], 200)
    error = law["floor"] + law["scale"] * x ** -law["exponent"]
    axes.plot(x, 100 * (1 - error), "k--", lw=1, label="power law of the test error")
    reach, label = None, "twice the data"
    if law["predicted_interval"]:
        low, high = (100 * (1 - error) for error in law["predicted_interval"][::-1])
        reach = [[max(predicted - low, 0)], [max(high - predicted, 0)]]
        label += ", 95% interval"
    axes.errorbar(
        law["predicted_size"],
        predicted,
        yerr=reach,
        fmt="kD",
        ms=5,
        capsize=4,
        label=label,
    )


def _apart(sizes: Sequence[int]) -> list[int]:
    """Return the sizes whose numbers do not run into each other, the largest first."""
    kept: list[int] = []
    span = np.log(max(sizes) / min(sizes)) or 1.0
    for size in sorted(sizes, reverse=True):
        if not kept or np.log(kept[-1] / size) > 0.07 * span:
            kept.append(size)
    return kept
