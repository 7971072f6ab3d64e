"""What every picture is drawn on: a figure that is written whole, fonts, colors."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import matplotlib
import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextToPath
from PIL import Image

from kcnn.files import replacing

Rows = Sequence[Mapping[str, Any]]
Path = str | os.PathLike

# Okabe and Ito's colors, told apart by the color-blind too.
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
    # Level 9, which is `optimize`, takes five times as long for 6% fewer bytes.
    image.save(file, format="png", compress_level=6, dpi=(figure.dpi, figure.dpi))


def floats(rows: Rows, key: str) -> np.ndarray:
    """Return a column as floats; NaN where a row has None or lacks it."""
    cells = (row.get(key) for row in rows)
    return np.array([math.nan if c is None else float(c) for c in cells])


def log_scale(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Set an axis to a log scale with a few plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    subs = (1,) if high > 200 * low else (1, 2, 5)
    axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


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
    while keep > 1 and width(shown, size) > points:
        keep -= 1
        shown = f"{whole[: (keep + 1) // 2]}…{whole[len(whole) - keep // 2 :]}"
    return shown


def wrap(text: str, points: float, size: float = 9.0, most: int = 3) -> str:
    """Return a text broken at its spaces into at most `most` lines that `fit`."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        full = len(lines) == most
        if lines and (full or width(fit(longer, 9999, size), size) <= points):
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(fit(line, points, size) for line in lines)


def width(text: str, size: float) -> float:
    """Return how wide a text is, in points, in a font of `size` points."""
    font = font_manager.FontProperties(family=list(_fonts()), size=size)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
