import os
import pathlib
import threading
import time

import numpy as np
import pytest

from kcnn import catalog, datasets, pipeline, records
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.spec import ImageSpec

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 5, 4, 3), np.uint8)
LABELS = np.arange(60) % 3
CACHES = ["memory", "disk", "none"]


def store(folder, name, splits, features=None):
    """Prepare a data set of tensorflow-datasets: split -> range of PIXELS."""
    import tensorflow_datasets as tfds

    features = features or {
        "picture": tfds.features.Image(shape=(5, 4, 3)),
        "kind": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
        "id": tfds.features.Text(),
    }
    data = {
        split: [
            {
                "picture": PIXELS[i],
                "kind": LABELS[i],
                "label": LABELS[i],
                "coarse": LABELS[i] % 2,
                "id": str(i),
            }
            for i in indices
        ]
        for split, indices in splits.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=folder,
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [(i, {k: x[k] for k in features}) for i, x in enumerate(items)]
            for split, items in data.items()
        },
        disable_shuffling=True,
    )


def load(name, folder, **settings):
    return datasets.load(Config(dataset=name, data_dir=str(folder), **settings))


def pixels(split):
    return np.concatenate(list(pipeline.evaluation_batches(split, 7)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    store(folder, "two", {"train": range(40), "test": range(40, 60)})
    store(
        folder,
        "three",
        {"train": range(40), "validation": range(40, 50), "test": range(50, 60)},
    )
    store(folder, "labelled", {"train": range(40), "validation": range(40, 60)})
    store(folder, "one", {"train": range(60)})
    store(folder, "only_test", {"test": range(60)})
    label = tfds.features.ClassLabel(names=["ant", "bee", "cow"])
    mixed = {"picture": tfds.features.Image(shape=(None, None, 3)), "kind": label}
    store(folder, "mixed", {"train": range(60)}, mixed)
    kinds = {"coarse": tfds.features.ClassLabel(num_classes=2), "label": label}
    kinds["picture"] = tfds.features.Image(shape=(5, 4, 3))
    store(folder, "two_labels", {"train": range(60)}, kinds)
    text = {"id": tfds.features.Text(), "kind": label}
    store(folder, "text", {"train": range(60)}, text)
    return folder


@pytest.mark.parametrize("cache", CACHES)
def test_images_labels_and_names_in_the_order_of_the_split(folder, cache):
    data = load("two", folder, cache=cache)
    assert data.spec == ImageSpec(5, 4, 3, ("ant", "bee", "cow"))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 20)
    np.testing.assert_array_equal(pixels(data.test), PIXELS[40:])
    np.testing.assert_array_equal(data.test.labels, LABELS[40:])
    for split in (data.train, data.validation):
        np.testing.assert_array_equal(pixels(split), PIXELS[split.indices])
        np.testing.assert_array_equal(split.labels, LABELS[split.indices])
    assert data.test.names(3) == "3"
    assert data.notes == []


def test_records_are_read_again_in_any_order(folder):
    split = load("two", folder, cache="none").test
    positions = np.array([19, 0, 7, 7])
    found = pipeline.images_at(split, positions)
    np.testing.assert_array_equal(found, PIXELS[40 + positions])


def test_size_and_color(folder):
    data = load("two", folder, image_size=(8, 8), color_mode="grayscale")
    assert data.spec.shape == (8, 8, 1) and pixels(data.test).shape == (20, 8, 8, 1)


def test_own_validation_split(folder):
    data = load("three", folder)
    np.testing.assert_array_equal(pixels(data.validation), PIXELS[40:50])
    assert len(data.train) == 40
    assert data.notes == [
        "validation: the data set's own split; --validation_fraction is not used"
    ]


def test_validation_is_the_test_where_there_is_no_other(folder):
    data = load("labelled", folder)
    np.testing.assert_array_equal(pixels(data.test), PIXELS[40:])
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert data.notes == ["test: the split 'validation' of labelled"]


def test_test_is_carved_where_there_is_only_train(folder):
    data = load("one", folder, test_fraction=0.5)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 30)
    assert data.notes[0].startswith("no test split: 50% of the images")


def test_the_usual_label_comes_before_others(folder):
    assert load("two_labels", folder).spec.class_names == ("ant", "bee", "cow")


def test_mixed_sizes(folder):
    data = load("mixed", folder)
    assert data.spec.shape == (64, 64, 3)
    assert data.notes[0] == (
        "images of mixed sizes resized to 64x64 (set --image_size)"
    )


def test_only_a_test_split(folder):
    with pytest.raises(UsageError, match="only_test has no train split, only test"):
        load("only_test", folder)
    config = Config(dataset="only_test", data_dir=str(folder))
    loaded = datasets.load_split(config, "test", ImageSpec(5, 4, 3, ("a",)))
    split, names = loaded.split, loaded.class_names
    assert len(split) == 60 and names == ("ant", "bee", "cow")


