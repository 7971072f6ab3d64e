"""Encoded files and arrays -> uint8 images of one shape, in TensorFlow operations.

Training, prediction and the exported SavedModel decode through `decode`, so that a
file means the same pixels to all of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from kcnn import exif
from kcnn.normalization import normalize

# A file of 27 kB can hold 225 million pixels; this many take 150 MB once decoded.
MAX_PIXELS = 50_000_000

FORMATS = ("JPEG", "PNG", "GIF", "BMP")

# Formats that are not read, but named where a file is of one.
_FOREIGN = ("WEBP", "TIFF", "AVIF", "ICO")

# Names of image files, also of kinds that are then skipped with the reason.
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp")
SUFFIXES += (".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".ico")

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Shape = tuple[int, int, int]


def decode(
    contents: tf.Tensor, shape: Shape, normalize_input: str = "none"
) -> tf.Tensor:
    """Decode one PNG, JPEG, BMP or GIF (its first frame).

    Transparency is laid over white, colors become luma where `shape` has one channel,
    and an image of another size is resized with antialiasing. A JPEG is turned as its
    EXIF data say; 16-bit channels keep their high byte.

    Args:
        contents: () string, the encoded bytes.
        shape: height, width and channels (1 or 3) of the result.
        normalize_input: "mnist" puts handwriting as kcnn.normalization says, from its
            own size, and resizes nothing; `shape` is (28, 28, 1) then.

    Returns:
        `shape` uint8, the shape being static.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """
    height, width, channels = shape
    image = tf.io.decode_image(contents, channels=0, expand_animations=False)
    # The fourth byte of a BMP's pixel is padding, and often 0: not an alpha.
    is_bmp = tf.equal(tf.strings.substr(contents, 0, 2), b"BM")
    found = tf.shape(image)[-1]
    found = tf.where(is_bmp & (found == 4), 3, found)
    image = image[..., :found]
    image = tf.switch_case(
        found - 1,
        [lambda n=n: _with_channels(image, n, channels) for n in (1, 2, 3, 4)],
    )
    image = _upright(tf.ensure_shape(image, (None, None, channels)), contents)
    if normalize_input != "none":
        return normalize(image)
    return _resize(image, height, width)


def _upright(image: tf.Tensor, contents: tf.Tensor) -> tf.Tensor:
    """Turn (any, any, channels) uint8 as a JPEG's EXIF data say that it is seen."""
    is_jpeg = tf.equal(tf.strings.substr(contents, 0, 2), b"\xff\xd8")
    value = tf.cond(
        is_jpeg,
        lambda: exif.orientation(contents),
        lambda: tf.constant(exif.UPRIGHT, tf.int64),
    )

    def turned() -> tf.Tensor:
        # Each of the eight is a transposition or none, then flips.
        # As floats, because oneDNN warns of transposing integers on many processors.
        wide = tf.cast(image, tf.float32)
        seen = tf.cond(value >= 5, lambda: tf.transpose(wide, (1, 0, 2)), lambda: wide)
        for axis, values in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
            flip = tf.reduce_any(tf.equal(value, values))
            seen = tf.where(flip, tf.reverse(seen, [axis]), seen)
        return tf.ensure_shape(tf.cast(seen, tf.uint8), (None, None, image.shape[-1]))

    return tf.cond(value == exif.UPRIGHT, lambda: image, turned)


def reason(error: tf.errors.OpError) -> str:
    """Return the first line of a TensorFlow error, without its place in the graph."""
    text = (error.message or type(error).__name__).strip().splitlines()[0]
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", "", text)


def fit(images: Any, shape: Shape, normalize_input: str = "none") -> tf.Tensor:
    """Give decoded images another size and number of channels, as `decode` does.

    Args:
        images: (height, width, channels) or (batch, height, width, channels) uint8,
            with 1 to 4 channels.
        shape: height, width and channels (1 or 3) of the result.
        normalize_input: as of `decode`.

    Returns:
        `shape` or (batch, *shape) uint8.
    """
    height, width, channels = shape
    images = tf.convert_to_tensor(images, tf.uint8)
    images = _with_channels(images, images.shape[-1], channels)
    if normalize_input != "none":
        return normalize(images)
    return _resize(images, height, width)


