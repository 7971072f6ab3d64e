"""A network drawn as a picture, without Graphviz.

Maps of features are boxes: as high as the map's side, as wide as it has channels,
both on a log scale. What keeps no weights worth a box of its own (dropout, activation,
preprocessing ...) is a thin upright slip. Rows wrap, and text is fitted to its place.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.patheffects import withStroke

from kcnn import canvas

# What a kind of layer belongs to, by the first of these words in its name:
# group, color, hatch, whether it is a slip.
_GROUPS: tuple[tuple[tuple[str, ...], str, str, str, bool], ...] = (
    (("Input",), "input", "#FFFFFF", "", False),
    (("Conv",), "convolution", canvas.SKY, "", False),
    (("Pool",), "pooling", canvas.YELLOW, "---", False),
    (("Dense",), "dense", canvas.GREEN, "///", False),
    (("Norm", "Standard"), "normalization", canvas.ORANGE, "\\\\\\", True),
    (
        ("Dropout", "Cutout", "Random"),
        "random, in training only",
        canvas.PURPLE,
        "...",
        True,
    ),
    (("Rescal", "Resiz"), "rescaling", "#E5E5E5", "|||", True),
    (("Flatten", "Reshape", "Padding"), "reshaping", canvas.GREY, "xxx", True),
    (
        ("Activation", "ReLU", "ELU", "Softmax", "GELU", "SiLU", "Tanh", "Sigmoid"),
        "activation",
        canvas.VERMILION,
        "",
        True,
    ),
    (("",), "other", "#F5F5F5", "++", True),
)

# Everything in inches.
_ROW_WIDTH = 9.6
_BOX_COLUMN, _SLIP_COLUMN = 1.34, 0.62
_BOX_ZONE, _TEXT_ZONE, _ROW_GAP = 1.7, 0.8, 0.2
_SLIP = (0.36, 1.5)
_TEXT = 7.5  # points
_HALO = [withStroke(linewidth=2.5, foreground="white")]


@dataclasses.dataclass(frozen=True)
class _Block:
    layer: Mapping[str, Any]
    group: str
    color: str
    hatch: str
    slip: bool

    @property
    def column(self) -> float:
        return _SLIP_COLUMN if self.slip else _BOX_COLUMN

    @property
    def shape(self) -> str:
        return "\u00d7".join(str(n) for n in self.layer["output_shape"])

    @property
    def face(self) -> tuple[float, float, float]:
        """Width, height and depth of the box."""
        if self.slip:
            return *_SLIP, 0.0
        *sides, channels = self.layer["output_shape"] or (1,)
        width = min(0.1 + 0.055 * math.log2(max(channels, 1)), 0.75)
        if not sides:  # a vector: its length upright
            return 0.14, min(0.25 + 0.11 * math.log2(max(channels, 1)), 1.45), 0.0
        height = min(0.2 + 0.12 * math.log2(max(sides[0], 1)), 1.25)
        return width, height, 0.28 * height


def architecture(layers: canvas.Rows, path: canvas.Path, title: str = "") -> Figure:
    """Draw a network's layers, left to right in rows.

    Args:
        layers: name, kind ("Conv2D"), detail ("32 filters 3x3"), output_shape
            (without the batch), parameters, flops (of one image).
        path: where to write it.
        title: written before the totals.
    """
    blocks = [_block(layer) for layer in layers]
    rows = _wrap(blocks)
    width = max(4.8, *(sum(block.column for block in row) + 0.5 for row in rows))
    pitch = _BOX_ZONE + _TEXT_ZONE + _ROW_GAP
    patches = _legend(blocks)
    columns = max(1, int(width / 1.6))
    header, footer = 0.4, 0.15 + 0.22 * math.ceil(len(patches) / columns)
    height = header + pitch * len(rows) + footer
    with canvas.drawing(path, (width, height), layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.text(
            0.2,
            height - 0.25,
            canvas.fit(_totals(layers, title), 72 * (width - 0.4)),
            va="center",
            weight="bold",
        )
        for number, row in enumerate(rows):
            floor = height - header - pitch * number - _BOX_ZONE
            _draw_row(axes, row, floor, number == 0, number == len(rows) - 1)
        figure.legend(
            handles=patches, loc="lower left", ncols=columns, frameon=False, fontsize=8
        )
    return figure


def _block(layer: Mapping[str, Any]) -> _Block:
    group = next(g for g in _GROUPS if any(word in layer["kind"] for word in g[0]))
    return _Block(layer, *group[1:])


def _wrap(blocks: list[_Block]) -> list[list[_Block]]:
    """Break the blocks into rows of about equal width."""
    total = sum(block.column for block in blocks)
    target = total / max(1, math.ceil(total / (_ROW_WIDTH - _BOX_COLUMN)))
    rows: list[list[_Block]] = [[]]
    filled = 0.0
    for block in blocks:
        if rows[-1] and filled + block.column / 2 > target:
            rows.append([])
            filled = 0.0
        rows[-1].append(block)
        filled += block.column
    return rows


def _totals(layers: canvas.Rows, title: str) -> str:
    parameters = sum(layer["parameters"] for layer in layers)
    flops = sum(layer["flops"] for layer in layers)
    start = f"{title}: " if title else ""
    return (
        f"{start}{_number(len(layers), 'layer')}, {_number(parameters, 'parameter')}, "
        f"{_scaled(flops)}FLOP an image"
    )


def _scaled(number: float) -> str:
    """Write a number with three digits and the prefix of a unit."""
    for power, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g} {prefix}"
    return f"{number:.0f} "


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _legend(blocks: list[_Block]) -> list[Patch]:
    used = {block.group: block for block in blocks}
    return [
        Patch(fc=color, ec="black", lw=0.7, hatch=hatch, label=group)
        for _, group, color, hatch, _ in _GROUPS
        if group in used
    ]


def _draw_row(
    axes: Axes, row: list[_Block], floor: float, first: bool, last: bool
) -> None:
    """Draw blocks side by side, standing around a common middle line."""
    middle = floor + _BOX_ZONE / 2
    x = 0.25
    leave = None if first else 0.06  # where the arrow to the next block starts
    before = ""
    for block in row:
        center = x + block.column / 2
        width, height, depth = block.face
        left, bottom = center - (width + depth) / 2, middle - height / 2
        if leave is not None:
            _arrow(axes, leave, left, middle)
        _draw_box(axes, block, left, bottom)
        if block.slip:
            _write_slip(axes, block, center, middle, block.shape != before)
        else:
            _write_below(axes, block, center, floor)
        before = block.shape
        leave = left + width + 0.5 * depth
        x += block.column
    if not last and leave is not None:
        _arrow(axes, leave, x + 0.2, middle)


def _arrow(axes: Axes, start: float, end: float, y: float) -> None:
    axes.annotate(
        "",
        (end, y),
        (start, y),
        arrowprops={
            "arrowstyle": "-|>",
            "shrinkA": 2,
            "shrinkB": 1,
            "lw": 0.9,
            "color": "black",
            "mutation_scale": 7,
        },
    )


def _draw_box(axes: Axes, block: _Block, left: float, bottom: float) -> None:
    """Draw the front and, where it has a depth, the top and the side of a box."""
    width, height, depth = block.face
    right, top, rise = left + width, bottom + height, 0.6 * depth
    look: Any = {"fc": block.color, "ec": "black", "lw": 0.8}
    if depth:
        back = [(left + depth, top + rise), (right + depth, top + rise)]
        low = (right + depth, bottom + rise)
        axes.add_patch(Polygon([(left, top), *back, (right, top)], **look))
        axes.add_patch(Polygon([(right, top), back[1], low, (right, bottom)], **look))
    axes.add_patch(Rectangle((left, bottom), width, height, hatch=block.hatch, **look))


def _write_below(axes: Axes, block: _Block, center: float, floor: float) -> None:
    """Write kind, detail, shape and parameters under a box."""
    room = 72 * (_BOX_COLUMN - 0.1)
    first, *rest = textwrap.wrap(block.layer["detail"], 21) or [""]
    lines = [block.layer["kind"], first, " ".join(rest), block.shape]
    if block.layer["parameters"]:
        lines.append(_number(block.layer["parameters"], "parameter"))
    for number, line in enumerate(filter(None, lines)):
        axes.text(
            center,
            floor - 0.02 - 0.155 * number,
            canvas.fit(line, room * (0.9 if number == 0 else 1), _TEXT),
            ha="center",
            va="top",
            fontsize=_TEXT,
            weight="bold" if number == 0 else "normal",
        )


def _write_slip(
    axes: Axes, block: _Block, center: float, middle: float, reshaped: bool
) -> None:
    """Write kind and detail along a slip; under it its weights and any new shape."""
    room = 72 * (_SLIP[1] - 0.1)
    for shift, line, weight in (
        (-0.085, block.layer["kind"], "bold"),
        (0.085, block.layer["detail"], "normal"),
    ):
        axes.text(
            center + (shift if block.layer["detail"] else 0),
            middle,
            canvas.fit(line, room * (0.9 if weight == "bold" else 1), _TEXT),
            rotation=90,
            ha="center",
            va="center",
            fontsize=_TEXT,
            weight=weight,
            path_effects=_HALO,
        )
    below = [block.shape] if reshaped else []
    if block.layer["parameters"]:
        below += [f"{block.layer['parameters']:,}", "param."]
    for number, line in enumerate(below):
        axes.text(
            center,
            middle - _SLIP[1] / 2 - 0.07 - 0.155 * number,
            canvas.fit(line, 72 * (_SLIP_COLUMN - 0.02), 6),
            ha="center",
            va="top",
            fontsize=6,
        )
