import hashlib

import numpy as np
import pytest

from kcnn.errors import UsageError
from kcnn.splits import (
    Split,
    carve,
    carve_by_content,
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


def contents(n, first=0):
    digests = [hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(n)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(n, 32)[first:]


def aside(labels, files, fraction=0.2, salt="test"):
    """Return the contents set aside by `carve_by_content`."""
    rest, found = carve_by_content(labels, files, fraction, salt, "test_fraction")
    assert sorted([*rest, *found]) == list(range(len(labels)))
    return {files[i].tobytes() for i in found}


def test_content_decides_by_a_hash_and_nothing_else():
    files, labels = contents(1000), np.arange(1000) % 2
    expected = {
        f.tobytes()
        for f in files
        if hashlib.sha256(b"test" + f.tobytes()).digest()[0] < 64  # a quarter of 256
    }
    assert aside(labels, files, 0.25) == expected
    order = rng().permutation(1000)
    assert aside(labels[order], files[order], 0.25) == expected
    assert aside(labels, files, 0.25, "another") != expected


def test_no_file_changes_sides_when_files_are_added_or_removed():
    files, labels = contents(1000), np.arange(1000) % 3
    before = aside(labels[:600], files[:600])
    known = {f.tobytes() for f in files[:600]}
    assert aside(labels, files) & known == before
    kept = slice(100, 600)
    gone = {f.tobytes() for f in files[:100]}
    assert aside(labels[kept], files[kept]) == before - gone


def test_each_class_gives_about_its_share_by_content():
    files, labels = contents(3000), np.repeat([0, 1, 2], [2000, 900, 100])
    _, found = carve_by_content(labels, files, 0.2, "test", "test_fraction")
    counts = np.bincount(labels[found])
    deviation = np.sqrt(np.array([2000, 900, 100]) * 0.2 * 0.8)
    assert (np.abs(counts - [400, 180, 20]) < 3 * deviation).all()


def test_a_small_class_gives_an_image_and_keeps_one():
    for start in range(0, 900, 30):
        files = contents(930, start)[:30]
        labels = np.repeat([0, 1, 2, 3], [20, 5, 4, 1])
        for fraction in (0.2, 0.9):
            rest, found = carve_by_content(labels, files, fraction, "test", "x")
            assert set(labels[rest]) == {0, 1, 2, 3}
            assert set(labels[found]) >= {0, 1}  # 0.2 of 5 is 1


def test_equal_files_are_on_one_side():
    files = np.repeat(contents(50), 4, axis=0)
    labels = np.arange(200) % 2
    rest, found = carve_by_content(labels, files, 0.3, "test", "test_fraction")
    assert {f.tobytes() for f in files[rest]}.isdisjoint(aside(labels, files, 0.3))
    assert len(found) % 4 == 0


def test_content_refuses_what_cannot_be_divided():
    one = np.repeat(contents(1), 6, axis=0)
    with pytest.raises(UsageError, match="of 6 images in 2 classes none can be set"):
        carve_by_content(np.arange(6) % 2, one, 0.2, "test", "test_fraction")
    tiny = carve_by_content(np.array([0, 0, 1, 1]), contents(4), 0.01, "test", "x")
    assert len(tiny[1]) == 1


def test_test_by_content_has_no_seed_and_validation_has():
    files, labels = contents(500), np.arange(500) % 2
    _, test = carve_test(labels, 0.2, files)
    assert (test == carve_by_content(labels, files, 0.2, "test", "")[1]).all()
    _, first = carve_validation(labels, 0.2, 0, files)
    _, other = carve_validation(labels, 0.2, 1, files)
    assert set(first) != set(other) and set(first) != set(test)
