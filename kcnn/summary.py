"""A built model -> plain rows: its layers, their shapes, parameters and FLOPs."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers as k

from kcnn.layers import Dropout
from kcnn.preprocessing import Whitening
from kcnn.views import MeanOfViews, Views


def layer_rows(model: keras.Model) -> list[dict[str, Any]]:
    """Describe each layer of a model.

    Returns:
        For each layer name, kind, detail, output_shape (without the batch),
        parameters, and flops of one image's forward pass.
    """
    return [
        {
            "name": layer.name,
            "kind": type(layer).__name__,
            "detail": _detail(layer),
            "output_shape": list(layer.output.shape[1:]),
            "parameters": int(layer.count_params()),
            "flops": layer_flops(layer),
        }
        for layer in model.layers
    ]


def model_summary(model: keras.Model) -> dict[str, Any]:
    """Return the rows of `layer_rows` and their totals."""
    rows = layer_rows(model)
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    return {
        "parameters": sum(row["parameters"] for row in rows),
        "trainable_parameters": int(trainable),
        "flops": sum(row["flops"] for row in rows),
        "layers": rows,
    }


def layer_flops(layer: keras.layers.Layer) -> int:
    """Count a layer's floating-point operations for one image, forward.

    Convolutions and dense layers only, a multiplication and an addition as two; the
    rest of a small CNN is a few percent of them.
    """
    if isinstance(layer, k.Conv2D | k.Dense):
        outputs = math.prod(layer.output.shape[1:])
        products = math.prod(layer.kernel.shape[:-1])
        return int(outputs * (2 * products + bool(layer.use_bias)))
    if isinstance(layer, Whitening):
        outputs = math.prod(layer.output.shape[1:])
        return 2 * outputs * math.prod(layer.kernel.shape[:-1])
    return 0


def _detail(layer: keras.layers.Layer) -> str:
    if isinstance(layer, k.Conv2D):
        height, width = layer.kernel_size
        text = f"{layer.filters} filters {height}x{width}"
        stride = layer.strides[0]
        return _activated(text + (f", stride {stride}" if stride > 1 else ""), layer)
    if isinstance(layer, k.Dense):
        return _activated(f"{layer.units} units", layer)
    if isinstance(layer, k.MaxPooling2D):
        return "{}x{}".format(*layer.pool_size)
    if isinstance(layer, Dropout):
        channels = ", whole channels" if layer.whole_channels else ""
        return f"rate {layer.rate:g}{channels}"
    if isinstance(layer, Whitening):
        return f"patches of {layer.size}x{layer.size}"
    if isinstance(layer, k.BatchNormalization):
        return f"momentum {layer.momentum:g}"
    if isinstance(layer, k.Activation):
        return layer.activation.__name__
    if isinstance(layer, Views | MeanOfViews):
        return layer.kind
    return ""


def _activated(text: str, layer: keras.layers.Layer) -> str:
    name = layer.activation.__name__
    return text if name == "linear" else f"{text}, {name}"
