"""Tests and intervals against published examples, SciPy, statsmodels and by hand."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats

from kcnn.errors import UsageError
from kcnn.statistics import (
    holm,
    mcnemar,
    paired_test,
    seeds_needed,
    smallest_difference,
    summarize,
    unpaired_test,
)

# Hours of sleep gained with two drugs by the same ten patients: Student 1908.
DRUG_1 = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
DRUG_2 = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))


def answers(both, only_a, only_b, neither):
    """Return per-image correctness with these counts."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_summary_by_hand():
    found = summarize([0.97, 0.98, 0.99])
    half = 4.302652729696142 * 0.01 / math.sqrt(3)  # Student's t, 2 degrees
    assert (found.n, found.mean) == (3, pytest.approx(0.98))
    assert found.deviation == pytest.approx(0.01)
    assert found.interval == pytest.approx((0.98 - half, 0.98 + half))


def test_summary_of_statsmodels():
    found = summarize(list(DRUG_1.values()))
    assert found.interval == pytest.approx((-0.5297804135262325, 2.0297804135262325))


def test_summary_of_one_run_has_no_spread():
    assert dataclasses.astuple(summarize([0.9])) == (1, 0.9, None, None)


def test_summary_of_equal_runs_has_no_rounding_noise():
    assert summarize([0.1] * 3).deviation == 0


@pytest.mark.parametrize("values", [[], [0.9, math.nan], [math.inf]])
def test_summary_refuses(values):
    with pytest.raises(UsageError):
        summarize(values)


def test_paired_on_students_own_data():
    found = paired_test(DRUG_1, DRUG_2)
    assert (found.paired, found.n_a, found.n_b) == (True, 10, 10)
    assert found.difference == pytest.approx(-1.58)
    assert found.deviation == pytest.approx(1.2299954795)
    assert found.p == pytest.approx(0.00283289, rel=1e-5)  # R and statsmodels
    assert found.interval == pytest.approx((-2.4598858, -0.7001142))
    # One difference is zero; the other nine have one sign: 2 / 2**9 by hand.
    assert found.wilcoxon_p == pytest.approx(2 / 2**9, abs=2e-4)


@pytest.mark.parametrize("n", [2, 3, 30])
def test_both_are_scipys(n):
    a, b = np.random.default_rng(n).normal(0.9, 0.01, (2, n))
    found = paired_test(dict(enumerate(a)), dict(enumerate(b)))
    expected = scipy.stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    found = unpaired_test(a, b[:-1] if n > 2 else b)
    expected = scipy.stats.ttest_ind(a, b[:-1] if n > 2 else b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_paired_uses_the_seeds_of_both():
    a = {0: 0.90, 1: 0.92, 2: 0.95, 7: 0.1}
    b = {2: 0.90, 1: 0.91, 0: 0.91, 8: 0.9}
    found = paired_test(a, b)
    gaps = np.array([-0.01, 0.01, 0.05])
    t = gaps.mean() / (gaps.std(ddof=1) / math.sqrt(3))
    assert found.n_a == found.n_b == 3
    assert found.difference == pytest.approx(0.05 / 3)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(t, 2))


@pytest.mark.parametrize(
    "a, b, n", [({}, {}, 0), ({0: 1}, {1: 1}, 0), ({3: 1}, {3: 0}, 1)]
)
def test_paired_says_nothing_below_two_seeds(a, b, n):
    found = paired_test(a, b)
    assert (found.n_a, found.p, found.interval, found.deviation) == (n, *[None] * 3)
    assert found.wilcoxon_p is None


@pytest.mark.parametrize("n", [2, 5, 6])
def test_equal_differences_fall_back_on_the_sign_flip_test(n):
    a = {seed: 0.90 + seed / 100 for seed in range(n)}
    found = paired_test(a, {seed: value - 0.01 for seed, value in a.items()})
    flips = [abs(sum(s)) for s in itertools.product((-1, 1), repeat=n)]
    assert found.p == found.wilcoxon_p == np.mean(np.array(flips) >= n)
    assert (found.deviation, found.interval) == (0, None)


