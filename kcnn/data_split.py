"""A folder of images, divided into train, validation and test in a new folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from kcnn.errors import RunError
from kcnn.inspection import Inspection


def write(
    seen: Inspection,
    split: np.ndarray,
    names: Sequence[str],
    target: pathlib.Path,
    hard_links: bool,
) -> None:
    """Put every readable image of a folder at target/SPLIT/CLASS/..., all or none.

    Args:
        seen: the folder; it is not changed.
        split: (n,) int, an index into `names` for each image.
        names: the splits.
        target: a new or an empty folder.
        hard_links: whether files are linked and not copied.

    Raises:
        RunError: a file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    root = os.fsencode(seen.root)
    with _unfinished(target) as folder:
        for file, number in zip(seen.files, split, strict=True):
            place = os.path.relpath(file.path, root)
            new = os.path.join(os.fsencode(folder), os.fsencode(names[number]), place)
            try:
                os.makedirs(os.path.dirname(new), exist_ok=True)
                if hard_links:
                    os.link(os.path.realpath(file.path), new)
                else:
                    shutil.copy2(file.path, new)
            except OSError as error:
                how = "linked" if hard_links else "copied"
                raise RunError(
                    f"--out: {file.name} cannot be {how} to {target}: {error.strerror}"
                ) from None
        os.replace(folder, target)  # takes the place of an empty folder too


@contextlib.contextmanager
def _unfinished(target: pathlib.Path) -> Iterator[str]:
    """Give a folder near `target`; what is left of it at the end is removed."""
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as private:
        folder = os.path.join(private, "divided")
        os.mkdir(folder)  # with the usual rights
        yield folder
