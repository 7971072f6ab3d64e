"""What a search makes as good as it can: a figure on the validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """A column of the metrics, and which way is better.

    Attributes:
        name: as the flag has it.
        column: in a row of an epoch.
        direction: max or min, as keras-tuner says it.
        title: for people.
    """

    name: str
    column: str
    direction: str
    title: str

    def value(self, row: Mapping[str, Any]) -> float:
        """Return the figure of an epoch."""
        return float(row[self.column])

    def cost(self, score: float | None) -> float:
        """Return a number that is the lower the better; infinite for None."""
        if score is None:
            return float("inf")
        return -score if self.direction == "max" else score

    def show(self, score: float | None) -> str:
        """Write a score: a percentage, or a loss with four decimals."""
        if score is None:
            return "none"
        return f"{score:.2%}" if self.direction == "max" else f"{score:.4f}"

    def show_deviation(self, deviation: float) -> str:
        """Write a deviation in the score's unit: points of a percentage, or a loss."""
        return (
            f"{100 * deviation:.2f}" if self.direction == "max" else f"{deviation:.4f}"
        )


OBJECTIVES = {
    one.name: one
    for one in (
        Objective("accuracy", "val_accuracy", "max", "validation accuracy"),
        Objective("loss", "val_loss", "min", "validation loss"),
        Objective("macro_f1", "val_macro_f1", "max", "validation macro F1"),
    )
}
