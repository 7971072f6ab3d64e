import itertools
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from kcnn import datasets, pipeline
from kcnn.config import Config
from kcnn.sources import MemoryImages
from kcnn.splits import Split
from tests.conftest import striped_images

# Image i is filled with i; the split holds every second one, backwards.
IMAGES = np.repeat(np.arange(46, dtype=np.uint8), 6).reshape(46, 2, 3, 1)
INDICES = np.arange(44, -1, -2)  # 23 of them
LABELS = INDICES % 3


@pytest.fixture
def split():
    return Split(MemoryImages(IMAGES), LABELS, INDICES)


def config(**settings):
    return Config(**{"batch_size": 5, "epochs": 3} | settings)


def batches(split, config, **kwargs):
    stream = pipeline.training_batches(split, config, 3, **kwargs)
    return list(stream.as_numpy_iterator())


def order(found):
    return [int(i) for images, *_ in found for i in images[:, 0, 0, 0]]


def test_evaluation_reads_every_image_once_in_order(split):
    found = list(pipeline.evaluation_batches(split, 5))
    assert [len(batch) for batch in found] == [5, 5, 5, 5, 3]
    assert found[0].dtype == tf.uint8 and found[0].shape == (5, 2, 3, 1)
    np.testing.assert_array_equal(np.concatenate(found), IMAGES[INDICES])
    assert pipeline.evaluation_batches(split, 5).cardinality() == 5


def test_images_at(split):
    found = pipeline.images_at(split, np.array([3, 0, 22]))
    assert found[:, 0, 0, 0].tolist() == [38, 44, 0]


def test_training_reads_every_image_once_an_epoch(split):
    found = batches(split, config())
    assert [len(labels) for _, labels in found] == [4, 5, 4, 5, 5] * 3
    epochs = [order(found[i : i + 5]) for i in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(INDICES)
    for first, second in itertools.combinations(epochs, 2):
        assert first != second


def test_batches_of_one_size_show_every_image(split):
    found = batches(split, config(), one_size=True)
    assert [len(labels) for _, labels in found] == [5] * 15
    for i in (0, 5, 10):
        assert set(order(found[i : i + 5])) == set(INDICES)


def test_training_shuffles_the_whole_split(split):
    firsts = {
        order(batches(split, config(random_seed=s, epochs=1)))[0] for s in range(20)
    }
    assert len(firsts) > 10


def test_labels_belong_to_the_images(split):
    for images, labels in batches(split, config()):
        assert images.dtype == np.uint8 and labels.dtype == np.float32
        expected = np.eye(3)[images[:, 0, 0, 0] % 3]
        np.testing.assert_array_equal(labels, expected)


def test_labels_have_a_place_for_an_extra_class(split):
    stream = pipeline.training_batches(split, config(), 4)
    assert next(iter(stream))[1].shape == (4, 4)


def test_order_depends_on_the_seed_alone(split):
    first = order(batches(split, config(random_seed=1)))
    tf.random.set_seed(7)
    np.random.seed(7)
    assert order(batches(split, config(random_seed=1))) == first
    assert order(batches(split, config(random_seed=2))) != first


def test_order_is_the_same_on_every_machine(split):
    # Recorded once: a resumed run may be on another machine.
    assert order(batches(split, config(random_seed=1)))[:8] == [
        38,
        28,
        44,
        32,
        24,
        0,
        16,
        20,
    ]


def test_alternate_flips_show_each_image_from_both_sides_in_turn():
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * 2
    images = images + np.array([0, 1], np.uint8)[:, None]  # the right pixel is odd
    split = Split(MemoryImages(images), np.zeros(40, int), np.arange(40))
    settings = config(flip="alternate", epochs=4, batch_size=10)
    found = np.concatenate([seen for seen, _ in batches(split, settings)])
    assert found.shape == (160, 1, 2, 1)
    number, mirrored = found[:, 0, 0, 0] // 2, found[:, 0, 0, 0] % 2 == 1
    by_epoch = np.array(
        [
            mirrored[i : i + 40][np.argsort(number[i : i + 40])]
            for i in range(0, 160, 40)
        ]
    )
    assert 10 < by_epoch[0].sum() < 30
    np.testing.assert_array_equal(by_epoch[1], ~by_epoch[0])
    np.testing.assert_array_equal(by_epoch[2], by_epoch[0])
    np.testing.assert_array_equal(by_epoch[3], ~by_epoch[0])
    again = batches(split, settings, start_step=6)
    np.testing.assert_array_equal(np.concatenate([s for s, _ in again]), found[60:])


@pytest.fixture
def folder(tmp_path):
    for i, (image, label) in enumerate(zip(*striped_images(90), strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / str(label) / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("start", [0, 1, 4, 5, 7, 14, 15])
@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_stream_goes_on_from_any_step(start, cache, folder):
    where = {"dataset": f"folder:{folder}", "cache": cache, "train_size": 64}
    settings = config(batch_size=13, **where)
    train = datasets.load(settings).train
    stream = pipeline.training_batches(train, settings, 3)
    whole = list(stream.as_numpy_iterator())
    assert len(whole) == stream.cardinality() == 15
    rest = pipeline.training_batches(train, settings, 3, start_step=start)
    assert rest.cardinality() == 15 - start
    pairs = zip(rest.as_numpy_iterator(), whole[start:], strict=True)
    for found, expected in pairs:
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_skipping_reads_no_images():
    class Counting(MemoryImages):
        reads = 0

        def gather(self, indices):
            def count(i):
                Counting.reads += 1
                return i

            indices = tf.numpy_function(count, [indices], tf.int64)
            return super().gather(tf.ensure_shape(indices, (None,)))

    split = Split(Counting(IMAGES), LABELS, INDICES)
    assert len(batches(split, config(), start_step=14)) == 1
    assert Counting.reads == 1


def test_balanced_weights_are_the_inverse_of_the_frequency():
    labels = np.array([0] * 6 + [2] * 2)  # 8 / (2 classes * 6), 8 / (2 * 2)
    split = Split(MemoryImages(IMAGES), labels, np.arange(8))
    for _, one_hot, weights in batches(split, config(class_weight="balanced")):
        expected = np.where(one_hot[:, 0] == 1, 8 / 12, 2)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
        assert weights.dtype == np.float32
    assert len(batches(split, config())[0]) == 2


def test_one_image():
    split = Split(MemoryImages(IMAGES), np.array([1]), np.array([4]))
    assert order(batches(split, config())) == [4, 4, 4]


def test_an_iterator_ends_without_waiting_for_tf_datas_autotuning(split):
    """Its thread slept for 10, 20, 40, ... ms, up to a minute, and was waited for."""
    stream = pipeline.training_batches(split, config(batch_size=1, epochs=100), 3)
    read = tf.function(lambda iterator: next(iterator))
    waits = []
    for seconds in (0.75, 0.9):  # it woke after 0.63 and 1.27 seconds
        batches = iter(stream)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            read(batches)
            time.sleep(0.05)
        began = time.monotonic()
        del batches
        waits.append(time.monotonic() - began)
    assert max(waits) < 0.2


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0, 0, 0, 2, 2, 5])
    found = pipeline._balanced_weights(labels, 7)
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_array_equal(found[[0, 2, 5]], expected.astype(np.float32))
    assert found[[1, 3, 4, 6]].sum() == 0
