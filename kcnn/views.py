"""`--test_views`: several views of an image in, the mean of their logits out.

Two layers stand around a network, and act in inference only: as all else between the
stored image and the logits, averaging is part of the model and of its export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# Choice -> weight of the image itself and its mirror image, and of each shift. From
# Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024).
KINDS = {"mirror": (1.0,), "mirror_shift": (0.5, 0.25, 0.25)}


@keras.saving.register_keras_serializable("kcnn")
class Views(keras.layers.Layer):
    """Put the views of a batch's images one after the other, in inference only.

    Args:
        kind: a key of KINDS.
    """

    def __init__(self, kind: str, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, images, training=False):
        """Turn (batch, height, width, channels) images into (views * batch, ...)."""
        return images if training else ops.concatenate(views_of(images, self.kind))

    def compute_output_shape(self, input_shape):
        """Return the shape of an image, of any number of them."""
        return (None, *input_shape[1:])

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "kind": self.kind}


@keras.saving.register_keras_serializable("kcnn")
class MeanOfViews(keras.layers.Layer):
    """Take the weighted mean of what a network made of `Views`, in inference only.

    Args:
        kind: a key of KINDS.
    """

    def __init__(self, kind: str, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, logits, training=False):
        """Turn (views * batch, classes) logits into (batch, classes)."""
        if training:
            return logits
        return mean_of(ops.split(logits, 2 * len(KINDS[self.kind])), self.kind)

    def compute_output_shape(self, input_shape):
        """Return the shape of an image's logits, of any number of them."""
        return (None, *input_shape[1:])

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "kind": self.kind}


def views_of(images: Any, kind: str) -> list:
    """Return the views of (batch, height, width, channels) images, each like these.

    What a shift brings in repeats the row or column next to the edge.
    """
    views = [images]
    if kind == "mirror_shift":
        height, width = images.shape[1:3]
        wider = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "reflect")
        views += [wider[:, i : i + height, i : i + width] for i in (0, 2)]
    return views + [ops.flip(view, 2) for view in views]


def mean_of(logits: Sequence[Any], kind: str) -> Any:
    """Return the mean of the views' logits, in their order, each (batch, classes)."""
    weights = 2 * KINDS[kind]
    return sum(w / 2 * one for w, one in zip(weights, logits, strict=True))
