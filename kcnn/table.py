"""Rows of plain values as text in columns, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

FORMATS = ("table", "json", "csv")


def render(
    rows: Sequence[Mapping[str, Any]], form: str, below: Sequence[str] = ()
) -> str:
    """Return rows, all with the same keys, in one of FORMATS.

    In a table the values under the keys `below` stand in lines of their own beneath
    their row, because they are long.
    """
    if form == "json":
        return json.dumps(list(rows), indent=2, ensure_ascii=False)
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\r\n")
    lines = _in_columns([{k: row[k] for k in row if k not in below} for row in rows])
    if not below:
        return "\n".join(lines)
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
    return "\n".join(blocks)


def _in_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a header line and a line a row."""
    if not rows:
        return []
    keys = list(rows[0])
    cells = [keys, *([_text(row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    numeric = [
        all(isinstance(row[key], int | float | None) for row in rows) for key in keys
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("\n", "\\n")
