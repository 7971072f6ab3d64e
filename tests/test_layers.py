"""kcnn's layers against Keras's own, and against probabilities by hand."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from kcnn.config import Config
from kcnn.layers import Activation, BatchNormalization, Conv2D, Dropout
from kcnn.models import build_model
from kcnn.spec import ImageSpec


def after_a_step(layer, x, upstream):
    """Return outputs, all gradients and the weights after one training step."""
    layer.build(x.shape)
    layer.gamma.assign(np.linspace(0.5, 2.0, x.shape[-1]))
    layer.beta.assign(np.linspace(-1.0, 1.0, x.shape[-1]))
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        value = tf.reduce_sum(y * upstream)
    gradients = tape.gradient(value, [x, *layer.trainable_variables])
    return [y.numpy(), *(g.numpy() for g in gradients), *layer.get_weights()]


@pytest.mark.parametrize("shape", [(8, 5, 5, 3), (32, 7)])
def test_batch_normalization_is_that_of_keras(shape):
    random = np.random.default_rng(0)
    x = random.normal(3.0, 2.0, shape).astype("float32")
    upstream = random.normal(size=shape).astype("float32")
    ours = after_a_step(BatchNormalization(momentum=0.9), x, upstream)
    keras_own = after_a_step(keras.layers.BatchNormalization(momentum=0.9), x, upstream)
    for found, expected in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "settings"),
    [
        ((4, 5, 5, 3), 5, {}),  # LeNet's third: the kernel covers all
        ((4, 5, 5, 3), 5, {"activation": "tanh", "use_bias": False}),
        ((4, 2, 3, 3), (2, 3), {"strides": 2}),
        ((4, 5, 5, 3), 5, {"padding": "same"}),
        ((4, 6, 5, 3), 5, {}),
        ((4, 5, 5, 4), 5, {"groups": 2}),
    ],
)
def test_a_convolution_is_that_of_keras(shape, kernel, settings):
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=shape), tf.float32)
    weights, found = None, []
    for kind in (keras.layers.Conv2D, Conv2D):
        layer = kind(6, kernel, **settings)
        layer.build(shape)
        weights = weights or [random.normal(size=w.shape) for w in layer.weights]
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            value = tf.reduce_sum(y**2)
        gradients = tape.gradient(value, [x, *layer.trainable_variables])
        assert layer.compute_output_shape(shape) == y.shape
        found.append([y, *gradients])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_lenets_third_convolution_is_a_matrix_product():
    config = Config(model="lenet", filters=(6, 16, 120), kernel_size=5)
    model = build_model(config, ImageSpec(28, 28, 1, tuple("0123456789")))
    graph = tf.function(model).get_concrete_function(tf.zeros((2, 28, 28, 1), tf.uint8))
    kinds = [op.type for op in graph.graph.get_operations()]
    assert kinds.count("Conv2D") == 2
    assert kinds.count("MatMul") == 1 + len(config.dense_units) + 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 2), (4, 1), (5, 7)])
def test_on_small_maps_the_gradient_of_a_kernel_is_that_of_keras(
    kernel, padding, dtype
):
    random = np.random.default_rng(0)
    size = (3, 3) if padding == "same" else (kernel[0] + 1, kernel[1] + 2)
    x = tf.cast(random.normal(size=(5, *size, 64)), dtype)
    weights, found, kinds = None, [], []
    for kind in (keras.layers.Conv2D, Conv2D):
        layer = kind(65, kernel, padding=padding, activation="tanh", dtype=dtype)
        layer.build(x.shape)
        weights = weights or [random.normal(size=w.shape) / 20 for w in layer.weights]
        layer.set_weights(weights)

        @tf.function
        def step(layer=layer, kind=kind):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, **({"training": True} if kind is Conv2D else {}))
                value = tf.reduce_sum(tf.cast(y, "float32") ** 2)
            return [y, *tape.gradient(value, [x, *layer.trainable_variables])]

        graph = step.get_concrete_function().graph
        kinds.append([op.type for op in graph.get_operations()])
        found.append(step())
    assert "Conv2DBackpropFilter" in kinds[0]
    assert "Conv2DBackpropFilter" not in kinds[1]
    assert kinds[1].count("MatMul") == kernel[0] * kernel[1]
    for a, b in zip(*found, strict=True):
        a, b = np.float32(a), np.float32(b)
        tolerance = 1e-5 if dtype == "float32" else 2**-6
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * abs(a).max())


@pytest.mark.parametrize(
    ("shape", "filters", "dtype", "settings"),
    [
        ((2, 4, 4, 64), 64, "float32", {"padding": "same"}),
        ((2, 9, 9, 64), 64, "bfloat16", {"padding": "same"}),
        ((2, 3, 3, 63), 64, "bfloat16", {"padding": "same"}),
        ((2, 3, 3, 64), 63, "bfloat16", {"padding": "same"}),
        ((2, 5, 5, 64), 64, "bfloat16", {"strides": 2}),
        ((2, 5, 5, 64), 64, "bfloat16", {"dilation_rate": 2}),
        ((2, 3, 3, 64), 64, "float16", {"padding": "same"}),
    ],
)
def test_on_other_maps_it_is_tensorflows(shape, filters, dtype, settings):
    layer = Conv2D(filters, 3, dtype=dtype, **settings)
    layer.build(shape)

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(value, layer.trainable_variables)

    graph = gradient.get_concrete_function(tf.TensorSpec(shape, dtype)).graph
    assert "Conv2DBackpropFilter" in {op.type for op in graph.get_operations()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gelu", "silu", "relu"])
@pytest.mark.parametrize("training", [True, False])
def test_an_activation_is_that_of_keras(training, name, dtype):
    """In bfloat16 to a rounding: Keras rounds after each of a dozen operations."""
    random = np.random.default_rng(0)
    x, upstream = tf.cast(random.normal(size=(2, 4, 3, 3, 2)) * 3, dtype)
    expected, found = [], []
    for one, kind, inputs in (
        (
            expected,
            keras.layers.Activation(name, dtype="float32"),
            tf.cast(x, "float32"),
        ),
        (found, Activation(name, dtype=dtype), x),
    ):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = kind(inputs, **({"training": training} if one is found else {}))
        assert y.dtype == inputs.dtype
        gradient = tape.gradient(y, inputs, tf.cast(upstream, y.dtype))
        one += [y, gradient] if training else [y]
    tolerance = 1e-6 if dtype == "float32" else 2**-7
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(tf.cast(a, "float32"), b, tolerance, tolerance)


@pytest.mark.parametrize("model", ["tutorial", "convnet", "lenet", "airbench"])
def test_smooth_activations_are_compiled_in_training_alone(model):
    spec = ImageSpec(28, 28, 1, tuple("0123456789"))
    network = build_model(Config(model=model, activation="gelu"), spec)
    images = tf.zeros((2, 28, 28, 1), tf.uint8)

    def compiled(training):
        call = tf.function(lambda x: network(x, training=training))
        graph = call.get_concrete_function(images).graph
        return [
            f
            for f in graph.as_graph_def().library.function
            if "_XlaMustCompile" in f.attr
        ]

    assert compiled(True) and not compiled(False)


def test_a_gelu_that_predicts_rounds_once_in_bfloat16():
    """Within half a step of bfloat16, 2**-9, of the value, and not a dozen of them."""
    x = tf.cast(tf.linspace(-4.0, 6.0, 1001), tf.bfloat16)
    found = tf.cast(Activation("gelu", dtype="bfloat16")(x), tf.float32)
    expected = scipy.special.ndtr(np.float64(x)) * np.float64(x)
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-6)


def test_batch_normalization_keeps_the_biased_variance():
    layer = BatchNormalization(momentum=0.0)
    layer(np.array([[1.0], [3.0]], "float32"), training=True)
    assert layer.moving_mean.numpy() == pytest.approx([2.0])
    assert layer.moving_variance.numpy() == pytest.approx([1.0])  # 2.0 if unbiased


def test_batch_normalization_keeps_float32_statistics_under_bfloat16():
    layer = BatchNormalization(momentum=0.0, dtype="mixed_bfloat16")
    x = np.random.default_rng(0).normal(100.0, 1.0, (64, 4, 4, 2)).astype("float32")
    x = tf.cast(x, tf.bfloat16)
    y = layer(x, training=True)
    assert y.dtype == tf.bfloat16
    exact = tf.cast(x, tf.float32).numpy().var((0, 1, 2))
    assert layer.moving_variance.numpy() == pytest.approx(exact, rel=1e-3)


def test_a_frozen_batch_normalization_moves_nothing():
    layer = BatchNormalization()
    layer.trainable = False
    x = np.random.default_rng(0).normal(5.0, 1.0, (8, 3)).astype("float32")
    np.testing.assert_allclose(layer(x, training=True), layer(x), rtol=1e-6)
    assert layer.moving_mean.numpy() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("rate", [0.25, 0.02, 0.3, 0.5, 0.9])
def test_dropout_drops_its_rate(rate):
    layer = Dropout(rate, seed=0)
    n, steps = 10_000, 200
    ones = tf.ones((10, n // 10))
    kept = np.mean([np.mean(layer(ones, training=True) > 0) for _ in range(steps)])
    # All values of a step share the threshold, whose rounding is at most 1/256.
    error = np.sqrt(rate * (1 - rate) / (n * steps) + (1 / 256) ** 2 / 4 / steps)
    assert abs(kept - (1 - rate)) < 4 * error


def test_dropout_scales_what_it_keeps_and_the_gradient_alike():
    layer = Dropout(0.75, seed=1)
    x = tf.constant(np.random.default_rng(0).normal(size=(7, 13)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    gradient = tape.gradient(y, x).numpy()
    assert set(np.unique(gradient)) == {0.0, 4.0}
    np.testing.assert_allclose(y.numpy(), gradient * x.numpy(), rtol=1e-6)


def test_dropout_is_another_one_at_every_step_and_the_same_from_the_same_seed():
    x = tf.ones((4, 50))
    layer, again = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    first, second = layer(x, training=True), layer(x, training=True)
    assert np.any(first != second)
    assert np.all(first == again(x, training=True))
    assert np.all(layer(x) == x)


def test_a_rate_that_eight_bits_cannot_tell_is_refused():
    with pytest.raises(ValueError, match="expected 0 to less than 255/256"):
        Dropout(0.998, seed=0)(tf.ones((2, 3)), training=True)


def test_whole_channels_are_dropped_or_kept():
    layer = Dropout(0.25, whole_channels=True, seed=0)
    x = tf.random.stateless_uniform((200, 4, 5, 16), (0, 1), 0.5, 1.0)
    y = layer(x, training=True).numpy()
    kept = (y != 0).any((1, 2))
    np.testing.assert_allclose(y, x * kept[:, None, None] / 0.75, rtol=1e-6)
    deviation = (0.25 * 0.75 / kept.size) ** 0.5
    assert abs(kept.mean() - 0.75) < 4 * deviation
    assert 0 < kept[:, 0].mean() < 1 and 0 < kept[0].mean() < 1
    assert np.array_equal(layer(x, training=False), x)


@pytest.mark.parametrize("activation", ["relu", "elu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("model", ["convnet", "shallow"])
def test_pooling_first_changes_nothing(model, activation, monkeypatch):
    config = Config(model=model, activation=activation, dense_units=(8,), filters=(4,))
    spec = ImageSpec(12, 12, 1, ("a", "b", "c"))
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)

    def gradients():
        keras.utils.set_random_seed(0)
        built = build_model(config, spec)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(built(images, training=True)[:, 0])
        return [w.name for w in built.layers], tape.gradient(
            loss, built.trainable_variables
        )

    names, found = gradients()
    monkeypatch.setattr("kcnn.models._MONOTONE", ())
    other_names, expected = gradients()
    assert names.index("pool_1") < names.index("activation_1")
    assert other_names != names
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_an_activation_that_falls_stays_before_the_pooling(activation):
    config = Config(model="convnet", activation=activation)
    model = build_model(config, ImageSpec(28, 28, 1, ("a", "b")))
    names = [layer.name for layer in model.layers]
    assert names.index("activation_1") < names.index("pool_1")
