import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kcnn import images

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (5, 7, 3), np.uint8)
SMOOTH = np.stack(
    [
        np.tile(np.arange(64) * 4, (64, 1)),
        np.tile(np.arange(64)[:, None] * 3, 64),
        np.full((64, 64), 90),
    ],
    axis=-1,
).astype(np.uint8)


def encoded(pixels, format="PNG", mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def decoded(contents, shape):
    image = images.decode(tf.constant(contents), shape)
    assert image.shape == shape and image.dtype == tf.uint8
    return image.numpy()


def png_header(width, height):
    """Return a PNG that only claims to have pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "LA", "RGBA"])
def test_ordinary_png_has_the_pixels_that_pillow_reads(mode):
    contents = encoded(NOISE, mode=mode)
    pillow = Image.open(io.BytesIO(contents)).convert("RGB")
    np.testing.assert_array_equal(decoded(contents, (5, 7, 3)), np.asarray(pillow))


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((255, 0, 0), 76),  # 76.245
        ((0, 255, 0), 150),  # 149.685
        ((0, 0, 255), 29),  # 29.07
        ((10, 20, 30), 18),  # 2.99 + 11.74 + 3.42 = 18.15
    ],
)
def test_color_becomes_luma(rgb, luma):
    image = np.full((2, 2, 3), rgb, np.uint8)
    assert (decoded(encoded(image), (2, 2, 1)) == luma).all()


def test_every_grey_stays_what_it_is():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    as_color = decoded(encoded(ramp, mode="RGB"), (16, 16, 1))
    np.testing.assert_array_equal(as_color[..., 0], ramp)
    repeated = decoded(encoded(ramp), (16, 16, 3))
    np.testing.assert_array_equal(repeated, np.stack([ramp] * 3, -1))


@pytest.mark.parametrize(
    ("value", "alpha", "expected"),
    [(100, 255, 100), (100, 0, 255), (0, 128, 127), (200, 51, 244), (0, 1, 254)],
)
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_over_white(mode, value, alpha, expected):
    color = (value, alpha) if mode == "LA" else (value, value, value, alpha)
    contents = encoded(Image.new(mode, (3, 2), color))
    for channels in (1, 3):
        assert (decoded(contents, (2, 3, channels)) == expected).all()


def test_alpha_255_is_exactly_the_pixels():
    opaque = encoded(NOISE, mode="RGBA")
    np.testing.assert_array_equal(decoded(opaque, (5, 7, 3)), NOISE)


def test_sixteen_bits_keep_the_high_byte():
    deep = RNG.integers(0, 65536, (5, 7), np.uint16)
    np.testing.assert_array_equal(
        decoded(encoded(deep), (5, 7, 1))[..., 0], (deep >> 8).astype(np.uint8)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_within_rounding_of_pillow(mode):
    contents = encoded(SMOOTH, "JPEG", mode, quality=95)
    pillow = Image.open(io.BytesIO(contents)).convert("RGB")
    found = decoded(contents, (64, 64, 3)).astype(int)
    assert np.abs(found - np.asarray(pillow)).max() <= 6


def test_gif_is_its_first_frame():
    frames = [Image.new("L", (4, 3), value) for value in (10, 200)]
    contents = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decoded(contents, (3, 4, 1)) == 10).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_bmp_without_a_palette(mode):
    # Pillow writes RGBA as 32 bits a pixel and reads the fourth byte as padding.
    image = Image.fromarray(NOISE).convert(mode)
    if mode == "RGBA":
        image.putalpha(0)
    expected = np.asarray(Image.fromarray(NOISE).convert(mode).convert("RGB"))
    contents = encoded(image, "BMP")
    np.testing.assert_array_equal(decoded(contents, (5, 7, 3)), expected)


@pytest.mark.parametrize("size", [(8, 8), (20, 10), (100, 64)])
def test_another_size_is_resized_with_antialiasing(size):
    width, height = size
    pillow = Image.fromarray(SMOOTH).resize(size, Image.Resampling.BILINEAR)
    found = decoded(encoded(SMOOTH), (height, width, 3)).astype(int)
    assert np.abs(found - np.asarray(pillow)).max() <= 1


def test_single_white_line_is_not_lost_by_shrinking():
    image = np.zeros((64, 64), np.uint8)
    image[:, 1] = 255
    assert decoded(encoded(image), (8, 8, 1)).max() > 0


def test_fit_agrees_with_decode():
    batch = np.stack([SMOOTH, SMOOTH[::-1]])
    for shape in [(64, 64, 3), (64, 64, 1), (16, 24, 1)]:
        fitted = images.fit(batch, shape)
        assert fitted.shape == (2, *shape)
        for image, found in zip(batch, fitted.numpy(), strict=True):
            np.testing.assert_array_equal(found, decoded(encoded(image), shape))
            np.testing.assert_array_equal(found, images.fit(image, shape))


def test_decodes_inside_map_and_map_fn_and_a_saved_model(tmp_path):
    shape = (6, 8, 1)
    contents = [
        encoded(NOISE),
        encoded(NOISE, mode="LA"),
        encoded(SMOOTH, "JPEG"),
        encoded(NOISE[:, :, 0], "GIF"),
    ]
    expected = np.stack([decoded(c, shape) for c in contents])

    dataset = tf.data.Dataset.from_tensor_slices(contents)
    dataset = dataset.map(lambda c: images.decode(c, shape))
    assert dataset.element_spec.shape == shape
    np.testing.assert_array_equal(np.stack(list(dataset)), expected)

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, batch):
            spec = tf.TensorSpec(shape, tf.uint8)
            return tf.map_fn(
                lambda c: images.decode(c, shape), batch, fn_output_signature=spec
            )

    tf.saved_model.save(Decoder(), str(tmp_path))
    found = tf.saved_model.load(str(tmp_path))(tf.constant(contents))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "contents",
    [b"", b"text", encoded(NOISE)[:100], encoded(SMOOTH, "JPEG")[:700]],
)
def test_damaged_contents_raise(contents):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        images.decode(contents, (64, 64, 3))
    text = images.reason(caught.value)
    assert text and "\n" not in text and "{{" not in text and "[Op" not in text


def test_header_of_a_file_and_of_bytes(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(NOISE, "JPEG"))
    expected = images.Header(7, 5, "RGB", "JPEG")
    assert images.check_header(path) == expected
    assert images.check_header(path.read_bytes()) == expected
    assert images.check_header(encoded(NOISE, "MPO")).format == "JPEG"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "empty file"),
        (b"a text", "not an image"),
        (encoded(NOISE, "WEBP"), "WEBP, not one of JPEG, PNG, GIF, BMP"),
        (encoded(NOISE, "TIFF"), "TIFF, not one of"),
        (encoded(NOISE, "BMP", "P"), "BMP with a palette"),
        (encoded(NOISE, "BMP", "1"), "BMP with a palette"),
        (encoded(NOISE)[:20], "not an image|damaged header"),
        (png_header(15000, 15000), "15000 x 15000 pixels; the limit is 50,000,000"),
        (png_header(50_001, 1000), "50001 x 1000 pixels"),
    ],
)
def test_header_refuses(contents, message, tmp_path, recwarn):
    path = tmp_path / "image"
    path.write_bytes(contents)
    for source in (contents, path):
        with pytest.raises(ValueError, match=message):
            images.check_header(source)
    assert not recwarn.list
    assert Image.MAX_IMAGE_PIXELS is not None


def test_as_many_pixels_as_the_limit_are_accepted():
    assert images.check_header(png_header(50_000, 1000)).width == 50_000
