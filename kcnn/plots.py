"""Pictures of a run's figures: plain dictionaries and arrays in, PNG or SVG out.

Every function writes its picture to `path` (as SVG where the name ends so) and
returns the Matplotlib figure it drew. Nothing is told by color alone. No pyplot:
nothing global stays changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kcnn.canvas import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    Path,
    Rows,
    drawing,
    fit,
    floats,
    log_scale,
)
from kcnn.canvas import width as text_width
from kcnn.statistics import wilson_interval

NAMED_CLASSES = 50  # beyond, a confusion matrix has no room for names
WRITTEN_CLASSES = 20  # beyond, a confusion matrix has no room for numbers
_VISIBLE_CELLS = 200  # beyond, a cell is too small to be seen without a dot on it
_LISTED_CLASSES = 30  # beyond, only the worst classes are listed


def learning_curves(
    rows: Rows, path: Path, learning_rates: Sequence[tuple[float, float]] = ()
) -> Figure:
    """Draw loss, accuracy and learning rate over the epochs.

    Args:
        rows: one an epoch: epoch, loss, accuracy, val_loss, val_accuracy (these two
            None or missing without validation), learning_rate. Accuracies in [0, 1].
        path: where to write it.
        learning_rates: epochs done and learning rate, finer than the rows.
    """
    epochs = floats(rows, "epoch")
    validation = floats(rows, "val_accuracy")
    with drawing(path, (6.4, 7.4)) as figure:
        loss, accuracy, rate = figure.subplots(
            3, 1, sharex=True, height_ratios=(4, 4, 2)
        )
        _curves(loss, rows, "loss", 1)
        _curves(accuracy, rows, "accuracy", 100)
        if learning_rates:
            rate.plot(*zip(*learning_rates, strict=True), "k-")
        else:
            marker = "o" if len(rows) == 1 else ""
            rate.plot(epochs, floats(rows, "learning_rate"), "k-", marker=marker)
        if np.isfinite(validation).any():
            best = int(np.nanargmax(validation))
            for axes in (loss, accuracy, rate):
                axes.axvline(epochs[best], color="black", ls=":", lw=1)
            accuracy.plot(
                epochs[best],
                100 * validation[best],
                "*",
                ms=13,
                color="black",
                label=f"best validation accuracy: {validation[best]:.2%}, "
                f"epoch {epochs[best]:.0f}",
            )
        for axes, name in (
            (loss, "loss (cross-entropy)"),
            (accuracy, "accuracy (%)"),
            (rate, "learning rate"),
        ):
            axes.set_ylabel(name)
            axes.grid(True)
        rate.set_xlabel("epoch")
        rate.set_ylim(bottom=0)
        first = 0 if learning_rates else epochs[0] - 0.5
        rate.set_xlim(first, epochs[-1] + 0.5)
        rate.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
        figure.align_ylabels()
        handles, labels = accuracy.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", frameon=False)
    return figure


def _curves(axes: Axes, rows: Rows, key: str, scale: float) -> None:
    """Draw one measure on the training and, where there is one, validation split."""
    epochs = floats(rows, "epoch")
    train, validation = (scale * floats(rows, k) for k in (key, f"val_{key}"))
    every = max(1, len(rows) // 20)  # markers that do not run into each other
    axes.plot(
        epochs,
        train,
        "--o",
        color=VERMILION,
        ms=5,
        mfc="white",
        markevery=every,
        label="training: running average during the epoch, dropout on",
    )
    if np.isfinite(validation).any():
        axes.plot(
            epochs,
            validation,
            "-s",
            color=BLUE,
            ms=4,
            markevery=every,
            label="validation: after the epoch, dropout off",
        )
    both = np.concatenate([train, validation])
    both = both[np.isfinite(both)]
    if key == "loss" and both.size and both.min() > 0 and both.max() > 30 * both.min():
        log_scale(axes)


def confusion_matrix(
    matrix: Any, class_names: Sequence[str], path: Path, normalize: bool = False
) -> Figure:
    """Draw which class is taken for which.

    The diagonal is grey, so that the colors are left for the errors.

    Args:
        matrix: (classes, classes) counts; rows are the true classes.
        class_names: one a class.
        path: where to write it.
        normalize: show percent of each row instead of counts.
    """
    values = np.asarray(matrix, dtype=float)
    classes = len(values)
    unit = "images"
    if normalize:
        totals = values.sum(axis=1, keepdims=True)
        values = 100 * values / np.where(totals == 0, 1, totals)
        unit = "% of the images of the true class"
    diagonal = np.eye(classes, dtype=bool)
    errors = np.ma.masked_where(diagonal | (values == 0), values)
    side = float(np.clip(0.42 * classes, 2.8, 7.4))
    size = 9.0 if classes <= WRITTEN_CLASSES else 6.5
    labels = [fit(name, 130, size) for name in class_names[: NAMED_CLASSES + 1]]
    longest = max(text_width(label, size) for label in labels) / 72
    with drawing(path, (side + longest + 1.8, side + longest + 0.9)) as figure:
        axes = figure.subplots()
        axes.spines[:].set_visible(True)
        axes.imshow(np.ma.masked_where(~diagonal, diagonal), cmap=_flat("#D9D9D9"))
        if errors.count():
            norm = colors.PowerNorm(0.5, vmin=0, vmax=errors.max())
            image = axes.imshow(errors, cmap=_error_colors(), norm=norm)
            if classes > _VISIBLE_CELLS:
                rows, columns = np.nonzero(errors.filled(0))
                shades = errors[rows, columns]
                axes.scatter(
                    columns, rows, 2, shades, marker="s", cmap=image.cmap, norm=norm
                )
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.set_label(f"errors: {unit}\n(grey diagonal: right; white: none)")
            if not normalize:
                bar.ax.yaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        else:
            axes.set_title("no errors")
        class_ticks(axes, labels, size)
        if classes <= WRITTEN_CLASSES:
            _write_cells(axes, values, normalize, errors)
    return figure


def _flat(color: str) -> colors.Colormap:
    return colors.ListedColormap([color])


def _error_colors() -> colors.Colormap:
    """Return light orange to dark brown: even one error stands out from white."""
    shades = matplotlib.colormaps["YlOrBr"](np.linspace(0.2, 1, 256))
    return colors.ListedColormap(shades)


def class_ticks(axes: Axes, labels: list[str], size: float) -> None:
    """Label the classes by name or, where there are too many, by index."""
    if len(labels) > NAMED_CLASSES:
        axes.set(xlabel="predicted class (index)", ylabel="true class (index)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(10, integer=True))
        return
    upright = any(text_width(label, size) > 26 for label in labels)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(places, labels, fontsize=size)
    axes.tick_params(length=2)
    axes.set(xlabel="predicted class", ylabel="true class")


def _write_cells(
    axes: Axes, values: np.ndarray, normalize: bool, errors: np.ma.MaskedArray
) -> None:
    """Write each value that is not zero into its cell."""
    dark = 0.35 * errors.max() if errors.count() else math.inf
    for (row, column), value in np.ndenumerate(values):
        if value == 0:
            continue
        text = f"{value:.0f}"
        if normalize and value < 100:
            text = f"{value:.1f}" if value >= 0.05 else "<0.1"
        right = row == column
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            weight="bold" if right else "normal",
            color="white" if value > dark and not right else "black",
        )


def per_class(rows: Rows, path: Path) -> Figure:
    """Draw precision, recall and F1 of each class, or of the 30 worst by F1.

    Args:
        rows: one a class: name, precision, recall, f1 (in [0, 1]), support (images).
        path: where to write it.
    """
    shown = rows
    if len(rows) > _LISTED_CLASSES:
        shown = sorted(rows, key=lambda row: row["f1"])[:_LISTED_CLASSES]
    with drawing(path, (6.4, 1.3 + 0.27 * len(shown))) as figure:
        axes = figure.subplots()
        places = np.arange(len(shown))
        for place in places[::2]:
            axes.axhspan(place - 0.5, place + 0.5, color="#F2F2F2", lw=0)
        lowest = 100.0
        for key, name, marker, color, shift in (
            ("precision", "precision", ">", ORANGE, -0.22),
            ("f1", "F1", "D", "black", 0.0),
            ("recall", "recall", "o", BLUE, 0.22),
        ):
            percent = 100 * floats(shown, key)
            lowest = min(lowest, float(np.nanmin(percent)))
            axes.plot(
                percent,
                places + shift,
                marker,
                color=color,
                mfc=color if key == "f1" else "white",
                ms=4.5,
                label=name,
            )
        left = 0 if lowest < 50 else math.floor(lowest - 0.02 * (100 - lowest)) - 1
        axes.set_xlim(left, 100 + 0.02 * (100 - left))
        axes.set_ylim(len(shown) - 0.5, -0.5)
        names = [
            fit(row["name"], 150, 8) + f"  (n={row['support']:,})" for row in shown
        ]
        axes.set_yticks(places, names, fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        note = f" (the axis starts at {left} %, not at 0)" if left else ""
        axes.set_xlabel(f"percent{note}")
        axes.set_ylabel(
            "class"
            if len(shown) == len(rows)
            else f"the {len(shown)} classes of {len(rows):,} with the lowest F1"
        )
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def reliability(
    bins: Rows,
    expected_calibration_error: float,
    path: Path,
    before: Mapping[str, Any] | None = None,
) -> Figure:
    """Draw how often the model is right against how sure it is.

    Args:
        bins: low, high, n, confidence (mean), accuracy; the last two are not read
            where n is 0. All but n in [0, 1].
        expected_calibration_error: in [0, 1]; written above.
        path: where to write it.
        before: reliability (such bins) and expected_calibration_error before a
            temperature was fitted, drawn to the left.
    """
    columns = [("", bins, expected_calibration_error)]
    if before:
        error = before["expected_calibration_error"]
        columns.insert(0, ("before: ", before["reliability"], error))
        columns[1] = ("after: ", *columns[1][1:])
    with drawing(path, (8.8 if before else 5.6, 6.4)) as figure:
        grid = figure.subplots(
            2,
            len(columns),
            sharex=True,
            sharey="row",
            height_ratios=(3, 1),
            squeeze=False,
        )
        for (top, bottom), (when, rows, error) in zip(grid.T, columns, strict=True):
            _reliability(top, bottom, [row for row in rows if row["n"]])
            top.set_title(
                f"{when}expected calibration error {100 * error:.2f} %", fontsize=9
            )
        counts = [row["n"] for _, rows, _ in columns for row in rows if row["n"]]
        grid[0, 0].set(ylabel="accuracy (%)")
        if counts and max(counts) > 30 * min(counts):
            log_scale(grid[1, 0])
            grid[1, 0].set(ylabel="images (log scale)", ylim=(0.7, None))
        else:
            grid[1, 0].set(ylabel="images")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2, frameon=False
        )
        figure.align_ylabels()
    return figure


def _reliability(top: Axes, bottom: Axes, full: Rows) -> None:
    """Draw one column: accuracy above, number of images below, for filled bins."""
    middle = np.array([50 * (row["low"] + row["high"]) for row in full])
    width = np.array([100 * (row["high"] - row["low"]) for row in full])
    sure, right = 100 * floats(full, "confidence"), 100 * floats(full, "accuracy")
    counts = floats(full, "n")
    hits = np.rint(right / 100 * counts).astype(int)
    interval = np.array(
        [wilson_interval(k, int(n)) for k, n in zip(hits, counts, strict=True)]
    )
    below, above = interval.reshape(-1, 2).T
    top.bar(middle, right, width, color=SKY, ec="white", label="accuracy")
    top.bar(
        middle,
        np.abs(sure - right),
        0.6 * width,
        np.minimum(sure, right),
        color="none",
        ec=VERMILION,
        hatch="////",
        label="gap to the mean confidence",
    )
    top.errorbar(
        middle,
        right,
        (right - 100 * below, 100 * above - right),
        fmt="none",
        ecolor="black",
        capsize=2,
        lw=1,
        label="95% interval of the accuracy",
    )
    top.plot([0, 100], [0, 100], "k--", lw=1, label="perfectly calibrated")
    top.set(xlim=(0, 100), ylim=(0, 102))
    bottom.bar(middle, counts, width, color=GREY, ec="black", lw=0.6)
    bottom.set(xlabel="confidence: probability of the predicted class (%)")
