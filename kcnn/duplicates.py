"""Images that are the same or nearly so, found among many in little memory.

Two files are equal where their contents are. Two images are nearly equal where their
perceptual hashes (pHash of the library ImageHash: 64 bits of a discrete cosine
transform, Zauner 2010) differ in few bits, and their thumbnails differ far less than
those of other images of the set: a hash alone takes one handwritten 1 for another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_BITS = 64

# ImageHash's pHash looks at 32x32 pixels; its 8x8 slowest waves make the hash.
HASH_SIDE = 32

# Differences of two thumbnails, in units of their contrast. Below the first, 12,000
# images of MNIST, which nobody copied, have 2 pairs. Between the two what is usual in
# the set decides; of 160 such pairs of CIFAR-10 nearly all show one picture.
CERTAIN, POSSIBLE = 0.1, 0.5

# Of the difference from the nearest hundredth of the set: with a third 30,000 images of
# MNIST have 44 groups, of 4 images at most; with one half 12,000 have 548 pairs.
PART_OF_USUAL = 1 / 3

_LEAST_CONTRAST = 16.0  # grey levels; flat images have none to compare with
_SAMPLE = 1000
_NEAREST = 0.01
_ROWS = 1024  # images compared with the sample at a time


def hashes_of(thumbnails: np.ndarray) -> np.ndarray:
    """Return the perceptual hashes of images.

    Args:
        thumbnails: (n, HASH_SIDE, HASH_SIDE, 3) uint8.

    Returns:
        (n,) uint64.
    """
    import imagehash  # 60 ms that only this command pays
    from PIL import Image

    bits = [imagehash.phash(Image.fromarray(one)).hash.ravel() for one in thumbnails]
    packed = np.packbits(np.array(bits).reshape(-1, HASH_BITS), axis=1)
    return packed.view(np.uint64)[:, 0]


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the pairs of hashes that differ in `distance` bits at most.

    Cut into distance + 1 bands, two such hashes agree in one band at least, so that
    only hashes with a band in common are compared (Norouzi, Punjani and Fleet 2012,
    multi-index hashing).

    Args:
        hashes: (n,) uint64.
        distance: 0 to 63.

    Yields:
        (pairs, 2) int64 positions, the lower first; a pair comes once.
    """
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    masks = [
        np.uint64(((1 << (high - low)) - 1) << low)
        for low, high in itertools.pairwise(edges.tolist())
    ]
    for number, mask in enumerate(masks):
        band = hashes & mask
        order = np.argsort(band, kind="stable")
        band = band[order]
        places = np.arange(len(order) - 1)
        for step in range(1, len(order)):
            # Neighbours in a bucket, then those two apart, and so on.
            places = places[places + step < len(order)]
            places = places[band[places] == band[places + step]]
            if not len(places):
                break
            pairs = np.stack((order[places], order[places + step]), axis=1)
            differing = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
            near = np.bitwise_count(differing) <= distance
            for earlier in masks[:number]:  # there it has come already
                near &= (differing & earlier) != 0
            if near.any():
                yield np.sort(pairs[near], axis=1)


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how much images differ from others, pair by pair.

    The difference is the root mean square over pixels and channels, against the
    contrast (the deviation) of the image that has more of it.

    Args:
        first: (n, ...) uint8.
        second: like first.

    Returns:
        (n,) float32.
    """
    a, b = _flat(first), _flat(second)
    contrast = np.maximum(a.std(axis=1), b.std(axis=1))
    difference = np.sqrt(np.mean((a - b) ** 2, axis=1))
    return difference / np.maximum(contrast, _LEAST_CONTRAST)


def usual_differences(images: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Return how much each image differs from the nearest hundredth of a sample.

    What is certainly the same does not count, and neither does the very nearest.

    Args:
        images: (n, ...) uint8.
        sample: (m, ...) uint8.

    Returns:
        (n,) float32; infinite where too few of the sample count.
    """
    a, b = _flat(images), _flat(sample)
    squares = np.mean(a**2, axis=1)[:, None] + np.mean(b**2, axis=1)
    squares -= 2 / a.shape[1] * (a @ b.T)
    contrast = np.maximum(a.std(axis=1)[:, None], b.std(axis=1))
    found = np.sqrt(np.maximum(squares, 0)) / np.maximum(contrast, _LEAST_CONTRAST)
    found[found <= CERTAIN] = np.inf
    rank = max(1, round(_NEAREST * len(b)))
    if rank >= len(b):
        return np.full(len(a), np.inf, np.float32)
    return np.partition(found, rank, axis=1)[:, rank]


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Group:
    """Images that are the same or nearly so.

    Attributes:
        members: positions, ascending.
        equal: whether all files have the same content.
    """

    members: tuple[int, ...]
    equal: bool


def groups_of(
    contents: np.ndarray,
    hashes: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    distance: int,
) -> list[Group]:
    """Return the groups of two and more images that are the same or nearly so.

    Nearly equal to nearly equal is in the same group, too.

    Args:
        contents: (n, 32) uint8, the SHA-256 of each file.
        hashes: (n,) uint64, see `hashes_of`.
        thumbnails: gives (m, ...) uint8 for (m,) int64 positions.
        distance: in how many bits nearly equal images may differ.
    """
    keys = np.ascontiguousarray(contents).view("V32")[:, 0]
    _, first, same = np.unique(keys, return_index=True, return_inverse=True)
    equal = np.stack((first[same], np.arange(len(keys))), axis=1)
    near = _alike(hashes, first, thumbnails, distance)
    return _connected(np.concatenate((equal, near)), same)


def _alike(
    hashes: np.ndarray,
    distinct: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    distance: int,
) -> np.ndarray:
    """Return the pairs of distinct images that are nearly the same: (m, 2) int64."""
    pairs, found = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for near in near_pairs(hashes[distinct], distance):
        for start in range(0, len(near), _ROWS):
            block = distinct[near[start : start + _ROWS]]
            difference = differences(thumbnails(block[:, 0]), thumbnails(block[:, 1]))
            possible = difference <= POSSIBLE
            pairs.append(block[possible])
            found.append(difference[possible])
    pair, difference = np.concatenate(pairs), np.concatenate(found)
    members, place = np.unique(pair, return_inverse=True)
    chosen = np.random.default_rng(0).permutation(distinct)[:_SAMPLE]
    sample = thumbnails(np.sort(chosen))
    usual = np.concatenate(
        [np.empty(0, np.float32)]
        + [
            usual_differences(thumbnails(members[start : start + _ROWS]), sample)
            for start in range(0, len(members), _ROWS)
        ]
    )
    limit = PART_OF_USUAL * usual[place.reshape(-1, 2)].min(axis=1)
    return pair[(difference <= CERTAIN) | (difference <= limit)]


def _connected(edges: np.ndarray, content: np.ndarray) -> list[Group]:
    component = components(edges, len(content))
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order])) + 1
    return [
        Group(tuple(map(int, members)), len(np.unique(content[members])) == 1)
        for members in np.split(order, starts)
        if len(members) > 1
    ]


def components(edges: np.ndarray, n: int) -> np.ndarray:
    """Return for each of n items the number of the connected part that it is in.

    Args:
        edges: (m, 2) int64, pairs of items that are connected.
        n: the number of items.

    Returns:
        (n,) int64, numbered from 0.
    """
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
