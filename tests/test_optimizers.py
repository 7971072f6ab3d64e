"""The fused kernels against Keras's own steps."""

import keras
import numpy as np
import pytest

from kcnn import optimizers


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {"weight_decay": 0.1}),
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True, "global_clipnorm": 1.0}),
        ("Adadelta", {"weight_decay": 0.01}),
    ],
)
def test_steps_are_those_of_keras(name, options):
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 3)).astype("float32")
    gradients = random.normal(size=(20, 5, 3)).astype("float32")
    ends = []
    for module in (optimizers, keras.optimizers):
        optimizer = getattr(module, name)(learning_rate=0.05, **options)
        variable = keras.Variable(start)
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        ends.append([variable.numpy(), *(v.numpy() for v in optimizer.variables)])
    assert not np.allclose(ends[0][0], start)
    for found, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
