"""Rank runs over their random seeds, and say which recipe is better.

Runs that differ in nothing but their random seed are one recipe. Incomplete runs are
named on standard error and left out. images/s are those of training.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from absl.flags import FlagValues

from kcnn.errors import UsageError
from kcnn.knobs import Knob

USAGE = "kcnn compare RUN|GLOB ... [--format=table] [--output=DIR]"

FLAGS = {
    "format": Knob(
        "compare",
        "table",
        "form of the output",
        choices=("table", "csv", "json", "markdown", "latex"),
    ),
    "output": Knob(
        "compare", "", "folder for all forms, the plots as PNG, and a page of HTML"
    ),
}

_ENDINGS = {"json": "json", "csv": "csv", "markdown": "md", "latex": "tex"}


def define_knobs(values: FlagValues) -> None:
    """Define no knobs."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Print the comparison, and write it where --output says."""
    if not arguments:
        raise UsageError(f"expected folders of runs: {USAGE}")

    from kcnn.recipes import collect

    recipes, notes = collect(arguments)
    for note in notes:
        print(f"kcnn compare: {note}", file=sys.stderr)

    from kcnn import comparison

    result = comparison.compare(recipes)
    print(comparison.FORMS[values.format or "table"](result))
    if values.output:
        page = _write(pathlib.Path(values.output), result, recipes)
        if values.format in (None, "table"):
            print(f"\npage       {page}")


def _write(
    folder: pathlib.Path, result: dict[str, Any], recipes: list[dict[str, Any]]
) -> pathlib.Path:
    """Write every form, the plots and the page; return the page's path."""
    from kcnn import comparison, comparison_page
    from kcnn.files import write_text

    for form, ending in _ENDINGS.items():
        write = comparison.FORMS[form]
        write_text(folder / f"comparison.{ending}", write(result) + "\n")
    page, notes = comparison_page.write(result, recipes, folder)
    for note in notes:
        print(f"kcnn compare: {note}", file=sys.stderr)
    return page
