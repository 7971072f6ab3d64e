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
    "output": Knob("compare", "", "folder for all forms, and plots as PNG, too"),
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
    if values.output:
        _write(pathlib.Path(values.output), result)
    print(comparison.FORMS[values.format or "table"](result))


def _write(folder: pathlib.Path, result: dict[str, Any]) -> None:
    """Write every form and the plots."""
    from kcnn import comparison, comparison_plots
    from kcnn.files import write_text

    for form, ending in _ENDINGS.items():
        write = comparison.FORMS[form]
        write_text(folder / f"comparison.{ending}", write(result) + "\n")
    comparison_plots.accuracies(result["recipes"], folder / "accuracy.png")
    comparison_plots.cost(result["recipes"], folder / "cost.png")
