"""Splits -> gzipped TFRecord files of tf.Examples, laid out as by TFX's ExampleGen."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from kcnn import pipeline
from kcnn.errors import RunError
from kcnn.files import new_folder
from kcnn.image_feature import ImageFeature, bytes_feature, int_feature, serialized
from kcnn.images import reason
from kcnn.sources import chunk_of
from kcnn.spec import ImageSpec
from kcnn.splits import Split


def write(
    splits: Mapping[str, Split],
    spec: ImageSpec,
    target: pathlib.Path,
    shards: int,
) -> None:
    """Write target/Split-NAME/data_tfrecord-00000-of-00001.gz and so on, all or none.

    Args:
        splits: by name.
        spec: of their images.
        target: a new or an empty folder.
        shards: files a split, each with a run of its images.

    Raises:
        RunError: a file cannot be written.
    """
    with new_folder(target) as folder:
        for name, split in splits.items():
            try:
                _write_split(split, spec, folder / f"Split-{name}", shards)
            except tf.errors.OpError as error:
                raise RunError(
                    f"--out: {target}: could not be written: {reason(error)}"
                ) from None


def _write_split(
    split: Split, spec: ImageSpec, folder: pathlib.Path, shards: int
) -> None:
    folder.mkdir()
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for number, positions in enumerate(np.array_split(np.arange(len(split)), shards)):
        path = folder / f"data_tfrecord-{number:05}-of-{shards:05}.gz"
        with tf.io.TFRecordWriter(str(path), options) as writer:
            for example in _examples(split, spec, positions):
                writer.write(example)


def _examples(split: Split, spec: ImageSpec, positions: np.ndarray) -> Iterator[bytes]:
    feature = ImageFeature()
    batch = chunk_of(spec.shape)
    for start in range(0, len(positions), batch):
        at = positions[start : start + batch]
        with pipeline.reading(split):
            images = pipeline.images_at(split, at)
        for image, label in zip(images, split.labels[at].tolist(), strict=True):
            yield serialized(
                {
                    feature.key: feature.feature(image),
                    "label": int_feature(label),
                    "label_name": bytes_feature(spec.class_names[label].encode()),
                }
            )
