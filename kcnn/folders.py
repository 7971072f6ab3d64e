"""folder:DIR, one folder of image files a class -> splits.

The classes are in DIR itself, or in DIR/train, DIR/validation (or val) and DIR/test.
Every file is read once before training starts: its header, then its pixels.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from kcnn import images
from kcnn.config import Config
from kcnn.decoding import as_it_is, decoder
from kcnn.errors import UsageError, in_one_line
from kcnn.fingerprint import of_contents, of_file
from kcnn.images import Shape
from kcnn.scan import ImageFile, Scan, splits_of
from kcnn.sources import (
    MIXED_SIZE,
    FileImages,
    Origin,
    Pool,
    decodable,
    keep,
    mixed_sizes_note,
)
from kcnn.spec import wanted_shape

# Pillow's modes of grey images, with and without alpha.
GREY_MODES = frozenset(("1", "L", "LA", "I", "I;16", "I;16B"))


def open_folder(config: Config, shape: Shape | None) -> Origin:
    """Open the folder of a Config's dataset; `shape` overrides its images' own."""
    scan = _scan(config)
    root = scan.given
    try:
        found = splits_of(scan)
    except (OSError, ValueError) as error:
        raise UsageError(f"--dataset: {root}: {in_one_line(error)}") from None
    class_names = _class_names(root, found)
    files = [f for classes in found.values() for c in classes.values() for f in c]
    notes = _ignored_note(scan)
    if shape is None:
        natural, mixed = _natural_shape(files)
        notes += mixed_sizes_note(config, shape) if mixed else []
        shape = wanted_shape(config, natural)
    origin = Origin(class_names, shape, {}, notes, scan.skipped)
    for split, classes in found.items():
        origin.splits[split] = functools.partial(_read, config, origin, classes)
    return origin


def open_unlabeled(config: Config, shape: Shape) -> Origin:
    """Open all images below the folder of a Config's dataset as one class, `test`."""
    scan = _scan(config)
    try:
        files = list(scan.files(scan.root, "unknown"))
    except OSError as error:
        raise UsageError(f"--dataset: {scan.given}: {error.strerror}") from None
    if not files:
        raise UsageError(f"--dataset: {scan.given}: there is no image in it")
    origin = Origin(("unknown",), shape, {}, _ignored_note(scan), scan.skipped)
    classes = {"unknown": files}
    origin.splits["test"] = functools.partial(_read, config, origin, classes)
    return origin


def _scan(config: Config) -> Scan:
    root = os.path.expanduser(config.dataset.removeprefix("folder:"))
    if not os.path.isdir(root):
        raise UsageError(f"--dataset: {root}: no such folder")
    return Scan(root)


def _class_names(root: str, found: dict[str, dict[str, list[ImageFile]]]) -> tuple:
    first = "train" if "train" in found else next(iter(found))
    for split, classes in found.items():
        unknown = sorted(set(classes) - set(found[first]))
        if unknown:
            raise UsageError(
                f"--dataset: {root}: {split}/ has a class {unknown[0]!r} that "
                f"{first}/ has not"
            )
    return tuple(sorted(found[first]))


def _natural_shape(files: list[ImageFile]) -> tuple[Shape, bool]:
    """Return the images' common shape, and whether their sizes differ."""
    sizes = {(f.header.height, f.header.width) for f in files}
    grey = all(f.header.mode in GREY_MODES for f in files)
    mixed = len(sizes) != 1
    height, width = (MIXED_SIZE, MIXED_SIZE) if mixed else sizes.pop()
    return (height, width, 1 if grey else 3), mixed


def _ignored_note(scan: Scan) -> list[str]:
    if not scan.ignored:
        return []
    count, example = len(scan.ignored), scan.ignored[0]
    noun = "path is" if count == 1 else "paths are"
    return [f"{count} {noun} no image in a class folder and ignored: {example} ..."]


def _read(config: Config, origin: Origin, classes: dict[str, list[ImageFile]]) -> Pool:
    """Read every file of a split once; keep the images, or just the good files."""
    files = [file for name in sorted(classes) for file in classes[name]]
    good: list[np.ndarray] = []
    how = (origin.shape, config.normalize_input)
    batches = decoded([file.path for file in files], *how, good)
    kept = None
    if config.cache == "none":
        collections.deque(batches, maxlen=0)  # runs through them
    else:
        kept = keep(batches, len(files), origin.shape, config.cache)
    indices = np.concatenate([np.empty(0, np.int64), *good])
    for i in np.setdiff1d(np.arange(len(files)), indices):
        origin.skipped.append((files[i].name, why(files[i].path, *how)))
    files = [files[i] for i in indices]
    for name in sorted(set(classes) - {file.class_name for file in files}):
        raise UsageError(
            f"{config.dataset}: the class folder {name!r} has no readable image"
        )
    images_ = kept or FileImages([file.path for file in files], *how)
    numbers = {name: i for i, name in enumerate(origin.class_names)}
    labels = np.array([numbers[file.class_name] for file in files], np.int64)
    names = [file.name for file in files]
    contents = [of_file(file.path) for file in files]
    fingerprint = of_contents(zip(names, contents, strict=True))
    digests = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32)
    return Pool(images_, labels, fingerprint, names, digests)


def decoded(
    paths: list[bytes], shape: Shape, normalize_input: str, good: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Read and decode files; see `kcnn.sources.decodable`."""
    decode = decoder(shape, normalize_input)
    read = (
        tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string))
        .enumerate()
        .map(
            as_it_is(lambda i, path: (i, decode(tf.io.read_file(path)))),
            tf.data.AUTOTUNE,
            deterministic=True,
        )
    )
    return decodable(read, shape, good)


def why(path: bytes, shape: Shape, normalize_input: str) -> str:
    """Return why a file cannot be decoded."""
    try:
        images.decode(tf.io.read_file(path), shape, normalize_input)
    except tf.errors.OpError as error:
        return images.reason(error)
    return "could not be read at first"
