"""Temperature and threshold against values by hand, grids and other libraries."""

import math

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from kcnn.confidence import PLAIN, Rule, fit_rule, fit_temperature, scores_of
from kcnn.confidence import threshold_at as threshold
from kcnn.config import Config


def random_logits(n=500, classes=4, seed=0, scale=3.0):
    """Return overconfident logits and labels: right about two times in three."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.5
    return (scale * logits).astype(np.float32), labels


def loss(logits, labels):
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    return sklearn.metrics.log_loss(labels, probabilities)


@pytest.mark.parametrize("scale", [0.2, 8.0])
def test_the_temperature_is_the_minimum_of_a_grid(scale):
    logits, labels = random_logits(scale=scale)
    found = fit_temperature(logits, labels)
    grid = np.geomspace(0.05, 20, 601)
    losses = [loss(logits / t, labels) for t in grid]
    best = grid[np.argmin(losses)]
    assert found == pytest.approx(best, rel=grid[1] / grid[0] - 1)
    assert loss(logits / found, labels) <= min(losses) + 1e-9


def test_logits_times_ten_have_ten_times_the_temperature():
    logits, labels = random_logits()
    once, ten = (fit_temperature(k * logits, labels) for k in (1, 10))
    assert ten == pytest.approx(10 * once, rel=1e-4)


def test_the_temperature_of_two_classes_by_hand():
    # Three of four are right, always by the same logit of 2: sigmoid(2 / T) = 3 / 4.
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(
        2 / math.log(3), rel=1e-5
    )


def test_without_a_mistake_no_temperature_is_best():
    logits, _ = random_logits()
    assert fit_temperature(logits, logits.argmax(1)) == 1.0


def test_scores_by_hand():
    found = scores_of(np.log([[0.7, 0.2, 0.1], [6.0, 3.0, 3.0]]), 1.0)
    np.testing.assert_allclose(np.exp(found["max_probability"]), [0.7, 0.5])
    np.testing.assert_allclose(found["energy"], [0, math.log(12)], atol=1e-12)
    hot = scores_of(np.array([[4.0, 0.0]]), 2.0)
    assert math.exp(hot["max_probability"][0]) == pytest.approx(
        1 / (1 + math.exp(-2)), rel=1e-12
    )
    assert hot["energy"][0] == pytest.approx(2 * math.log(math.exp(2) + 1))


def test_probabilities_that_round_to_one_are_told_apart():
    found = scores_of(np.array([[50.0, 0.0], [60.0, 0.0]], np.float32), 1.0)
    first, second = found["max_probability"]
    assert first == pytest.approx(-math.exp(-50), rel=1e-9)
    assert first < second < 0


@pytest.mark.parametrize("coverage", [0.01, 0.07, 0.5, 0.95, 0.999, 1.0])
def test_the_coverage_is_exactly_as_stated(coverage):
    scores = np.random.default_rng(1).normal(size=1000)
    assert (scores >= threshold(scores, coverage)).sum() == round(1000 * coverage)


def test_a_part_of_an_image_counts_whole():
    scores = np.arange(7.0)
    assert (scores >= threshold(scores, 0.5)).sum() == 4


def test_equal_scores_are_accepted_together_and_no_more():
    scores = np.array([9.0, 5, 5, 5, 1, 0])
    # Two of six would cut the fives in two.
    assert (scores >= threshold(scores, 2 / 6)).sum() == 4
    assert (scores >= threshold(scores, 1 / 6)).sum() == 1
    assert (scores >= threshold(scores, 4 / 6)).sum() == 4
    assert threshold(scores, 4 / 6) == 3.0  # halfway to what is not accepted
    assert threshold(np.ones(4), 0.25) == 1.0


def test_neighbors_too_near_for_a_middle_are_told_apart():
    low = 1.0
    high = np.nextafter(low, 2)
    scores = np.array([low, high])
    assert (scores >= threshold(scores, 0.5)).tolist() == [False, True]


@pytest.mark.parametrize("score", ["max_probability", "energy"])
def test_a_rule_is_fitted_as_the_config_says(score):
    logits, labels = random_logits()
    rule = fit_rule(Config(reject=score, coverage=0.8), logits, labels)
    assert rule.temperature == fit_temperature(logits, labels)
    judged = rule.judge(logits)
    assert judged.accepted.sum() == 400
    assert judged.logits.dtype == np.float32
    np.testing.assert_allclose(judged.logits * rule.temperature, logits, rtol=1e-5)
    kept, left = (
        judged.scores[score][which] for which in (judged.accepted, ~judged.accepted)
    )
    assert kept.min() > left.max()
    plain = fit_rule(Config(reject=score, calibrate=False), logits, labels)
    assert plain.temperature == 1.0
    assert plain.judge(logits).accepted.mean() == 0.95


def test_nothing_asked_for_nothing_changed():
    logits, labels = random_logits()
    assert fit_rule(Config(), logits, labels) == PLAIN
    judged = PLAIN.judge(logits)
    assert judged.accepted is None
    np.testing.assert_array_equal(judged.logits, logits)


def test_a_rule_comes_back_from_an_evaluation():
    assert Rule.of({"test": {}}) == PLAIN  # of a version that fitted none
    found = Rule.of(
        {
            "calibration": {"temperature": 1.5},
            "rejection": {"score": "energy", "threshold": 7.25},
        }
    )
    assert found == Rule(1.5, "energy", 7.25)
    assert str(found) == "temperature 1.5; accepted from energy 7.25 on"
    assert str(Rule(1.0, "max_probability", math.log(0.8))) == (
        "accepted from max_probability 0.8 on"
    )
    assert str(PLAIN) == ""
