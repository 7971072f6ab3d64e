"""Which images are trained, validated and tested: stratified, nested, by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from kcnn.errors import UsageError
from kcnn.sources import Images, Pool

# All seeds of a comparison share one test set.
_TEST_SEED = 20_260_101

# Streams of random numbers for what follows --random_seed.
_VALIDATION, _TRAIN_SIZE = 1, 2


@dataclasses.dataclass(frozen=True)
class Split:
    """Some images of a source, with their labels.

    Attributes:
        images: the source.
        labels: (n,) int64.
        indices: (n,) int64, where the images are in the source.
        fingerprint: the source's, see kcnn.fingerprint.
        files: the source's file names, or empty.
    """

    images: Images
    labels: np.ndarray
    indices: np.ndarray
    fingerprint: str = ""
    files: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, position: int) -> str:
        """Return an image's file, or its index in the data set's own split."""
        index = self.indices[position]
        return self.files[index] if self.files else str(index)


def split_of(pool: Pool, indices: np.ndarray | None = None) -> Split:
    """Return a pool's images as a split: all of them, or those at `indices`."""
    if indices is None:
        indices = np.arange(len(pool.labels))
    return Split(
        pool.images, pool.labels[indices], indices, pool.fingerprint, pool.files
    )


def sample_of(split: Split, size: int, random_seed: int) -> Split:
    """Return a stratified part of a split, or all of it if it is no larger."""
    at = take_subset(split.labels, min(size, len(split)), random_seed)
    return dataclasses.replace(
        split, labels=split.labels[at], indices=split.indices[at]
    )


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order items at random so that every prefix is stratified.

    Item k of the n of its class, in random order, takes the place (k + 0.5) / n; equal
    places are ordered at random. So a prefix holds each class's share, give or take
    one item, and a shorter prefix lies in a longer one.

    Args:
        labels: (n,) int.
        rng: decides the order.

    Returns:
        (n,) int64, a permutation.
    """
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(
        labels[by_class], return_index=True, return_counts=True
    )
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    return by_class[np.lexsort((rng.permutation(len(labels)), place))]


def carve(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, flag: str
) -> tuple[np.ndarray, np.ndarray]:
    """Set a stratified part aside, rounded up; no class loses its last image.

    Args:
        labels: (n,) int.
        fraction: the part set aside, above 0.
        rng: decides which.
        flag: what to name in an error.

    Returns:
        Positions of what remains and of what is set aside, both ascending int64.
    """
    count = math.ceil(fraction * len(labels) - 1e-9)  # 0.1 * 30 is above 3
    order = stratified_order(labels, rng)
    reversed_order = order[::-1]
    _, last = np.unique(labels[reversed_order], return_index=True)
    free = order[~np.isin(order, reversed_order[last])]
    if count > len(free):
        raise UsageError(
            f"--{flag}: got {fraction:g}; of {len(labels)} images in {len(last)} "
            f"classes at most {len(free)} can be set aside, not {count}"
        )
    aside = np.sort(free[:count])
    return np.setdiff1d(np.arange(len(labels)), aside), aside


def carve_test(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Set a test set aside, the same one for every --random_seed; see `carve`."""
    rng = np.random.default_rng(_TEST_SEED)
    return carve(labels, fraction, rng, "test_fraction")


def carve_validation(
    labels: np.ndarray, fraction: float, random_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set a validation set aside, by seed; see `carve`."""
    rng = np.random.default_rng((random_seed, _VALIDATION))
    return carve(labels, fraction, rng, "validation_fraction")


def take_subset(labels: np.ndarray, size: int | None, random_seed: int) -> np.ndarray:
    """Return the positions of --train_size items, ascending int64; nested by size."""
    if size is None:
        return np.arange(len(labels))
    if size > len(labels):
        raise UsageError(
            f"--train_size: got {size}; {len(labels)} images are left to train on"
        )
    rng = np.random.default_rng((random_seed, _TRAIN_SIZE))
    return np.sort(stratified_order(labels, rng)[:size])
