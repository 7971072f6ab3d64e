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
        ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
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


def orthogonalized(matrix, steps=3):
    """Return Newton and Schulz's iteration, as its authors published it."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (2, 2, 1, 8)])
def test_muon_takes_orthogonal_steps_with_convolutions_and_adams_with_the_rest(shape):
    random = np.random.default_rng(0)
    inputs = np.prod(shape[:3])  # of a filter: more of them than filters, or fewer
    kernel = keras.Variable(random.normal(size=shape).astype("float32"))
    dense = keras.Variable(random.normal(size=(5, 2)).astype("float32"))
    before = kernel.numpy(), dense.numpy()
    optimizer = optimizers.Muon(
        learning_rate=0.1,
        momentum=0.6,
        adam_lr_ratio=0.1,
        weight_decay=None,
    )
    optimizer.build([kernel, dense])
    momentum, expected = 0.0, before[0].reshape(inputs, 8).T.astype(float)
    for _ in range(3):
        gradients = [random.normal(size=v.shape) for v in (kernel, dense)]
        tensors = [keras.ops.convert_to_tensor(g, "float32") for g in gradients]
        optimizer.apply(tensors, [kernel, dense])
        gradient = gradients[0].reshape(inputs, 8).T
        momentum = 0.6 * momentum + gradient
        step = orthogonalized(gradient + 0.6 * momentum)
        assert np.linalg.svd(step, compute_uv=False) == pytest.approx(1, abs=0.35)
        expected -= 0.1 * step
    found = kernel.numpy().reshape(inputs, 8).T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Adam's first steps are of the learning rate's size.
    assert 0.01 < np.abs(dense.numpy() - before[1]).max() < 0.0301


def test_muons_weight_decay_is_one_and_can_be_changed_between_steps():
    """A search gives a compiled optimizer the next trial's."""
    kernel = keras.Variable(np.ones((3, 3, 2, 4), np.float32))
    dense = keras.Variable(np.ones((4, 2), np.float32))
    optimizer = optimizers.Muon(learning_rate=0.1, weight_decay=0.5)
    optimizer.build([kernel, dense])
    expected = 1.0
    for decay in (0.5, 0.2):
        optimizer.weight_decay = decay
        optimizer.apply([keras.ops.zeros(v.shape) for v in (kernel, dense)])
        expected *= 1 - 0.1 * decay
        for variable in (kernel, dense):
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)
