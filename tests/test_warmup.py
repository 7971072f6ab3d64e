"""Warm-up requests, read by TensorFlow Serving's own messages."""

import numpy as np
import pytest
import tensorflow as tf

from kcnn import warmup
from kcnn.spec import ImageSpec

SPEC = ImageSpec(10, 300, 3, ("cat", "dog"))


def records(tmp_path):
    path = tmp_path / warmup.FILE
    path.write_bytes(warmup.warmup_requests("pets", SPEC))
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


@pytest.mark.parametrize(
    "number, expected",
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16384, "808001"),
    ],
)
def test_varint(number, expected):
    assert warmup._varint(number).hex() == expected


def test_tensorflow_serving_reads_a_request_for_each_signature(tmp_path):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2",
        reason="tensorflow-serving-api is not installed",
    )
    found = {}
    for record in records(tmp_path):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        assert log.SerializeToString() == record  # no field that it does not know
        request = log.predict_log.request
        assert request.model_spec.name == "pets"
        found[request.model_spec.signature_name] = {
            name: tf.make_ndarray(value) for name, value in request.inputs.items()
        }
    assert set(found) == {"serving_default", "serving_bytes", "preprocess"}
    image = found["serving_default"]["images"]
    assert (image.shape, image.dtype) == ((1, 10, 300, 3), np.uint8)
    for name in ("serving_bytes", "preprocess"):
        (contents,) = found[name]["contents"]
        np.testing.assert_array_equal(tf.io.decode_png(contents), image[0])
