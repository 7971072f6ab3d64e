"""`--augment=handwriting`: training images as other hands and pens might draw them."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

_TURN = 15.0  # degrees either way
_SLANT = 0.25  # of the height, sideways
_SCALE = 0.15  # larger or smaller, each side by itself
_SHIFT = 0.07  # of the side
_BEND = 0.025  # deviation of the elastic displacement, of the side
_KNOTS = 5  # a side, between which the displacement is smooth
_NOISE = 0.06  # deviation, at the most
_PAPER = 0.3  # lightest paper, and by how much ink may fall short of white


@keras.saving.register_keras_serializable("kcnn")
class RandomHandwriting(keras.layers.Layer):
    """Change images of handwriting at random, in training only.

    An affine map and a smooth elastic displacement (Simard, Steinkraus and Platt,
    2003), thicker or thinner strokes, and noise. The numbers come from a Keras seed
    generator, so that a resumed run goes on with those it would have had.

    Args:
        paper: also change the brightness of paper and ink, and turn light and dark
            around in half of the images.
    """

    def __init__(self, paper: bool, **kwargs):
        super().__init__(**kwargs)
        self.paper = paper
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """Change (batch, height, width, channels) float32 images in [0, 1]."""
        if not training:
            return images
        seeds = tf.random.split(
            tf.cast(self.seed_generator.next(), tf.int32), 5, alg="philox"
        )
        images = tf.convert_to_tensor(images)
        images = _change_strokes(_warp(images, seeds[0], seeds[1]), seeds[2])
        if self.paper:
            images = _change_paper(images, seeds[3])
        strength, grain = tf.unstack(tf.random.split(seeds[4], 2, alg="philox"))
        noise = _NOISE * _uniform(tf.shape(images)[:1], strength, 0.0, 1.0)
        grain = tf.random.stateless_normal(tf.shape(images), grain, alg="philox")
        return tf.clip_by_value(images + _each(noise) * grain, 0, 1)

    def compute_output_shape(self, input_shape):
        """Return the input's shape."""
        return input_shape

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "paper": self.paper}


def _warp(images: tf.Tensor, affine: tf.Tensor, elastic: tf.Tensor) -> tf.Tensor:
    """Bend images; what comes in at the border repeats the edge."""
    n = tf.shape(images)[0]
    height, width = images.shape[1:3]
    draw = _uniform((n, 6), affine, -1.0, 1.0)
    turn = draw[:, 0] * math.radians(_TURN)
    y_scale, x_scale = (1 / (1 + _SCALE * draw[:, i]) for i in (1, 2))
    slant = _SLANT * draw[:, 3]
    sine, cosine = tf.sin(turn), tf.cos(turn)
    # Where a pixel of the result comes from: its place, slanted, scaled and turned.
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    across = _plane(x_scale) * (x + _plane(slant) * y)
    down = _plane(y_scale) * y
    bends = tf.random.stateless_normal((n, 2, _KNOTS, _KNOTS), elastic, alg="philox")
    bends = _curve(height) @ bends @ _curve(width).T
    rows = _plane(cosine) * down - _plane(sine) * across
    columns = _plane(sine) * down + _plane(cosine) * across
    rows += height * (_plane(_SHIFT * draw[:, 4]) + _BEND * bends[:, 0])
    columns += width * (_plane(_SHIFT * draw[:, 5]) + _BEND * bends[:, 1])
    return _sample(images, rows + (height - 1) / 2, columns + (width - 1) / 2)


def _curve(length: int) -> np.ndarray:
    """Return (length, knots) float32: bells over the knots, of deviation 1 together."""
    at = np.linspace(0, _KNOTS - 1, length)[:, None]
    bells = np.exp(-((at - np.arange(_KNOTS)) ** 2))
    return (bells / np.linalg.norm(bells, axis=1, keepdims=True)).astype(np.float32)


def _sample(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Read images between their pixels: (batch, height, width) places, bilinear."""
    height, width, channels = images.shape[1:]
    rows = tf.clip_by_value(rows, 0, height - 1)
    columns = tf.clip_by_value(columns, 0, width - 1)
    top, left = tf.floor(rows), tf.floor(columns)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    pixels = tf.reshape(images, (-1, height * width, channels))

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        row, column = tf.minimum(row, height - 1), tf.minimum(column, width - 1)
        return tf.gather(pixels, tf.cast(row * width + column, tf.int32), batch_dims=1)

    upper = at(top, left) * (1 - across) + at(top, left + 1) * across
    lower = at(top + 1, left) * (1 - across) + at(top + 1, left + 1) * across
    return upper * (1 - down) + lower * down


def _change_strokes(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Let light spread, or dark, by up to a 28th of the side."""
    window = 2 * max(1, round(min(images.shape[1:3]) / 28)) + 1
    part = _each(_uniform(tf.shape(images)[:1], seed, -0.5, 1.0))
    wider = tf.nn.max_pool2d(images, window, 1, "SAME")
    thinner = -tf.nn.max_pool2d(-images, window, 1, "SAME")
    return images + tf.abs(part) * (tf.where(part > 0, wider, thinner) - images)


def _change_paper(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    draw = _uniform((tf.shape(images)[0], 3), seed, 0.0, 1.0)
    dark, light = _PAPER * draw[:, 0], 1 - _PAPER * draw[:, 1]
    images = _each(dark) + _each(light - dark) * images
    return tf.where(_each(draw[:, 2]) < 0.5, 1 - images, images)


def _uniform(shape, seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, low, high, alg="philox")


def _plane(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None]


def _each(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]
