"""Filters that are kept at length 1 by --unit_filters."""

import keras
import numpy as np
import pytest

from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.models import build_model
from tests.test_towers import SPEC, some_batch, trained


def lengths(layer):
    kernel = np.asarray(layer.kernel)
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "convnet", "filters": (4,), "optimizer": "momentum"},
        {"model": "airbench", "filters": (4, 6), "optimizer": "muon"},
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_every_filter_has_length_one_after_a_step(settings, parts):
    batches = [some_batch(8), some_batch(8, 1)]
    free, kept = (
        trained(Config(**settings, unit_filters=unit), batches, parts).model
        for unit in (False, True)
    )
    convolutions = [v.name for v in kept.layers if isinstance(v, keras.layers.Conv2D)]
    for name in convolutions:
        np.testing.assert_allclose(lengths(kept.get_layer(name)), 1, rtol=1e-5)
        assert np.abs(lengths(free.get_layer(name)) - 1).max() > 0.01
    head = np.asarray(kept.get_layer("logits").kernel)
    assert np.abs(np.linalg.norm(head, axis=0) - 1).min() > 1e-3


def test_a_filters_length_changes_nothing_that_comes_out():
    model = build_model(Config(model="airbench", filters=(4,)), SPEC)
    images, _, _ = some_batch(16)
    before = np.asarray(model(images, training=True))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            factors = np.linspace(3, 8, layer.filters, dtype=np.float32)
            layer.kernel.assign(layer.kernel * factors)
    after = np.asarray(model(images, training=True))
    # Batch normalization's epsilon stands beside the variance, and counts for less.
    np.testing.assert_allclose(after, before, atol=0.02 * np.abs(before).max())


def test_is_refused_without_batch_normalization():
    with pytest.raises(UsageError, match="--unit_filters: expected --batch_norm=1"):
        Config(model="convnet", batch_norm=0, unit_filters=True)
    with pytest.raises(UsageError, match="--unit_filters changes nothing"):
        Config(model="lenet", unit_filters=True)
