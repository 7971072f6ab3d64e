"""Which images are trained, validated and tested: stratified, nested, by seed."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from kcnn.errors import UsageError
from kcnn.fingerprint import of_all
from kcnn.sources import Images, JoinedImages, Pool

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


def with_class(split: Split, other: Split, label: int, name: str) -> Split:
    """Return a split with the images of another one behind its own.

    Args:
        split: is not empty.
        other: its labels are not read.
        label: the class that its images get.
        name: what they are called where they have no files.
    """
    offset = len(split.files) or int(split.indices.max()) + 1
    files = [
        *(split.files or map(str, range(offset))),
        *(other.files or (f"{name} {i}" for i in range(other.indices.max() + 1))),
    ]
    return Split(
        JoinedImages(split.images, other.images, offset),
        np.concatenate([split.labels, np.full_like(other.labels, label)]),
        np.concatenate([split.indices, offset + other.indices]),
        of_all([split.fingerprint, other.fingerprint]),
        files,
    )


def subset_of(split: Split, size: int | None, random_seed: int) -> Split:
    """Return --train_size images of a split; see `take_subset`."""
    at = take_subset(split.labels, size, random_seed)
    return dataclasses.replace(
        split, labels=split.labels[at], indices=split.indices[at]
    )


def sample_of(split: Split, size: int, random_seed: int) -> Split:
    """Return a stratified part of a split, or all of it if it is no larger."""
    return subset_of(split, min(size, len(split)), random_seed)


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


def carve_by_content(
    labels: np.ndarray, contents: np.ndarray, fraction: float, salt: str, flag: str
) -> tuple[np.ndarray, np.ndarray]:
    """Set aside the items whose hash is in the lowest part of all hashes.

    Each item is judged by its content alone, so that it stays on its side whatever is
    added or removed, and equal files are on one side. That a class keeps an item, and
    gives one where its share is 1 or more, comes first: a small class may have to move
    one item for it.

    Args:
        labels: (n,) int.
        contents: (n, 32) uint8, the SHA-256 of each item.
        fraction: the part set aside, above 0; a class's own part varies about it as
            with independent draws.
        salt: another one draws other items.
        flag: what to name in an error.

    Returns:
        Positions of what remains and of what is set aside, both ascending int64.
    """
    draws = np.array([_draw(salt, content) for content in contents])
    aside = draws < fraction
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for group in groups:
        if fraction * len(group) >= 1 and not aside[group].any():
            aside[group] = draws[group] == draws[group].min()
    if not aside.any():  # all classes are small
        spare = np.concatenate([g[draws[g] < draws[g].max()] for g in groups])
        aside[spare] = draws[spare] == draws[spare].min(initial=1.0)
    for group in groups:
        if aside[group].all():
            aside[group] = draws[group] < draws[group].max()
    if not aside.any():
        raise UsageError(
            f"--{flag}: got {fraction:g}; of {len(labels)} images in {len(groups)} "
            "classes none can be set aside: each class must keep one, and equal files "
            "stay together"
        )
    return np.flatnonzero(~aside), np.flatnonzero(aside)


def _draw(salt: str, content: np.ndarray) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    digest = hashlib.sha256(salt.encode() + content.tobytes()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # exact as a float


def carve_test(
    labels: np.ndarray, fraction: float, contents: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Set a test set aside, the same one for every --random_seed.

    See `carve`; with `contents`, `carve_by_content`.
    """
    flag = "test_fraction"
    if contents is not None:
        return carve_by_content(labels, contents, fraction, "test", flag)
    return carve(labels, fraction, np.random.default_rng(_TEST_SEED), flag)


def carve_validation(
    labels: np.ndarray,
    fraction: float,
    random_seed: int,
    contents: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Set a validation set aside, by seed; see `carve_test`."""
    flag = "validation_fraction"
    if contents is not None:
        salt = f"validation {random_seed}"
        return carve_by_content(labels, contents, fraction, salt, flag)
    rng = np.random.default_rng((random_seed, _VALIDATION))
    return carve(labels, fraction, rng, flag)


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
