"""folder:DIR, one folder of image files a class -> splits.

The classes are in DIR itself, or in DIR/train, DIR/validation (or val) and DIR/test.
Every file is read once before training starts: its header, then its pixels.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from kcnn import images
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fingerprint import of_files
from kcnn.images import Header, Shape
from kcnn.sources import (
    MIXED_SIZE,
    FileImages,
    Origin,
    Pool,
    chunk_of,
    keep,
    mixed_sizes_note,
)
from kcnn.spec import wanted_shape

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}

# Pillow's modes of grey images, with and without alpha.
_GREY_MODES = frozenset(("1", "L", "LA", "I", "I;16", "I;16B"))


@dataclasses.dataclass(frozen=True)
class _File:
    path: bytes
    name: str  # relative to DIR, for people
    class_name: str
    header: Header


class _Scan:
    """Walks DIR and sorts its files: readable by their header, skipped, ignored."""

    def __init__(self, root: str):
        self.root = os.path.realpath(root)
        self.skipped: list[tuple[str, str]] = []
        self.ignored: list[str] = []

    def name(self, path: str) -> str:
        """Return a path relative to DIR that can be printed."""
        return os.fsencode(os.path.relpath(path, self.root)).decode(errors="replace")

    def folders(self, path: str) -> list[str]:
        """Return the visible folders in a folder, sorted."""
        with os.scandir(path) as entries:
            return sorted(
                e.path for e in entries if e.is_dir() and not e.name.startswith(".")
            )

    def classes(self, split_folder: str) -> dict[str, list[_File]]:
        """Return class name -> its files whose header is good, both sorted."""
        found = {}
        for folder in self.folders(split_folder):
            if not self._leads_astray(folder, [split_folder]):
                name = os.fsencode(os.path.basename(folder)).decode(errors="replace")
                found[name] = list(self._files(folder, name))
        return found

    def _files(self, folder: str, class_name: str) -> Iterator[_File]:
        for path in self._walk(folder, [folder]):
            if os.path.splitext(path)[1].lower() not in images.SUFFIXES:
                self.ignored.append(self.name(path))
                continue
            try:
                header = images.check_header(path)
            except (ValueError, OSError) as error:
                self.skipped.append((self.name(path), str(error)))
            else:
                yield _File(os.fsencode(path), self.name(path), class_name, header)

    def _walk(self, folder: str, above: list[str]) -> Iterator[str]:
        """Yield the visible files below a folder, sorted."""
        with os.scandir(folder) as entries:
            visible = sorted(e.path for e in entries if not e.name.startswith("."))
        for path in visible:
            if self._leads_astray(path, above):
                continue
            if os.path.isdir(path):
                yield from self._walk(path, [*above, path])
            else:
                yield path

    def _leads_astray(self, path: str, above: list[str]) -> bool:
        """Tell whether a path is a link not to be followed, and note why."""
        if not os.path.islink(path):
            return False
        target, reason = os.path.realpath(path), ""
        if not os.path.exists(target):
            reason = "a link to nothing"
        elif not _holds(self.root, target):
            reason = "a link that leads outside the folder"
        elif any(_holds(target, os.path.realpath(folder)) for folder in above):
            reason = "a link to a folder that it is in"
        if reason:
            self.skipped.append((self.name(path), reason))
        return bool(reason)


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def open_folder(config: Config, shape: Shape | None) -> Origin:
    """Open the folder of a Config's dataset; `shape` overrides its images' own."""
    root = os.path.expanduser(config.dataset.removeprefix("folder:"))
    if not os.path.isdir(root):
        raise UsageError(f"--dataset: {root}: no such folder")
    scan = _Scan(root)
    try:
        found = {split: scan.classes(folder) for split, folder in _layout(scan).items()}
    except OSError as error:
        raise UsageError(f"--dataset: {root}: {error.strerror}") from None
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


def _layout(scan: _Scan) -> dict[str, str]:
    """Return split -> the folder that holds its class folders; note what is left."""
    layout: dict[str, str] = {}
    others = []
    for folder in scan.folders(scan.root):
        split = _SPLITS.get(os.path.basename(folder).lower())
        if not split or not scan.folders(folder):
            others.append(folder)
        elif split in layout:
            raise UsageError(
                f"--dataset: both {scan.name(layout[split])}/ and {scan.name(folder)}/ "
                f"are {split} folders"
            )
        else:
            layout[split] = folder
    with os.scandir(scan.root) as entries:
        loose = [e.path for e in entries if e.is_file() and e.name[0] != "."]
    if layout:
        loose += others
    scan.ignored += [scan.name(path) for path in sorted(loose)]
    return layout or {"train": scan.root}


def _class_names(root: str, found: dict[str, dict[str, list[_File]]]) -> tuple:
    first = "train" if "train" in found else next(iter(found))
    for split, classes in found.items():
        unknown = sorted(set(classes) - set(found[first]))
        if unknown:
            raise UsageError(
                f"--dataset: {root}: {split}/ has a class {unknown[0]!r} that "
                f"{first}/ has not"
            )
    return tuple(sorted(found[first]))


def _natural_shape(files: list[_File]) -> tuple[Shape, bool]:
    """Return the images' common shape, and whether their sizes differ."""
    sizes = {(f.header.height, f.header.width) for f in files}
    grey = all(f.header.mode in _GREY_MODES for f in files)
    mixed = len(sizes) != 1
    height, width = (MIXED_SIZE, MIXED_SIZE) if mixed else sizes.pop()
    return (height, width, 1 if grey else 3), mixed


