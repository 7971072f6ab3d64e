"""Pictures of a run: plain dictionaries, lists and arrays in, PNG or SVG out.

Every function writes its picture to `path` (as SVG where the name ends so) and
returns the Matplotlib figure it drew. Colors are Okabe and Ito's, and nothing is
told by color alone. No pyplot: nothing global stays changed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import matplotlib
import numpy as np
from matplotlib import colors, font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextToPath
from PIL import Image

from kcnn.files import replacing

Rows = Sequence[Mapping[str, Any]]
Path = str | os.PathLike

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#BBBBBB"

# Tried after DejaVu Sans, which Matplotlib brings and which has no CJK.
_MORE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Droid Sans Fallback",
    "WenQuanYi Zen Hei",
    "IPAGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Noto Emoji",
)
_NAMED_CLASSES = 50  # beyond, a confusion matrix has no room for names
_WRITTEN_CLASSES = 20  # beyond, a confusion matrix has no room for numbers
_VISIBLE_CELLS = 200  # beyond, a cell is too small to be seen without a dot on it
_LISTED_CLASSES = 30  # beyond, only the worst classes are listed
_GALLERY = 25


@contextlib.contextmanager
def drawing(
    path: Path, size: tuple[float, float], layout: Any = "constrained"
) -> Iterator[Figure]:
    """Give a figure of `size` inches to draw on; write it when the block ends well."""
    style: Any = {
        "font.family": list(_fonts()),
        "font.size": 9.0,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#DDDDDD",
        "hatch.linewidth": 0.6,
        "text.parse_math": False,  # a class may be called "$5"
        "svg.hashsalt": "kcnn",  # the same picture gives the same file
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, dpi=150, layout=layout)
        yield figure
        with replacing(path) as file:
            if os.fspath(path).lower().endswith(".svg"):
                figure.savefig(file, format="svg", metadata={"Date": None})
            else:
                _write_png(figure, file)


def _write_png(figure: Figure, file: BinaryIO) -> None:
    """Write a figure as PNG, with a palette where it holds no photographs."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if image.getcolors(8192):  # a third of the size
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True, dpi=(figure.dpi, figure.dpi))


@functools.cache
def _fonts() -> tuple[str, ...]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return "DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)


@functools.cache
def _glyphs() -> frozenset[int]:
    paths = map(font_manager.findfont, _fonts())
    return frozenset().union(*(font_manager.get_font(p).get_charmap() for p in paths))


def fit(text: object, points: float, size: float = 9.0) -> str:
    """Return a text that is at most `points` wide in a font of `size` points.

    Characters that no installed font has become a box; what is too long loses its
    middle, so that names that differ only at their end stay apart.
    """
    whole = "".join(c if ord(c) in _glyphs() else "\u25a1" for c in str(text))
    shown, keep = whole, len(whole)
    while keep > 1 and _width(shown, size) > points:
        keep -= 1
        shown = f"{whole[: (keep + 1) // 2]}…{whole[len(whole) - keep // 2 :]}"
    return shown


def _width(text: str, size: float) -> float:
    """Return how wide a text is, in points, in a font of `size` points."""
    font = font_manager.FontProperties(family=list(_fonts()), size=size)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


def _column(rows: Rows, key: str) -> np.ndarray:
    """Return a column as floats; NaN where a row has None or lacks it."""
    cells = (row.get(key) for row in rows)
    return np.array([math.nan if c is None else float(c) for c in cells])


def learning_curves(rows: Rows, path: Path) -> Figure:
    """Draw loss, accuracy and learning rate over the epochs.

    Args:
        rows: one an epoch: epoch, loss, accuracy, val_loss, val_accuracy (these two
            None or missing without validation), learning_rate. Accuracies in [0, 1].
        path: where to write it.
    """
    epochs = _column(rows, "epoch")
    validation = _column(rows, "val_accuracy")
    with drawing(path, (6.4, 7.4)) as figure:
        loss, accuracy, rate = figure.subplots(
            3, 1, sharex=True, height_ratios=(4, 4, 2)
        )
        _curves(loss, rows, "loss", 1)
        _curves(accuracy, rows, "accuracy", 100)
        marker = "o" if len(rows) == 1 else ""
        rate.plot(epochs, _column(rows, "learning_rate"), "k-", marker=marker)
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
        rate.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        rate.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
        figure.align_ylabels()
        handles, labels = accuracy.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", frameon=False)
    return figure


def _curves(axes: Axes, rows: Rows, key: str, scale: float) -> None:
    """Draw one measure on the training and, where there is one, validation split."""
    epochs = _column(rows, "epoch")
    train, validation = (scale * _column(rows, k) for k in (key, f"val_{key}"))
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
        _log_scale(axes)


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1,) if high > 200 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


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
    size = 9.0 if classes <= _WRITTEN_CLASSES else 6.5
    labels = [fit(name, 130, size) for name in class_names[: _NAMED_CLASSES + 1]]
    longest = max(_width(label, size) for label in labels) / 72
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
        _class_ticks(axes, labels, size)
        if classes <= _WRITTEN_CLASSES:
            _write_cells(axes, values, normalize, errors)
    return figure


def _flat(color: str) -> colors.Colormap:
    return colors.ListedColormap([color])


