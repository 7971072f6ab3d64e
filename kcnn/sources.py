"""Where a split's images are kept, to be read by index: memory, disk or files."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from kcnn import memory
from kcnn.config import Config
from kcnn.decoding import batch_decoder
from kcnn.errors import RunError
from kcnn.images import Shape

# Records or images handled in one step while a data set is read.
CHUNK = 512

_CHUNK_BYTES = 2**25  # several chunks are under way at a time

MOST_CLASSES = 1000

# Height and width of images that have no size in common.
MIXED_SIZE = 64


class Images(Protocol):
    """N images that can be read in any order."""

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """Return images by index, in a graph or eagerly.

        Args:
            indices: (batch,) int64, each in [0, N).

        Returns:
            (batch, height, width, channels) uint8.
        """

    def changed(self) -> list[str]:
        """Return what became of files since they were opened: "FILE vanished"."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """One split as the data set gives it, before anything is carved from it.

    `labels` is (n,) int64; `fingerprint` tells it from another one of the same name;
    `files` names the images, or is empty where they have no names and go by their
    index; `contents` is (n, 32) uint8, the SHA-256 of each image's file, or None where
    images have no files of their own.
    """

    images: Images
    labels: np.ndarray
    fingerprint: str
    files: Sequence[str] = ()
    contents: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Origin:
    """An opened data set.

    Attributes:
        class_names: one for each label.
        shape: height, width and channels of every image that is read.
        splits: "train", "validation" and "test", as far as given -> what reads it.
        notes: lines for the user; reading a split may add some.
        skipped: name and reason of files left out; reading a split may add some.
    """

    class_names: tuple[str, ...]
    shape: Shape
    splits: dict[str, Callable[[], Pool]]
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def chunk_of(shape: Sequence[int]) -> int:
    """Return how many images of a shape to handle in one step; memory stays small."""
    return max(1, min(CHUNK, _CHUNK_BYTES // math.prod(shape)))


def decodable(
    decoded: tf.data.Dataset, shape: Shape, good: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield batches of the images that can be decoded; append their indices to good.

    Args:
        decoded: pairs of an index and an image of `shape`; decoding it may fail.
        shape: (height, width, channels).
        good: what the indices are appended to, (batch,) int64 each.
    """
    batches = decoded.ignore_errors().batch(chunk_of(shape)).prefetch(tf.data.AUTOTUNE)
    for indices, batch in batches.as_numpy_iterator():
        good.append(indices)
        yield batch


def mixed_sizes_note(config: Config, shape: Shape | None) -> list[str]:
    """Return the line that says so where MIXED_SIZE decides, or nothing."""
    if config.image_size or shape is not None or config.normalize_input != "none":
        return []
    size = f"{MIXED_SIZE}x{MIXED_SIZE}"
    return [f"images of mixed sizes resized to {size} (set --image_size)"]


class MemoryImages:
    """Images in one tensor."""

    def changed(self) -> list[str]:
        """See Images."""
        return []

    def __init__(self, array: np.ndarray):
        with tf.device("CPU"):
            self._array = tf.convert_to_tensor(array)

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """See Images."""
        return tf.gather(self._array, indices)


class DiskImages:
    """Images in a file without a name, which vanishes with the process."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def changed(self) -> list[str]:
        """See Images."""
        return []

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """See Images."""
        # Stateless, so that a parallel map stays one under op determinism.
        batch = tf.numpy_function(self.read, [indices], tf.uint8, stateful=False)
        return tf.ensure_shape(batch, (None, *self._array.shape[1:]))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return (batch, height, width, channels) uint8, without TensorFlow."""
        return self._array[indices]


class WatchedFiles:
    """Files that must stay as they are: their sizes and times of change are noted."""

    def __init__(self, paths: Sequence[bytes | str]):
        self._marks = {path: self._mark(path) for path in paths}

    def changed(self) -> list[str]:
        """Return "FILE vanished" or "FILE changed" for each that is not as it was."""
        texts = []
        for path, before in self._marks.items():
            now = self._mark(path)
            if now != before:
                name = os.fsencode(path).decode(errors="replace")
                texts.append(f"{name} {'changed' if now else 'vanished'}")
        return texts

    @staticmethod
    def _mark(path: bytes | str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


class FileImages:
    """Encoded files, decoded each time they are read."""

    def __init__(self, paths: Sequence[bytes], shape: Shape, normalize_input: str):
        self._paths = tf.constant(paths, tf.string)
        self._files = WatchedFiles(paths)
        self._shape = shape
        self._normalize_input = normalize_input

    def changed(self) -> list[str]:
        """See Images."""
        return self._files.changed()

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """See Images."""
        contents = tf.map_fn(tf.io.read_file, tf.gather(self._paths, indices))
        return batch_decoder(self._shape, self._normalize_input)(contents)


class JoinedImages:
    """The images of two sources: of the second from index `offset` on."""

    def __init__(self, first: Images, second: Images, offset: int):
        self._first = first
        self._second = second
        self._offset = offset

    def changed(self) -> list[str]:
        """See Images."""
        return self._first.changed() + self._second.changed()

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """See Images."""
        in_first = indices < self._offset
        places = [tf.where(mask)[:, 0] for mask in (in_first, ~in_first)]
        parts = [
            self._first.gather(tf.gather(indices, places[0])),
            self._second.gather(tf.gather(indices, places[1]) - self._offset),
        ]
        return tf.dynamic_stitch([tf.cast(p, tf.int32) for p in places], parts)


def keep(
    batches: Iterable[np.ndarray], capacity: int, shape: Shape, cache: str
) -> Images:
    """Keep decoded images as --cache says, holding one copy and one batch at most.

    Args:
        batches: (batch, *shape) uint8 arrays, in order.
        capacity: the most images there can be in all of them.
        shape: height, width, channels.
        cache: memory or disk.
    """
    if cache == "disk":
        return _keep_on_disk(batches, shape)
    memory.check(
        capacity * math.prod(shape),
        f"{capacity:,} images of {shape[0]}x{shape[1]}x{shape[2]}",
        "take --cache=disk or a smaller --image_size",
    )
    array = np.empty((capacity, *shape), np.uint8)
    count = 0
    for batch in batches:
        array[count : count + len(batch)] = batch
        count += len(batch)
    return MemoryImages(array[:count])


def _keep_on_disk(batches: Iterable[np.ndarray], shape: Shape) -> DiskImages:
    with tempfile.TemporaryFile(prefix="kcnn-") as file:
        try:
            # Written, not mapped: on a full disk a mapped file kills the process.
            count = 0
            for batch in batches:
                file.write(np.ascontiguousarray(batch).data)
                count += len(batch)
            file.flush()
        except OSError as error:
            raise RunError(
                f"--cache=disk: {tempfile.gettempdir()}: {error.strerror}; TMPDIR "
                "names another place"
            ) from None
        if count == 0:
            return DiskImages(np.empty((0, *shape), np.uint8))
        return DiskImages(np.memmap(file, np.uint8, "r", shape=(count, *shape)))
