"""Picture of the difference of two confusion matrices; see plots.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from kcnn.canvas import Path, drawing, fit, width, wrap
from kcnn.plots import NAMED_CLASSES, WRITTEN_CLASSES, class_ticks


def confusion_difference(
    difference: Any, class_names: Sequence[str], names: tuple[str, str], path: Path
) -> Figure:
    """Draw where A's confusion matrix holds more images than B's, and where fewer.

    Purple and + is more by A, orange and - more by B (ColorBrewer's PuOr, which the
    color-blind tell apart). The diagonal is framed: more is better there, and worse
    off it.

    Args:
        difference: (classes, classes) images, A less B; rows are the true classes.
        class_names: one a class.
        names: of A and B.
        path: where to write it.
    """
    values = np.asarray(difference, dtype=float)
    classes = len(values)
    most = float(np.abs(values).max())
    side = float(np.clip(0.46 * classes, 3.2, 7.8))
    size = 9.0 if classes <= WRITTEN_CLASSES else 6.5
    labels = [fit(name, 130, size) for name in class_names[: NAMED_CLASSES + 1]]
    longest = max(width(label, size) for label in labels) / 72
    wide = side + longest + 1.8
    title = "\n".join(
        wrap(f"{sign} {text}: {name}", 72 * (wide - 0.7), 9, 2)
        for sign, text, name in zip("+\u2212", ("A", "B"), names, strict=True)
    )
    high = side + longest + 1 + 0.15 * (1 + title.count("\n"))
    with drawing(path, (wide, high)) as figure:
        figure.suptitle(title, fontsize=9, ha="left", x=0.02)
        axes = figure.subplots()
        axes.spines[:].set_visible(True)
        if most:
            image = axes.imshow(
                np.ma.masked_equal(values, 0),
                cmap=matplotlib.colormaps["PuOr"],
                norm=colors.Normalize(-most, most),
            )
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.set_label("test images: more by A (+)\nor by B (\u2212); white: equal")
        else:
            axes.imshow(np.ones((classes, classes, 3)))
            axes.set_title("no difference in any cell", fontsize=9)
        for place in range(classes):
            corner = place - 0.5, place - 0.5
            frame = matplotlib.patches.Rectangle(corner, 1, 1, fill=False, lw=0.8)
            axes.add_patch(frame)
        class_ticks(axes, labels, size)
        if classes <= WRITTEN_CLASSES:
            for (row, place), value in np.ndenumerate(values):
                if value:
                    dark = abs(value) > 0.6 * most
                    axes.text(
                        place,
                        row,
                        signed(value),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "black",
                    )
    return figure


def signed(value: float) -> str:
    """Write a difference with its sign in few digits: +3, −0.7, +0.03."""  # noqa: RUF002
    size = abs(value)
    if size >= 9.95 or size == round(size):
        text = f"{value:+.0f}"
    else:
        text = f"{value:+.1f}" if size >= 0.05 else f"{value:+.1g}"
    return text.replace("-", "\u2212")
