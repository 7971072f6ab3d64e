"""Whether the images of two splits differ in a plain figure, such as brightness."""

from __future__ import annotations

import numpy as np
import scipy.stats

# Vargha and Delaney (2000): a medium effect is 0.64, or 0.36 the other way.
MEDIUM = 0.64

_SIGNIFICANT = 0.001  # with few images an effect of this size comes by chance


def superiority(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return how often a value of the second sample is above one of the first.

    It is Vargha and Delaney's A: ties count half, 0.5 is no difference, and the shape
    of the distributions does not matter.

    Returns:
        A in [0, 1], and the p-value of Mann and Whitney's two-sided test.
    """
    if len(np.unique(np.concatenate((first, second)))) == 1:
        return 0.5, 1.0
    test = scipy.stats.mannwhitneyu(second, first, method="asymptotic")
    return float(test.statistic) / (len(first) * len(second)), float(test.pvalue)


def differs(effect: float, p_value: float) -> bool:
    """Tell whether an effect is medium or large, and no accident."""
    return max(effect, 1 - effect) >= MEDIUM and p_value < _SIGNIFICANT
