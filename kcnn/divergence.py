"""A training that has gone astray: what is said of it, and the way back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from kcnn.errors import RunError

# A loss this many times that of guessing is past recovery. A learning rate that is
# merely too high gives some hundred times, and training comes back from that.
EXPLODED = 1e4


class Diverged(RunError):
    """The training cannot go on from where it is.

    Args:
        what: the cause, such as "loss".
        step: the step it was found at, counted from 0.
        value: the loss, where it is a finite number.
    """

    def __init__(self, what: str, step: int, value: float = math.nan):
        super().__init__(what)
        self.step = step
        self.value = value if math.isfinite(value) else None
        self.cause = f"the {what} step {step} is not a finite number"
        if self.value is not None:
            self.cause = (
                f"the {what} step {step} is {value:.3g}, over {EXPLODED:,.0f} times "
                "that of guessing"
            )


@dataclasses.dataclass(frozen=True)
class Anchor:
    """All of a run at the start of an epoch whose weights were good.

    `state` is the loop's, `best` are the weights of the best epoch, `history` is
    `History` as a dictionary.
    """

    state: list[np.ndarray]
    best: list[np.ndarray]
    history: dict[str, Any]


def are_finite(weights: list[np.ndarray]) -> bool:
    """Tell whether every weight is a finite number."""
    return all(np.isfinite(w).all() for w in weights)
