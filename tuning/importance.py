"""How much each knob matters to the score, as far as the trials tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from tuning.journal import Record
from tuning.space import Choices, Domain, Space

_LEAST_TRIALS = 10
_TREES = 300
_REPEATS = 20


@dataclasses.dataclass(frozen=True)
class Importance:
    """Permutation importances by knob, the largest first.

    Attributes:
        by_knob: mean and deviation of what the forest's R² loses when the knob's
            values are shuffled among the trials.
        r2: of the forest on trials that a tree has not seen; near or below 0 the
            forest has understood nothing and the importances mean nothing.
        trials: how many were looked at.
    """

    by_knob: dict[str, tuple[float, float]]
    r2: float
    trials: int


def comparable(records: Sequence[Record]) -> list[Record]:
    """Return trials that came to their end, of the commonest number of epochs."""
    done = [r for r in records if r.status == "done"]
    counts = [r.epochs for r in done]
    usual = max(set(counts), key=lambda n: (counts.count(n), n), default=None)
    return [r for r in done if r.rung is None or r.epochs == usual]


def importances(records: Sequence[Record], space: Space) -> Importance | None:
    """Return the importances by a random forest; None of fewer than ten trials.

    Breiman, Random Forests, Machine Learning 45 (2001), section 10. With tens of
    trials it ranks what matters much, and no more.
    """
    used = comparable(records)
    if len(used) < _LEAST_TRIALS:
        return None
    names = list(space.domains)
    x = np.array(
        [[position(space.domains[n], r.values.get(n)) for n in names] for r in used]
    )
    y = np.array([r.score for r in used])
    forest = RandomForestRegressor(
        _TREES, min_samples_leaf=2, oob_score=True, random_state=0
    ).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=_REPEATS, random_state=0)
    pairs = zip(found.importances_mean, found.importances_std, strict=True)
    by_knob = {n: (float(m), float(d)) for n, (m, d) in zip(names, pairs, strict=True)}
    ordered = dict(sorted(by_knob.items(), key=lambda item: -item[1][0]))
    return Importance(ordered, float(forest.oob_score_), len(used))


def position(domain: Domain, value: object) -> float:
    """Return where a value lies in its domain: 0 to 1, and -0.1 where it has none."""
    if value is None:
        return -0.1
    if isinstance(domain, Choices):
        return domain.values.index(value) / max(len(domain.values) - 1, 1)
    number = float(value)  # type: ignore[arg-type]
    if domain.log:
        return math.log(number / domain.low) / math.log(domain.high / domain.low)
    return (number - domain.low) / (domain.high - domain.low)