def _ignored_note(scan: _Scan) -> list[str]:
    if not scan.ignored:
        return []
    count, example = len(scan.ignored), scan.ignored[0]
    noun = "path is" if count == 1 else "paths are"
    return [f"{count} {noun} no image in a class folder and ignored: {example} ..."]


def _read(config: Config, origin: Origin, classes: dict[str, list[_File]]) -> Pool:
    """Read every file of a split once; keep the images, or just the good files."""
    files = [file for name in sorted(classes) for file in classes[name]]
    good: list[np.ndarray] = []
    decode = functools.partial(
        images.decode, shape=origin.shape, normalize_input=config.normalize_input
    )
    batches = _decoded([file.path for file in files], decode, origin.shape, good)
    kept = None
    if config.cache == "none":
        collections.deque(batches, maxlen=0)  # runs through them
    else:
        kept = keep(batches, len(files), origin.shape, config.cache)
    indices = np.concatenate([np.empty(0, np.int64), *good])
    for i in np.setdiff1d(np.arange(len(files)), indices):
        origin.skipped.append((files[i].name, _why(files[i].path, decode)))
    files = [files[i] for i in indices]
    for name in sorted(set(classes) - {file.class_name for file in files}):
        raise UsageError(
            f"{config.dataset}: the class folder {name!r} has no readable image"
        )
    images_ = kept or FileImages(
        [file.path for file in files], origin.shape, config.normalize_input
    )
    numbers = {name: i for i, name in enumerate(origin.class_names)}
    labels = np.array([numbers[file.class_name] for file in files], np.int64)
    names = [file.name for file in files]
    fingerprint = of_files((file.name, file.path) for file in files)
    return Pool(images_, labels, fingerprint, names)


def _decoded(
    paths: list[bytes],
    decode: Callable[[tf.Tensor], tf.Tensor],
    shape: Shape,
    good: list[np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield batches of the images that can be decoded; append their indices to good."""
    decoded = (
        tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string))
        .enumerate()
        .map(
            lambda i, path: (i, decode(tf.io.read_file(path))),
            tf.data.AUTOTUNE,
            deterministic=True,
        )
        .ignore_errors()
        .batch(chunk_of(shape))
        .prefetch(tf.data.AUTOTUNE)
    )
    for indices, batch in decoded.as_numpy_iterator():
        good.append(indices)
        yield batch


def _why(path: bytes, decode: Callable[[tf.Tensor], tf.Tensor]) -> str:
    """Return why a file cannot be decoded."""
    try:
        decode(tf.io.read_file(path))
    except tf.errors.OpError as error:
        return images.reason(error)
    return "could not be read at first"
