"""The memory that a training certainly needs, before any of it is taken."""

from __future__ import annotations

import math

import keras

from kcnn import memory, models
from kcnn.config import Config
from kcnn.spec import ImageSpec

_FLOAT_BYTES = 4

# Variables of each optimizer that are as large as the weights.
_SLOTS = {"sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 1}
_SLOTS |= {"adadelta": 2, "adam": 2, "adamw": 2, "muon": 1}

# A checkpoint's copies of the state: as arrays, and as the file's bytes.
_COPIES = 2

# Layers whose output is kept until backpropagation comes back to them.
_KEPT = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.BatchNormalization)


def check_memory(config: Config, spec: ImageSpec, policy: str, on_gpu: bool) -> None:
    """Raise RunError if the training cannot fit into the processor's memory.

    Args:
        config: the recipe.
        spec: shape and classes of the images.
        policy: Keras dtype policy of the network.
        on_gpu: weights and activations are kept on a GPU, and only checkpoints here.
    """
    memory.check(
        training_bytes(config, spec, policy, on_gpu),
        f"--model={config.model} of this size, {config.optimizer} and batches of "
        f"{config.batch_size}",
        "lower --batch_size, --image_size or the model's knobs",
    )


def training_bytes(config: Config, spec: ImageSpec, policy: str, on_gpu: bool) -> int:
    """Return a lower bound in bytes; what TensorFlow takes beside it is not counted."""
    # In a stateless scope variables have a shape and take no memory.
    with keras.StatelessScope(initialize_variables=False):
        model = models.build_model(config, spec, policy=policy)
    weights = sum(math.prod(w.shape) for w in model.weights)
    learning = sum(math.prod(w.shape) for w in model.trainable_weights)
    state = weights * (1 + bool(config.ema_momentum))
    state += learning * _SLOTS[config.optimizer]
    if on_gpu:
        return _COPIES * state * _FLOAT_BYTES
    kept = sum(
        math.prod(layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, _KEPT)
    )
    size = _FLOAT_BYTES if policy == "float32" else _FLOAT_BYTES // 2
    return (1 + _COPIES) * state * _FLOAT_BYTES + config.batch_size * kept * size
