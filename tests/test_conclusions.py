"""The sentences, word for word, and what must not be said."""

import pytest

from kcnn.conclusions import conclusion
from kcnn.statistics import Comparison, mcnemar, paired_test, unpaired_test


def comparison(difference, half, p, n=10, deviation=0.001, n_b=None):
    interval = (difference - half, difference + half)
    paired = n_b is None
    n_b = n if paired else n_b
    return Comparison(paired, n, n_b, difference, deviation, interval, p, None)


def test_shown():
    found = conclusion("A", "B", comparison(0.0031, 0.0008, 0.00213))
    assert found == (
        "A is better than B by 0.31 ± 0.08 points (± is the 95% confidence interval; "
        "p = 0.0021, 10 seeds each)"
    )


def test_the_better_one_comes_first():
    found = conclusion("A", "B", comparison(-0.0031, 0.0008, 1e-9))
    assert found.startswith("B is better than A by 0.31 ± 0.08 points")
    assert "p < 0.001" in found


def test_not_shown():
    # For paired seeds and a deviation of 0.0015: 1.682 deviations at 5 seeds, and
    # statsmodels' TTestPower asks for 19.7 seeds for 0.001.
    found = conclusion("A", "B", comparison(0.001, 0.002, 0.41, 5, 0.0015))
    assert found == (
        "no difference can be shown between A and B (p = 0.41, 5 seeds each); 5 seeds "
        "could have shown 0.25 points; about 20 seeds an arm would be needed to see "
        "0.10 points (with 80% power)"
    )


def test_not_shown_unpaired():
    found = conclusion("A", "B", comparison(0.001, 0.002, 0.41, 5, 0.0015, n_b=5))
    assert "about 37 seeds an arm would be needed to see 0.10 points" in found
    found = conclusion("A", "B", comparison(0.001, 0.002, 0.41, 5, 0.0015, n_b=8))
    assert "(p = 0.41, 5 and 8 seeds); these seeds could have shown" in found


def test_enough_seeds_need_no_more():
    found = conclusion("A", "B", comparison(0, 0.0001, 0.9, 10, 0.0001))
    assert found.endswith("10 seeds could have shown 0.01 points (with 80% power)")


def test_too_few_for_anything():
    found = conclusion("A", "B", comparison(0.1, 3, 0.5, 2, 0.3))
    assert "2 seeds are too few to show any difference; about" in found


def test_holm_decides():
    test = comparison(0.0031, 0.0008, 0.02)
    assert conclusion("A", "B", test).startswith("A is better")
    found = conclusion("A", "B", test, holm_p=0.12, family=6)
    assert found.startswith(
        "no difference can be shown between A and B (p = 0.12 after Holm's correction "
        "for 6 comparisons, 10 seeds each)"
    )
    found = conclusion("A", "B", test, holm_p=0.04, family=2)
    assert "better" in found and "p = 0.04 after Holm's correction" in found


def test_a_family_could_have_shown_less():
    test = comparison(0.0001, 0.002, 0.41, 5, 0.0015)
    alone = conclusion("A", "B", test)
    among = conclusion("A", "B", test, holm_p=1, family=10)
    assert "shown 0.25 points" in alone
    assert "shown 0.47 points" in among  # 3.12 deviations at alpha 0.005


def test_equal_differences():
    a = {seed: 0.9 + seed / 100 for seed in range(6)}
    b = {seed: value - 0.01 for seed, value in a.items()}
    assert conclusion("A", "B", paired_test(a, b)) == (
        "A is better than B by 1.00 points, the same every time (p = 0.031, 6 seeds "
        "each)"
    )
    assert conclusion("A", "B", paired_test({0: 1, 1: 1}, {0: 1, 1: 1})) == (
        "no difference can be shown between A and B (p = 1, 2 seeds each); the "
        "differences do not vary: more seeds are needed"
    )


@pytest.mark.parametrize(
    "test, start",
    [
        (paired_test({0: 0.9}, {0: 0.8}), "one run each"),
        (unpaired_test([0.9], [0.8]), "one run each"),
        (paired_test({0: 0.9}, {1: 0.8}), "no random seed in common"),
        (unpaired_test([0.9], [0.8] * 5), "1 run of A and 5 runs of B"),
    ],
)
def test_nothing_can_be_concluded(test, start):
    assert conclusion("A", "B", test) == (
        f"{start}: nothing can be concluded about the recipes A and B"
    )


def test_two_single_models():
    test = paired_test({0: 0.9}, {0: 0.8})
    a, b = [True] * 960 + [False] * 40, [True] * 990 + [False] * 10
    assert conclusion("A", "B", test, models=mcnemar(a, b)) == (
        "one run each: nothing can be concluded about the recipes A and B; of these "
        "two trained models that of B is better by 3.00 points (95% interval 2.01 to "
        "4.25, exact McNemar p < 0.001, 1,000 test images)"
    )
    assert conclusion("A", "B", test, models=mcnemar(a, a)).endswith(
        "; nor is there a difference shown between the two models (exact McNemar "
        "p = 1, 1,000 test images)"
    )
