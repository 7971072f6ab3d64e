"""A client that knows TensorFlow Serving's documentation, and nothing of kcnn."""

import base64
import concurrent.futures
import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving.apis", reason="no tensorflow-serving-api")
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.conftest import bar_and_ring  # noqa: E402
from tests.model_server import (  # noqa: E402
    ModelServer,
    classify_by_json,
    predict_by_json,
)

BASE = pathlib.Path(__file__).parents[1] / "saved_models" / "mnist-tiny"


@pytest.fixture(scope="module")
def stub():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service = ModelServer({"digits": BASE})
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    server.stop(None).wait()


def encoded(image, form, mode="L"):
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, form)
    return stream.getvalue()


def request_of(signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def arrays(answer):
    return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


def test_labels_come_back_for_bytes(stub):
    bar, ring = bar_and_ring()
    files = [encoded(bar, "PNG"), encoded(ring, "JPEG"), encoded(ring, "PNG", "RGB")]
    answer = stub.Predict(request_of("serving_bytes", contents=files))
    found = arrays(answer)
    assert answer.model_spec.version.value == 1
    assert found["labels"].tolist() == [b"1", b"0", b"0"]
    assert found["classes"].tolist() == [1, 0, 0]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_default_signature_takes_images_in_batches_of_any_size(stub, n):
    images = np.resize(bar_and_ring(), (n, 28, 28))[..., None]
    found = arrays(stub.Predict(request_of("", images=images)))
    assert found["labels"].tolist() == [[b"1", b"0"][i % 2] for i in range(n)]
    assert found["probabilities"].shape == (n, 10)


def test_an_output_can_be_chosen(stub):
    request = request_of("serving_bytes", contents=[encoded(bar_and_ring()[0], "PNG")])
    request.output_filter.append("labels")
    assert arrays(stub.Predict(request)) == {"labels": np.array([b"1"])}


def test_classify_gives_the_likeliest_classes_first(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = "classify"
    for image in bar_and_ring():
        example = request.input.example_list.examples.add()
        contents = encoded(image, "PNG")
        example.features.feature["image"].bytes_list.value.append(contents)
    rows = stub.Classify(request).result.classifications
    assert [row.classes[0].label for row in rows] == ["1", "0"]
    whole = arrays(stub.Predict(request_of("", images=bar_and_ring()[..., None])))
    for row, probabilities in zip(rows, whole["probabilities"], strict=True):
        scores = [one.score for one in row.classes]
        assert len(scores) == 5 and scores == sorted(scores, reverse=True)
        for one in row.classes:
            assert one.score == pytest.approx(probabilities[int(one.label)], abs=1e-5)


def test_what_is_no_image_is_an_error_of_the_request(stub):
    with pytest.raises(grpc.RpcError):
        stub.Predict(request_of("serving_bytes", contents=[b"no image"]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request_of("serving_bytes", images=bar_and_ring()))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_requests_of_the_readme(stub):
    image = base64.b64encode(encoded(bar_and_ring()[1], "PNG")).decode()
    text = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    bodies = {}
    for line in text.splitlines():
        if line.startswith("$ curl -d '") and line.endswith((":predict", ":classify")):
            body, _, method = line[len("$ curl -d '") :].rpartition("' $url:")
            bodies[method] = json.loads(body.replace("'$image'", image))
    found = predict_by_json(stub, "digits", bodies["predict"])
    (row,) = found["predictions"]
    assert set(row) == {"labels", "classes", "probabilities"}
    assert row["labels"] == "0" and row["classes"] == 0
    ((pairs),) = classify_by_json(stub, "digits", bodies["classify"])["result"]
    assert pairs[0] == ["0", pytest.approx(row["probabilities"][0], abs=1e-5)]
    json.dumps(found, allow_nan=False)  # it travels as JSON


def test_rows_and_columns_of_json(stub):
    images = bar_and_ring()[..., None].tolist()
    rows = predict_by_json(stub, "digits", {"instances": images})
    named = [{"images": image} for image in images]
    assert predict_by_json(stub, "digits", {"instances": named}) == rows
    columns = predict_by_json(stub, "digits", {"inputs": {"images": images}})
    assert columns["outputs"]["labels"] == ["1", "0"]
    assert [row["labels"] for row in rows["predictions"]] == ["1", "0"]
