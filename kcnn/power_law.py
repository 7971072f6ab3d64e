"""A learning curve as a power law, and what it says of more data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from kcnn.errors import UsageError
from kcnn.statistics import Interval, deviation_of, numbers


@dataclass(frozen=True)
class PowerLaw:
    """error = floor + scale * size**(-exponent), and what it says of more data."""

    floor: float
    scale: float
    exponent: float
    predicted_size: int
    predicted_error: float
    predicted_interval: Interval | None

    def error(self, size: float) -> float:
        """Return the fitted error at a training-set size."""
        return self.floor + self.scale * size**-self.exponent


def power_law(
    sizes: Sequence[int],
    errors_by_size: Sequence[Sequence[float]],
    resamples: int = 400,
) -> PowerLaw:
    """Fit error = floor + scale * size**(-exponent) to a learning curve.

    The form is that of Cortes et al. (NIPS 6, 1993). Weighted least squares with all
    three at 0 or more and the exponent at most 3, by SciPy. A size weighs by the
    standard error of its mean; as a few seeds tell a deviation badly, each is drawn
    towards the deviation over the mean that all sizes share, as if by 4 more runs.
    The interval is the central 95% of the predictions of a parametric bootstrap over
    seeds (Efron and Tibshirani 1993, section 6.5): the means are drawn anew from their
    normal distributions, wider where the curve misses them by more than seeds explain,
    and the curve is fitted again. It holds the mean over seeds, not a single run, and
    trusts the form. It is None unless some size has two runs that differ.

    Args:
        sizes: training-set sizes, four or more.
        errors_by_size: for each size, the errors of its runs.
        resamples: how often the bootstrap fits again.

    Raises:
        UsageError: there are fewer than four sizes, one is not positive or stands
            twice, or one has no finite errors.
    """
    n = numbers(sizes)
    if len(set(n)) < 4 or len(set(n)) < len(n) or n.min() <= 0:
        raise UsageError(
            "a power law needs four or more different training-set sizes above 0; got "
            + (", ".join(str(size) for size in sizes) or "none")
        )
    runs = [numbers(errors) for errors in errors_by_size]
    if len(runs) != len(n) or not all(len(errors) for errors in runs):
        raise UsageError("a power law needs the error of a run for every size")
    means = np.array([errors.mean() for errors in runs])
    standard_errors, measured = _standard_errors(runs, means)
    x = n / n.max()  # sizes about 1 keep the three parameters apart
    fitted = _fit(x, means, standard_errors, (means.min() / 2, means.min() / 2, 0.5))
    interval: Interval | None = None
    if measured:
        misses = (means - _curve(x, *fitted)) / standard_errors
        excess = max(1.0, math.sqrt(np.sum(misses**2) / (len(n) - 3)))
        random = np.random.default_rng(0)
        draws = random.normal(means, excess * standard_errors, (resamples, len(n)))
        fits = [_fit(x, draw, standard_errors, fitted) for draw in draws]
        low, high = np.percentile([_curve(2, *f) for f in fits], (2.5, 97.5))
        interval = float(low), float(high)
    floor, scale, exponent = map(float, fitted)
    return PowerLaw(
        floor,
        scale * float(n.max()) ** exponent,
        exponent,
        2 * int(n.max()),
        float(_curve(2, *fitted)),
        interval,
    )


def _curve(x, floor, scale, exponent):
    return floor + scale * np.asarray(x, float) ** -exponent


def _fit(x: np.ndarray, y: np.ndarray, sigma: np.ndarray, start) -> np.ndarray:
    bounds = ((0, 0, 0), (np.inf, np.inf, 3))
    return scipy.optimize.curve_fit(
        _curve, x, y, p0=start, sigma=sigma, bounds=bounds, max_nfev=10_000
    )[0]


def _standard_errors(
    runs: list[np.ndarray], means: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Return the standard error of each size's mean, and whether seeds measured it."""
    counts = np.array([len(errors) for errors in runs])
    freedom = counts - 1
    level = np.maximum(means, 1e-6)  # a size without a single mistake
    variances = np.array([deviation_of(e) ** 2 if len(e) > 1 else 0.0 for e in runs])
    shared = np.sum(freedom * variances / level**2) / max(1, freedom.sum())
    if shared == 0:
        return level / np.sqrt(counts), False
    drawn = (freedom * variances + 4 * shared * level**2) / (freedom + 4)
    return np.sqrt(drawn / counts), True
