"""What tells one data set from another that has the same name.

A fingerprint is taken of what is stored, before decoding and resizing, so that it is
the same however the images are read and kept.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterable

import numpy as np

_PART_BYTES = 2**20


def of_arrays(*arrays: np.ndarray) -> str:
    """Return the fingerprint of arrays: their types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def of_members(path: pathlib.Path, names: Iterable[str]) -> str:
    """Return the fingerprint of arrays in an npz file.

    It is made of the checksums in the archive's directory, which reading the arrays
    verifies: nothing is read twice. An array that is not there counts too.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for name in names:
            info = members.get(f"{name}.npy")
            found = (info.CRC, info.file_size) if info else None
            digest.update(f"{name}{found}".encode())
    return digest.hexdigest()


def of_all(fingerprints: Iterable[str]) -> str:
    """Return the fingerprint of what has these fingerprints, in this order."""
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()


def of_file(path: str | bytes | os.PathLike) -> bytes:
    """Return the SHA-256 of a file's content: 32 bytes."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_PART_BYTES):
            content.update(part)
    return content.digest()


def of_contents(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the fingerprint of files: the names they go by, and each `of_file`."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(os.fsencode(name) + b"\0" + content)
    return digest.hexdigest()


def of_files(files: Iterable[tuple[str, str | bytes | os.PathLike]]) -> str:
    """Return the fingerprint of files: the names they go by, and their contents."""
    return of_contents((name, of_file(path)) for name, path in files)
