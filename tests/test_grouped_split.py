import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from kcnn.errors import UsageError
from kcnn.grouped_split import assign, groups_by_name, merged_groups

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def test_parts_that_share_an_item_are_one_group():
    groups = merged_groups(7, [[(0, 1), (2, 3)], [[1, 2], [5, 6]]])
    assert groups[0] == groups[1] == groups[2] == groups[3]
    assert groups[5] == groups[6]
    assert len(set(groups)) == 3
    assert len(set(merged_groups(3, [[]]))) == 3


def test_without_groups_each_class_is_divided_exactly():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    split = assign(labels, np.arange(160), SHARES, 0)
    for label, counts in ((0, [70, 10, 20]), (1, [35, 5, 10]), (2, [7, 1, 2])):
        assert np.bincount(split[labels == label], minlength=3).tolist() == counts
    again, other = (assign(labels, np.arange(160), SHARES, s) for s in (0, 1))
    assert (again == split).all() and (other != split).any()


def test_a_class_of_one_is_trained():
    split = assign(np.array([0] * 10 + [1]), np.arange(11), SHARES, 0)
    assert split[-1] == 0


def test_groups_are_whole_and_classes_near_their_shares():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), rng.integers(1, 20, 100))
    labels = rng.integers(0, 4, len(groups))
    split = assign(labels, groups, {"train": 0.8, "test": 0.2}, 0)
    for group in range(100):
        assert len(set(split[groups == group])) == 1

    def worst(aside):
        return max(abs(aside[labels == label].mean() - 0.2) for label in range(4))

    folds = StratifiedGroupKFold(5).split(labels, labels, groups)
    best = min(worst(np.isin(np.arange(len(labels)), test)) for _, test in folds)
    assert worst(split == 1) <= max(best, 0.01)


def test_one_group_of_everything_is_trained():
    split = assign(np.arange(10) % 2, np.zeros(10, int), SHARES, 0)
    assert set(split) == {0}


def test_groups_by_name():
    names = ["cat/ann_1.png", "cat/bob_1.png", "dog/ann_2.png"]
    assert groups_by_name(names, r"/(\w+)_") == [[0, 2], [1]]
    assert groups_by_name(names, r"_\d") == [[0, 1], [2]]
    with pytest.raises(
        UsageError, match="does not match 1 of 3 names, such as dog/ann"
    ):
        groups_by_name(names, "cat")
    with pytest.raises(
        UsageError, match=r"--group_regex: got '\(', expected a regular"
    ):
        groups_by_name(names, "(")