def _error_colors() -> colors.Colormap:
    """Return light orange to dark brown: even one error stands out from white."""
    shades = matplotlib.colormaps["YlOrBr"](np.linspace(0.2, 1, 256))
    return colors.ListedColormap(shades)


def _class_ticks(axes: Axes, labels: list[str], size: float) -> None:
    """Label the classes by name or, where there are too many, by index."""
    if len(labels) > _NAMED_CLASSES:
        axes.set(xlabel="predicted class (index)", ylabel="true class (index)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(10, integer=True))
        return
    upright = any(_width(label, size) > 26 for label in labels)
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
            percent = 100 * _column(shown, key)
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


def reliability(bins: Rows, expected_calibration_error: float, path: Path) -> Figure:
    """Draw how often the model is right against how sure it is.

    Args:
        bins: low, high, n, confidence (mean), accuracy; the last two are not read
            where n is 0. All but n in [0, 1].
        expected_calibration_error: in [0, 1]; written above.
        path: where to write it.
    """
    full = [row for row in bins if row["n"]]
    middle = np.array([50 * (row["low"] + row["high"]) for row in full])
    width = np.array([100 * (row["high"] - row["low"]) for row in full])
    sure, right = 100 * _column(full, "confidence"), 100 * _column(full, "accuracy")
    below, above = _wilson(right / 100, _column(full, "n"))
    with drawing(path, (5.6, 6.4)) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
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
        top.set(xlim=(0, 100), ylim=(0, 102), ylabel="accuracy (%)")
        title = f"expected calibration error {100 * expected_calibration_error:.2f} %"
        figure.legend(loc="outside upper center", ncols=2, frameon=False, title=title)
        counts = _column(full, "n")
        bottom.bar(middle, counts, width, color=GREY, ec="black", lw=0.6)
        bottom.set(xlabel="confidence: probability of the predicted class (%)")
        if counts.size and counts.max() > 30 * counts.min():
            _log_scale(bottom)
            bottom.set(ylabel="images (log scale)", ylim=(0.7, None))
        else:
            bottom.set(ylabel="images")
        figure.align_ylabels()
    return figure


def _wilson(part: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95% interval of a proportion (JASA 22, 1927)."""
    z = 1.959964
    center = (part + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(part * (1 - part) / n + z**2 / (4 * n**2))
    return np.minimum(center - half, part), np.maximum(center + half, part)


def mistakes(items: Rows, path: Path, tested: int | None = None) -> Figure:
    """Show up to 25 wrong predictions, the most certain first.

    Args:
        items: image (height, width, 1 or 3) uint8, true, predicted, probability (of
            the predicted class, in [0, 1]) and name.
        path: where to write it.
        tested: number of test images, for the title.
    """
    worst = sorted(items, key=lambda item: -item["probability"])[:_GALLERY]
    of = "the test images" if tested is None else f"the {tested:,} test images"
    if not worst:
        with drawing(path, (6.4, 1.2)) as figure:
            figure.text(
                0.5, 0.5, f"no mistakes on {of}", ha="center", va="center", fontsize=14
            )
        return figure
    captions = [
        "\n".join(
            (
                fit(f"is {item['true']}", 86, 7.5),
                fit(f"said {item['predicted']}", 52, 7.5)
                + f" ({100 * item['probability']:.0f} %)",
                fit(item["name"], 86, 7.5),
            )
        )
        for item in worst
    ]
    title = f"the {len(worst)} mistakes on {of}, the most certain first"
    if len(worst) == 1:
        title = f"the only mistake on {of}"
    elif len(worst) == _GALLERY:  # perhaps not all of them were given
        title = f"the {_GALLERY} most certain mistakes on {of}"
    images = [np.asarray(item["image"]) for item in worst]
    return _gallery(images, captions, path, title)


def image_grid(images: Any, labels: Sequence[str], path: Path) -> Figure:
    """Show up to 25 images as the network sees them.

    Args:
        images: (n, height, width, 1 or 3) floats of any range; the smallest value of
            all becomes black and the largest white.
        labels: one an image.
        path: where to write it.
    """
    shown = np.asarray(images, dtype=float)[:_GALLERY]
    low, high = float(shown.min()), float(shown.max())
    scaled = np.round(255 * (shown - low) / ((high - low) or 1.0)).astype(np.uint8)
    captions = [fit(label, 86, 7.5) for label in labels[:_GALLERY]]
    title = (
        f"training images as the network sees them: {low:.3g} black, {high:.3g} white"
    )
    return _gallery(list(scaled), captions, path, title)


def _gallery(
    images: list[np.ndarray], captions: list[str], path: Path, title: str
) -> Figure:
    """Lay uint8 images out in rows of five, each under its caption."""
    columns = min(5, len(images))
    rows = math.ceil(len(images) / 5)
    lines = 1 + max(caption.count("\n") for caption in captions)
    aspect = np.clip(max(len(i) / len(i[0]) for i in images), 0.4, 1.6)
    size = (
        max(1.36 * columns, 5.2),
        0.35 + rows * (1.25 * float(aspect) + 0.15 * lines),
    )
    with drawing(path, size) as figure:
        figure.suptitle(title, fontsize=9)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, caption in zip(grid.flat, images, captions, strict=False):
            grey = image.shape[-1] == 1
            axes.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(caption, fontsize=7.5, pad=2)
    return figure