def test_all_differences_zero():
    found = paired_test(DRUG_1, DRUG_1)
    assert (found.difference, found.p, found.wilcoxon_p) == (0, 1, 1)
    assert found.interval is None


def test_wilcoxon_knows_ties_behind_rounding():
    a = dict(enumerate([0.93, 0.92, 0.91, 0.90]))
    b = dict(enumerate([0.92, 0.91, 0.90, 0.92]))  # gaps +1, +1, +1, -2
    exact = scipy.stats.wilcoxon([1, 1, 1, -2]).pvalue
    assert paired_test(a, b).wilcoxon_p == pytest.approx(exact)


def test_welch_is_statsmodels():
    a = [0.991, 0.992, 0.990, 0.993, 0.9915]
    found = unpaired_test(a, [0.989, 0.9905, 0.9902, 0.991])
    assert (found.paired, found.n_a, found.n_b) == (False, 5, 4)
    assert found.p == pytest.approx(0.08324976847, rel=1e-6)
    assert found.interval == pytest.approx((-0.00022682119, 0.00287682119), rel=1e-5)
    assert found.wilcoxon_p is None


@pytest.mark.parametrize("a, b", [([], [0.9]), ([0.9], [0.8]), ([0.9], [0.8, 0.7])])
def test_welch_says_nothing_with_one_run(a, b):
    found = unpaired_test(a, b)
    assert (found.p, found.interval) == (None, None)


def test_welch_where_nothing_varies():
    assert unpaired_test([0.9] * 3, [0.9] * 4).p == 1
    deals = math.comb(7, 3)  # one of which is as extreme as what was seen
    assert unpaired_test([0.9] * 3, [0.8] * 4).p == pytest.approx(2 / deals)
    assert unpaired_test([0.9] * 3, [0.8, 0.81]).p < 0.05  # one varies: Welch as is


def test_smallest_difference_is_statsmodels():
    # TTestPower().solve_power(nobs=n, power=0.8, alpha=0.05)
    for n, effect in ((3, 3.264043553), (5, 1.681997083), (10, 0.996001911)):
        assert smallest_difference(2, n) == pytest.approx(2 * effect, rel=1e-5)
    assert smallest_difference(1, 1) is None
    assert smallest_difference(0, 5) == 0


