"""A trained model as a Keras archive, for LiteRT and for ONNX.

Each takes (n, height, width, channels) uint8 images of the model's own shape, as the
SavedModel's signature `preprocess` gives them, and gives what its `serving_default`
does but for the labels. The Keras archive gives probabilities alone, int8 no scores.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from kcnn import runtime
from kcnn.confidence import Rule
from kcnn.export import answers, folder_aside, move_to_next_version
from kcnn.inference import Outputs
from kcnn.layers import Activation, BatchNormalization, Conv2D, Dropout
from kcnn.preprocessing import Standardization, Whitening
from kcnn.spec import ImageSpec
from kcnn.views import MeanOfViews, Views, mean_of, views_of

CHECK = "check.json"  # the file with what comparing a format came to

INT8 = "model-int8.tflite"

_OPSET = 17  # of ONNX: what runtimes since 2022 read

# Images (n, height, width, channels) uint8 -> what is made of them.
Runner = Callable[[np.ndarray], Outputs]


T = TypeVar("T")


class Model(NamedTuple):
    """What is converted.

    Attributes:
        network: uint8 images in, float32 logits out, without augmentation.
        spec: the images' shape and the class names.
        rule: the temperature, and which images are accepted.
        samples: (n, height, width, channels) uint8 training images, whose activations
            say how far the numbers of an int8 model reach.
    """

    network: keras.Model
    spec: ImageSpec
    rule: Rule
    samples: np.ndarray


def write(
    name: str,
    model: Model,
    base: pathlib.Path,
    beside: Mapping[str, bytes],
    check: Callable[[Mapping[pathlib.Path, Runner]], T],
) -> tuple[pathlib.Path, T]:
    """Write BASE/VERSION/ with the next free version number, whole or not at all.

    Args:
        name: one of FORMATS.
        model: what is converted.
        base: the folder of this model's versions in this format.
        beside: further files: name -> contents.
        check: given each of the model's files with what runs it; returns plain values
            for check.json, or raises what is to keep the folder from its place.

    Returns:
        the folder, and what `check` returned.
    """
    base.mkdir(parents=True, exist_ok=True)
    convert, load = FORMATS[name]
    with folder_aside(base) as folder:
        target = folder / "model"
        target.mkdir()
        for file, contents in beside.items():
            (target / file).write_bytes(contents)
        with runtime.standard_error_filtered():
            files = convert(model, target)
            found = check({target / file: load(target / file) for file in files})
        (target / CHECK).write_text(json.dumps(found, indent=2) + "\n")
        return move_to_next_version(target, base), found


def _to_keras(model: Model, folder: pathlib.Path) -> list[str]:
    stock = stock_model(model.network)
    scaled = keras.layers.Rescaling(1 / model.rule.temperature, name="temperature")
    softmax = keras.layers.Softmax(name="probabilities")
    outputs = softmax(scaled(stock.outputs[0]))
    keras.Model(stock.inputs, outputs, name="kcnn").save(folder / "model.keras")
    return ["model.keras"]


def stock_model(model: keras.Model) -> keras.Model:
    """Return a copy of a model, without augmentation, of Keras's own layers alone."""

    def stock(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, Standardization):
            mean, deviation = layer.get_weights()
            divisor = np.maximum(deviation, layer.floor).astype(np.float64)
            kept = [mean.shape[axis] for axis in layer.axes]
            return keras.layers.Normalization(
                axis=tuple(axis + 1 for axis in layer.axes) or None,
                mean=mean.reshape(kept),
                variance=np.square(divisor).reshape(kept),
                name=layer.name,
            )
        if isinstance(layer, Whitening):
            filters, dtype = layer.kernel.shape[-1], layer.dtype_policy
            return keras.layers.Conv2D(
                filters, layer.size, use_bias=False, name=layer.name, dtype=dtype
            )
        if isinstance(layer, Dropout):
            whole, each = keras.layers.SpatialDropout2D, keras.layers.Dropout
            kind = whole if layer.whole_channels else each
            return kind(layer.rate, name=layer.name, dtype=layer.dtype_policy)
        kind = type(layer)
        if isinstance(layer, Activation | BatchNormalization | Conv2D):
            kind = getattr(keras.layers, kind.__name__)
        return kind.from_config(layer.get_config())

    views = [layer for layer in model.layers if isinstance(layer, Views)]
    if views:
        model = _without(model, Views, MeanOfViews)
    copy = keras.models.clone_model(model, clone_function=stock)
    for own, other in zip(model.layers, copy.layers, strict=True):
        if not isinstance(own, Standardization):
            other.set_weights(own.get_weights())
    if not views:
        return copy
    images = keras.Input(copy.input_shape[1:], dtype="uint8", name="images")
    kind = views[0].kind
    logits = mean_of([copy(view) for view in views_of(images, kind)], kind)
    return keras.Model(images, logits)


def _without(model: keras.Model, *kinds: type) -> keras.Model:
    """Return a model of the same layers, one after the other, but for some kinds."""
    left_out = (keras.layers.InputLayer, *kinds)
    layers = [layer for layer in model.layers if not isinstance(layer, left_out)]
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    return keras.Sequential([images, *layers])


def _load_keras(path: pathlib.Path) -> Runner:
    model = keras.saving.load_model(path, compile=False)

    def run(images: np.ndarray) -> Outputs:
        probabilities = model.predict_on_batch(images)
        return {"probabilities": probabilities, "classes": probabilities.argmax(1)}

    return run


def _function(model: Model, rule: Rule) -> Any:
    """Return a function of TensorFlow's that gives all but the labels."""
    images = tf.TensorSpec([None, *model.spec.shape], tf.uint8, name="images")
    return tf.function(lambda images: answers(model.network, images, rule), [images])


def _to_litert(model: Model, folder: pathlib.Path) -> list[str]:
    owner = tf.Module()  # the converter has the values of variables that it owns
    owner.weights = [variable.value for variable in model.network.variables]
    # In eight bits a score would share its scale with the logits: probabilities were
    # off by 0.28 then, and by 0.004 without.
    rules = {"model.tflite": model.rule, INT8: Rule(model.rule.temperature)}
    for name, rule in rules.items():
        function = _function(model, rule).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
        if name == INT8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [image[None]] for image in model.samples
            )
        (folder / name).write_bytes(converter.convert())
    return list(rules)


def _load_litert(path: pathlib.Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=runtime.cores()).get_signature_runner()
    return lambda images: run(images=images)


def _to_onnx(model: Model, folder: pathlib.Path) -> list[str]:
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = _function(model, model.rule)
    graph, _ = tf2onnx.convert.from_function(
        function, function.input_signature, opset=_OPSET
    )
    names = json.dumps(model.spec.class_names, ensure_ascii=False)
    onnx.helper.set_model_props(graph, {"class_names": names})
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return ["model.onnx"]


def _load_onnx(path: pathlib.Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> Outputs:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run


# Name -> what writes a model's files to a folder, and what runs one of them.
FORMATS: dict[str, tuple[Callable, Callable[[pathlib.Path], Runner]]] = {
    "keras": (_to_keras, _load_keras),
    "litert": (_to_litert, _load_litert),
    "onnx": (_to_onnx, _load_onnx),
}
