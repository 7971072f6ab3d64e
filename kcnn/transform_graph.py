"""What TFX's Transform component wrote -> images from raw tf.Examples, when serving.

Only TensorFlow is needed: a Transform graph is a SavedModel with one function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn.errors import UsageError
from kcnn.image_feature import ImageFeature
from kcnn.spec import ImageSpec


class TransformedFeature:
    """The image of raw tf.Examples, as a Transform graph makes it.

    Args:
        path: the folder of the Transform graph, with transform_fn in it.
        feature: how the transformed examples hold the image.

    Raises:
        UsageError: it cannot be loaded, or does not give the image.
    """

    def __init__(self, path: str, feature: ImageFeature):
        try:
            # Kept: its function alone does not keep its tables alive.
            self.resource = tf.saved_model.load(f"{path}/transform_fn")
        except (OSError, tf.errors.OpError, ValueError) as error:
            text = str(error).splitlines()[0]
            raise UsageError(f"transform_graph_path: {path}: {text}") from None
        self._feature = feature
        self._transform = _function(self.resource, path)
        inputs = self._transform.structured_input_signature[0][0]
        if feature.key not in self._transform.structured_outputs:
            names = ", ".join(sorted(self._transform.structured_outputs))
            raise UsageError(
                f"transform_graph_path: {path}: gives no feature {feature.key!r}; it "
                f"gives {names}"
            )
        self._raw = _raw_feature(path, inputs, feature)
        self._specs = inputs
        self._parsers = {
            name: _parser(spec, is_optional=name != self._raw.key)
            for name, spec in inputs.items()
        }

    def images(self, examples: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
        """Parse (batch,) raw tf.Examples, transform and decode: (batch, ...) uint8.

        Features beside the image, such as the label, may be missing.
        """
        parsed = tf.io.parse_example(examples, self._parsers)
        for name, value in parsed.items():
            if isinstance(value, tf.SparseTensor):
                parsed[name] = _filled(value, self._specs[name])
        flat = tf.nest.flatten(parsed, expand_composites=True)
        value = self._transform(*flat)[self._feature.key]
        if isinstance(value, tf.SparseTensor):
            value = tf.sparse.to_dense(value)
        if value.dtype == tf.string:
            value = tf.reshape(value, [-1])
        return self._feature.decode_batch(value, spec)

    def example(self, image: np.ndarray) -> bytes:
        """Return a serialized raw tf.Example with nothing but an image."""
        return self._raw.example(image)


def _function(loaded: Any, path: str) -> Any:
    """Return the one concrete function that takes a dictionary of raw features."""
    function = getattr(loaded, "transform_fn", None)
    if function is None:
        raise UsageError(
            f"transform_graph_path: {path}: no transform_fn in it, as Transform writes "
            "it for TensorFlow 2; leave out force_tf_compat_v1"
        )
    return getattr(function, "concrete_functions", [function])[0]


def _raw_feature(
    path: str, inputs: Mapping[str, tf.TypeSpec], feature: ImageFeature
) -> ImageFeature:
    """Return how raw examples hold the image: by the same name, or as the one string.

    A string of another name is an encoded file.
    """
    if feature.key in inputs:
        if inputs[feature.key].dtype == tf.float32:
            return ImageFeature(feature.key, "floats", feature.shape)
        kind = "raw" if feature.kind == "raw" else "encoded"
        return ImageFeature(feature.key, kind, feature.shape)
    strings = [name for name, spec in inputs.items() if spec.dtype == tf.string]
    if len(strings) != 1:
        raise UsageError(
            f"transform_graph_path: {path}: which raw feature is the image? None is "
            f"called {feature.key!r}, and {len(strings)} are strings"
        )
    return ImageFeature(strings[0])


def _parser(spec: tf.TypeSpec, is_optional: bool) -> Any:
    """Return what parses a raw feature as the Transform graph takes it."""
    if isinstance(spec, tf.SparseTensorSpec | tf.RaggedTensorSpec):
        return tf.io.VarLenFeature(spec.dtype)
    shape = spec.shape[1:]
    default = None
    if is_optional:
        default = np.full(shape, "" if spec.dtype == tf.string else 0)
    return tf.io.FixedLenFeature(shape, spec.dtype, default)


def _filled(value: tf.SparseTensor, spec: tf.TypeSpec) -> tf.Tensor:
    """Return a feature with "" or 0 where it is missing, as the graph takes it.

    The graph computes the label too, and may fail where a row has no value at all.
    """
    shape = tf.maximum(value.dense_shape, tf.constant([0, 1], tf.int64))
    wide = tf.SparseTensor(value.indices, value.values, shape)
    default = tf.constant("" if spec.dtype == tf.string else 0, spec.dtype)
    full, _ = tf.sparse.fill_empty_rows(wide, default)
    if isinstance(spec, tf.SparseTensorSpec):
        return full
    ragged = tf.RaggedTensor.from_sparse(full)
    return ragged.with_row_splits_dtype(spec.row_splits_dtype)
