"""Batches of encoded images: the pixels of `decode`, beside each other."""

import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf

from kcnn import decoding
from tests.test_images import NOISE, SMOOTH, decoded, encoded


@pytest.fixture(params=["eager", "in a graph"])
def decoder(request, monkeypatch):
    """A batch_decoder of 5x7x3 whose calls of `decode` are counted as they run."""
    calls = {"all": 0, "now": 0, "most": 0}
    lock = threading.Lock()

    def counted(contents):
        with lock:
            calls["all"] += 1
            calls["now"] += 1
            calls["most"] = max(calls["most"], calls["now"])
        time.sleep(0.02)
        with lock:
            calls["now"] -= 1
        return contents

    original = decoding.decode

    def decode(contents, *arguments):
        contents = tf.numpy_function(counted, [contents], tf.string, stateful=False)
        return original(tf.ensure_shape(contents, ()), *arguments)

    monkeypatch.setattr(decoding, "decode", decode)
    # Not through the cache, which would keep it for other tests.
    found = decoding.batch_decoder.__wrapped__((5, 7, 3))
    if request.param == "in a graph":
        found = tf.function(found, [tf.TensorSpec([None], tf.string)])
    return found, calls


def with_transparent_color(contents):
    """Put a tRNS chunk behind a PNG's header: some color is transparent."""
    header_end = 8 + 12 + 13
    color = bytes(6) if contents[25] == 2 else bytes(2)
    chunk = b"tRNS" + color
    chunk = struct.pack(">I", len(color)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return contents[:header_end] + chunk + contents[header_end:]


def test_batch_of_plain_png_is_decoded_without_asking_what_it_is(decoder):
    decode_batch, calls = decoder
    plain = [
        encoded(NOISE),
        encoded(NOISE[::-1]),
        with_transparent_color(encoded(NOISE)),
    ]
    found = decode_batch(tf.constant(plain)).numpy()
    assert calls["all"] == 0
    np.testing.assert_array_equal(found, [NOISE, NOISE[::-1], NOISE])
    for other in (
        encoded(NOISE, "BMP"),
        encoded(NOISE, mode="L"),
        encoded(NOISE, mode="RGBA"),
        encoded(NOISE, mode="P"),
        encoded(NOISE.transpose(1, 0, 2)),
        encoded(SMOOTH),
    ):
        calls["all"] = 0
        found = decode_batch(tf.constant([plain[0], other])).numpy()
        assert calls["all"] == 2
        expected = [decoded(c, (5, 7, 3)) for c in (plain[0], other)]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_plain_png_has_the_pixels_that_decode_gives(mode, channels, transparent):
    pixels = np.concatenate([NOISE, np.zeros_like(NOISE)])
    contents = encoded(pixels, mode=mode)
    if transparent:
        contents = with_transparent_color(contents)
    shape = (10, 7, channels)
    found = decoding.batch_decoder(shape)(tf.constant([contents]))
    assert found.shape == (1, *shape)
    np.testing.assert_array_equal(found[0], decoded(contents, shape))


def test_images_of_a_batch_are_decoded_beside_each_other(decoder):
    decode_batch, calls = decoder
    decode_batch(tf.constant([encoded(NOISE, "BMP")] * 8))
    assert calls["all"] == 8 and calls["most"] >= min(2, os.cpu_count())


def test_no_image_is_a_batch_too():
    assert decoding.batch_decoder((5, 7, 3))(tf.constant([], tf.string)).shape[0] == 0


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_any_number_of_plain_png_keeps_its_order(count):
    images = np.random.default_rng(count).integers(0, 256, (count, 5, 7, 3), np.uint8)
    contents = tf.constant([encoded(image) for image in images])
    found = decoding.batch_decoder((5, 7, 3))(contents)
    np.testing.assert_array_equal(found, images)
