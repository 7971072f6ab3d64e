"""What is drawn of rejection: positions by hand, and no text over another."""

import numpy as np
import pytest

from kcnn import plots, rejection_plots
from kcnn.confidence import Judged
from kcnn.rejection import selective_scores
from tests.test_plots import assert_text_apart_and_inside, texts

pytestmark = pytest.mark.filterwarnings("error")


def rejected(accepted):
    judged = Judged(
        np.eye(2)[[0, 0, 0, 0]],
        {"energy": np.array([4.0, 3.0, 2.0, 1.0])},
        np.array(accepted, bool),
    )
    return selective_scores(judged, "energy", np.array([0, 1, 0, 1]))


def test_the_curve_is_in_percent_with_the_threshold_on_it(tmp_path):
    figure = rejection_plots.risk_coverage(
        rejected([1, 1, 1, 0]), "energy", tmp_path / "a.png"
    )
    axes = figure.axes[0]
    curve, random, point = axes.lines[:3]
    assert curve.get_xdata().tolist() == [25, 50, 75, 100]
    assert curve.get_ydata() == pytest.approx([0, 50, 100 / 3, 50])
    assert random.get_ydata() == pytest.approx([50, 50])
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((75, 100 / 3))
    assert "area under the curve 0.333 (of 1)" in texts(figure)
    assert_text_apart_and_inside(figure)


def test_where_nothing_is_accepted_there_is_no_point(tmp_path):
    figure = rejection_plots.risk_coverage(
        rejected([0, 0, 0, 0]), "energy", tmp_path / "a.png"
    )
    assert len(figure.axes[0].lines) == 2


@pytest.mark.parametrize("thresholds", [{}, {"energy": 5.0}])
def test_histograms_are_in_percent_of_their_own_images(tmp_path, thresholds):
    rng = np.random.default_rng(0)
    known = {
        "max_probability": rng.uniform(0.8, 1, 900),
        "energy": rng.normal(9, 2, 900),
    }
    unknown = {"max_probability": rng.uniform(0, 1, 50), "energy": rng.normal(3, 1, 50)}
    areas = {"max_probability": {"value": 0.91}, "energy": {"value": 0.98765}}
    figure = rejection_plots.score_histograms(
        known, unknown, areas, thresholds, tmp_path / "a.png"
    )
    first, second = figure.axes
    bars = [patch.get_height() for patch in first.patches[:40]]
    assert sum(bars) == pytest.approx(100)
    assert [a.get_xlabel() for a in figure.axes] == ["max probability", "energy"]
    assert "AUROC 0.9877" in texts(figure)
    assert (len(first.lines), len(second.lines)) == (0, len(thresholds))
    assert_text_apart_and_inside(figure)


def test_reliability_stands_before_and_after(tmp_path):
    def bins(accuracy):
        empty = {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None}
        full = {"low": 0.5, "high": 1.0, "n": 100, "confidence": 0.9}
        return [empty, full | {"accuracy": accuracy}]

    before = {"reliability": bins(0.7), "expected_calibration_error": 0.2}
    figure = plots.reliability(bins(0.88), 0.02, tmp_path / "a.png", before)
    left, right, *counts = figure.axes
    assert [axes.patches[0].get_height() for axes in (left, right)] == [70, 88]
    assert "before: expected calibration error 20.00 %" in texts(figure)
    assert "after: expected calibration error 2.00 %" in texts(figure)
    assert [axes.patches[0].get_height() for axes in counts] == [100, 100]
    assert_text_apart_and_inside(figure)
