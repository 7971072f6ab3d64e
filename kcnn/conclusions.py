"""The sentence that a person needs from a comparison."""

from __future__ import annotations

from kcnn.statistics import (
    ALPHA,
    POWER,
    Comparison,
    ModelComparison,
    seeds_needed,
    smallest_difference,
)


def conclusion(
    name_a: str,
    name_b: str,
    test: Comparison,
    *,
    holm_p: float | None = None,
    family: int = 1,
    models: ModelComparison | None = None,
    target: float = 0.001,
    alpha: float = ALPHA,
) -> str:
    """Say in one sentence what a comparison of accuracies shows.

    A point is 0.01 of accuracy; the number after ± is half the width of the 95%
    confidence interval of the mean difference, which Holm's correction leaves alone.

    Args:
        name_a: the name of recipe A.
        name_b: the name of recipe B.
        test: what `paired_test` or `unpaired_test` said.
        holm_p: p from `holm`, which then decides, where test is one of a family, or
            models where test has no p.
        family: how many comparisons the family has; what the seeds could have shown
            is then reckoned at alpha / family, as Holm's first step demands.
        models: what `mcnemar` said of two trained models, for a single run of each.
        target: the difference in accuracy that a reader would like to see.
        alpha: the p at or below which a difference is shown.
    """
    after = f" after Holm's correction for {family} comparisons" * (holm_p is not None)
    if test.p is None or test.difference is None:
        said = _nothing(name_a, name_b, test)
        return said + _of_models(name_a, name_b, models, holm_p, after)
    p = test.p if holm_p is None else holm_p
    evidence = f"{_p(p)}{after}, {_counts(test)}"
    better, worse = (name_a, name_b) if test.difference > 0 else (name_b, name_a)
    if p <= alpha:
        said = f"{better} is better than {worse} by {_points(abs(test.difference))}"
        if test.interval is None:
            return f"{said} points, the same every time ({evidence})"
        half = _points((test.interval[1] - test.interval[0]) / 2)
        return f"{said} ± {half} points (± is the 95% confidence interval; {evidence})"
    said = f"no difference can be shown between {name_a} and {name_b} ({evidence})"
    return said + _could_have_shown(test, target, alpha / family)


def _nothing(name_a: str, name_b: str, test: Comparison) -> str:
    if test.n_a == test.n_b == 1:
        runs = "one run each"
    elif test.paired:
        runs = "no random seed in common"
    else:
        runs = f"{_runs(test.n_a)} of {name_a} and {_runs(test.n_b)} of {name_b}"
    return f"{runs}: nothing can be concluded about the recipes {name_a} and {name_b}"


def _of_models(
    name_a: str,
    name_b: str,
    models: ModelComparison | None,
    holm_p: float | None,
    after: str,
) -> str:
    if models is None:
        return ""
    p = models.p if holm_p is None else holm_p
    evidence = f"exact McNemar {_p(p)}{after}, {models.n:,} test images"
    if p > ALPHA:
        return f"; nor is there a difference shown between the two models ({evidence})"
    better = name_a if models.difference > 0 else name_b
    low, high = models.interval
    if models.difference < 0:
        low, high = -high, -low
    return (
        f"; of these two trained models that of {better} is better by "
        f"{_points(abs(models.difference))} points (95% interval {_points(low)} to "
        f"{_points(high)}, {evidence})"
    )


def _could_have_shown(test: Comparison, target: float, alpha: float) -> str:
    if not test.deviation:
        return "; the differences do not vary: more seeds are needed"
    n = 2 / (1 / test.n_a + 1 / test.n_b)  # the harmonic mean: n where they are equal
    shown = smallest_difference(test.deviation, n, alpha=alpha, paired=test.paired)
    needed = seeds_needed(test.deviation, target, alpha=alpha, paired=test.paired)
    seeds = f"{test.n_a} seeds" if test.n_a == test.n_b else "these seeds"
    if shown is None or shown > 1:
        said = f"; {seeds} are too few to show any difference"
    else:
        said = f"; {seeds} could have shown {_points(shown)} points"
    if needed > n:
        said += f"; about {needed:,} seeds an arm would be needed to see "
        said += f"{_points(target)} points"
    return f"{said} (with {POWER:.0%} power)"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _points(share: float) -> str:
    points = 100 * share
    return f"{points:.1g}" if 0 < abs(points) < 0.005 else f"{points:.2f}"


def _counts(test: Comparison) -> str:
    if test.n_a == test.n_b:
        return f"{test.n_a} seeds each"
    return f"{test.n_a} and {test.n_b} seeds"


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"
