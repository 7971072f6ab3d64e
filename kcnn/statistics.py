"""What may be concluded from counts and from several runs.

Every result is a frozen dataclass of plain numbers, in the unit of what went in, with
None where the data say nothing; `dataclasses.asdict` makes it ready for JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts when they are used, which takes half a second

from kcnn.errors import UsageError

Interval = tuple[float, float]
POWER = 0.8  # the chance to find what is there, as is usual in planning
ALPHA = 0.05

_Z = 1.959963984540054  # of a normal distribution 95% is within so many deviations


def wilson_interval(correct: int, n: int) -> list[float]:
    """Return the 95% interval of a proportion (Wilson, JASA 22, 1927).

    It is `scipy.stats.binomtest(correct, n).proportion_ci(0.95, "wilson")`, to the bit.
    """
    right = correct / n
    scale = 2 * (n + _Z**2)
    center = (2 * n * right + _Z**2) / scale
    half = _Z / scale * math.sqrt(4 * n * right * (1 - right) + _Z**2)
    return [
        0.0 if correct == 0 else center - half,
        1.0 if correct == n else center + half,
    ]


@dataclass(frozen=True)
class Summary:
    """The runs of one recipe; interval is the 95% interval of the mean."""

    n: int
    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Recipe A against recipe B over random seeds.

    difference is the mean of A minus the mean of B, with its 95% interval and p;
    deviation is that of the differences when paired, of a run within a recipe when
    not. wilcoxon_p stands beside p when paired and is no second chance: p decides.
    """

    paired: bool
    n_a: int
    n_b: int
    difference: float | None
    deviation: float | None
    interval: Interval | None
    p: float | None
    wilcoxon_p: float | None


@dataclass(frozen=True)
class ModelComparison:
    """Trained model A against trained model B on the same images."""

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    interval: Interval
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, deviation and Student's 95% interval of the mean (n of 2 or more).

    Raises:
        UsageError: there are no values, or one is not finite.
    """
    x = numbers(values)
    if not len(x):
        raise UsageError("there are no runs to summarize")
    mean = float(x.mean())
    if len(x) < 2:
        return Summary(1, mean, None, None)
    deviation = deviation_of(x)
    interval = _t_interval(mean, deviation / math.sqrt(len(x)), len(x) - 1)
    return Summary(len(x), mean, deviation, interval)


def prediction_interval(
    values: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """Return the interval of one more run of a recipe; None from fewer than two.

    Student's interval of a future observation (Hahn and Meeker, Statistical
    Intervals, 1991, section 4.7). From three runs that of 95% is ten deviations wide.

    Raises:
        UsageError: there are no values, or one is not finite.
    """
    summary = summarize(values)
    if summary.deviation is None:
        return None
    error = summary.deviation * math.sqrt(1 + 1 / summary.n)
    return _t_interval(summary.mean, error, summary.n - 1, confidence)


def paired_test(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compare two recipes over the random seeds that both were run with.

    The paired t-test (Student, Biometrika 6, 1908) and Wilcoxon's signed-rank test
    (Biometrics Bulletin 1, 1945). Where all differences are equal the t-test
    has no deviation to go by: p is then that of the exact sign-flip test (Fisher, The
    Design of Experiments, 1935, section 21), 2 / 2**n, or 1 where all are zero, and
    there is no interval. Below two common seeds nothing can be concluded: p is None.

    Args:
        a: random seed -> accuracy of recipe A; seeds that b lacks are left out.
        b: the same for recipe B.
    """
    seeds = sorted(a.keys() & b.keys())
    x, y = numbers([a[seed] for seed in seeds]), numbers([b[seed] for seed in seeds])
    n, gaps = len(seeds), np.round(x - y, 12)  # 0.93 - 0.92 and 0.92 - 0.91 are a tie
    if n < 2:
        difference = float(gaps[0]) if n else None
        return Comparison(True, n, n, difference, None, None, None, None)
    difference = float(gaps.mean())
    if deviation_of(gaps) == 0:
        p = 2.0 ** (1 - n) if gaps[0] else 1.0
        return Comparison(True, n, n, difference, 0.0, None, p, p)
    deviation = deviation_of(gaps)
    error = deviation / math.sqrt(n)
    interval, p = _t_interval(difference, error, n - 1), _t_p(difference, error, n - 1)
    wilcoxon = float(scipy.stats.wilcoxon(gaps).pvalue)
    return Comparison(True, n, n, difference, deviation, interval, p, wilcoxon)


