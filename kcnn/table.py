"""Rows of plain values as text in columns, JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

FORMATS = ("table", "json", "csv")

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def render(
    rows: Sequence[Mapping[str, Any]],
    form: str,
    below: Sequence[str] = (),
    right: Collection[str] = (),
) -> str:
    """Return rows, all with the same keys, in one of FORMATS, or markdown or latex.

    In a table the values under the keys `below` stand in lines of their own beneath
    their row, because they are long. Columns of numbers are set to the right, and so
    are those named in `right`.
    """
    if form == "json":
        return json.dumps(list(rows), indent=2, ensure_ascii=False)
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(
            text, list(rows[0]) if rows else [], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    if not rows:
        return ""
    keys = [key for key in rows[0] if form != "table" or key not in below]
    cells = [keys, *([_text(row[key]) for key in keys] for row in rows)]
    to_right = [
        key in right or all(isinstance(row[key], int | float | None) for row in rows)
        for key in keys
    ]
    if form == "markdown":
        return _markdown(cells, to_right)
    if form == "latex":
        return _latex(cells, to_right)
    lines = _in_columns(cells, to_right)
    return "\n".join(_with_lines_below(lines, rows, below) if below else lines)


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it stands, in a table's cell too."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


def _in_columns(cells: list[list[str]], to_right: list[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_right, strict=True)
        ).rstrip()
        for line in cells
    ]


def _with_lines_below(
    lines: list[str], rows: Sequence[Mapping[str, Any]], below: Sequence[str]
) -> list[str]:
    blocks = [lines[0]]
    for line, row in zip(lines[1:], rows, strict=True):
        blocks += ["", line]
        for key in below:
            blocks += textwrap.wrap(
                str(row[key]),
                88,
                initial_indent="    ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
    return blocks


def _markdown(cells: list[list[str]], to_right: list[bool]) -> str:
    head, *body = [[escape_markdown(cell) for cell in line] for line in cells]
    rule = ["---:" if right else "---" for right in to_right]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _latex(cells: list[list[str]], to_right: list[bool]) -> str:
    columns = "".join("r" if right else "l" for right in to_right)
    head, *body = (
        " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in line) + r" \\"
        for line in cells
    )
    rule = r"\hline"
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, rule, head, rule, *body, rule, end])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("\n", "\\n")
