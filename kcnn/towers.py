"""Towers: parts of a batch that a step computes beside each other, a core for each.

TensorFlow divides every operation among the cores. Those of a small network are so
short that dividing costs more than it gives: on two cores LeNet trains as fast as on
one. So each core gets a part of the batch instead, and the gradients are added up.
The step is the same but for batch normalization, which goes by the images of a part,
as on machines that train together (Goyal et al. 2017, section 3).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kcnn.cluster import joined
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.layers import BatchNormalization
from kcnn.runtime import cores, has_gpu

# Measured on two cores; on many, parts of a usual batch would leave most idle.
_MOST = 4

# Images that a part must have to be worth its while, and its statistics good.
_FEWEST, _FEWEST_NORMALIZED = 32, 64

# Each part has gradients of its own of all weights: adding up those of large dense
# layers costs more than is gained.
_WIDE = 256

Batch = tuple[tf.Tensor, ...]


class Towers(NamedTuple):
    """How many parts, and why."""

    parts: int
    reason: str


def choose(config: Config, replicas: int = 1) -> Towers:
    """Return the parts for `--towers`; 0 leaves it to what was measured.

    Raises UsageError where parts are asked for, and replicas share each batch already.
    """
    if replicas > 1:
        if config.towers > 1:
            raise UsageError(
                f"--towers: got {config.towers}, expected 0 or 1: several devices "
                "share each batch already, see --strategy"
            )
        return Towers(1, "several devices share each batch")
    if config.towers:
        return Towers(config.towers, "as asked")
    if has_gpu():
        return Towers(1, "a GPU takes a batch as a whole")
    if config.jit_compile == "on":
        return Towers(1, "XLA takes a batch as a whole")
    count = cores()
    if count == 1 or count > _MOST:
        return Towers(1, f"for {count} cores")
    if max(config.dense_units or (0,)) >= _WIDE:
        return Towers(1, "for wide dense layers")
    fewest = _FEWEST_NORMALIZED if config.batch_norm else _FEWEST
    if config.batch_size < count * fewest:
        return Towers(1, "for small batches")
    return Towers(count, "a part of each batch for every core")


def set_threads(config: Config) -> None:
    """Set TensorFlow's threads for a training, before it opens its devices."""
    workers = joined(config.strategy)
    several = config.strategy == "mirrored" or (workers and len(workers) > 1)
    count = choose(config, replicas=2 if several else 1).parts
    if count > 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def threads() -> dict[str, int]:
    """Return the threads that TensorFlow was told to use; 0: its own choice.

    `within` an operation, and operations `beside` each other.
    """
    return {
        "within": tf.config.threading.get_intra_op_parallelism_threads(),
        "beside": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def in_this_process(config: Config, replicas: int = 1) -> Towers:
    """Return the parts to compute in where the threads may not have been set for them.

    In a process that TensorFlow was started in for something else it is one, unless
    --towers asks for more.
    """
    found = choose(config, replicas)
    one_thread = threads()["within"] == 1
    if found.parts == 1 or config.towers or one_thread:
        return found
    return Towers(1, "as TensorFlow's threads are set")


def share_batch_norm(model: keras.Model, count: int) -> None:
    """Have batch normalization's statistics move by as much as with one part."""
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.updates_a_step = count


def parts(batch: Batch, count: int) -> Iterator[tuple[Any, Batch]]:
    """Cut a batch of one image or more; yield whether a part counts, and the part.

    It counts 1. A part that would be empty gets an image all the same, and counts 0.

    Args:
        batch: tensors of the same length.
        count: of the parts.
    """
    if count == 1:
        yield 1.0, batch
        return
    for size, begin, end in _cuts(tf.shape(batch[0])[0], count):
        counts = tf.cast(size > 0, tf.float32)
        yield counts, tuple(tensor[begin:end] for tensor in batch)


def _cuts(n: tf.Tensor, count: int) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Yield the size of each part of n images, and what to compute of them.

    That is one image where a part has none: oneDNN's operations fail on nothing.
    """
    cuts = itertools.pairwise([n * i // count for i in range(count + 1)])
    for begin, end in cuts:
        first = tf.minimum(begin, n - 1)
        yield end - begin, first, tf.maximum(end, first + 1)


def predictor(
    model: keras.Model, count: int
) -> Callable[[tf.data.Dataset], np.ndarray]:
    """Return what turns batches of images into a model's logits, by parts of a batch.

    Logits are (n, num_classes) float32 for batches of uint8 images.
    """
    if count == 1:
        return functools.partial(model.predict, verbose=0)

    spec = tf.TensorSpec(model.input_shape, tf.uint8)

    @tf.function(input_signature=[spec], autograph=False)
    def logits(images):
        found = [
            model(images[begin:end], training=False)[:size]
            for size, begin, end in _cuts(tf.shape(images)[0], count)
        ]
        return tf.concat(found, 0)

    return lambda batches: np.concatenate([logits(b).numpy() for b in batches])
