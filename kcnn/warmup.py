"""Requests that TensorFlow Serving answers before the first client's, so that is quick.

They are a TFRecord file of PredictionLog messages in assets.extra. What is needed of
the messages is four nested fields, so it is put together here: the package that has
them, tensorflow-serving-api, would be a dependency for these alone. The numbers are
those of tensorflow_serving/apis/{prediction_log,predict,model}.proto.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn.spec import ImageSpec

FILE = "tf_serving_warmup_requests"

_NAME, _SIGNATURE = 1, 3  # in ModelSpec
_KEY, _VALUE = 1, 2  # of a map's entry
_MODEL_SPEC, _INPUTS = 1, 2  # in PredictRequest
_REQUEST = 1  # in PredictLog
_PREDICT_LOG = 6  # in PredictionLog


def warmup_requests(
    name: str, spec: ImageSpec, by_images: str = "serving_default"
) -> bytes:
    """Return the file: a request of one image to each signature that takes images.

    Args:
        name: of the model.
        spec: its images.
        by_images: the signature that takes decoded images.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / FILE
        with tf.io.TFRecordWriter(str(path)) as writer:
            for signature, fed in _inputs(spec, by_images):
                writer.write(_prediction_log(name, signature, fed))
        return path.read_bytes()


def _inputs(spec: ImageSpec, by_images: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield signature and inputs. The image is noise: it gives away nobody's data."""
    image = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
    contents = [tf.io.encode_png(image).numpy()]
    yield by_images, {"images": image[None]}
    for signature in ("serving_bytes", "preprocess"):
        yield signature, {"contents": contents}


def _prediction_log(name: str, signature: str, fed: dict[str, Any]) -> bytes:
    model = _field(_NAME, name.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, model)
    for key, value in fed.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_KEY, key.encode()) + _field(_VALUE, tensor)
        request += _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, contents: bytes) -> bytes:
    """Encode a text or a message as a field of a message, as protocol buffers do."""
    length_delimited = 2
    return _varint(number << 3 | length_delimited) + _varint(len(contents)) + contents


def _varint(number: int) -> bytes:
    """Encode a number, seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