def _with_channels(images: tf.Tensor, found: int, wanted: int) -> tf.Tensor:
    """Convert (..., found) uint8 to (..., wanted): grey, grey + alpha, RGB or RGBA."""
    images = tf.ensure_shape(images, [*images.shape[:-1], found])
    if found in (2, 4):
        images, alpha = images[..., :-1], images[..., -1:]
        images = _over_white(images, alpha)
        found -= 1
    if found == wanted:
        return images
    if wanted == 3:
        return tf.repeat(images, 3, axis=-1)
    luma = tf.reduce_sum(tf.cast(images, tf.float32) * _LUMA, -1, keepdims=True)
    return tf.cast(tf.round(luma), tf.uint8)


def _over_white(images: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Lay uint8 pixels over white; exactly the pixels where alpha is 255."""
    images, alpha = tf.cast(images, tf.int32), tf.cast(alpha, tf.int32)
    blend = images * alpha + 255 * (255 - alpha)
    return tf.cast((blend + 127) // 255, tf.uint8)


def _resize(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resize (..., any, any, channels) uint8; exactly the input at its own size."""

    def resized() -> tf.Tensor:
        values = tf.image.resize(images, (height, width), antialias=True)
        values = tf.clip_by_value(tf.round(values), 0.0, 255.0)
        return tf.cast(values, tf.uint8)

    static = images.shape[-3:-1]
    if static.is_fully_defined():
        return images if static == (height, width) else resized()
    same = tf.reduce_all(tf.shape(images)[-3:-1] == (height, width))
    images = tf.cond(same, lambda: images, resized)
    return tf.ensure_shape(
        images, [*images.shape[:-3], height, width, images.shape[-1]]
    )


class Header(NamedTuple):
    """What a file says of its image before it is decoded; mode as Pillow names it.

    Width and height are those of the upright image.
    """

    width: int
    height: int
    mode: str
    format: str


def check_header(source: str | bytes | os.PathLike) -> Header:
    """Read the header of an encoded image, and refuse what must not be decoded.

    Args:
        source: a file's path, or its contents as bytes.

    Raises:
        ValueError: empty, no image, a format or a kind of BMP that TensorFlow does
            not read right, or more than MAX_PIXELS pixels; the message is the reason.
    """
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    if size == 0:
        raise ValueError("empty file")
    with _no_pixel_limit():
        try:
            header = _read_header(source, FORMATS)
        except UnidentifiedImageError:
            raise ValueError(_why_unidentified(source)) from None
        except (OSError, SyntaxError, ValueError) as error:  # a damaged header
            raise ValueError(f"damaged header: {error}") from None
    if header.width * header.height > MAX_PIXELS:
        raise ValueError(
            f"{header.width} x {header.height} pixels; the limit is {MAX_PIXELS:,}"
        )
    # TensorFlow takes a palette's indices for grey values, without a word.
    if header.format == "BMP" and header.mode not in ("L", "RGB", "RGBA"):
        raise ValueError("BMP with a palette, which TensorFlow does not read")
    return header


def _read_header(source: str | bytes | os.PathLike, formats: tuple[str, ...]) -> Header:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(file, formats=formats) as image:
        # A camera's MPO is a JPEG with more images after the first.
        name = "JPEG" if image.format == "MPO" else image.format
        width, height = image.size
        if name == "JPEG" and exif.on_its_side(image.info.get("exif", b"")):
            width, height = height, width
        return Header(width, height, image.mode, name or "")


def _why_unidentified(source: str | bytes | os.PathLike) -> str:
    try:
        name = _read_header(source, _FOREIGN).format
    except (OSError, SyntaxError, ValueError):
        return "not an image"
    return f"{name}, not one of {', '.join(FORMATS)}"


@contextlib.contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Lift Pillow's own limit, which hides the dimensions and only warns at first."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
