"""The architectures: `MODELS` maps a name to a builder of plain Keras layers.

A model takes (batch, height, width, channels) uint8 images in [0, 255], holds its
preprocessing, and ends in (batch, num_classes) float32 logits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import layers as k

from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.layers import (
    SMOOTH,
    Activation,
    BatchNormalization,
    Conv2D,
    Dropout,
    largest_shift,
)
from kcnn.preprocessing import preprocessing_layers
from kcnn.spec import ImageSpec
from kcnn.views import MeanOfViews, Views

Layers = list[keras.layers.Layer]

# The last layer with weights, in every model.
HEAD = "logits"

# Activations that nowhere fall; gelu and silu do.
_MONOTONE = ("relu", "elu", "leaky_relu", "tanh", "sigmoid")


def build_model(
    config: Config, spec: ImageSpec, *, policy: str = "float32", augment: bool = True
) -> keras.Model:
    """Build a model with fresh weights from Keras's global random seed.

    Args:
        config: the model's knobs and its preprocessing; of `freeze` so many layers do
            not learn. Weights of `init_from` are not read.
        spec: shape and classes of the images.
        policy: Keras dtype policy of the network: float32, mixed_bfloat16 or
            mixed_float16. Preprocessing and head are always float32.
        augment: with the augmentation layers, which act in training only.

    Raises:
        UsageError: a kernel or a pooling window larger than its map, a crop larger
            than the image, a shift of less than a pixel, or more layers to freeze than
            there are; names the knob.
    """
    if config.crop > min(spec.height, spec.width):  # Keras would scale it up
        raise UsageError(
            f"--crop: got {config.crop}, but the images are {spec.height}x{spec.width}"
        )
    side = max(spec.height, spec.width)
    if config.translate and not largest_shift(config.translate, side):
        raise UsageError(
            f"--translate: got {config.translate:g}, which is less than a pixel of "
            f"images of {spec.height}x{spec.width}; give at least {1 / side:.2g}"
        )
    with _dtype_policy(policy):
        preprocessing = preprocessing_layers(config, augment)
        model = MODELS[config.model](config, spec, preprocessing)
    if config.test_views != "none":
        model = _averaging(model, config.test_views)
    if config.initializer != "glorot_uniform":  # with which Keras has made it
        _draw_weights(model, config.initializer)
    _freeze(model, config.freeze, preprocessing)
    model.jit_compile = False  # predictions are too few to be worth compiling
    return model


def copy_of(
    model: keras.Model,
    exchange: Callable[[keras.layers.Layer], keras.layers.Layer] | None = None,
) -> keras.Model:
    """Return a model of the same layers, or of what `exchange` makes of each.

    Its weights are fresh. Predictions of the copy are not compiled either, where those
    of the model are not.
    """
    copy = keras.models.clone_model(model, clone_function=exchange)
    copy.jit_compile = model.jit_compile
    return copy


def _averaging(model: keras.Model, kind: str) -> keras.Model:
    """Return a model of the same layers that averages over views of each image."""
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    x = Views(kind, dtype="uint8", name="views")(images)
    inner = [v for v in model.layers if not isinstance(v, keras.layers.InputLayer)]
    mean = MeanOfViews(kind, dtype="float32", name="mean_of_views")
    return keras.Model(images, _apply(x, *inner, mean), name=model.name)


def _freeze(model: keras.Model, count: int, preprocessing: Layers) -> None:
    """Keep the first layers with weights as they are; not the head, which must learn.

    Keras's batch normalization then works in training as in inference.
    """
    layers = [v for v in model.layers if v.weights and v not in preprocessing]
    if count >= len(layers):
        names = ", ".join(layer.name for layer in layers[:-1]) or "none"
        raise UsageError(
            f"--freeze: got {count}, expected at most {len(layers) - 1}: the layers "
            f"with weights before the head are {names}"
        )
    for layer in layers[:count]:
        layer.trainable = False


def shorten_batch_norm(model: keras.Model, config: Config, steps: int) -> str | None:
    """Let batch norm's statistics keep up in a run of few steps.

    Momentum m remembers about 1 / (1 - m) steps; more than a tenth of the run, and the
    statistics are those of a network that is no more. A momentum other than the default
    stays as it is.

    Args:
        model: changed in place, before its first step.
        config: tells whether the momentum is the default.
        steps: optimizer steps of the whole run.

    Returns:
        A line for the user if anything was changed.
    """
    norms = [v for v in model.layers if isinstance(v, BatchNormalization)]
    momentum = effective_momentum(config, steps)
    if not norms or momentum == config.batch_norm_momentum:
        return None
    for layer in norms:
        layer.momentum = momentum
    return f"batch norm's momentum is {momentum:.2g}: the run has only {steps} steps"


def effective_momentum(config: Config, steps: int) -> float | None:
    """Return batch norm's momentum in a run of some steps, None without batch norm."""
    default = KNOBS["batch_norm_momentum"].default.defaults.get(config.model)
    if not config.batch_norm or config.batch_norm_momentum != default:
        return config.batch_norm_momentum if config.batch_norm else None
    return min(default, max(1 - 10 / steps, 0.0))


