"""What may be concluded from counts and from several runs."""

from __future__ import annotations

import scipy.stats


def wilson_interval(correct: int, n: int) -> list[float]:
    """Return the 95% interval of a proportion (Wilson, JASA 22, 1927), by SciPy."""
    interval = scipy.stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]
