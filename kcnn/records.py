"""tensorflow-datasets by name -> splits.

The TFRecord files are read directly: parsing and decoding in batches takes half the
time that tensorflow-datasets' own reader does, and with --cache=none any record can
be read again by its place in the file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn.catalog import prepared_builder
from kcnn.config import Config
from kcnn.decoding import as_it_is, batch_decoder
from kcnn.errors import UsageError
from kcnn.fingerprint import of_files
from kcnn.images import Shape, reason
from kcnn.runtime import cores
from kcnn.sources import (
    CHUNK,
    MIXED_SIZE,
    Origin,
    Pool,
    WatchedFiles,
    chunk_of,
    keep,
    mixed_sizes_note,
)
from kcnn.spec import wanted_shape

# The length and its checksum stand before a record, the data's checksum behind it.
_BEFORE, _AFTER = 12, 4


def open_records(config: Config, shape: Shape | None) -> Origin:
    """Open the tensorflow-datasets of a Config's dataset, downloading it if need be."""
    builder = prepared_builder(config)
    image_key, label_key = _keys(config.dataset, builder.info)
    features = builder.info.features
    height, width, channels = features[image_key].shape
    notes = []
    if not (height and width):
        height = width = MIXED_SIZE
        notes += mixed_sizes_note(config, shape)
    natural = height, width, 1 if channels == 1 else 3
    shape = shape or wanted_shape(config, natural)
    origin = Origin(tuple(features[label_key].names), shape, {}, notes)
    for split, own in _splits(builder.info.splits).items():
        if split != own:
            notes.append(f"{split}: the split {own!r} of {config.dataset}")
        records = _Records(
            builder.info.splits[own],
            image_key,
            label_key,
            shape,
            config.normalize_input,
        )
        read = functools.partial(_read, config, own, records)
        origin.splits[split] = read
    return origin


def _splits(infos: Any) -> dict[str, str]:
    """Return kcnn's split -> the data set's own."""
    splits = {name: name for name in ("train", "validation", "test") if name in infos}
    if "validation" in splits and "test" not in splits:
        del splits["validation"]
        splits["test"] = "validation"
    return splits


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Return the keys of the image and of the label, and refuse other data sets.

    Of several, the data set's own supervised pair comes first, then the usual names.
    """
    import tensorflow_datasets as tfds

    features = info.features
    items = sorted(features.items()) if hasattr(features, "items") else []
    usual = [*(info.supervised_keys or ()), "image", "label"]
    items.sort(
        key=lambda item: usual.index(item[0]) if item[0] in usual else len(usual)
    )
    images = [
        key
        for key, value in items
        if type(value) is tfds.features.Image and value.np_dtype == np.uint8
    ]
    labels = [k for k, value in items if type(value) is tfds.features.ClassLabel]
    if not images or not labels:
        found = ", ".join(f"{key} ({type(value).__name__})" for key, value in items)
        raise UsageError(
            f"--dataset: {name} is not for image classification: it has {found}; "
            "expected an Image of uint8 and a ClassLabel"
        )
    return images[0], labels[0]


@dataclasses.dataclass(frozen=True)
class _Records:
    """One split's files, and what is read of them."""

    info: Any  # tfds.core.SplitInfo
    image_key: str
    label_key: str
    shape: Shape
    normalize_input: str

    def files(self) -> list[str]:
        """Return the files, in the order of the split."""
        return [str(path) for path in self.info.filepaths]

    def fingerprint(self) -> str:
        """Return what tells these files from others of the same names."""
        return of_files((os.path.basename(path), path) for path in self.files())

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parse (batch,) serialized examples: encoded images and int64 labels."""
        example = tf.io.parse_example(
            records,
            {
                self.image_key: tf.io.FixedLenFeature([], tf.string),
                self.label_key: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        return example[self.image_key], example[self.label_key]

    def decode(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parse and decode (batch,) serialized examples."""
        contents, labels = self.parse(records)
        decode = batch_decoder(self.shape, self.normalize_input)
        return decode(contents), labels


class _RecordImages:
    """Records found by their place in the files, decoded each time they are read."""

    def __init__(
        self,
        records: _Records,
        file: np.ndarray,
        start: np.ndarray,
        size: np.ndarray,
    ):
        self._records = records
        self._paths = records.files()
        self._watched = WatchedFiles(self._paths)
        self._file, self._start, self._size = file, start, size

    def changed(self) -> list[str]:
        """See sources.Images."""
        return self._watched.changed()

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """See sources.Images."""
        read = tf.numpy_function(
            self._read_records, [indices], tf.string, stateful=False
        )
        return self._records.decode(tf.ensure_shape(read, (None,)))[0]

    def _read_records(self, indices: np.ndarray) -> np.ndarray:
        """Read (batch,) serialized examples."""
        with contextlib.ExitStack() as stack:
            files = {
                i: stack.enter_context(open(self._paths[i], "rb"))
                for i in set(self._file[indices].tolist())
            }
            read = [
                os.pread(files[f].fileno(), size, start)
                for f, size, start in zip(
                    self._file[indices].tolist(),
                    self._size[indices].tolist(),
                    self._start[indices].tolist(),
                    strict=True,
                )
            ]
        return np.array(read, object)


def _read(config: Config, own: str, records: _Records) -> Pool:
    what = f"--dataset: the split {own!r} of {config.dataset}"
    try:
        if config.cache == "none":
            pool = _index(records)
        else:
            pool = _decode_all(records, config.cache)
    except tf.errors.OpError as error:
        raise UsageError(f"{what} cannot be read: {reason(error)}") from None
    if (pool.labels < 0).any():
        raise UsageError(f"{what} has no labels")
    return pool


def _decode_all(records: _Records, cache: str) -> Pool:
    batches = tf.data.TFRecordDataset(records.files()).batch(chunk_of(records.shape))
    labels = []

    def images() -> Iterator[np.ndarray]:
        # Not in a map of tf.data's: it would optimize the graph for every split.
        for batch, batch_labels in _on_all_cores(records.decode, batches):
            labels.append(batch_labels.numpy())
            yield batch.numpy()

    n = records.info.num_examples
    kept = keep(images(), n, records.shape, cache)
    return Pool(kept, np.concatenate(labels), records.fingerprint())


def _on_all_cores(function: Callable, items: Iterable) -> Iterator:
    """Yield what a function makes of each item, in order, and a few ahead."""
    count = cores()
    with futures.ThreadPoolExecutor(count) as pool:
        under_way: collections.deque[futures.Future] = collections.deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > count:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _index(records: _Records) -> Pool:
    """Read the labels, and where each record is."""
    parts = [_index_file(records, i, path) for i, path in enumerate(records.files())]
    file, start, size, labels = map(np.concatenate, zip(*parts, strict=True))
    images = _RecordImages(records, file, start, size)
    return Pool(images, labels, records.fingerprint())


def _index_file(
    records: _Records, number: int, path: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return number, start and size in bytes, and label of each record of a file."""
    batches = tf.data.TFRecordDataset(path).batch(CHUNK)
    read = batches.map(as_it_is(lambda r: (tf.strings.length(r), records.parse(r)[1])))
    sizes, labels = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch_sizes, batch_labels in read.as_numpy_iterator():
        sizes.append(batch_sizes.astype(np.int64))
        labels.append(batch_labels)
    size = np.concatenate(sizes)
    start = np.cumsum(_BEFORE + size + _AFTER) - _AFTER - size
    return np.full(len(size), number), start, size, np.concatenate(labels)