def tutorial(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build the Keras tutorial CNN, with its published variants as knobs."""
    filters_1, filters_2 = config.filters
    layers = [*preprocessing, *_conv(config, filters_1, "conv_1")]
    if config.batch_norm >= 1:
        layers += [_batch_norm(config, "batch_norm_1")]
    pool_1, pool_2 = (k.MaxPooling2D(2, name=f"pool_{i}") for i in (1, 2))
    layers += _conv_pool(config, filters_2, "conv_2", pool_1)
    if config.extra_conv and config.extra_conv_pool:
        layers += _conv_pool(config, config.extra_conv, "conv_3", pool_2)
    elif config.extra_conv:
        layers += _conv(config, config.extra_conv, "conv_3")
    layers += _conv_dropout(config)
    layers += [k.Flatten(name="flatten"), *_dense(config)]
    if config.batch_norm == 2:
        layers += [_batch_norm(config, "batch_norm_2")]
    layers += _dropout(config.dropout, "dropout")
    return _sequential("tutorial", spec, [*layers, _head(spec)])


def convnet(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build the functional ConvNet: any number of conv, norm, activation, pool.

    With convs_per_block more of conv, norm, activation follow each pooling.
    """
    images = keras.Input(spec.shape, dtype="uint8", name="images")
    x = _apply(images, *preprocessing)
    for i, filters in enumerate(config.filters, start=1):
        pool = k.MaxPooling2D(2, name=f"pool_{i}")
        x = _convnet_conv(x, config, filters, str(i), pool)
        for j in range(2, config.convs_per_block + 1):
            x = _convnet_conv(x, config, filters, f"{i}_{j}")
    x = _apply(x, k.Flatten(name="flatten"), *_dense(config))
    if config.head == "dropout_softmax":
        logits_dropout = Dropout(config.dropout, dtype="float32", name="dropout")
        x = _apply(x, _head(spec), logits_dropout)
        outputs = k.Softmax(dtype="float32", name="softmax")(x)
    else:
        outputs = _apply(x, *_dropout(config.dropout, "dropout"), _head(spec))
    return keras.Model(images, outputs, name="convnet")


def _convnet_conv(
    x, config: Config, filters: int, number: str, pool: keras.layers.Layer | None = None
):
    conv = _same_conv(config, filters, number)
    norm = [_batch_norm(config, f"batch_norm_{number}")] if config.batch_norm else []
    activation = Activation(config.activation, name=f"activation_{number}")
    after = _activate_and_pool(activation, pool) if pool else [activation]
    return _apply(x, conv, *norm, *after)


def lenet(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build LeNet-5 for images of 32x32; smaller ones are padded with zeros."""
    layers = [*preprocessing, *_pad_to(32, preprocessing, spec)]
    for i, filters in enumerate(config.filters[:2], start=1):
        between = _conv_dropout(config) if i == 2 else []
        if i == 1 and config.batch_norm:
            between = [_batch_norm(config, "batch_norm_1")]
        pool = k.MaxPooling2D(2, name=f"pool_{i}")
        layers += _conv_pool(config, filters, f"conv_{i}", pool, between=between)
    layers += _conv(config, config.filters[2], "conv_3")
    layers += [k.Flatten(name="flatten"), *_dense(config)]
    layers += _dropout(config.dropout, "dropout")
    return _sequential("lenet", spec, [*layers, _head(spec)])


def shallow(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build one or two pairs of conv and pool under wide dense layers."""
    layers = [*preprocessing]
    for i, filters in enumerate(config.filters, start=1):
        pool = k.MaxPooling2D(2, name=f"pool_{i}")
        layers += _conv_pool(config, filters, f"conv_{i}", pool)
    layers += [k.Flatten(name="flatten"), *_dense(config)]
    layers += _dropout(config.dropout, "dropout")
    return _sequential("shallow", spec, [*layers, _head(spec)])


def bottleneck(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build strided convolutions that leave few features to the head."""
    layers = [*preprocessing]
    sizes = zip(config.filters, config.strides, config.pool_sizes, strict=True)
    for i, (filters, stride, pool_size) in enumerate(sizes, start=1):
        if config.padding:
            layers += [k.ZeroPadding2D(config.padding, name=f"pad_{i}")]
        pool = k.MaxPooling2D(pool_size, name=f"pool_{i}")
        layers += _conv_pool(config, filters, f"conv_{i}", pool, strides=stride)
    layers += [k.Flatten(name="flatten"), _head(spec)]
    return _sequential("bottleneck", spec, layers)


def mlp(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build dense layers on the flattened image."""
    layers = [*preprocessing, k.Flatten(name="flatten"), *_dense(config)]
    layers += _dropout(config.dropout, "dropout")
    return _sequential("mlp", spec, [*layers, _head(spec)])


def airbench(config: Config, spec: ImageSpec, preprocessing: Layers) -> keras.Model:
    """Build the network of the CIFAR-10 speed record, without or with its whitening.

    Convolution, pooling, batch norm without a scale, activation; then without pooling.
    Each filter's largest value goes to the head, whose logits are divided by 9. From
    Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024).
    """
    layers = [*preprocessing]
    if config.whiten:
        layers += [Activation(config.activation, name="activation_0")]
    for i, filters in enumerate(config.filters, start=1):
        for j in range(1, config.convs_per_block + 1):
            number = f"{i}_{j}" if j > 1 else str(i)
            layers += [_same_conv(config, filters, number)]
            if j == 1:
                layers += [k.MaxPooling2D(2, name=f"pool_{i}")]
            if config.batch_norm:
                layers += [_batch_norm(config, f"batch_norm_{number}", scale=False)]
            layers += [Activation(config.activation, name=f"activation_{number}")]
    head = k.Dense(spec.num_classes, use_bias=False, dtype="float32", name=HEAD)
    ninth = k.Rescaling(1 / 9, dtype="float32", name="scale")
    layers += [k.GlobalMaxPooling2D(name="pool"), head, ninth]
    return _sequential("airbench", spec, layers)


MODELS: dict[str, Callable[[Config, ImageSpec, Layers], keras.Model]] = {
    "tutorial": tutorial,
    "convnet": convnet,
    "lenet": lenet,
    "shallow": shallow,
    "bottleneck": bottleneck,
    "mlp": mlp,
    "airbench": airbench,
}


# Initializers that draw as PyTorch does, biases too.
_PYTORCHS = ("pytorch", "identity")


def _draw_weights(model: keras.Model, initializer: str) -> None:
    """Draw the convolutions' and dense layers' weights anew.

    "pytorch" is what torch.nn.Conv2d and Linear begin with, kaiming_uniform_ with
    a = sqrt(5): U(-b, b) with b = 1 / sqrt(fan-in), for weights and biases. "identity"
    is the same, but of each convolution as many of the first filters as it has inputs
    pass these on.
    """
    for layer in model.layers:
        if not isinstance(layer, k.Conv2D | k.Dense):
            continue
        drawn = [layer.kernel]
        if initializer in _PYTORCHS and layer.use_bias:
            drawn.append(layer.bias)
        for weights in drawn:
            draw = _new_initializer(initializer, math.prod(layer.kernel.shape[:-1]))
            weights.assign(draw(weights.shape))
        if initializer == "identity" and isinstance(layer, k.Conv2D):
            _pass_on(layer.kernel)


def _pass_on(kernel: keras.Variable) -> None:
    """Have the first filters of a (height, width, inputs, filters) kernel be inputs."""
    values = np.copy(kernel.numpy())
    height, width, inputs, filters = values.shape
    first = range(min(inputs, filters))
    values[..., : len(first)] = 0
    # The middle of an even one is before: it is padded by one more at the end.
    row, column = (height - 1) // 2, (width - 1) // 2
    values[row, column, first, first] = 1
    kernel.assign(values)


def _new_initializer(name: str, fan_in: int) -> keras.initializers.Initializer:
    """Return an initializer with a seed of its own."""
    if name not in _PYTORCHS:
        return keras.initializers.get(name)
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)


def _conv(config: Config, filters: int, name: str, strides: int = 1) -> Layers:
    """Return a convolution with its activation, a smooth one as a layer of its own."""
    conv = Conv2D(
        filters,
        config.kernel_size,
        strides=strides,
        activation=config.activation,
        name=name,
    )
    return _apart(conv) if config.activation in SMOOTH else [conv]


def _apart(conv: Conv2D) -> Layers:
    """Return a convolution without its activation, and that."""
    name = conv.name.replace("conv", "activation")
    activation = Activation(conv.activation, name=name)
    conv.activation = keras.activations.linear
    return [conv, activation]


def _same_conv(config: Config, filters: int, number: str):
    return Conv2D(
        filters,
        config.kernel_size,
        padding="same",
        use_bias=not config.batch_norm,  # batch norm brings its own
        name=f"conv_{number}",
    )


def _conv_pool(
    config: Config,
    filters: int,
    name: str,
    pool: keras.layers.Layer,
    strides: int = 1,
    between: Sequence[keras.layers.Layer] = (),
) -> Layers:
    """Return convolution, activation, what comes between, and pooling."""
    layers = _conv(config, filters, name, strides)
    if between or config.activation not in _MONOTONE:
        return [*layers, *between, pool]
    conv, activation = _apart(*layers)
    return [conv, *_activate_and_pool(activation, pool)]


def _activate_and_pool(activation: Activation, pool: keras.layers.Layer) -> Layers:
    """Return an activation and max pooling, the pooling first where it may be.

    The largest of a rising function's values is its value of the largest: what comes
    out is the same to the last bit, and so are the gradients, for a quarter of the
    work.
    """
    first = keras.activations.serialize(activation.activation) in _MONOTONE
    return [pool, activation] if first else [activation, pool]


def _batch_norm(config: Config, name: str, scale: bool = True):
    momentum = config.batch_norm_momentum
    return BatchNormalization(momentum=momentum, scale=scale, name=name)


def _dense(config: Config) -> Layers:
    return [
        k.Dense(units, activation=config.activation, name=f"dense_{i}")
        for i, units in enumerate(config.dense_units, start=1)
    ]


def _dropout(rate: float, name: str, whole_channels: bool = False) -> Layers:
    return [Dropout(rate, whole_channels, name=name)] if rate else []


def _conv_dropout(config: Config) -> Layers:
    return _dropout(config.conv_dropout, "conv_dropout", config.spatial_dropout)


def _head(spec: ImageSpec):
    return k.Dense(spec.num_classes, dtype="float32", name=HEAD)


def _pad_to(side: int, preprocessing: Layers, spec: ImageSpec) -> Layers:
    shape = (None, *spec.shape)
    for layer in preprocessing:
        shape = layer.compute_output_shape(shape)
    missing = [max(0, side - n) for n in shape[1:3]]
    if not any(missing):
        return []
    padding = tuple((n // 2, n - n // 2) for n in missing)
    return [k.ZeroPadding2D(padding, name="pad")]


def _sequential(name: str, spec: ImageSpec, layers: Layers) -> keras.Model:
    shape = (None, *spec.shape)
    for layer in layers:
        _check_window(layer, shape)
        shape = layer.compute_output_shape(shape)
    images = keras.Input(spec.shape, dtype="uint8", name="images")
    return keras.Sequential([images, *layers], name=name)


def _apply(x, *layers: keras.layers.Layer):
    for layer in layers:
        _check_window(layer, x.shape)
        x = layer(x)
    return x


def _check_window(layer: keras.layers.Layer, shape: tuple) -> None:
    """Refuse a window larger than its map; oneDNN's gradient would crash on it."""
    if isinstance(layer, k.Conv2D):
        window, cause = layer.kernel_size, f"--kernel_size={layer.kernel_size[0]}"
    elif isinstance(layer, k.MaxPooling2D):
        window, cause = layer.pool_size, f"a pooling window of {layer.pool_size[0]}"
    else:
        return
    height, width = shape[1:3]
    if layer.padding == "valid" and (window[0] > height or window[1] > width):
        raise UsageError(
            f"{cause} does not fit {layer.name}'s map of {height}x{width} pixels; use "
            "a smaller --kernel_size, fewer layers or a larger --image_size"
        )


@contextlib.contextmanager
def _dtype_policy(policy: str) -> Iterator[None]:
    """Set Keras's policy for the layers made in a block, and put the old one back.

    Layers keep the policy they were made under, so nothing global has to hold later:
    other threads and keras-tuner's clear_session() would reset it.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
