"""Figures of rejection against values by hand and against scikit-learn and SciPy."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from kcnn import rejection
from kcnn.confidence import Judged, Rule
from kcnn.config import Config
from kcnn.statistics import wilson_interval

RULE = Rule(2.0, "max_probability", math.log(0.6))


def judged(scores, predicted, accepted=None, classes=3):
    return Judged(
        np.eye(classes)[predicted],
        {"energy": np.array(scores, float)},
        None if accepted is None else np.array(accepted, bool),
    )


def test_the_curve_and_its_area_by_hand():
    scores = [4.0, 3.0, 2.0, 1.0]
    hits = np.array([True, False, True, False])
    coverage, risk = rejection.risk_coverage(np.array(scores), hits)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    labels = np.where(hits, 0, 1)
    found = rejection.selective_scores(
        judged(scores, [0] * 4, [1, 1, 1, 0]), "energy", labels
    )
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert (found["n"], found["accepted"], found["mistakes"]) == (4, 3, 1)
    assert (found["coverage"], found["accuracy"]) == (0.75, pytest.approx(2 / 3))
    assert found["coverage_interval"] == wilson_interval(3, 4)
    assert found["accuracy_interval"] == wilson_interval(2, 3)


def test_equal_scores_are_one_point_whatever_their_order():
    scores = np.array([2.0, 1.0, 1.0, 1.0])
    for hits in ([True, True, False, True], [True, False, True, True]):
        coverage, risk = rejection.risk_coverage(scores, np.array(hits))
        assert coverage.tolist() == [0.25, 1.0]
        assert risk.tolist() == [0, 0.25]
        labels = np.where(hits, 0, 1)
        found = rejection.selective_scores(
            judged(scores, [0] * 4, [1, 0, 0, 0]), "energy", labels
        )
        assert found["aurc"] == pytest.approx((0 + 3 * 0.25) / 4)


def test_where_nothing_is_accepted_nothing_is_known():
    found = rejection.selective_scores(
        judged([1.0, 2.0], [0, 1], [0, 0]), "energy", np.array([0, 1])
    )
    assert (found["accepted"], found["coverage"]) == (0, 0.0)
    assert found["accuracy"] is None and found["accuracy_interval"] is None
    assert len(list(rejection.lines(found, None))) == 2


def test_a_long_curve_is_thinned_from_end_to_end():
    rng = np.random.default_rng(0)
    scores, predicted = rng.normal(size=5000), rng.integers(0, 3, 5000)
    found = rejection.selective_scores(
        judged(scores, predicted, scores > 0), "energy", np.zeros(5000, int)
    )
    curve = found["risk_coverage"]
    assert len(curve) == 200
    assert (curve[0]["coverage"], curve[-1]["coverage"]) == (1 / 5000, 1.0)
    assert curve[-1]["risk"] == pytest.approx((predicted != 0).mean())


def test_auroc_by_hand_and_by_scikit_learn():
    # Of six pairs five are in order and one is a tie.
    found = rejection.auroc(np.array([3.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    assert found["value"] == pytest.approx(5.5 / 6)
    rng = np.random.default_rng(0)
    high, low = rng.normal(1, 1, 80), rng.normal(0, 1, 50)
    found = rejection.auroc(high, low)
    assert found["value"] == pytest.approx(
        sklearn.metrics.roc_auc_score([1] * 80 + [0] * 50, [*high, *low])
    )


def test_the_interval_of_auroc_is_the_bootstraps():
    rng = np.random.default_rng(1)
    high, low = rng.normal(1, 1, 200), rng.normal(0, 1, 100)

    def area(a, b, axis=-1):
        return (a[..., :, None] > b[..., None, :]).mean((-2, -1))

    drawn = scipy.stats.bootstrap(
        (high, low), area, n_resamples=1000, batch=50, method="percentile", rng=rng
    )
    expected = drawn.confidence_interval
    assert rejection.auroc(high, low)["interval"] == pytest.approx(
        [expected.low, expected.high], abs=0.015
    )


def test_auroc_of_one_image_has_no_interval_and_of_all_apart_no_width():
    assert rejection.auroc(np.array([1.0]), np.array([0.0, 0.5]))["interval"] is None
    assert rejection.auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == {
        "value": 1.0,
        "interval": [1.0, 1.0],
    }


def test_unknown_images_are_counted_where_there_is_a_threshold():
    known = judged([3.0, 2.0], [0, 1], [1, 1])
    found = rejection.known_against_unknown(
        known, judged([2.5, 1.0, 0.0, 0.0], [0] * 4, [1, 0, 0, 0])
    )
    assert (found["n"], found["accepted"], found["accepted_part"]) == (4, 1, 0.25)
    assert found["accepted_interval"] == wilson_interval(1, 4)
    assert found["auroc"]["energy"]["value"] == pytest.approx(7 / 8)
    plain = rejection.known_against_unknown(known, judged([2.5, 1.0], [0, 0]))
    assert "accepted" not in plain


def test_figures_hold_before_and_after_and_only_what_was_asked_for():
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]))
    labels = np.array([0, 1, 1, 1])
    known = {"validation": (logits, labels), "test": (logits[:2], labels[:2])}
    config = Config(reject="max_probability", coverage=0.5)
    found = rejection.figures(config, RULE, known, None)
    assert found["unknown"] is None
    calibration, rejected = found["calibration"], found["rejection"]
    assert (calibration["temperature"], calibration["note"]) == (2.0, "")
    before = calibration["test"]["before"]
    assert before["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.2)) / 2)
    # The gaps |1 - 0.9| and |0 - 0.8| are in bins of their own.
    assert before["expected_calibration_error"] == pytest.approx((0.1 + 0.8) / 2)
    # softmax(log(p) / 2) is sqrt(p), normalized: 0.9 and 0.1 become 0.75 and 0.25.
    after = calibration["test"]["after"]["loss"]
    third = 1 / 3  # of 0.8 and 0.2 likewise 2/3 and 1/3
    assert after == pytest.approx(-(math.log(0.75) + math.log(third)) / 2)
    assert (rejected["score"], rejected["coverage"]) == ("max_probability", 0.5)
    assert rejected["validation"]["accepted"] == 3  # 0.75, 0.67, 0.604; not 0.551
    nothing = rejection.figures(Config(), Rule(), known, None)
    assert nothing == {"calibration": None, "rejection": None, "unknown": None}


def test_a_temperature_that_could_not_be_fitted_is_said():
    known = {"test": (np.eye(2), np.array([0, 1]))}
    found = rejection.figures(Config(calibrate=True), Rule(1.0), known, None)
    assert "no validation image is wrong" in found["calibration"]["note"]
