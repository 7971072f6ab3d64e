"""Images that are the same or nearly so, found among many in little memory.

Two files are equal where their contents are. Two images are nearly equal where their
perceptual hashes (pHash of the library ImageHash: 64 bits of a discrete cosine
transform, Zauner 2010) differ in few bits, and their thumbnails in few grey levels: a
hash alone takes one handwritten 1 for another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse

HASH_BITS = 64

# ImageHash's pHash looks at 32x32 pixels; its 8x8 slowest waves make the hash.
HASH_SIDE = 32

# Of 160 pairs of CIFAR-10 that were looked at, nearly all up to 0.5 are one picture.
# But scikit-learn's digits, which nobody copied, have 40 pairs below 0.3, in 4 bits.
LARGEST_DIFFERENCE = 0.3
_LEAST_CONTRAST = 16.0  # grey levels; flat images have none to compare with

_BLOCK = 2**16  # pairs compared at a time


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


def look_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tell which images of two batches differ little.

    The difference is the root mean square over pixels and channels, against the
    contrast (the deviation) of the image that has more of it.

    Args:
        first: (n, ...) uint8.
        second: like first.

    Returns:
        (n,) bool.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (first, second))
    difference = np.sqrt(np.mean((a - b) ** 2, axis=1))
    contrast = np.maximum(a.std(axis=1), b.std(axis=1))
    return difference <= LARGEST_DIFFERENCE * np.maximum(contrast, _LEAST_CONTRAST)


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
    edges = [np.stack((first[same], np.arange(len(keys))), axis=1)]
    for pairs in near_pairs(hashes[first], distance):
        for start in range(0, len(pairs), _BLOCK):
            block = first[pairs[start : start + _BLOCK]]
            alike = look_alike(thumbnails(block[:, 0]), thumbnails(block[:, 1]))
            edges.append(block[alike])
    return _connected(np.concatenate(edges), same)


def _connected(edges: np.ndarray, content: np.ndarray) -> list[Group]:
    n = len(content)
    graph = scipy.sparse.coo_array((np.ones(len(edges)), edges.T), shape=(n, n))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order])) + 1
    return [
        Group(tuple(map(int, members)), len(np.unique(content[members])) == 1)
        for members in np.split(order, starts)
        if len(members) > 1
    ]
