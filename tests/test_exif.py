import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kcnn import exif, images

# Blocks of 16 survive JPEG; no symmetry is hidden.
BLOCKS = np.kron(np.random.default_rng(0).integers(0, 256, (3, 5)), np.ones((16, 16)))
PICTURE = Image.fromarray(BLOCKS.astype(np.uint8))


def jpeg(orientation=None, endian="<", before=b"", more_tags=0):
    """Return a JPEG with an EXIF segment made by hand, and segments before it."""
    file = io.BytesIO()
    PICTURE.save(file, "JPEG", quality=95)
    plain = file.getvalue()
    if orientation is None:
        return plain
    tags = [(0x0100 + i, 7) for i in range(more_tags)] + [(0x0112, orientation)]
    mark = b"II*\0" if endian == "<" else b"MM\0*"
    tiff = mark + struct.pack(f"{endian}IH", 8, len(tags))
    for tag, value in tags:
        tiff += struct.pack(f"{endian}HHIHH", tag, 3, 1, value, 0)
    body = b"Exif\0\0" + tiff + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return plain[:2] + before + segment + plain[2:]


def decoded(contents, width, height):
    return images.decode(tf.constant(contents), (height, width, 1)).numpy()[..., 0]


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_seen_as_pillow_turns_it(orientation, endian):
    contents = jpeg(orientation, endian, more_tags=orientation % 3)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    found = decoded(contents, *upright.size)
    assert np.abs(found.astype(int) - np.asarray(upright)).max() <= 2
    assert int(exif.orientation(tf.constant(contents))) == orientation
    header = images.check_header(contents)
    assert (header.width, header.height) == upright.size


def test_other_segments_may_stand_before():
    comment = b"\xff\xfe" + struct.pack(">H", 300) + b"Exif" + bytes(294)
    other = b"\xff\xe1" + struct.pack(">H", 12) + b"http://ns."
    contents = jpeg(6, before=comment + other)
    assert int(exif.orientation(tf.constant(contents))) == 6


@pytest.mark.parametrize(
    "contents",
    [jpeg(), jpeg(0), jpeg(9), b"\xff\xd8", b"\xff\xd8Exif", jpeg(6)[:20]],
)
def test_none_and_nonsense_are_upright(contents):
    assert int(exif.orientation(tf.constant(contents))) == exif.UPRIGHT


def test_damaged_data_are_read_without_a_crash():
    whole = jpeg(6, more_tags=2)
    rng = np.random.default_rng(0)
    for cut in range(2, 70):
        value = int(exif.orientation(tf.constant(whole[:cut])))
        assert value in (exif.UPRIGHT, 6)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(2, 70, 4):
            damaged[place] = rng.integers(256)
        assert 1 <= int(exif.orientation(tf.constant(bytes(damaged)))) <= 8
        exif.on_its_side(bytes(damaged[6:70]))


def test_an_export_may_turn_images(tmp_path):
    from kcnn.trust import check_saved_model

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, batch):
            spec = tf.TensorSpec((80, 48, 1), tf.uint8)
            return tf.map_fn(
                lambda c: images.decode(c, (80, 48, 1)), batch, fn_output_signature=spec
            )

    module = Decoder()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    check_saved_model(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    found = loaded(tf.constant([jpeg(6), jpeg(8)]))
    for image, orientation in zip(found, (6, 8), strict=True):
        np.testing.assert_array_equal(image[..., 0], decoded(jpeg(orientation), 48, 80))
