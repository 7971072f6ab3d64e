import numpy as np
import pytest
from sklearn.datasets import load_digits

from kcnn import datasets, images, pipeline
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.spec import ImageSpec
from tests.conftest import write_npz

DIGITS = load_digits()


def pixels(split):
    return np.concatenate(list(pipeline.evaluation_batches(split, 256)))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_digits_are_scaled_and_resized(cache):
    data = datasets.load(Config(cache=cache))
    assert data.spec == ImageSpec(28, 28, 1, tuple("0123456789"))
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.notes == [
        "digits: 8x8 images resized to 28x28",
        "no test split: 20% of the images, stratified, are the test set, the same one "
        "for every seed",
    ]
    indices = [s.indices for s in (data.train, data.validation, data.test)]
    assert sorted(np.concatenate(indices)) == list(range(1797))
    labels = DIGITS.target[data.test.indices]
    np.testing.assert_array_equal(data.test.labels, labels)
    assert data.test.labels.dtype == np.int64
    assert np.bincount(labels).min() >= 34  # of 36
    assert data.test.names(5) == str(data.test.indices[5])


def test_digits_at_their_own_size():
    data = datasets.load(Config(image_size=(8, 8)))
    # Values 0 to 16: 16 becomes 255, 8 becomes 127.5 and so 128 (to even).
    expected = np.rint(DIGITS.images[data.test.indices] * 255 / 16)[..., None]
    np.testing.assert_array_equal(pixels(data.test), expected.astype(np.uint8))
    assert pixels(data.test).max() == 255
    assert not any("resized" in note for note in data.notes)


def test_color_mode_of_digits():
    grey, color = (
        pixels(datasets.load(Config(color_mode=mode)).test)
        for mode in ("grayscale", "rgb")
    )
    np.testing.assert_array_equal(color, np.repeat(grey, 3, axis=-1))


def test_seeds_share_the_test_set_and_nothing_else():
    first, other = (datasets.load(Config(random_seed=s)) for s in (0, 1))
    np.testing.assert_array_equal(first.test.indices, other.test.indices)
    assert set(first.validation.indices) != set(other.validation.indices)


def test_train_size_is_nested_and_leaves_the_other_splits():
    small, large, whole = (
        datasets.load(Config(train_size=n)) for n in (100, 250, None)
    )
    assert set(small.train.indices) < set(large.train.indices)
    assert set(large.train.indices) < set(whole.train.indices)
    assert set(np.bincount(small.train.labels)) <= {9, 10, 11}
    np.testing.assert_array_equal(small.validation.indices, whole.validation.indices)
    np.testing.assert_array_equal(small.test.indices, whole.test.indices)


def test_train_size_counts_what_validation_leaves():
    assert len(datasets.load(Config(train_size=1293)).train) == 1293
    with pytest.raises(UsageError, match="got 1294; 1293 images are left to train on"):
        datasets.load(Config(train_size=1294))
    config = Config(train_size=1437, validation_fraction=0.0)
    data = datasets.load(config)
    assert len(data.train) == 1437 and data.validation is None


def test_missing_classes_are_noted():
    notes = datasets.load(Config(train_size=3)).notes
    assert notes[-1].startswith("no training image of 7 of the classes: ")
    assert notes[-1].endswith(", ...")


def test_test_fraction_is_refused_where_there_is_a_test_split(npz):
    with pytest.raises(
        UsageError, match=r"--test_fraction changes nothing: npz:.* has"
    ):
        datasets.load(Config(dataset=f"npz:{npz}", test_fraction=0.3))


def test_extra_class_comes_last():
    spec = datasets.load(Config(extra_class="none")).spec
    assert spec.class_names == (*"0123456789", "none") and spec.num_classes == 11
    with pytest.raises(UsageError, match=r"--extra_class: .* a class '7' already"):
        datasets.load(Config(extra_class="7"))


@pytest.mark.parametrize("dataset", ["npz:", "folder:"])
def test_a_kind_without_a_path_is_refused(dataset):
    with pytest.raises(UsageError, match=f"got '{dataset}', expected {dataset}PATH"):
        datasets.load(Config(dataset=dataset))


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_load_split_is_a_split_of_load(name):
    config = Config(random_seed=3, train_size=200)
    data = datasets.load(config)
    loaded = datasets.load_split(config, name, data.spec)
    split, class_names = loaded.split, loaded.class_names
    whole = getattr(data, name)
    np.testing.assert_array_equal(split.indices, whole.indices)
    np.testing.assert_array_equal(split.labels, whole.labels)
    np.testing.assert_array_equal(pixels(split), pixels(whole))
    assert class_names == data.spec.class_names


def test_load_split_fits_images_to_the_model(npz):
    spec = ImageSpec(7, 9, 3, ("a", "b", "c"))
    config = Config(
        dataset=f"npz:{npz}", image_size=(5, 5), color_mode="grayscale", extra_class="x"
    )
    loaded = datasets.load_split(config, "test", spec)
    split, class_names = loaded.split, loaded.class_names
    with np.load(npz) as file:
        expected = images.fit(file["x_test"], (7, 9, 3))
    np.testing.assert_array_equal(pixels(split), expected)
    assert class_names == ("0", "1", "2")


def test_classes_are_mapped_by_name():
    labels = np.array([0, 1, 2, 0])
    split = datasets.Split(None, labels, np.arange(4))
    loaded = datasets.OneSplit(split, ("dog", "ant", "cat"), [])
    spec = ImageSpec(4, 4, 1, ("ant", "bee", "cat", "dog"))
    assert datasets.in_classes_of(spec, loaded).labels.tolist() == [3, 0, 2, 3]
    with pytest.raises(UsageError, match=r"knows no ant; its classes are cat, dog"):
        datasets.in_classes_of(ImageSpec(4, 4, 1, ("cat", "dog")), loaded)


def test_load_split_reads_only_what_it_needs(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["x_train"] = arrays["x_train"].astype(np.int64) + 9999  # cannot be read
    np.savez(path, **arrays)
    config = Config(dataset=f"npz:{path}")
    spec = ImageSpec(10, 10, 1, ("a", "b"))
    split = datasets.load_split(config, "test", spec).split
    assert len(split) == 30


def test_load_split_without_that_split():
    config = Config(validation_fraction=0.0)
    with pytest.raises(UsageError, match="digits has no validation split"):
        datasets.load_split(config, "validation", ImageSpec(28, 28, 1, ("a", "b")))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"cache": "none"}, "--cache"),
        ({"strict": True}, "--strict"),
        ({"data_dir": "/somewhere"}, "--data_dir"),
        ({"dataset": "digits:8"}, "--dataset"),
    ],
)
def test_what_would_change_nothing_is_refused(settings, flag):
    with pytest.raises(UsageError, match=flag):
        datasets.load(Config(**settings))
