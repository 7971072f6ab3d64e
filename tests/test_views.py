"""Averages over views of an image, against the same done by hand."""

import numpy as np
import pytest

from kcnn.config import KNOBS, Config
from kcnn.models import build_model
from kcnn.spec import ImageSpec
from kcnn.views import KINDS, views_of

SPEC = ImageSpec(12, 10, 3, ("a", "b", "c"))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), np.uint8)


def networks(kind, **settings):
    """Return a network without views and one with, of the same weights."""
    settings = {"model": "airbench", "filters": (8,), **settings}
    alone = build_model(Config(**settings), SPEC)
    averaging = build_model(Config(test_views=kind, **settings), SPEC)
    averaging.set_weights(alone.get_weights())
    return alone, averaging


def logits(model, images):
    return np.asarray(model(images, training=False))


def both_sides(model, images):
    return (logits(model, images) + logits(model, images[:, :, ::-1])) / 2


def test_mirror_is_the_mean_of_two():
    alone, averaging = networks("mirror")
    expected = both_sides(alone, IMAGES)
    np.testing.assert_allclose(logits(averaging, IMAGES), expected, atol=1e-6)
    assert np.abs(expected - logits(alone, IMAGES)).max() > 1e-3


def test_shifted_views_count_half():
    alone, averaging = networks("mirror_shift")
    wider = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    shifted = [both_sides(alone, wider[:, i : i + 12, i : i + 10]) for i in (0, 2)]
    expected = both_sides(alone, IMAGES) / 2 + sum(shifted) / 4
    np.testing.assert_allclose(logits(averaging, IMAGES), expected, atol=1e-6)


def test_shifts_go_along_the_diagonals_and_count_half():
    alone, averaging = networks("shift")
    wider = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    shifted = [
        logits(alone, wider[:, top : top + 12, left : left + 10])
        for top in (0, 2)
        for left in (0, 2)
    ]
    expected = logits(alone, IMAGES) / 2 + sum(shifted) / 8
    np.testing.assert_allclose(logits(averaging, IMAGES), expected, atol=1e-6)


@pytest.mark.parametrize("model", ["convnet", "mlp"])
def test_every_architecture_can_be_asked_so(model):
    settings = {"model": model, "filters": None if model == "mlp" else (4,)}
    alone, averaging = networks("mirror", **settings)
    expected = both_sides(alone, IMAGES)
    np.testing.assert_allclose(logits(averaging, IMAGES), expected, atol=1e-6)


def test_every_choice_has_its_views_whose_weights_add_up_to_one():
    assert KNOBS["test_views"].choices == ("none", *KINDS)
    for views in KINDS.values():
        assert sum(view.weight for view in views) == 1


def test_a_row_of_pixels_has_a_mirror_image():
    row = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    image, mirrored = views_of(row, "mirror")
    np.testing.assert_array_equal(image, row)
    np.testing.assert_array_equal(mirrored, row[:, :, ::-1])


def test_training_sees_each_image_once():
    alone, averaging = networks("mirror_shift", batch_norm=0)
    seen = averaging(IMAGES, training=True)
    np.testing.assert_allclose(seen, alone(IMAGES, training=True), atol=1e-6)
