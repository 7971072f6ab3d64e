"""When a trial is hopeless: the median rule."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tuning.journal import Record
from tuning.objective import Objective

FLOOR_EPOCHS = 1  # every trial trains so many
_LEAST_TRIALS = 5  # that have come to their end before any is stopped

RULES = ("median", "none")


def is_hopeless(
    values: Sequence[float],
    others: Sequence[Record],
    epochs: int,
    objective: Objective,
) -> bool:
    """Tell whether a trial should be stopped after the epochs it has had.

    The median rule of Vizier (Golovin et al., KDD 2017, section 3.2.2): its best value
    so far is worse than the median, over the trials that came to their end, of the mean
    of their values up to the same epoch. It costs nothing, and about half of the
    trials that are stopped would not have been among the better half. The risk is a
    trial that begins slowly: a low learning rate, strong dropout or augmentation;
    what they would have reached is not known. The mean, and not the value, of the
    others makes that rarer.

    Args:
        values: the objective after each epoch so far of one execution.
        others: records of other trials.
        epochs: planned for the trial; only others with as many are compared.
        objective: which way is better.
    """
    done = len(values)
    if done < FLOOR_EPOCHS or done >= epochs:
        return False
    means = [
        statistics.fmean(objective.cost(objective.value(row)) for row in history[:done])
        for other in others
        if other.status == "done" and other.epochs == epochs
        for history in other.histories[:1]
    ]
    if len(means) < _LEAST_TRIALS:
        return False
    return min(map(objective.cost, values)) > statistics.median(means)