def test_refuses_what_is_not_image_classification(folder):
    with pytest.raises(UsageError, match=r"not for .*: it has id .*kind .ClassLabel"):
        load("text", folder)


@pytest.mark.parametrize("cache", CACHES)
def test_damaged_records(tmp_path, cache):
    store(tmp_path, "two", {"train": range(40), "test": range(20)})
    (record,) = tmp_path.glob("two/1.0.0/*train*")
    record.write_bytes(record.read_bytes()[:-30])
    with pytest.raises(UsageError, match="the split 'train' of two cannot be") as e:
        load("two", tmp_path, cache=cache)
    assert "\n" not in str(e.value)


def test_refuses_another_file_format(tmp_path):
    store(tmp_path, "two", {"train": range(40)})
    info = tmp_path / "two/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("tfrecord", "array_record"))
    with pytest.raises(UsageError, match=r"as array_record .* reads tfrecord"):
        load("two", tmp_path)


def test_a_typo_is_refused_at_once_with_what_would_work(folder, monkeypatch):
    monkeypatch.setattr(catalog, "_download", lambda *_: pytest.fail("tried network"))
    with pytest.raises(UsageError) as caught:
        load("mnits", folder)
    assert str(caught.value) == (
        "--dataset: unknown data set 'mnits'; did you mean mnist?; digits, npz:FILE, "
        f"folder:DIR and examples:DIR always work, and from {folder}: labelled, mixed, "
        "one, only_test, text, three, two, two_labels"
    )
    with pytest.raises(UsageError, match="did you mean digits"):
        load("digit", folder)


def test_an_unknown_version_is_refused(folder):
    with pytest.raises(UsageError, match=r"--dataset: two:9.9.9: ") as caught:
        load("two:9.9.9", folder)
    assert "\n" not in str(caught.value)


def test_offline_and_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_offline", lambda: True)
    with pytest.raises(UsageError) as caught:
        load("cifar10", tmp_path)
    assert str(caught.value) == (
        f"--dataset: cifar10 is not prepared in {tmp_path} and there is no network to "
        "download it; digits, npz:FILE, folder:DIR and examples:DIR always work"
    )


def test_a_failing_download(tmp_path, monkeypatch, capsys):
    def fail(_):
        print("Downloading")
        raise ConnectionError("no route\nto host")

    import tensorflow_datasets as tfds

    monkeypatch.setattr(catalog, "_offline", lambda: False)
    builder = tfds.builder("cifar10", data_dir=str(tmp_path))
    monkeypatch.setattr(type(builder), "download_and_prepare", fail)
    with pytest.raises(UsageError, match="and the download failed: no route; digits"):
        load("cifar10", tmp_path)
    assert capsys.readouterr().out == ""


def test_where_data_lies(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/a")
    assert catalog.data_dir(Config()) == pathlib.Path("/a")
    assert catalog.data_dir(Config(data_dir="/b")) == pathlib.Path("/b")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert catalog.data_dir(Config()).name == "tensorflow_datasets"
    assert os.path.isabs(catalog.data_dir(Config()))


def test_mnist(mnist_dir):
    began = time.perf_counter()
    data = load("mnist", mnist_dir, validation_fraction=0.1)
    assert time.perf_counter() - began < 30  # 2 s on two free cores
    assert data.spec.shape == (28, 28, 1)
    assert (len(data.train), len(data.validation), len(data.test)) == (
        54000,
        6000,
        10000,
    )
    assert np.bincount(data.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    # The pixels' published mean and deviation.
    train = np.concatenate([pixels(data.train), pixels(data.validation)]) / 255
    assert abs(train.mean() - 0.1307) < 1e-4 and abs(train.std() - 0.3081) < 1e-4


def test_mnist_streams_the_same_images(mnist_dir):
    spec = ImageSpec(28, 28, 1, tuple("0123456789"))
    kept, read = (
        datasets.load_split(
            Config(dataset="mnist", data_dir=mnist_dir, cache=cache), "test", spec
        ).split
        for cache in ("memory", "none")
    )
    np.testing.assert_array_equal(pixels(read), pixels(kept))


def test_chunks_are_decoded_on_all_cores_and_stay_in_order(monkeypatch):
    monkeypatch.setattr(records, "cores", lambda: 3)
    taken, met = [], threading.Barrier(3, timeout=60)

    def items():
        for i in range(12):
            taken.append(i)
            yield i

    def work(i):
        met.wait()  # goes on when three are at it
        return 10 * i

    found = records._on_all_cores(work, items())
    assert next(found) == 0
    assert taken == [0, 1, 2, 3]  # not far ahead: memory stays small
    assert list(found) == [10 * i for i in range(1, 12)]


def test_a_chunk_that_cannot_be_decoded_ends_the_reading():
    with pytest.raises(ZeroDivisionError):
        list(records._on_all_cores(lambda i: 1 / i, [2, 1, 0, 3]))
