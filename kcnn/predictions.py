"""predictions.npz: what a run's model said of each test image."""

from __future__ import annotations

import io
import lzma
import pathlib
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from kcnn import memory
from kcnn.errors import RunError
from kcnn.files import replacing

# RuntimeError: encrypted, or of a kind that zipfile does not read.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
)


class Predictions(NamedTuple):
    """A run's test images and what was said of them.

    Attributes:
        indices: (n,) int, of the images in the whole test set.
        labels: (n,) int, their classes.
        probabilities: (n, classes) float32.
    """

    indices: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def write(path: pathlib.Path, found: Predictions, accepted: np.ndarray | None) -> None:
    """Write predictions, and (n,) bool which are accepted where some are not."""
    arrays = found._asdict() | ({} if accepted is None else {"accepted": accepted})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def read(path: pathlib.Path) -> Predictions:
    """Read the predictions of a run, of any origin.

    Raises:
        FileNotFoundError: there are none.
        RunError: the file is damaged, or unpacks to more than the memory holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        memory.check(size, f"the arrays in {path.name}", "was it written by kcnn?")
        with np.load(path, allow_pickle=False) as file:
            found = Predictions(*(file[name] for name in Predictions._fields))
    except _DAMAGE as error:
        raise RunError(f"{path}: damaged: {error}") from None
    n = len(found.labels) if found.labels.ndim == 1 else -1
    if found.indices.shape != (n,) or found.probabilities.shape[:-1] != (n,):
        raise RunError(f"{path}: damaged: its arrays are of different lengths")
    return found
