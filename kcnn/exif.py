"""The orientation that a camera notes in a JPEG's EXIF data.

It is read twice: in TensorFlow operations, as they are in an exported SavedModel too,
and from the header alone, before anything is decoded. Values are those of the TIFF tag
Orientation, 1 to 8 (Exif 2.32, 4.6.4); damaged data count as none.
"""

from __future__ import annotations

import struct

import tensorflow as tf

UPRIGHT = 1

_TAG = 0x0112
_ENTRY_BYTES = 12
_MOST_ENTRIES = 512

# A segment of EXIF data begins early, and has 64 KiB at most.
_BEGINS_IN, _READ = 2**16, 2**17

_APP1, _START_OF_SCAN = 0xE1, 0xDA
_SIGNATURE = b"Exif\0\0"


def on_its_side(data: bytes) -> bool:
    """Tell whether width and height change places when the image is put upright.

    Args:
        data: a JPEG's EXIF segment, as Pillow has it in `info["exif"]`, or empty.
    """
    tiff = data.removeprefix(_SIGNATURE)
    order = "<" if tiff.startswith(b"I") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(min(count, _MOST_ENTRIES)):
            place = start + 2 + _ENTRY_BYTES * entry
            tag, value = struct.unpack_from(f"{order}H6xH", tiff, place)
            if tag == _TAG:
                return 5 <= value <= 8
    except struct.error:  # it ends too early
        pass
    return False


def orientation(contents: tf.Tensor) -> tf.Tensor:
    """Read the orientation from a JPEG.

    Args:
        contents: () string, the encoded bytes.

    Returns:
        () int64 in [1, 8]; UPRIGHT where there is none.
    """
    beginning = tf.strings.substr(contents, 0, _BEGINS_IN)
    # Most have none, and a walk through the segments is slow.
    return tf.cond(
        tf.strings.regex_full_match(beginning, r"\C*Exif\C*"),
        lambda: _orientation(contents),
        lambda: tf.constant(UPRIGHT, tf.int64),
    )


def _orientation(contents: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(tf.strings.substr(contents, 0, _READ), tf.uint8)
    data = tf.cast(data, tf.int64)
    last = tf.size(data, tf.int64) - 1

    def numbers(places: tf.Tensor, size: int, little: tf.Tensor | bool) -> tf.Tensor:
        """Read unsigned numbers of `size` bytes; beyond the end all bytes are equal."""
        spread = tf.expand_dims(places, -1) + tf.range(size, dtype=tf.int64)
        read = tf.gather(data, tf.clip_by_value(spread, 0, last))
        ascending = [256**i for i in range(size)]
        powers = tf.where(
            little,
            tf.constant(ascending, tf.int64),
            tf.constant(ascending[::-1], tf.int64),
        )
        return tf.reduce_sum(read * powers, -1)

    def is_exif(place: tf.Tensor) -> tf.Tensor:
        found = tf.strings.substr(contents, place + 4, len(_SIGNATURE))
        return (numbers(place + 1, 1, False) == _APP1) & (found == _SIGNATURE)

    def is_before(place: tf.Tensor) -> tf.Tensor:
        """Tell whether a segment starts here that is not the one looked for."""
        fits = place + 4 + len(_SIGNATURE) <= last
        starts = numbers(place, 1, False) == 0xFF
        ends = numbers(place + 1, 1, False) == _START_OF_SCAN
        return tf.cond(fits & starts & ~ends, lambda: ~is_exif(place), lambda: False)

    def following(place: tf.Tensor) -> list[tf.Tensor]:
        return [place + 2 + numbers(place + 2, 2, False)]

    def in_tiff(start: tf.Tensor) -> tf.Tensor:
        little = numbers(start, 1, False) == ord("I")
        directory = start + numbers(start + 4, 4, little)
        count = tf.minimum(numbers(directory, 2, little), _MOST_ENTRIES)
        entries = directory + 2 + _ENTRY_BYTES * tf.range(count)
        entries = tf.boolean_mask(entries, entries + _ENTRY_BYTES <= last + 1)
        found = tf.boolean_mask(entries, numbers(entries, 2, little) == _TAG)
        values = numbers(found[:1] + 8, 2, little)
        value = tf.reduce_sum(values)
        return tf.where((value >= 1) & (value <= 8), value, UPRIGHT)

    # The first segment follows the two bytes that start a JPEG.
    (place,) = tf.while_loop(is_before, following, [tf.constant(2, tf.int64)])
    fits = place + 4 + len(_SIGNATURE) <= last
    return tf.cond(
        tf.cond(fits, lambda: is_exif(place), lambda: False),
        lambda: in_tiff(place + 4 + len(_SIGNATURE)),
        lambda: tf.constant(UPRIGHT, tf.int64),
    )
