"""Encoded images by the batch: all cores at work, and no question asked in vain."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import tensorflow as tf

from kcnn.images import Shape, decode

# For what tf.data maps over a data set, and an export holds: AutoGraph has nothing to
# translate in it, and takes half a second or more of a training to find that out.
as_it_is = tf.autograph.experimental.do_not_convert

# Images that one round of a loop decodes.
_IN_A_ROW = 16


@functools.cache
def decoder(
    shape: Shape, normalize_input: str = "none"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `kcnn.images.decode` for () string, as one function of TensorFlow's.

    Its graph takes longer to build than a few images to decode: one serves all splits.
    """

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decode_one(contents):
        return decode(contents, shape, normalize_input)

    return decode_one


@functools.cache
def batch_decoder(
    shape: Shape, normalize_input: str = "none"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what decodes (n,) string to (n, *shape) uint8, see `kcnn.images.decode`.

    It is one function of TensorFlow's, however often a graph calls it: an export whose
    signatures each had their own would be four times as large. Images are decoded
    beside each other, on all threads.
    """
    any_kind = _of_each(lambda one: decode(one, shape, normalize_input), shape)
    if normalize_input != "none":
        return any_kind
    header = _plain_png_header(shape)

    def decode_plain(one: tf.Tensor) -> tf.Tensor:
        return _decode_plain_png(one, shape)

    plain_png = _of_each(decode_plain, shape)
    many_plain_png = _of_many(decode_plain, shape)

    def are_plain(contents: tf.Tensor) -> tf.Tensor:
        found = tf.strings.substr(contents, 0, len(header))
        return tf.reduce_all(tf.equal(found, header))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def either(contents):
        return tf.cond(
            are_plain(contents),
            lambda: plain_png(contents),
            lambda: any_kind(contents),
        )

    def decode_batch(contents: tf.Tensor) -> tf.Tensor:
        if not tf.executing_eagerly():
            return either(contents)
        # Building the graph of the other kind would take most of a second.
        if not are_plain(contents):
            return any_kind(contents)
        few = tf.size(contents) < _IN_A_ROW
        return (plain_png if few else many_plain_png)(contents)

    return decode_batch


def _of_each(
    one: Callable[[tf.Tensor], tf.Tensor], shape: Shape
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what does so with each of (n,) string, to (n, *shape) uint8."""

    # AutoGraph would first rewrite every function on the way: a second more.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def all_of_them(contents):
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(one, contents, fn_output_signature=spec)

    return all_of_them


def _of_many(
    one: Callable[[tf.Tensor], tf.Tensor], shape: Shape
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what `_of_each` does, in less than half the time where there are many.

    A round of the loop takes longer than to decode a small image; these are rounds of
    a row of images, of which the last is filled up.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def all_of_them(contents):
        def row(images):
            return tf.stack([one(image) for image in tf.unstack(images, _IN_A_ROW)])

        n = tf.size(contents)
        filled = tf.range(-(-n // _IN_A_ROW) * _IN_A_ROW)
        rows = tf.gather(contents, tf.minimum(filled, n - 1))
        spec = tf.TensorSpec((_IN_A_ROW, *shape), tf.uint8)
        decoded = tf.map_fn(
            row, tf.reshape(rows, (-1, _IN_A_ROW)), fn_output_signature=spec
        )
        return tf.reshape(decoded, (-1, *shape))[:n]

    return all_of_them


def _plain_png_header(shape: Shape) -> bytes:
    """Return how a PNG begins that has this shape, 8 bits a channel and no palette.

    Small images of data sets mostly are such, and `decode` takes longer to ask what
    they might be than to read their pixels.
    """
    height, width, channels = shape
    kind = {1: 0, 3: 2}[channels]  # grey, RGB
    return b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBB", 13, b"IHDR", width, height, 8, kind
    )


def _decode_plain_png(contents: tf.Tensor, shape: Shape) -> tf.Tensor:
    image = tf.io.decode_png(contents, channels=shape[-1])
    image.set_shape(shape)  # as its header says
    return image
