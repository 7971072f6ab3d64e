"""Pictures of a benchmark: plain figures in, PNG or SVG out.

Sides are told apart by their names beside the rows, never by color alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kcnn.benchmark.figures import runs_of, seconds_until
from kcnn.benchmark.text import accuracy_text, percent, seconds_text
from kcnn.canvas import BLUE, GREY, Path, drawing, fit, log_scale

Row = Mapping[str, Any]
_ROW = 0.27  # inches
_NAME = 190  # points


def speed(record: Mapping[str, Any], rows: Sequence[Row], path: Path) -> Figure:
    """Draw images/s by model and side: bars are medians, dots single rounds.

    Args:
        record: with the runs.
        rows: of `kcnn.benchmark.figures.speed_rows`.
        path: where to write it.
    """

    def draw(axes: Axes, place: int, row: Row) -> None:
        ours = row["side"].startswith("kcnn")
        axes.barh(
            place,
            row["images_per_second"],
            0.62,
            color=BLUE if ours else GREY,
            ec="black",
            lw=0.6,
            hatch="" if ours else "////",
        )
        runs = _runs(record, "speed", row["side"], row["model"])
        speeds = [run["images_per_second"] for run in runs]
        _points(axes, place, speeds)
        text = f"{row['images_per_second']:,.0f}  ({row['roof_part']:.0%} of the roof)"
        _beside(axes, max(speeds), place, text)

    with _panels(path, rows, "model", str, draw) as (figure, all_axes):
        highest = max(run["images_per_second"] for run in _runs(record, "speed"))
        for axes in all_axes:
            axes.set_xlim(0, 1.32 * highest)  # the texts need their place
        all_axes[-1].set_xlabel("images/s in training (bar: median; dots: rounds)")
        all_axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    return figure


def accuracy(record: Mapping[str, Any], rows: Sequence[Row], path: Path) -> Figure:
    """Draw the test accuracy of every seed, and mean and deviation of each side.

    Args:
        record: with the runs.
        rows: of `kcnn.benchmark.figures.speed_rows`.
        path: where to write it.
    """

    def draw(axes: Axes, place: int, row: Row) -> None:
        runs = _runs(record, "speed", row["side"], row["model"])
        mean = 100 * row["accuracy"]
        axes.errorbar(
            mean,
            place,
            xerr=100 * (row["accuracy_deviation"] or 0.0),
            fmt="|",
            color="black",
            ms=13,
            capsize=3,
            lw=1,
        )
        _points(axes, place, [100 * run["accuracy"] for run in runs])
        axes.annotate(
            accuracy_text(row),
            (1.0, place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )

    with _panels(path, rows, "model", str, draw) as (figure, all_axes):
        all_axes[-1].set_xlabel(
            "test accuracy (%) at the end (dots: seeds; line: mean ± deviation)"
        )
        all_axes[-1].margins(x=0.08)
        all_axes[-1].ticklabel_format(axis="x", useOffset=False)
    return figure


def time_to(record: Mapping[str, Any], rows: Sequence[Row], path: Path) -> Figure:
    """Draw the seconds of training until each accuracy is reached.

    Args:
        record: with the runs.
        rows: of `kcnn.benchmark.figures.time_to_rows`.
        path: where to write it.
    """

    def draw(axes: Axes, place: int, row: Row) -> None:
        ours = row["side"].startswith("kcnn")
        runs = _runs(record, "time_to", row["side"])
        found = [seconds_until(run, row["target"]) for run in runs]
        seconds = [s for s in found if s is not None]
        _points(axes, place, seconds)
        if row["seconds"] is not None:
            color = BLUE if ours else "black"
            axes.plot(row["seconds"], place, "|", color=color, ms=16, mew=2.5)
        if seconds:
            _beside(axes, max(seconds), place, seconds_text(row))
        else:
            axes.annotate(
                seconds_text(row),
                (0.0, place),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
                style="italic",
            )

    def title(target: float) -> str:
        return f"{percent(target)} test accuracy"

    with _panels(path, rows, "target", title, draw) as (figure, all_axes):
        ends = [
            s
            for run in _runs(record, "time_to")
            for row in rows
            if (s := seconds_until(run, row["target"])) is not None
        ] or [1.0]
        bottom = all_axes[-1]
        span = max(ends) / min(ends)
        # The texts need their place.
        bottom.set_xlim(0.7 * min(ends), max(ends) * max(4, span**0.6))
        log_scale(bottom, "x")
        bottom.set_xlabel(
            "seconds of training, with building graphs, without evaluation\n"
            "(log scale; line: median; dots: rounds)"
        )
    return figure


@contextlib.contextmanager
def _panels(
    path: Path,
    rows: Sequence[Row],
    key: str,
    title: Callable[[Any], str],
    draw: Callable[[Axes, int, Row], None],
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Draw a panel for each value of rows[key], with a line a side; give the axes."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    lines = [len(group) for group in groups.values()]
    height = _ROW * sum(lines) + 0.45 * len(groups) + 0.7
    with drawing(path, (8.4, height)) as figure:
        all_axes = figure.subplots(
            len(groups), 1, sharex=True, squeeze=False, height_ratios=lines
        )[:, 0]
        for axes, (value, group) in zip(all_axes, groups.items(), strict=True):
            for place, row in enumerate(group):
                draw(axes, place, row)
            names = [fit(row["side"], _NAME) for row in group]
            axes.set_yticks(range(len(group)), names)
            axes.set_ylim(len(group) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.grid(True, axis="x")
            axes.set_title(title(value), loc="left", fontsize=9, fontweight="bold")
        yield figure, list(all_axes)


def _points(axes: Axes, place: int, values: Sequence[float]) -> None:
    """Draw the rounds of a side, and a line from the least to the greatest."""
    if values:
        axes.plot([min(values), max(values)], [place, place], "k-", lw=1)
        axes.plot(
            values,
            [place] * len(values),
            "o",
            color="white",
            mec="black",
            ms=4,
            zorder=3,
        )


def _beside(axes: Axes, x: float, place: int, text: str) -> None:
    axes.annotate(
        text,
        (x, place),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _runs(
    record: Mapping[str, Any], part: str, side: str = "", model: str = ""
) -> list[Row]:
    return [
        run
        for run in runs_of(record, part)
        if side in ("", run["side"]) and model in ("", run["model"])
    ]
