"""TensorFlow Serving as its documentation describes it, in this process.

The real server is in no package registry. This one speaks its protocol: messages and
gRPC service are those of tensorflow-serving-api; what is done with them follows
tensorflow.org/tfx/serving (api_rest, signature_defs), and nothing of kcnn.
"""

import base64
import pathlib

import grpc
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)


class ModelServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Serves the newest version of each model: name -> folder of its versions."""

    def __init__(self, models):
        self._models = {}
        for name, base in models.items():
            newest = max((p for p in base.iterdir() if p.name.isdigit()), key=_number)
            self._models[name] = (_number(newest), tf.saved_model.load(str(newest)))

    def Predict(self, request, context):
        """Feed tensors by name; they must be those of the signature."""
        version, signature = self._signature(request.model_spec, context)
        wanted = signature.structured_input_signature[1]
        if set(request.inputs) != set(wanted):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"input size does not match signature: {sorted(request.inputs)}",
            )
        inputs = {n: tf.make_ndarray(proto) for n, proto in request.inputs.items()}
        for name, value in inputs.items():
            if wanted[name].dtype != tf.as_dtype(value.dtype):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: wrong type")
        found = signature(**{name: tf.constant(v) for name, v in inputs.items()})
        answer = predict_pb2.PredictResponse()
        for name in request.output_filter or found:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(found[name].numpy()))
        self._say_which(answer.model_spec, request.model_spec, version)
        return answer

    def Classify(self, request, context):
        """Feed serialized examples to `inputs`; `classes` and `scores` come out."""
        version, signature = self._signature(request.model_spec, context)
        outputs = set(signature.structured_outputs)
        if set(signature.structured_input_signature[1]) != {"inputs"}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected one input")
        if not outputs or not outputs <= {"classes", "scores"}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong output names")
        examples = request.input.example_list.examples
        if not examples:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
        serialized = [example.SerializeToString() for example in examples]
        found = signature(inputs=tf.constant(serialized))
        classes, scores = found["classes"].numpy(), found["scores"].numpy()
        assert classes.shape == scores.shape and len(classes) == len(examples)
        answer = classification_pb2.ClassificationResponse()
        for labels, values in zip(classes, scores, strict=True):
            row = answer.result.classifications.add()
            for label, score in zip(labels, values, strict=True):
                row.classes.add(label=label.decode(), score=score)
        self._say_which(answer.model_spec, request.model_spec, version)
        return answer

    def GetModelMetadata(self, request, context):
        """Tell the signatures of the SavedModel."""
        version, model = self._models[request.model_spec.name]
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in model.signatures.items():
            one = found.signature_def[name]
            for key, spec in signature.structured_input_signature[1].items():
                one.inputs[key].dtype = spec.dtype.as_datatype_enum
            for key, tensor in signature.structured_outputs.items():
                one.outputs[key].dtype = tensor.dtype.as_datatype_enum
        answer.metadata["signature_def"].Pack(found)
        self._say_which(answer.model_spec, request.model_spec, version)
        return answer

    def _signature(self, asked, context):
        if asked.name not in self._models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {asked}")
        version, model = self._models[asked.name]
        name = asked.signature_name or "serving_default"
        if name not in model.signatures:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f'signature "{name}" not found'
            )
        return version, model.signatures[name]

    def _say_which(self, spec, asked, version):
        spec.CopyFrom(asked)
        spec.version.value = version


def predict_by_json(stub, model, body):
    """Answer POST /v1/models/MODEL:predict, in rows ("instances") or columns."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = body.get("signature_name", "")
    inputs = _input_types(stub, model, body.get("signature_name", "serving_default"))
    columns = body.get("inputs")
    if "instances" in body:
        rows = body["instances"]
        named = isinstance(rows[0], dict) and set(rows[0]) != {"b64"}
        columns = {n: [row[n] for row in rows] for n in rows[0]} if named else rows
    if not isinstance(columns, dict):
        (only,) = inputs
        columns = {only: columns}
    for name, values in columns.items():
        value = tf.make_tensor_proto(_decoded(values), inputs[name])
        request.inputs[name].CopyFrom(value)
    found = stub.Predict(request)
    outputs = {
        n: _encoded(n, tf.make_ndarray(v).tolist()) for n, v in found.outputs.items()
    }
    if "instances" not in body:
        return {
            "outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))
        }
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def classify_by_json(stub, model, body):
    """Answer POST /v1/models/MODEL:classify."""
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = body.get("signature_name", "")
    for features in body["examples"]:
        example = request.input.example_list.examples.add()
        for name, value in features.items():
            values = _decoded(value if isinstance(value, list) else [value])
            kinds = {int: "int64_list", float: "float_list"}
            kind = kinds.get(type(values[0]), "bytes_list")
            texts = [v.encode() if isinstance(v, str) else v for v in values]
            getattr(example.features.feature[name], kind).value.extend(texts)
    found = json_format.MessageToDict(stub.Classify(request))
    return {
        "result": [
            [[pair["label"], pair["score"]] for pair in row["classes"]]
            for row in found["result"]["classifications"]
        ]
    }


def _number(path: pathlib.Path):
    return int(path.name)


def _input_types(stub, model, signature):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = model
    request.metadata_field.append("signature_def")
    found = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(found)
    inputs = found.signature_def[signature].inputs
    return {name: tf.as_dtype(info.dtype) for name, info in inputs.items()}


def _decoded(value):
    """Return JSON with its {"b64": text} as bytes."""
    if isinstance(value, dict):
        assert set(value) == {"b64"}
        return base64.b64decode(value["b64"])
    return [_decoded(one) for one in value] if isinstance(value, list) else value


def _encoded(name, value):
    """Return an output for JSON: bytes are text, unless the name ends in _bytes."""
    if isinstance(value, list):
        return [_encoded(name, one) for one in value]
    if not isinstance(value, bytes):
        return value
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode()