def test_power_is_what_simulation_finds():
    difference = smallest_difference(1, 5)
    gaps = np.random.default_rng(0).normal(difference, 1, (20_000, 5))
    found = scipy.stats.ttest_1samp(gaps, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_seeds_needed_of_the_published_table():
    # statsmodels' TTestIndPower: 36.3 and 9.89 runs an arm, rounded up. The normal
    # approximation 2 (1.96 + 0.842)**2 (deviation / difference)**2 gives 36 and 9.
    assert seeds_needed(0.15, 0.1, paired=False) == 37
    assert seeds_needed(0.15, 0.2, paired=False) == 10


@pytest.mark.parametrize("paired", [True, False])
def test_seeds_needed_is_the_inverse(paired):
    for difference in (0.3, 0.8, 2, 9):
        n = seeds_needed(1, difference, paired=paired)
        assert smallest_difference(1, n, paired=paired) <= difference
        fewer = smallest_difference(1, n - 1, paired=paired)
        assert fewer is None or fewer > difference


def test_seeds_needed_at_the_ends():
    assert seeds_needed(0, 0.1) == 2
    assert seeds_needed(1, 0.001) == pytest.approx(2.8016**2 * 1e6, rel=1e-3)
    with pytest.raises(UsageError, match="above 0"):
        seeds_needed(1, 0)


def test_mcnemar_published():
    # Cavo et al. 2012 as in Fagerland, Lydersen, Laake: Statistical Analysis of
    # Contingency Tables, 2017, chapter 8: -0.0621 (-0.1186 to -0.0046).
    found = mcnemar(*answers(59, 6, 16, 80))
    assert (found.both, found.only_a, found.only_b, found.neither) == (59, 6, 16, 80)
    assert found.difference == pytest.approx(-0.0621, abs=5e-5)
    assert found.interval == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    # The sum of comb(22, k) for k to 6, twice, over 2**22; statsmodels says the same.
    by_hand = 2 * sum(math.comb(22, k) for k in range(7)) / 2**22
    assert found.p == pytest.approx(by_hand) == pytest.approx(0.052478790283203125)


def test_mcnemar_is_statsmodels():
    found = mcnemar(*answers(101, 121, 59, 33))
    assert found.p == pytest.approx(4.4344492637551645e-06, rel=1e-6)


def test_mcnemar_turns_round():
    a, b = answers(90, 7, 2, 1)
    there, back = mcnemar(a, b), mcnemar(b, a)
    assert there.p == back.p
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


@pytest.mark.parametrize("cells", [(90, 0, 0, 10), (100, 0, 0, 0), (0, 0, 0, 5)])
def test_mcnemar_without_discordant_pairs(cells):
    found = mcnemar(*answers(*cells))
    assert (found.p, found.difference) == (1, 0)
    low, high = found.interval
    assert -1 <= low < 0 < high <= 1


def test_mcnemar_at_the_far_end():
    found = mcnemar([True] * 20, [False] * 20)
    assert found.p == 2 / 2**20
    assert 0 < found.interval[0] < found.difference == 1
    assert found.interval[1] == pytest.approx(1)


@pytest.mark.parametrize(
    "a, b", [([1, 0], [1, 0, 1]), ([], []), ([[1]], [[1]]), ([0.3, 1], [1, 1])]
)
def test_mcnemar_refuses(a, b):
    with pytest.raises(UsageError, match="McNemar"):
        mcnemar(a, b)


def test_holm_is_statsmodels():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    tied = holm(dict(enumerate([0.01, 0.01, 0.02, 0.5, 0.9])))
    assert list(tied.values()) == pytest.approx([0.05, 0.05, 0.06, 1, 1])


def test_holm_passes_over_what_says_nothing():
    assert holm({"a": 0.02, "b": None, "c": 0.03}) == {"a": 0.04, "b": None, "c": 0.04}
    assert holm({}) == {}


@pytest.mark.parametrize(
    "result",
    [
        summarize([0.9, 0.8]),
        paired_test(DRUG_1, DRUG_2),
        unpaired_test([0.9], [0.8]),
        mcnemar([1, 0], [1, 1]),
    ],
)
def test_results_are_json(result):
    note = dataclasses.asdict(result)
    as_read = json.loads(json.dumps(note, allow_nan=False))
    assert as_read == {
        k: list(v) if isinstance(v, tuple) else v for k, v in note.items()
    }


def share_called_different(draw_a, draw_b, repetitions, seeds):
    """Return how often paired_test and unpaired_test find p of 0.05 or less."""
    found = []
    for _ in range(repetitions):
        a, b = draw_a(seeds), draw_b(seeds)
        paired = paired_test(dict(enumerate(a)), dict(enumerate(b)))
        found.append([paired.p <= 0.05, unpaired_test(a, b).p <= 0.05])
    return np.mean(found, axis=0)


def test_identical_recipes_are_called_different_in_a_twentieth():
    random = np.random.default_rng(3)

    def draw(n):
        return random.normal(0.99, 0.0015, n)

    shares = share_called_different(draw, draw, 2000, 10)
    error = math.sqrt(0.05 * 0.95 / 2000)
    assert (shares <= 0.05 + 2 * error).all()
    assert (shares >= 0.05 - 3 * error).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_identical_recipes_with_many_ties(seeds):
    """Accuracies on 360 images, of which a handful is wrong, often tie."""
    random = np.random.default_rng(seeds)

    def draw(n):
        return random.binomial(360, 0.995, n) / 360

    shares = share_called_different(draw, draw, 600, seeds)
    assert (shares <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)).all()


def test_twice_the_deviation_is_found():
    random = np.random.default_rng(4)
    shares = share_called_different(
        lambda n: random.normal(0.993, 0.0015, n),
        lambda n: random.normal(0.990, 0.0015, n),
        500,
        10,
    )
    assert (shares > 0.95).all()
