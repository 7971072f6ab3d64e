"""A sheet of samples: a row of images for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from kcnn.canvas import Path, drawing, fit

SAMPLES = 10
MOST_ROWS = 40

_SIDE = 96  # pixels of a tile, without the border around it
_BORDER = 3
_INCHES = (_SIDE + 2 * _BORDER) / 150  # of a tile, at the dots an inch of `drawing`
_LEFT = 1.35  # inches for the names
_PAPER = 236  # grey level between the images


def contact_sheet(
    rows: Sequence[tuple[str, Iterable[np.ndarray]]], path: Path
) -> Figure:
    """Draw up to SAMPLES images of each class.

    Args:
        rows: a caption, and (height, width, 3) uint8 images of any sizes. Small ones
            are enlarged by whole numbers, so that their pixels are seen.
        path: where to write it.
    """
    step = _SIDE + 2 * _BORDER
    sheet = np.full((step * len(rows), step * SAMPLES, 3), _PAPER, np.uint8)
    for i, (_, images) in enumerate(rows):
        for j, image in enumerate(images):
            scale = max(1, _SIDE // max(image.shape[:2]))
            image = image.repeat(scale, axis=0).repeat(scale, axis=1)
            top = i * step + (step - image.shape[0]) // 2
            left = j * step + (step - image.shape[1]) // 2
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    width, height = _INCHES * SAMPLES, _INCHES * len(rows)
    with drawing(path, (_LEFT + width, height), layout="none") as figure:
        axes = figure.add_axes((_LEFT / (_LEFT + width), 0, width / (_LEFT + width), 1))
        axes.set_axis_off()
        axes.imshow(sheet, interpolation="none", aspect="auto")
        for i, (caption, _) in enumerate(rows):
            lines = [fit(line, 72 * _LEFT - 12) for line in caption.split("\n")]
            figure.text(
                (_LEFT - 0.08) / (_LEFT + width),
                1 - (i + 0.5) / len(rows),
                "\n".join(lines),
                ha="right",
                va="center",
            )
    return figure
