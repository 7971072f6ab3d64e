"""Keras layers that mean what Keras's own mean and train faster on a CPU.

On two cores with bfloat16, Keras's batch normalization takes more than half of a
convnet's step and its dropout a quarter of the tutorial CNN's.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kcnn.runtime import has_gpu

# On a small map oneDNN adds to all of a kernel's gradient for each image, and waits for
# memory. Products of all images are as fast or faster with so few pixels and so many
# channels (measured with and without AMX): docs/speed.md.
_FEW_PIXELS = {"bfloat16": 64, "float32": 9}
_MANY_CHANNELS = 64


@keras.saving.register_keras_serializable("kcnn")
class Conv2D(keras.layers.Conv2D):
    """A convolution, by matrix products where those are the faster way to it.

    One is, where the kernel covers its whole input, as in LeNet's third: it takes a
    third of the time or less. In training, on small maps of many channels, the kernel's
    gradient is a product for each of its places.
    """

    def call(self, inputs, training=False):
        """Convolve (batch, height, width, channels) inputs of any float dtype."""
        if not training or self._covers(inputs) or not self._is_small(inputs):
            return super().call(inputs)
        outputs = _convolve_small_maps(
            tf.convert_to_tensor(inputs),
            tf.convert_to_tensor(self.kernel),
            self.padding.upper(),
            self.name,
        )
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def convolution_op(self, inputs, kernel):
        """Convolve (batch, height, width, channels) inputs with a kernel."""
        if not self._covers(inputs):
            return super().convolution_op(inputs, kernel)
        rows = keras.ops.reshape(inputs, (-1, math.prod(inputs.shape[1:])))
        columns = keras.ops.reshape(kernel, (-1, self.filters))
        products = keras.ops.matmul(rows, columns)
        return keras.ops.reshape(products, (-1, 1, 1, self.filters))

    def _covers(self, inputs):
        whole = self.kernel_size == tuple(inputs.shape[1:-1])
        return whole and self.padding == "valid" and self._is_plain()

    def _is_small(self, inputs):
        _, height, width, filters = self.compute_output_shape(inputs.shape)
        return (
            self._is_plain()
            and height * width <= _FEW_PIXELS.get(self.compute_dtype, 0)
            and min(inputs.shape[-1], filters) >= _MANY_CHANNELS
            and not has_gpu()
        )

    def _is_plain(self):
        ones = self.strides == self.dilation_rate == (1, 1)
        return ones and self.groups == 1 and self.data_format == "channels_last"


def _convolve_small_maps(inputs, kernel, padding: str, name: str):
    """Convolve with a gradient of the kernel by matrix products.

    Args:
        inputs: (batch, height, width, channels) of any float dtype.
        kernel: (rows, columns, channels, filters) of the same.
        padding: SAME or VALID.
        name: of the layer, for a profile.
    """

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradients(upstream):
            with tf.name_scope(f"gradient_tape/{name}_1/"):  # as TensorFlow's own
                of_x = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x),
                    filter=kernel,
                    out_backprop=upstream,
                    strides=[1] * 4,
                    padding=padding,
                )
                return of_x, _kernel_gradient(x, upstream, kernel.shape)

        return tf.nn.conv2d(x, kernel, 1, padding), gradients

    return convolve(inputs, kernel)


def _kernel_gradient(x, upstream, shape):
    """Return the gradient of a kernel of `shape`, from (batch, ...) maps.

    A place of the kernel has met some pixels of the input, each with the output's that
    it went to. Their product, over images and pixels, is that place's gradient.
    """
    rows, columns, channels, filters = shape
    gradients = []
    for place in itertools.product(range(rows), range(columns)):
        met, went_to = [slice(None)], [slice(None)]
        for axis, (at, size) in enumerate(zip(place, shape[:2], strict=True), start=1):
            given, made = x.shape[axis], upstream.shape[axis]
            shift = at - (made + size - 1 - given) // 2
            first = max(0, -shift)
            last = max(first, min(made, given - shift))
            met.append(slice(first + shift, last + shift))
            went_to.append(slice(first, last))
        pixels = tf.reshape(x[tuple(met)], (-1, channels))
        outputs = tf.reshape(upstream[tuple(went_to)], (-1, filters))
        gradients.append(tf.matmul(pixels, outputs, transpose_a=True))
    return tf.reshape(tf.stack(gradients), shape)


# Of TensorFlow's operations each is a dozen passes over the map, forward and backward.
SMOOTH = ("gelu", "silu")


@keras.saving.register_keras_serializable("kcnn")
class Activation(keras.layers.Activation):
    """An activation; XLA computes a smooth one in training, in one pass either way.

    What is exported, and predicts, has TensorFlow's operations alone.
    """

    def call(self, inputs, training=False):
        """Apply it to inputs of any shape and float dtype."""
        name = keras.activations.serialize(self.activation)
        if training and name in SMOOTH:
            return _one_pass(name)(tf.convert_to_tensor(inputs))
        return _gelu(inputs) if name == "gelu" else super().call(inputs)


def _gelu(x):
    """Compute GELU in float32, and round once.

    Of Keras's operations each casts bfloat16 to float32 and back: four times as long.
    """
    wide = keras.ops.cast(x, "float32") * math.sqrt(0.5)
    y = (wide + wide * keras.ops.erf(wide)) * math.sqrt(0.5)
    return keras.ops.cast(y, x.dtype)


@functools.cache
def _one_pass(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return an activation that XLA compiles by itself, computed in float32."""
    activation = keras.activations.get(name)

    @tf.function(jit_compile=True, autograph=False)
    def forward(x):
        return tf.cast(activation(tf.cast(x, tf.float32)), x.dtype)

    @tf.function(jit_compile=True, autograph=False)
    def backward(x, upstream):
        wide = tf.cast(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(wide)
            y = activation(wide)
        gradient = tape.gradient(y, wide, tf.cast(upstream, tf.float32))
        return tf.cast(gradient, x.dtype)

    @tf.custom_gradient
    def apply(x):
        return forward(x), lambda upstream: backward(x, upstream)

    return apply


@keras.saving.register_keras_serializable("kcnn")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over the last axis, in training by TensorFlow's fused op.

    Keras builds the same from a dozen elementwise operations. Statistics are kept in
    float32, of the biased variance as Keras keeps them. A step may call the layer
    `updates_a_step` times, for parts of its batch: the momentum is that of the step.
    """

    updates_a_step = 1

    def call(self, inputs, training=None, mask=None):
        """Normalize (batch, ..., channels) inputs of any float dtype."""
        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        x = tf.convert_to_tensor(inputs)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            normalized, mean, variance = self._over_replicas(x, replicas)
        else:
            normalized, mean, variance = self._alone(x)
        momentum = self.momentum ** (1 / self.updates_a_step)
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving * momentum + batch * (1 - momentum))
        return normalized

    def _alone(self, x):
        channels = x.shape[-1]
        images = tf.reshape(x, (-1, 1, 1, channels)) if x.shape.rank != 4 else x
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The op returns the unbiased one, on a GPU no number where there is one value.
        count = tf.cast(tf.size(x) / channels, tf.float32)
        variance = tf.math.multiply_no_nan(variance, (count - 1) / count)
        return tf.reshape(normalized, tf.shape(x)), mean, variance

    def _over_replicas(self, x, replicas):
        """Normalize by the statistics of all replicas' inputs.

        Each tells all others its count, means and variances, and those of the whole are
        made of them by the formula of Chan, Golub and LeVeque (1979), which loses no
        digits where a mean is large beside the deviation.
        """
        context = tf.distribute.get_replica_context()
        wide = tf.cast(x, tf.float32)
        axes = list(range(x.shape.rank - 1))
        own = tf.nn.moments(wide, axes)
        count = tf.cast(tf.size(x) / x.shape[-1], tf.float32)
        row = tf.stack([tf.fill(own[0].shape, count), *own])[None]
        place = tf.one_hot([context.replica_id_in_sync_group], replicas)
        rows = tf.transpose(place)[:, :, None] * row
        counts, means, variances = tf.unstack(context.all_reduce("SUM", rows), axis=1)
        weights = counts / tf.reduce_sum(counts, 0)
        mean = tf.reduce_sum(weights * means, 0)
        spread = variances + tf.square(means - mean)
        variance = tf.reduce_sum(weights * spread, 0)
        normalized = tf.nn.batch_normalization(
            wide, mean, variance, self.beta, self.gamma, self.epsilon
        )
        return tf.cast(normalized, x.dtype), mean, variance


@keras.saving.register_keras_serializable("kcnn")
class Dropout(keras.layers.Dropout):
    """Dropout that spends eight random bits on a value instead of 32.

    A value is dropped where its bits, as a number, are below rate * 256. What the
    rounding of that leaves over is made up for by a threshold one higher in as many
    steps as it takes: each value is dropped with probability `rate` exactly.

    With `whole_channels`, a channel of an image is dropped as one (Tompson et al. 2015;
    Keras's SpatialDropout2D, PyTorch's Dropout2d).
    """

    def __init__(self, rate: float, whole_channels: bool = False, **kwargs):
        super().__init__(rate, **kwargs)
        self.whole_channels = whole_channels

    def call(self, inputs, training=False):
        """Drop values of (batch, ..., channels) inputs of any float dtype."""
        if not training or not self.rate:
            return inputs
        return self.drop_some(inputs, drop_numbers(self.rate))

    def drop_some(self, inputs, numbers):
        """Drop values, or channels, by what `drop_numbers` returns."""
        seed = self.seed_generator.next()
        if not self.whole_channels:
            return drop(inputs, seed, numbers)
        x = tf.convert_to_tensor(inputs)
        shape = [tf.shape(x)[0], *[1] * (x.shape.rank - 2), x.shape[-1]]
        return x * drop(tf.ones(shape, x.dtype), seed, numbers)

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "whole_channels": self.whole_channels}


def drop_numbers(rate: float) -> np.ndarray:
    """Return what `drop` goes by: threshold, chance of one more, scale; float32.

    Raises ValueError if the rate is not below 255/256, the most that eight bits tell.
    """
    if not 0 <= rate < 255 / 256:
        raise ValueError(f"a dropout rate of {rate}; expected 0 to less than 255/256")
    whole = math.floor(rate * 256)
    return np.array([whole, rate * 256 - whole, 1 / (1 - rate)], np.float32)


def drop(inputs, seed, numbers):
    """Drop some of (batch, ...) inputs of any float dtype and scale up the others.

    Args:
        inputs: what is dropped from.
        seed: (2,) of any integer dtype.
        numbers: what `drop_numbers` returns, or a tensor or variable of it.
    """
    x = tf.convert_to_tensor(inputs)
    whole, rest, scale = tf.unstack(tf.convert_to_tensor(numbers))
    seed = tf.cast(seed, tf.int32)
    count = tf.size(x)
    words = tf.random.stateless_uniform(
        [(count + 3) // 4], seed, minval=None, maxval=None, dtype=tf.uint32
    )
    bits = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count]
    another = tf.random.experimental.stateless_fold_in(seed, 1)
    one_more = tf.random.stateless_uniform([], another) < rest
    threshold = tf.cast(whole, tf.uint8) + tf.cast(one_more, tf.uint8)
    kept = tf.cast(tf.reshape(bits, tf.shape(x)) >= threshold, x.dtype)
    return x * (kept * tf.cast(scale, x.dtype))


@keras.saving.register_keras_serializable("kcnn")
class RandomTranslation(keras.layers.Layer):
    """Shift each image by whole pixels, in training only.

    Keras's own interpolates between pixels, which costs more than a small network's
    step and blurs; here rows and columns are only read from other places. What comes
    in at the border repeats the edge.

    Args:
        factor: the largest shift either way, as a part of height and of width; less
            than a pixel is no shift.
    """

    def __init__(self, factor: float, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """Shift (batch, height, width, channels) images of any dtype."""
        if not training:
            return images
        images = tf.convert_to_tensor(images)
        seeds = tf.random.split(
            tf.cast(self.seed_generator.next(), tf.int32), 2, alg="philox"
        )
        for axis, seed in zip((1, 2), tf.unstack(seeds), strict=True):
            most = largest_shift(self.factor, images.shape[axis])
            shifts = tf.random.stateless_uniform(
                (tf.shape(images)[0], 1), seed, -most, most + 1, tf.int32, "philox"
            )
            read = tf.range(images.shape[axis]) + shifts
            read = tf.clip_by_value(read, 0, images.shape[axis] - 1)
            images = tf.gather(images, read, axis=axis, batch_dims=1)
        return images

    def compute_output_shape(self, input_shape):
        """Return the input's shape."""
        return input_shape

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "factor": self.factor}


def largest_shift(factor: float, length: int) -> int:
    """Return how many whole pixels a part of a length is."""
    return int(factor * length + 1e-6)
