"""The picture of a learning-rate range test: plain figures in, PNG or SVG out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from kcnn.canvas import BLUE, GREY, VERMILION, Path, drawing, log_scale


def loss_by_rate(result: Mapping[str, Any], path: Path) -> Figure:
    """Draw the raw and the smoothed loss against the learning rate, and the suggestion.

    Args:
        result: of `kcnn.find_lr.result`.
        path: where to write it.
    """
    with drawing(path, (7.2, 4.4)) as figure:
        axes = figure.subplots()
        for i, curve in enumerate(result["curves"]):
            rates, smoothed = curve["rates"], curve["smoothed"]
            prefix = "_" * (i > 0)  # Matplotlib leaves such labels out of the legend
            raw, average = f"{prefix}loss of a step", f"{prefix}smoothed, a line a seed"
            axes.plot(rates, curve["losses"], color=GREY, lw=0.7, label=raw)
            axes.plot(rates, smoothed, color=BLUE, lw=1.6, label=average)
            low = rates.index(result["lowest_at"][i])
            axes.plot(
                rates[low],
                smoothed[low],
                "o",
                color="black",
                mfc="white",
                ms=6,
                zorder=3,
                label=f"{prefix}lowest",
            )
        suggested = result["learning_rate"]
        axes.axvline(
            suggested, color=VERMILION, ls="--", label=f"suggested: {suggested:g}"
        )
        log_scale(axes, "x")
        axes.xaxis.set_major_formatter("{x:.0e}")
        starts = [curve["smoothed"][0] for curve in result["curves"]]
        axes.set_ylim(0, 1.5 * max(starts))  # what explodes leaves the picture
        axes.grid(True)
        axes.set_xlabel("learning rate (log scale)")
        axes.set_ylabel("training loss (nats)")
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure
