"""Arrays and a JSON note in one .npz file that is written whole or not at all.

The file ends in a checksum of everything before it, as the archive's comment.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kcnn.errors import RunError
from kcnn.files import replacing

_DIGEST_BYTES = 64  # SHA-256 in hexadecimal


class Found(NamedTuple):
    """What a checkpoint held, and why newer ones could not be read."""

    arrays: dict[str, list[np.ndarray]]
    note: Any
    damage: list[str]


def save(
    path: pathlib.Path,
    arrays: Mapping[str, Sequence[np.ndarray]],
    note: Any = None,
    keep: pathlib.Path | None = None,
) -> None:
    """Write lists of arrays by name, with a note that JSON can hold.

    `keep` is where the checkpoint goes that was there before.
    """
    flat: dict[str, Any] = {
        f"{k}/{i}": a for k, list_ in arrays.items() for i, a in enumerate(list_)
    }
    flat["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
    flat["lengths"] = np.frombuffer(
        json.dumps({k: len(v) for k, v in arrays.items()}).encode(), np.uint8
    )
    buffer = io.BytesIO()
    np.savez(buffer, **flat)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGEST_BYTES)
    body = buffer.getbuffer()[:-_DIGEST_BYTES]
    with replacing(path, keep) as file:
        file.write(body)
        file.write(_digest(body))


def load(path: pathlib.Path) -> tuple[dict[str, list[np.ndarray]], Any]:
    """Read what `save` wrote.

    The checksum is verified; pickled objects and compressed members, which could be
    larger than any memory, are refused. Raises RunError that names the file if it is
    missing or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such checkpoint") from None
    body, digest = memoryview(data)[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _digest(body) != digest:
        raise RunError(f"{path}: the checkpoint is damaged: its checksum is wrong")
    try:
        _refuse_compressed(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            lengths = json.loads(file["lengths"].tobytes())
            arrays = {
                k: [file[f"{k}/{i}"] for i in range(n)] for k, n in lengths.items()
            }
            return arrays, json.loads(file["note"].tobytes())
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        RuntimeError,
    ) as error:  # a checksum shows no more than that nothing has changed
        raise RunError(f"{path}: no checkpoint of kcnn: {error}") from None


def load_newest(paths: Iterable[pathlib.Path]) -> Found | None:
    """Read the first of some checkpoints that is there and whole.

    Returns None where there is none. Raises RunError if all that are there are damaged.
    """
    damage = []
    for path in paths:
        if not path.exists():
            continue
        try:
            arrays, note = load(path)
        except RunError as error:
            damage.append(str(error))
        else:
            return Found(arrays, note, damage)
    if damage:
        raise RunError("; ".join(damage))
    return None


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _refuse_compressed(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
