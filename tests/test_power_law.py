"""The fit of a learning curve: known curves come back, and little data is refused."""

import dataclasses
import json

import numpy as np
import pytest

from kcnn.errors import UsageError
from kcnn.power_law import power_law

SIZES = [100, 250, 500, 1000, 4000]


def curve(size):
    return 0.01 + 1.2 * size**-0.5


def noisy(seeds, spread=0.05, seed=0):
    random = np.random.default_rng(seed)
    return [curve(n) * (1 + spread * random.normal(size=seeds)) for n in SIZES]


def test_an_exact_curve_comes_back():
    found = power_law(SIZES, [[curve(n)] for n in SIZES])
    assert found.floor == pytest.approx(0.01, rel=1e-4)
    assert found.scale == pytest.approx(1.2, rel=1e-4)
    assert found.exponent == pytest.approx(0.5, rel=1e-4)
    assert found.predicted_size == 8000
    assert found.predicted_error == pytest.approx(curve(8000), rel=1e-5)
    assert found.error(8000) == pytest.approx(found.predicted_error)
    assert found.error(700) == pytest.approx(curve(700), rel=1e-5)
    assert found.predicted_interval is None  # one run a size tells no spread


def test_the_order_of_sizes_does_not_matter():
    errors = [[curve(n)] for n in SIZES]
    there, back = power_law(SIZES, errors), power_law(SIZES[::-1], errors[::-1])
    assert there.predicted_error == pytest.approx(back.predicted_error)
    assert back.predicted_size == 8000


def test_the_interval_narrows_with_seeds():
    few, many = power_law(SIZES, noisy(3)), power_law(SIZES, noisy(30))
    for found in (few, many):
        low, high = found.predicted_interval
        assert low < found.predicted_error < high
    width = np.ptp(few.predicted_interval) / np.ptp(many.predicted_interval)
    assert 2 < width < 6  # about sqrt(10), for ten times the seeds


def test_the_interval_holds_the_truth():
    """In 95% of repetitions; 25 of 30 or fewer has a chance of 2% then."""
    held = 0
    for seed in range(30):
        low, high = power_law(SIZES, noisy(3, seed=seed), 60).predicted_interval
        held += low <= curve(8000) <= high
    assert held > 25


def test_the_same_data_give_the_same_interval():
    assert power_law(SIZES, noisy(3)) == power_law(SIZES, noisy(3))


def test_a_poor_fit_widens_the_interval():
    errors = [[e * 0.999, e * 1.001] for e in (0.2, 0.1, 0.14, 0.05, 0.06)]
    low, high = power_law(SIZES, errors).predicted_interval
    assert high - low > 0.02  # the seeds alone would say about 0.0002


def test_a_noisy_size_weighs_less():
    exact = [curve(n) for n in SIZES]
    errors = [[e * 0.99, e * 1.01] * 5 for e in exact]
    off = [e * 1.3 for e in errors[2]]
    steady = power_law(SIZES, [*errors[:2], off, *errors[3:]], resamples=2)
    wild = [
        e * 1.3 * factor for e, factor in zip(errors[2], [0.3, 1.7] * 5, strict=True)
    ]
    shaky = power_law(SIZES, [*errors[:2], wild, *errors[3:]], resamples=2)
    truth = curve(8000)
    assert abs(shaky.predicted_error - truth) < abs(steady.predicted_error - truth)


def test_no_mistakes_at_all():
    found = power_law(SIZES, [[0.0, 0.0]] * 5)
    assert found.predicted_error == pytest.approx(0, abs=1e-6)


def test_a_flat_curve_stays_flat():
    assert power_law(SIZES, [[0.1, 0.1]] * 5).predicted_error == pytest.approx(
        0.1, rel=1e-3
    )


def test_errors_that_grow_with_data_predict_no_less_than_their_mean():
    found = power_law(SIZES, [[0.1], [0.11], [0.12], [0.13], [0.14]])
    assert found.predicted_error == pytest.approx(0.12, abs=0.01)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ([100, 200, 300], "four or more .* got 100, 200, 300"),
        ([], "got none"),
        ([100, 200, 200, 300, 400], "different"),
        ([0, 100, 200, 300], "above 0"),
    ],
)
def test_refuses_sizes(sizes, message):
    with pytest.raises(UsageError, match=message):
        power_law(sizes, [[0.1]] * len(sizes))


@pytest.mark.parametrize("errors", [[[0.1]] * 4, [[0.1]] * 4 + [[]], [[np.nan]] * 5])
def test_refuses_errors(errors):
    with pytest.raises(UsageError):
        power_law(SIZES, errors)


def test_is_json():
    note = dataclasses.asdict(power_law(SIZES, noisy(3), resamples=5))
    assert json.loads(json.dumps(note, allow_nan=False))["predicted_size"] == 8000
