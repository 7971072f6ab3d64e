"""Galleries of images: mistakes, disagreements, and the training images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kcnn.canvas import Path, Rows, drawing, fit, wrap

_GALLERY = 25
_COLUMNS = 5
_LINE, _GAP = 0.15, 0.1  # of a text, and between images: inches


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


def disagreements(
    items: Rows, path: Path, names: tuple[str, str], counts: Mapping[str, int]
) -> Figure:
    """Show images of which two models say different things, in the order given.

    Args:
        items: up to 25, each with image (height, width, 1 or 3) uint8, true, a and b
            (the class that A and B say), probability_a and probability_b (in [0, 1])
            and name.
        path: where to write it.
        names: of the models A and B.
        counts: how many of all test images only_a and only_b have right, and how many
            neither.
    """
    captions = [
        "\n".join(
            (
                fit(f"is {item['true']}", 86, 7.5),
                _said("A", item, "a"),
                _said("B", item, "b"),
                fit(item["name"], 86, 7.5),
            )
        )
        for item in items
    ]
    lines = [
        wrap(f"{x}: {name}", 430, 9, 2) for x, name in zip("AB", names, strict=True)
    ]
    lines.append(
        f"only A right: {counts['only_a']:,}   only B right: {counts['only_b']:,}   "
        f"both wrong, each in its way: {counts['neither']:,}"
    )
    images = [np.asarray(item["image"]) for item in items]
    return _gallery(images, captions, path, "\n".join(lines))


def _said(model: str, item: Mapping[str, Any], key: str) -> str:
    right = "\u2713" if item[key] == item["true"] else "\u2717"
    said = fit(f"{model} {right} {item[key]}", 56, 7.5)
    return f"{said} ({100 * item[f'probability_{key}']:.0f} %)"


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
    """Lay uint8 images out in rows of five, each under its caption.

    All on one pair of axes, in inches: a pair for each image takes twice as long.
    """
    columns, rows = min(_COLUMNS, len(images)), math.ceil(len(images) / _COLUMNS)
    header = 0.2 + _LINE * (1 + title.count("\n"))
    text = _LINE * (1 + max(caption.count("\n") for caption in captions))
    aspect = np.clip(max(len(i) / len(i[0]) for i in images), 0.4, 1.6)
    width = max(1.36 * columns, 6.2)
    column, row = width / columns, text + 1.25 * float(aspect)
    height = header + row * rows
    with drawing(path, (width, height), layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.text(width / 2, height - 0.07, title, ha="center", va="top", fontsize=9)
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            down, across = divmod(place, _COLUMNS)
            center, top = (across + 0.5) * column, height - header - down * row - text
            axes.text(
                center, top + 0.04, caption, ha="center", va="bottom", fontsize=7.5
            )
            _show(axes, image, center, top, (column - _GAP, row - text - _GAP))
    return figure


def _show(
    axes: Axes, image: np.ndarray, center: float, top: float, room: tuple[float, float]
) -> None:
    """Show an image as large as the room's width and height allow."""
    high, wide, channels = image.shape
    scale = min(room[0] / wide, room[1] / high)
    left, right = center - scale * wide / 2, center + scale * wide / 2
    axes.imshow(
        image[..., 0] if channels == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, right, top - scale * high, top),
        aspect="auto",
    )
