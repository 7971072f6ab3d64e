"""Splits -> tf.data.Datasets of batches.

Only indices are shuffled; images are read by index, batch by batch. The order is a
pure function of the seed and the epoch, so that a resumed run sees what it would have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn.batches import batch_bounds, steps_per_epoch
from kcnn.config import Config
from kcnn.decoding import as_it_is
from kcnn.errors import Fault
from kcnn.images import reason
from kcnn.replicas import Share
from kcnn.splits import Split

_AHEAD = 4  # batches that are ready before they are asked for


def training_batches(
    split: Split,
    config: Config,
    num_classes: int,
    *,
    start_step: int = 0,
    share: Share | None = None,
    one_size: bool = False,
) -> tf.data.Dataset:
    """Return one stream of batches over all epochs, the whole split shuffled in each.

    Args:
        split: the training images.
        config: batch_size, epochs, random_seed and class_weight are read.
        num_classes: length of the one-hot labels.
        start_step: leave out this many batches; the others stay what they were.
        share: what to read of each batch; None: all.
        one_size: all batches have as many images, what XLA compiles for; see
            `batches.batch_bounds`.

    Returns:
        Batches of images (batch, height, width, channels) uint8 and labels (batch,
        num_classes) float32; with class_weight=balanced also sample weights (batch,)
        float32. With a share the whole batch's size, () int64, comes first.
    """
    steps = steps_per_epoch(len(split), config.batch_size)
    first_epoch = start_step // steps
    count = tf.data.experimental.assert_cardinality(steps * config.epochs - start_step)
    positions = (
        tf.data.Dataset.range(first_epoch, config.epochs)
        .flat_map(as_it_is(lambda i: _epoch(len(split), config, i, one_size)))
        .skip(start_step - first_epoch * steps)
        .apply(count)
    )
    with tf.device("CPU"):  # where tf.data works
        indices, labels = tf.constant(split.indices), tf.constant(split.labels)
        weights = None
        if config.class_weight == "balanced":
            weights = tf.constant(_balanced_weights(split.labels, num_classes))
        mirrored = None
        if config.flip == "alternate":
            mirrored = tf.constant(_mirrored_first(len(split), config.random_seed))

    def read(epoch: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = tf.size(at, tf.int64)
        if share is not None:
            begin, end = share.bounds(size)
            at = at[begin:end]
        label = tf.gather(labels, at)
        batch = split.images.gather(tf.gather(indices, at))
        if mirrored is not None:
            turned = tf.gather(mirrored, at) != (epoch % 2 == 1)
            batch = tf.where(turned[:, None, None, None], batch[:, :, ::-1], batch)
        found: tuple[tf.Tensor, ...] = (batch, tf.one_hot(label, num_classes))
        if weights is not None:
            found += (tf.gather(weights, label),)
        return found if share is None else (size, *found)

    return _read_ahead(positions, read)


def _epoch(n: int, config: Config, epoch: tf.Tensor, one_size: bool) -> tf.data.Dataset:
    """Return one epoch's batches: the epoch, and positions (batch,) int64."""
    # Philox by name: TensorFlow keeps its numbers the same on every device.
    keys = tf.random.stateless_uniform(
        (n,),
        (tf.cast(config.random_seed, tf.int64), epoch),
        minval=None,
        maxval=None,
        dtype=tf.int64,
        alg="philox",
    )
    order = tf.cast(tf.argsort(keys, stable=True), tf.int64)
    bounds = batch_bounds(n, config.batch_size, one_size)
    batches = tf.data.Dataset.from_tensor_slices(bounds)
    return batches.map(as_it_is(lambda begin, end: (epoch, order[begin:end])))


def _mirrored_first(n: int, random_seed: int) -> np.ndarray:
    """Return which images the first epoch of --flip=alternate mirrors, (n,) bool.

    Every next epoch shows all the other way around: two epochs show both sides of
    each, while chance would show a half the same side twice. From Jordan, "94% on
    CIFAR-10 in 3.29 seconds on a single GPU" (2024).
    """
    return np.random.default_rng(random_seed).random(n) < 0.5


def _balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return (num_classes,) float32; 0 for a class without images.

    All images of a class together weigh as much as those of another one.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0)
    return weights.astype(np.float32)


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Return every image once, in the split's order: (batch, ...) uint8 batches."""
    indices = tf.data.Dataset.from_tensor_slices(split.indices).batch(batch_size)
    return _read_ahead(indices, split.images.gather)


@contextlib.contextmanager
def reading(split: Split) -> Iterator[None]:
    """Within the block the split's images are read; a failure names the file.

    Raises Fault if an image can no longer be read.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "IteratorGetNext" not in str(error):  # not of the images
            raise
        check_unchanged(split)
        raise Fault(f"an image can no longer be read: {reason(error)}") from None


def check_unchanged(split: Split) -> None:
    """Raise Fault if files changed from which the split's images are read again."""
    changed = split.images.changed()
    if changed:
        more = f", and {len(changed) - 1} more" if changed[1:] else ""
        raise Fault(f"{changed[0]}{more} while the images were in use; put it back")


def images_at(split: Split, positions: np.ndarray) -> np.ndarray:
    """Return the images at some positions of a split, (n, ...) uint8."""
    with tf.device("CPU"):  # a GPU would copy all images to read a few
        return split.images.gather(tf.constant(split.indices[positions])).numpy()


def _read_ahead(keys: tf.data.Dataset, read: Callable[..., Any]) -> tf.data.Dataset:
    """Return what is read by each key, in their order, on all threads, ahead of time.

    Without tf.data's autotuning: its thread sleeps for twice as long each time, and an
    iterator that a tf.function has read from waits for it at its end, up to as long as
    it was in use, and up to a minute.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    batches = keys.map(as_it_is(read), tf.data.AUTOTUNE).prefetch(_AHEAD)
    return batches.with_options(options)
