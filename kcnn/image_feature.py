"""How a tf.Example holds an image: a feature's bytes or floats -> uint8 images."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from kcnn import images
from kcnn.decoding import batch_decoder, decoder
from kcnn.images import Shape
from kcnn.spec import ImageSpec

# An encoded file; height * width * channels bytes; as many floats from 0 to 1.
KINDS = ("encoded", "raw", "floats")


@dataclasses.dataclass(frozen=True)
class ImageFeature:
    """One feature of tf.Examples: its name, how it holds an image, and of what shape.

    `kind` is one of KINDS; `shape` is that of raw bytes and floats, which do not tell
    it themselves, and None for encoded files.
    """

    key: str = "image"
    kind: str = "encoded"
    shape: Shape | None = None

    @property
    def parser(self) -> tf.io.FixedLenFeature:
        """What parses the feature: () string, or `shape` float32."""
        if self.kind == "floats":
            return tf.io.FixedLenFeature(self.shape, tf.float32)
        return tf.io.FixedLenFeature([], tf.string)

    def decode(
        self, value: tf.Tensor, shape: Shape, normalize_input: str = "none"
    ) -> tf.Tensor:
        """Turn one parsed value into an image, as `kcnn.images.decode` does.

        Returns:
            `shape` uint8.

        Raises:
            tf.errors.InvalidArgumentError: it is no image, or none of this shape.
        """
        if self.kind == "encoded":
            return decoder(shape, normalize_input)(value)
        if self.kind == "raw":
            pixels = tf.reshape(tf.io.decode_raw(value, tf.uint8), self.shape)
        else:
            scaled = tf.round(tf.reshape(value, self.shape) * 255.0)
            pixels = tf.cast(tf.clip_by_value(scaled, 0.0, 255.0), tf.uint8)
        return images.fit(pixels, shape, normalize_input)

    def decode_batch(self, values: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
        """Turn (batch, ...) parsed values into (batch, *spec.shape) uint8."""
        if self.kind == "encoded":
            return batch_decoder(spec.shape, spec.normalize_input)(values)
        return tf.map_fn(
            lambda value: self.decode(value, spec.shape, spec.normalize_input),
            values,
            fn_output_signature=tf.TensorSpec(spec.shape, tf.uint8),
        )

    def images(self, examples: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
        """Parse and decode (batch,) serialized tf.Examples: (batch, *shape) uint8."""
        parsed = tf.io.parse_example(examples, {self.key: self.parser})
        return self.decode_batch(parsed[self.key], spec)

    def feature(self, image: np.ndarray) -> tf.train.Feature:
        """Return the feature that holds a (height, width, channels) uint8 image.

        Raw bytes and floats are of the image resized to `shape`.
        """
        if self.kind == "encoded":
            return bytes_feature(tf.io.encode_png(image).numpy())
        assert self.shape is not None
        pixels = images.fit(image, self.shape).numpy()
        if self.kind == "raw":
            return bytes_feature(pixels.tobytes())
        floats = pixels.astype(np.float32).ravel() / 255
        return tf.train.Feature(float_list=tf.train.FloatList(value=floats))

    def example(self, image: np.ndarray) -> bytes:
        """Return a serialized tf.Example with nothing but an image."""
        return serialized({self.key: self.feature(image)})


def bytes_feature(value: bytes) -> tf.train.Feature:
    """Return a feature of one string."""
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def int_feature(value: int) -> tf.train.Feature:
    """Return a feature of one whole number."""
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def serialized(features: dict[str, tf.train.Feature]) -> bytes:
    """Return a serialized tf.Example."""
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()