def unpaired_test(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare two recipes whose random seeds differ: Welch (Biometrika 34, 1947).

    Where neither recipe varies, p is twice the tail of the exact permutation test
    (Fisher 1935): 2 over the number of ways to deal the runs out, or 1 if all are
    equal; there is no interval.
    With fewer than two runs of either nothing can be concluded: p is None.
    """
    x, y = numbers(a), numbers(b)
    n_a, n_b = len(x), len(y)
    if min(n_a, n_b) < 2:
        difference = float(x.mean() - y.mean()) if n_a and n_b else None
        return Comparison(False, n_a, n_b, difference, None, None, None, None)
    difference = float(x.mean() - y.mean())
    v_a, v_b = deviation_of(x) ** 2 / n_a, deviation_of(y) ** 2 / n_b
    if v_a + v_b == 0:
        p = 2 / math.comb(n_a + n_b, n_a) if x[0] != y[0] else 1.0
        return Comparison(False, n_a, n_b, difference, 0.0, None, p, None)
    error = math.sqrt(v_a + v_b)
    freedom = (v_a + v_b) ** 2 / (v_a**2 / (n_a - 1) + v_b**2 / (n_b - 1))
    interval = _t_interval(difference, error, freedom)
    p = _t_p(difference, error, freedom)
    deviation = math.sqrt((v_a * n_a + v_b * n_b) / 2)
    return Comparison(False, n_a, n_b, difference, deviation, interval, p, None)


def smallest_difference(
    deviation: float,
    n: float,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    paired: bool = True,
) -> float | None:
    """Return the smallest true difference that n random seeds show with this power.

    By the noncentral t distribution of a two-sided t-test (Cohen, Statistical Power
    Analysis, 1988, chapter 2). None where n is under 2.

    Args:
        deviation: of the differences if paired, otherwise of a run within a recipe.
        n: seeds of each recipe.
        power: the chance to show it, in (0, 1).
        alpha: the p at or below which a difference counts as shown.
        paired: whether both recipes ran with the same seeds.
    """
    if n < 2:
        return None
    high = 1.0  # in deviations
    while _power(high, n, alpha, paired) < power:
        high *= 2
    found = scipy.optimize.brentq(
        lambda effect: _power(effect, n, alpha, paired) - power, 0, high
    )
    return float(found) * deviation


def seeds_needed(
    deviation: float,
    difference: float,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    paired: bool = True,
) -> int:
    """Return how many seeds of each recipe show a difference with this power.

    Takes what `smallest_difference` takes, and a true difference above 0.
    """
    if difference <= 0:
        raise UsageError(f"the difference to find must be above 0; got {difference}")
    effect = difference / deviation if deviation else math.inf
    low, high = 1, 2
    while math.isfinite(effect) and _power(effect, high, alpha, paired) < power:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        enough = _power(effect, middle, alpha, paired) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> ModelComparison:
    """Compare two trained models on the same test images, in the same order.

    p is that of the exact test on the images that only one of them has right (McNemar,
    Psychometrika 12, 1947; for classifiers Dietterich, Neural Computation 10, 1998),
    and 1 if there are none. The 95% interval of the difference in accuracy is method 10
    of Newcombe (Statistics in Medicine 17, 2635-2650, 1998): Wilson's two intervals,
    put together with their correlation. It says nothing of the recipes.

    Args:
        correct_a: (n,) bool, whether A has each image right.
        correct_b: (n,) bool, the same for B.

    Raises:
        UsageError: the lengths differ, there are no images, or a value is no bool.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UsageError(
            f"the models were scored on different test sets: {a.shape} and {b.shape} "
            "images; McNemar's test needs the same images in the same order"
        )
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise UsageError("McNemar's test takes whether each image is right: 0 or 1")
    a, b, n = a.astype(bool), b.astype(bool), len(a)
    both, only_a, only_b = (int(c.sum()) for c in (a & b, a & ~b, ~a & b))
    neither = n - both - only_a - only_b
    discordant = only_a + only_b
    p = scipy.stats.binomtest(only_a, discordant).pvalue if discordant else 1.0
    difference = (only_a - only_b) / n
    interval = _newcombe_interval(both, only_a, only_b, neither)
    return ModelComparison(
        n, both, only_a, only_b, neither, difference, interval, float(p)
    )


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return Holm's adjusted p for each name (Scand. J. Statistics 6, 1979).

    A p of None (nothing can be concluded) stays None and does not count.
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[name] = largest
    return adjusted


def _newcombe_interval(both: int, only_a: int, only_b: int, neither: int) -> Interval:
    n = both + only_a + only_b + neither
    right_a, right_b = both + only_a, both + only_b
    p_a, p_b = right_a / n, right_b / n
    (low_a, high_a), (low_b, high_b) = (
        wilson_interval(right_a, n),
        wilson_interval(right_b, n),
    )
    product = right_a * (n - right_a) * right_b * (n - right_b)
    excess: float = both * neither - only_a * only_b
    if excess > 0:
        excess = max(excess - n / 2, 0)
    phi = excess / math.sqrt(product) if product else 0.0

    def together(u: float, v: float) -> float:
        return math.sqrt(max(0.0, u * u - 2 * phi * u * v + v * v))

    difference = (only_a - only_b) / n
    low = difference - together(p_a - low_a, high_b - p_b)
    return low, difference + together(high_a - p_a, p_b - low_b)


def _power(effect: float, n: float, alpha: float, paired: bool) -> float:
    """Return the chance that a t-test over n seeds shows effect deviations.

    The right way round, that is: the other tail of the noncentral t does not count.
    """
    freedom = n - 1 if paired else 2 * n - 2
    shift = effect * math.sqrt(n if paired else n / 2)
    limit = scipy.stats.t.isf(alpha / 2, freedom)
    return float(scipy.stats.nct.sf(limit, freedom, shift))


def deviation_of(x: np.ndarray) -> float:
    """Return the sample deviation; exactly 0 where all are equal."""
    return float(x.std(ddof=1)) if np.ptp(x) else 0.0


def _t_interval(
    center: float, error: float, freedom: float, confidence: float = 0.95
) -> Interval:
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return center - half, center + half


def _t_p(center: float, error: float, freedom: float) -> float:
    return float(2 * scipy.stats.t.sf(abs(center) / error, freedom))


def numbers(values: Iterable[float]) -> np.ndarray:
    """Return values as an array; raises UsageError if one is not finite."""
    x = np.asarray(list(values), np.float64)
    if not np.isfinite(x).all():
        raise UsageError(f"expected finite numbers; got {x.tolist()}")
    return x
