"""A folder of images as people have it: which files are there, and what they are.

The classes are in DIR itself, or in DIR/train, DIR/validation (or val) and DIR/test.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from kcnn import images
from kcnn.files import is_within
from kcnn.images import Header

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file whose header is that of an image."""

    path: bytes
    name: str  # relative to DIR, for people
    class_name: str
    header: Header


class Scan:
    """Walks DIR and sorts its files: readable by their header, skipped, ignored.

    `divided` tells, once `splits_of` has looked, whether DIR has folders of splits.
    """

    def __init__(self, root: str):
        self.given = root  # as the user named it
        self.root = os.path.realpath(root)
        self.skipped: list[tuple[str, str]] = []
        self.ignored: list[str] = []
        self.divided = False

    def name(self, path: str) -> str:
        """Return a path relative to DIR that can be printed."""
        return os.fsencode(os.path.relpath(path, self.root)).decode(errors="replace")

    def folders(self, path: str) -> list[str]:
        """Return the visible folders in a folder, sorted."""
        with os.scandir(path) as entries:
            return sorted(
                e.path for e in entries if e.is_dir() and not e.name.startswith(".")
            )

    def classes(self, split_folder: str) -> dict[str, list[ImageFile]]:
        """Return class name -> its files whose header is good, both sorted."""
        found = {}
        for folder in self.folders(split_folder):
            if not self.leads_astray(folder, [split_folder]):
                name = os.fsencode(os.path.basename(folder)).decode(errors="replace")
                found[name] = list(self.files(folder, name))
        return found

    def files(self, folder: str, class_name: str) -> Iterator[ImageFile]:
        """Yield the files below a folder whose header is good, sorted."""
        for path in self._walk(folder, [folder]):
            if os.path.splitext(path)[1].lower() not in images.SUFFIXES:
                self.ignored.append(self.name(path))
                continue
            try:
                header = images.check_header(path)
            except (ValueError, OSError) as error:
                self.skipped.append((self.name(path), str(error)))
            else:
                yield ImageFile(os.fsencode(path), self.name(path), class_name, header)

    def _walk(self, folder: str, above: list[str]) -> Iterator[str]:
        """Yield the visible files below a folder, sorted."""
        with os.scandir(folder) as entries:
            visible = sorted(e.path for e in entries if not e.name.startswith("."))
        for path in visible:
            if self.leads_astray(path, above):
                continue
            if os.path.isdir(path):
                yield from self._walk(path, [*above, path])
            else:
                yield path

    def leads_astray(self, path: str, above: list[str]) -> bool:
        """Tell whether a path is a link not to be followed, and note why."""
        if not os.path.islink(path):
            return False
        reason = ""
        if not os.path.exists(path):
            reason = "a link to nothing"
        elif not is_within(path, self.root):
            reason = "a link that leads outside the folder"
        elif any(is_within(folder, path) for folder in above):
            reason = "a link to a folder that it is in"
        noted = (self.name(path), reason)
        if reason and noted not in self.skipped:
            self.skipped.append(noted)
        return bool(reason)


def splits_of(scan: Scan) -> dict[str, dict[str, list[ImageFile]]]:
    """Return split -> class name -> files; all in train where DIR has no splits.

    Raises ValueError where two folders are the same split, OSError where one cannot be
    read.
    """
    return {split: scan.classes(folder) for split, folder in _layout(scan).items()}


def _layout(scan: Scan) -> dict[str, str]:
    """Return split -> the folder that holds its class folders; note what is left."""
    layout: dict[str, str] = {}
    others = []
    for folder in scan.folders(scan.root):
        split = _SPLITS.get(os.path.basename(folder).lower())
        if not split or not scan.folders(folder):
            others.append(folder)
        elif scan.leads_astray(folder, [scan.root]):
            continue
        elif split in layout:
            raise ValueError(
                f"both {scan.name(layout[split])}/ and {scan.name(folder)}/ are "
                f"{split} folders"
            )
        else:
            layout[split] = folder
    with os.scandir(scan.root) as entries:
        loose = [e.path for e in entries if e.is_file() and e.name[0] != "."]
    scan.divided = bool(layout)
    if scan.divided:
        loose += others
    scan.ignored += [scan.name(path) for path in sorted(loose)]
    return layout or {"train": scan.root}
