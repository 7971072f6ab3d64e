"""Figures against values worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import scipy
import sklearn.metrics

from kcnn import evaluation
from kcnn.errors import RunError
from kcnn.statistics import wilson_interval

NAMES = ("ant", "bee", "cat")


def logits_of(probabilities):
    return np.log(np.array(probabilities, np.float64)).astype(np.float32)


LOGITS = logits_of(
    [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]
)
LABELS = np.array([0, 1, 1, 2])  # the second is wrong


def test_by_hand():
    found = evaluation.evaluate_logits(LOGITS, LABELS, NAMES)
    assert (found["n"], found["mistakes"], found["accuracy"]) == (4, 1, 0.75)
    expected = -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.5)) / 4
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    ant, bee, _ = found["per_class"]
    assert (ant["name"], ant["precision"], ant["recall"]) == ("ant", 0.5, 1.0)
    assert (bee["precision"], bee["recall"], bee["support"]) == (1.0, 0.5, 2)
    assert bee["f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert "top_5_accuracy" not in found


def test_wilson_interval_is_the_textbooks():
    # 15 of 20 (Wilson's score interval, z = 1.959964): by the formula.
    z, n, p = 1.959964, 20, 0.75
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = wilson_interval(15, 20)
    assert found == pytest.approx([centre - half, centre + half], abs=1e-6)
    assert wilson_interval(20, 20)[1] == 1.0


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.65, 0.65])
    hits = np.array([True, True, True, False])
    bins = evaluation.reliability_bins(confidence, hits)
    filled = [b for b in bins if b["n"]]
    assert [b["n"] for b in filled] == [2, 2]
    assert [b["accuracy"] for b in filled] == [0.5, 1.0]
    # |0.5 - 0.65| and |1 - 0.95|, each for half of the images.
    assert evaluation.calibration_error(bins) == pytest.approx((0.15 + 0.05) / 2)


def test_bins_hold_every_prediction_once_edges_too():
    confidence = np.concatenate([np.linspace(0, 1, 16), [0.5, 1.0]])
    bins = evaluation.reliability_bins(confidence, np.ones(18, bool))
    assert sum(b["n"] for b in bins) == 18
    for i, one in enumerate(bins):
        assert one["low"] == pytest.approx(i / 15)
        if one["n"]:
            assert one["low"] <= one["confidence"] <= one["high"] + 1e-9


def test_top_5_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 20)).astype(np.float32)
    labels = rng.integers(0, 20, 200)
    found = evaluation.evaluate_logits(logits, labels, [str(i) for i in range(20)])
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5)
    assert found["top_5_accuracy"] == pytest.approx(expected)
    assert found["loss"] == pytest.approx(
        sklearn.metrics.log_loss(
            labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ),
        rel=1e-5,
    )


def test_a_class_without_images_counts_nothing_and_breaks_nothing():
    found = evaluation.evaluate_logits(LOGITS[:3], LABELS[:3], NAMES)
    cat = found["per_class"][2]
    assert (cat["support"], cat["recall"], cat["f1"]) == (0, 0.0, 0.0)
    assert found["macro_f1"] == pytest.approx(2 / 3)  # of the two classes present
    assert found["confusion_matrix"][2] == [0, 0, 0]


def test_worst_mistakes_come_with_the_most_confident_first():
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01]])
    labels = np.array([1, 1, 1, 1])
    assert evaluation.worst_mistakes(logits, labels, 9).tolist() == [3, 0, 1]
    assert evaluation.worst_mistakes(logits, labels, 2).tolist() == [3, 0]


def test_outputs_that_are_no_numbers_are_refused():
    bad = LOGITS.copy()
    bad[2, 1] = np.nan
    with pytest.raises(RunError, match="not finite"):
        evaluation.evaluate_logits(bad, LABELS, NAMES)


@pytest.mark.parametrize("classes", [2, 7, 30])
def test_scores_are_scikit_learns_to_the_bit(classes):
    """Also where classes are absent, never predicted, or both."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 40)
    logits = rng.normal(size=(40, classes))
    names = [str(i) for i in range(classes)]
    found = evaluation.evaluate_logits(logits, labels, names)
    predicted, everything = logits.argmax(1), range(classes)
    matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=everything)
    assert found["confusion_matrix"] == matrix.tolist()
    options = {"zero_division": 0.0}
    f1 = sklearn.metrics.f1_score(labels, predicted, average="macro", **options)
    assert found["macro_f1"] == f1
    assert evaluation.quick_scores(logits, labels)["macro_f1"] == f1
    columns = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=everything, **options
    )
    for i, row in enumerate(found["per_class"]):
        assert tuple(row.values())[1:] == tuple(column[i] for column in columns)


def test_wilson_interval_is_scipys_to_the_bit():
    for n in (1, 2, 3, 7, 100, 10_000):
        for correct in {0, 1, n // 3, n // 2, n - 1, n}:
            found = scipy.stats.binomtest(correct, n).proportion_ci(method="wilson")
            assert wilson_interval(correct, n) == [found.low, found.high]
