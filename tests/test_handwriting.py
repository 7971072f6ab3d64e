import keras
import numpy as np
import pytest
import tensorflow as tf

from kcnn.config import Config
from kcnn.handwriting import RandomHandwriting
from kcnn.models import build_model
from kcnn.spec import ImageSpec

SPEC = ImageSpec(28, 28, 1, ("a", "b"))


def crosses(n):
    """Return (n, 28, 28, 1) float32: the same white cross on black."""
    images = np.zeros((n, 28, 28, 1), np.float32)
    images[:, 4:24, 13:16] = images[:, 13:16, 4:24] = 1
    return images


def changed(n=64, seed=0, paper=True):
    keras.utils.set_random_seed(seed)
    layer = RandomHandwriting(paper)
    return np.asarray(layer(crosses(n), training=True))


def test_acts_in_training_only():
    layer = RandomHandwriting(True)
    np.testing.assert_array_equal(layer(crosses(2), training=False), crosses(2))
    assert np.abs(changed(8) - crosses(8)).mean() > 0.05


def test_each_image_is_changed_in_a_way_of_its_own_by_the_seed():
    once = changed(8)
    np.testing.assert_array_equal(changed(8), once)
    assert np.abs(changed(8, seed=1) - once).mean() > 0.05
    assert np.abs(once[1:] - once[:-1]).mean((1, 2, 3)).min() > 0.01


def test_the_numbers_go_on_where_they_were():
    keras.utils.set_random_seed(0)
    model = build_model(Config(model="mlp", augment="handwriting"), SPEC)
    layer = model.get_layer("random_handwriting")
    state = [v.numpy() for v in model.variables]  # as a checkpoint keeps them
    first = layer(crosses(4), training=True)
    second = layer(crosses(4), training=True)
    assert np.abs(first - second).max() > 0.1
    for variable, value in zip(model.variables, state, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(layer(crosses(4), training=True), first)


def test_half_of_the_images_become_dark_on_light():
    images = changed(200)
    assert images.min() >= 0 and images.max() <= 1
    border = np.median(images[:, [0, -1]], axis=(1, 2, 3))
    assert 0.35 < (border > 0.5).mean() < 0.65


def test_a_normalized_image_keeps_its_black_paper():
    images = changed(200, paper=False)
    assert np.median(images[:, 0]) < 0.05
    model = build_model(
        Config(model="mlp", augment="handwriting", normalize_input="mnist"), SPEC
    )
    assert model.get_layer("random_handwriting").paper is False


def test_strokes_become_thicker_and_thinner_and_stay_in_the_picture():
    ink = changed(200, paper=False).sum((1, 2, 3))
    plain = crosses(1).sum()
    assert (ink > 1.15 * plain).mean() > 0.2
    assert (ink < 0.9 * plain).mean() > 0.1
    assert 0.4 * plain < ink.min() and ink.max() < 3 * plain


def test_nothing_of_it_is_in_the_model_that_is_exported():
    config = Config(model="mlp", augment="handwriting")
    layers = build_model(config, SPEC, augment=False).layers
    assert "random_handwriting" not in [layer.name for layer in layers]


@pytest.mark.parametrize("channels", [1, 3])
def test_compiles_for_any_size_and_number_of_channels(channels):
    layer = RandomHandwriting(True)
    images = tf.zeros((3, 20, 33, channels))
    found = tf.function(lambda x: layer(x, training=True))(images)
    assert found.shape == images.shape
    assert np.isfinite(found).all()
