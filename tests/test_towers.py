"""A batch computed in parts gives the step that the whole batch gives."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kcnn import towers
from kcnn.config import Config
from kcnn.datasets import load_training
from kcnn.errors import UsageError
from kcnn.fresh import FreshModel
from kcnn.loop import TrainingLoop
from kcnn.models import build_model
from kcnn.optimization import build_optimizer, build_schedule
from kcnn.pipeline import training_batches
from kcnn.spec import ImageSpec
from tests.conftest import write_npz

SPEC = ImageSpec(8, 8, 1, ("a", "b", "c"))
BASE = {"model": "mlp", "dense_units": (6,), "optimizer": "momentum"}
CONVNET = {"model": "convnet", "filters": (4,), "optimizer": "momentum"}


def some_batch(n, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *SPEC.shape), np.uint8)
    labels = np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]
    return images, labels, rng.uniform(0.5, 2, n).astype(np.float32)


def trained(config, batches, parts):
    """Return the loop after a step for each of the batches, in float32."""
    keras.utils.set_random_seed(0)
    model = build_model(config, SPEC)
    optimizer = build_optimizer(config, build_schedule(config, 10), "float32")
    loop = TrainingLoop(model, optimizer, config, False, parts)
    for batch in batches:
        loop.run(iter(tf.data.Dataset.from_tensors(batch)), 1)
    return loop


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_make_the_step_of_the_whole_batch(parts, weighted):
    """The last batches have fewer images than there are parts."""
    config = Config(**BASE, learning_rate=0.1)
    batches = [some_batch(n, n)[: 3 if weighted else 2] for n in (16, 7, 2, 1)]
    whole, cut = (trained(config, batches, count) for count in (1, parts))
    for a, b in zip(whole.state(), cut.state(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert whole.totals().accuracy == cut.totals().accuracy
    assert whole.totals().loss == pytest.approx(cut.totals().loss, rel=1e-5)


def test_batch_norm_moves_once_a_step_by_the_mean_of_the_parts():
    config = Config(**CONVNET, batch_norm_momentum=0.81, learning_rate=1e-6)
    images, labels, _ = some_batch(8)
    twice = np.concatenate([images, images]), np.concatenate([labels, labels])
    whole, cut = (trained(config, [twice], count) for count in (1, 2))
    for name in ("moving_mean", "moving_variance"):
        a, b = (
            getattr(loop.model.get_layer("batch_norm_1"), name).numpy()
            for loop in (whole, cut)
        )
        assert np.abs(a - (name == "moving_variance")).max() > 1e-3  # it has moved
        # The unbiased variance of the op differs by the number of images.
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_what_counts_of_the_parts_is_the_batch():
    for n in (1, 2, 5, 64):
        found = list(towers.parts((tf.range(n), -tf.range(n)), 3))
        assert len(found) == 3 and all(len(part[0]) for _, part in found)
        kept = [np.asarray(part) for counts, part in found if counts]
        np.testing.assert_array_equal(np.concatenate(kept, 1)[0], np.arange(n))
        np.testing.assert_array_equal(np.concatenate(kept, 1)[1], -np.arange(n))


@pytest.mark.parametrize("filters", [(4,), (16, 32)])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_predicts_what_keras_predicts(n, filters):
    """A part of no images is not computed: oneDNN would fail on it."""
    keras.utils.set_random_seed(0)
    model = build_model(Config(**CONVNET | {"filters": filters}), SPEC)
    images = tf.data.Dataset.from_tensor_slices(some_batch(n)[0]).batch(4)
    found = towers.predictor(model, 3)(images)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "cores", "parts"),
    [
        ({}, 2, 2),
        ({}, 4, 4),
        ({}, 1, 1),
        ({}, 8, 1),  # not measured
        ({"batch_size": 50}, 2, 1),
        ({"batch_size": 100, "model": "convnet"}, 2, 1),  # 50 images for statistics
        ({"batch_size": 100, "model": "convnet", "batch_norm": 0}, 2, 2),
        ({"model": "shallow"}, 2, 1),  # 512 dense units
        ({"model": "shallow", "dense_units": (128,)}, 2, 2),
        ({"jit_compile": "on"}, 2, 1),
        ({"towers": 3}, 8, 3),
        ({"towers": 1}, 2, 1),
    ],
)
def test_the_rule(monkeypatch, settings, cores, parts):
    monkeypatch.setattr(towers, "cores", lambda: cores)
    monkeypatch.setattr(towers, "has_gpu", lambda: False)
    found = towers.choose(Config(**settings))
    assert found.parts == parts and found.reason


@pytest.mark.parametrize(("images", "parts"), [(127, 1), (128, 2)])
def test_a_batch_has_no_more_images_than_there_are(
    monkeypatch, tmp_path, images, parts
):
    monkeypatch.setattr(towers, "cores", lambda: 2)
    monkeypatch.setattr(towers, "threads", lambda: {"within": 1, "beside": 2})
    npz = write_npz(tmp_path / "few.npz", n_train=images)
    config = Config(
        model="convnet", dataset=f"npz:{npz}", batch_size=512, validation_fraction=0.0
    )
    data = load_training(config)
    assert FreshModel.build(config, data.spec, data.train, 1).towers.parts == parts


def test_a_gpu_takes_the_whole_batch(monkeypatch):
    monkeypatch.setattr(towers, "cores", lambda: 2)
    monkeypatch.setattr(towers, "has_gpu", lambda: True)
    assert towers.choose(Config()).parts == 1


def test_devices_that_share_a_batch_cut_it_no_further():
    assert towers.choose(Config(), replicas=2).parts == 1
    with pytest.raises(UsageError, match="--towers: got 2, expected 0 or 1: several"):
        towers.choose(Config(towers=2), replicas=2)
    with pytest.raises(UsageError, match="--towers: got 2, expected 0 or 1: several"):
        towers.set_threads(Config(towers=2, strategy="mirrored"))


def test_the_flag_reaches_the_step(npz):
    """Seen by batch normalization, which goes by the images of a part."""
    found = {}
    for count in (1, 2):
        config = Config(**CONVNET, dataset=f"npz:{npz}", towers=count)
        data = load_training(config)
        fresh = FreshModel.build(config, data.spec, data.train, 1)
        loop = fresh.loop(config, build_schedule(config, 1))
        loop.run(iter(training_batches(data.train, config, data.spec.num_classes)), 1)
        norm = loop.model.get_layer("batch_norm_1")
        found[count] = norm.moving_variance.numpy()
        assert (fresh.towers.parts, norm.updates_a_step) == (count, count)
    assert np.abs(found[1] - found[2]).max() > 1e-6


def test_xla_refuses_parts():
    with pytest.raises(UsageError, match=r"--towers: got 2, expected 0 or 1 with"):
        Config(towers=2, jit_compile="on")


def test_each_part_has_one_thread_and_that_is_told():
    code = (
        "from kcnn import towers; from kcnn.config import Config\n"
        "towers.set_threads(Config(towers=3)); print(towers.threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'within': 1, 'beside': 3}\n"
