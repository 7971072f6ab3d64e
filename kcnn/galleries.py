"""Galleries of images: mistakes, disagreements, and the training images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kcnn.canvas import Path, Rows, drawing, fit, wrap

_GALLERY = 25


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
    """Lay uint8 images out in rows of five, each under its caption."""
    columns = min(5, len(images))
    rows = math.ceil(len(images) / 5)
    lines = 1 + max(caption.count("\n") for caption in captions)
    aspect = np.clip(max(len(i) / len(i[0]) for i in images), 0.4, 1.6)
    size = (
        max(1.36 * columns, 5.2),
        0.2
        + 0.15 * (1 + title.count("\n"))
        + rows * (1.25 * float(aspect) + 0.15 * lines),
    )
    with drawing(path, size) as figure:
        figure.suptitle(title, fontsize=9)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, caption in zip(grid.flat, images, captions, strict=False):
            grey = image.shape[-1] == 1
            axes.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=255)
            # Without y Matplotlib looks for ticks to avoid, for half a second in all.
            axes.set_title(caption, fontsize=7.5, pad=2, y=1)
    return figure
