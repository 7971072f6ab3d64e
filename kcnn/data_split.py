"""A folder of images, divided into train, validation and test in a new folder."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from kcnn.errors import RunError
from kcnn.files import new_folder
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
    root = os.fsencode(seen.root)
    with new_folder(target) as folder:
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
