"""`--test_views`: several views of an image in, the mean of their logits out.

Two layers stand around a network, and act in inference only: as all else between the
stored image and the logits, averaging is part of the model and of its export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops


class View(NamedTuple):
    """An image moved down and right by so many pixels, and then mirrored, or not."""

    weight: float
    down: int = 0
    right: int = 0
    mirrored: bool = False


# Those with a mirror image are from Jordan, "94% on CIFAR-10 in 3.29 seconds on a
# single GPU" (2024). The weights of each add up to 1.
KINDS = {
    "mirror": (View(1 / 2), View(1 / 2, mirrored=True)),
    "mirror_shift": tuple(
        View(weight, moved, moved, mirrored)
        for mirrored in (False, True)
        for weight, moved in ((1 / 4, 0), (1 / 8, 1), (1 / 8, -1))
    ),
    "shift": (
        View(1 / 2),
        *(View(1 / 8, down, right) for down in (-1, 1) for right in (-1, 1)),
    ),
}


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
        return mean_of(ops.split(logits, len(KINDS[self.kind])), self.kind)

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
    wider = images
    if any(view.down or view.right for view in KINDS[kind]):
        wider = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "reflect")
    return [_view(images, wider, view) for view in KINDS[kind]]


def _view(images: Any, wider: Any, view: View) -> Any:
    if view.down or view.right:
        height, width = images.shape[1:3]
        top, left = 1 - view.down, 1 - view.right
        images = wider[:, top : top + height, left : left + width]
    return ops.flip(images, 2) if view.mirrored else images


def mean_of(logits: Sequence[Any], kind: str) -> Any:
    """Return the weighted mean of views' logits, in order, each (batch, classes)."""
    return sum(view.weight * one for view, one in zip(KINDS[kind], logits, strict=True))
