import numpy as np
import pytest

from kcnn.errors import UsageError
from kcnn.splits import (
    Split,
    carve,
    carve_test,
    carve_validation,
    sample_of,
    stratified_order,
    take_subset,
)

# 60, 30 and 10 of three classes, mixed.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 10]))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_every_prefix_of_the_order_is_stratified():
    order = stratified_order(LABELS, rng())
    assert sorted(order) == list(range(100))
    for n in range(1, 101):
        counts = np.bincount(LABELS[order[:n]], minlength=3)
        assert np.abs(counts - n * np.array([0.6, 0.3, 0.1])).max() <= 1
    assert np.bincount(LABELS[order[:10]]).tolist() == [6, 3, 1]


def test_order_is_random_by_seed():
    first, again, other = (stratified_order(LABELS, rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_equal_places_are_not_ordered_by_class():
    labels = np.repeat(np.arange(10), 10)
    starts = {labels[stratified_order(labels, rng(s))[0]] for s in range(30)}
    assert len(starts) > 3


def test_carve_takes_each_class_by_its_share():
    rest, aside = carve(LABELS, 0.2, rng(), "test_fraction")
    assert np.bincount(LABELS[aside]).tolist() == [12, 6, 2]
    assert sorted([*rest, *aside]) == list(range(100))
    assert (np.diff(rest) > 0).all() and (np.diff(aside) > 0).all()


@pytest.mark.parametrize(
    ("n", "fraction", "expected"), [(30, 0.1, 3), (31, 0.1, 4), (10, 0.01, 1)]
)
def test_carve_rounds_up(n, fraction, expected):
    _, aside = carve(np.arange(n) % 2, fraction, rng(), "test_fraction")
    assert len(aside) == expected


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_carve_leaves_every_class_an_image(fraction):
    labels = np.array([0] * 20 + [1, 2, 2])
    for seed in range(20):
        rest, _ = carve(labels, fraction, rng(seed), "test_fraction")
        assert set(labels[rest]) == {0, 1, 2}


def test_carve_refuses_more_than_can_be_spared():
    with pytest.raises(UsageError) as caught:
        carve(np.array([0, 1, 1]), 0.9, rng(), "validation_fraction")
    assert str(caught.value) == (
        "--validation_fraction: got 0.9; of 3 images in 2 classes at most 1 can be "
        "set aside, not 3"
    )


def test_test_set_has_no_seed_and_validation_has():
    _, first = carve_validation(LABELS, 0.2, 0)
    _, other = carve_validation(LABELS, 0.2, 1)
    assert (first != other).any()
    _, test = carve_test(LABELS, 0.2)
    assert (test == carve_test(LABELS, 0.2)[1]).all()


def test_subsets_are_nested_and_stratified():
    small = take_subset(LABELS, 10, 3)
    large = take_subset(LABELS, 25, 3)
    assert set(small) < set(large)
    assert np.bincount(LABELS[small]).tolist() == [6, 3, 1]
    assert (np.diff(large) > 0).all()
    assert set(take_subset(LABELS, 25, 4)) != set(large)
    assert len(take_subset(LABELS, None, 3)) == 100


def test_subset_larger_than_what_is_left_is_refused():
    with pytest.raises(UsageError, match="--train_size: got 101; 100 images are left"):
        take_subset(LABELS, 101, 0)


def test_a_sample_is_a_stratified_part_or_all():
    labels = np.repeat([0, 1], [30, 10])
    whole = Split(None, labels, np.arange(100, 140))
    part = sample_of(whole, 8, random_seed=3)
    assert np.bincount(part.labels).tolist() == [6, 2]
    np.testing.assert_array_equal(labels[part.indices - 100], part.labels)
    assert len(set(part.indices.tolist())) == 8
    again, other = (sample_of(whole, 8, random_seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.indices, part.indices)
    assert not np.array_equal(other.indices, part.indices)
    np.testing.assert_array_equal(sample_of(whole, 50, 0).indices, whole.indices)
