"""A folder of images -> what every file is, read once as training reads it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from kcnn import duplicates
from kcnn.errors import UsageError, in_one_line
from kcnn.fingerprint import of_file
from kcnn.folders import decoded, why
from kcnn.scan import ImageFile, Scan, splits_of
from kcnn.sources import DiskImages, keep

SPLITS = ("train", "validation", "test")

_SIDE = duplicates.HASH_SIDE


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The images of a folder, in the order train, validation, test; class; name.

    Attributes:
        root: the folder, without links.
        divided: whether it has folders of splits, or everything is in train.
        files: what can be read.
        splits: the splits there are.
        class_names: of all splits, sorted.
        split: (n,) int64, an index into splits.
        label: (n,) int64, an index into class_names.
        contents: (n, 32) uint8, the SHA-256 of each file.
        hashes: (n,) uint64, see `duplicates.hashes_of`.
        brightness: (n,) float64, the mean grey level in [0, 255].
        contrast: (n,) float64, the deviation of the grey levels.
        thumbnails: gives (m, 32, 32, 3) uint8 for (m,) int64 positions.
        skipped: name and reason of files that cannot be read, in the order found.
        ignored: names of what is no image in a class folder.
    """

    root: str
    divided: bool
    files: list[ImageFile]
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    split: np.ndarray
    label: np.ndarray
    contents: np.ndarray
    hashes: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    thumbnails: Callable[[np.ndarray], np.ndarray]
    skipped: list[tuple[str, str]]
    ignored: list[str]

    def names(self) -> list[str]:
        """Return the files' names, relative to the folder."""
        return [file.name for file in self.files]


def inspect(root: str) -> Inspection:
    """Read every image of a folder; nothing in it is changed.

    Memory is bounded: thumbnails are in a temporary file.

    Raises:
        UsageError: there is no such folder, or it has no readable image in a folder of
            its own.
    """
    if not os.path.isdir(root):
        raise UsageError(f"{root}: no such folder")
    scan = Scan(root)
    try:
        found = splits_of(scan)
    except (OSError, ValueError) as error:
        raise UsageError(f"{root}: {in_one_line(error)}") from None
    splits = tuple(name for name in SPLITS if name in found)
    class_names = tuple(
        sorted({name for classes in found.values() for name in classes})
    )
    files, split, label = [], [], []
    for i, name in enumerate(splits):
        for class_name in sorted(found[name]):
            for file in found[name][class_name]:
                files.append(file)
                split.append(i)
                label.append(class_names.index(class_name))
    good: list[np.ndarray] = []
    figures: list[tuple[np.ndarray, ...]] = []
    shape = (_SIDE, _SIDE, 3)
    paths = [file.path for file in files]
    batches = _measured(decoded(paths, shape, "none", good), figures)
    thumbnails = keep(batches, len(files), shape, "disk")
    assert isinstance(thumbnails, DiskImages)
    kept = np.concatenate([np.empty(0, np.int64), *good])
    for i in np.setdiff1d(np.arange(len(files)), kept):
        scan.skipped.append((files[i].name, why(files[i].path, shape, "none")))
    if not len(kept):
        first = "".join(f"; {name}: {reason}" for name, reason in scan.skipped[:1])
        raise UsageError(f"{root}: no readable image in a folder of a class{first}")
    files = [files[i] for i in kept]
    contents = b"".join(of_file(file.path) for file in files)
    hashes, brightness, contrast = map(np.concatenate, zip(*figures, strict=True))
    return Inspection(
        scan.root,
        scan.divided,
        files,
        splits,
        class_names,
        np.array(split)[kept],
        np.array(label)[kept],
        np.frombuffer(contents, np.uint8).reshape(-1, 32),
        hashes,
        brightness,
        contrast,
        thumbnails.read,
        scan.skipped,
        scan.ignored,
    )


def _measured(
    batches: Iterator[np.ndarray], figures: list[tuple[np.ndarray, ...]]
) -> Iterator[np.ndarray]:
    """Pass (batch, height, width, 3) uint8 on; append hashes and grey levels."""
    for batch in batches:
        grey = batch.mean(axis=-1)
        hashes = duplicates.hashes_of(batch)
        figures.append((hashes, grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))))
        yield batch
