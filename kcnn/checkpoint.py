"""Arrays and a JSON note in one .npz file that is written whole or not at all."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kcnn.errors import RunError
from kcnn.files import replacing


def save(
    path: pathlib.Path, arrays: Mapping[str, Sequence[np.ndarray]], note: Any = None
) -> None:
    """Write lists of arrays by name, with a note that JSON can hold."""
    flat: dict[str, Any] = {
        f"{k}/{i}": a for k, list_ in arrays.items() for i, a in enumerate(list_)
    }
    flat["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
    flat["lengths"] = np.frombuffer(
        json.dumps({k: len(v) for k, v in arrays.items()}).encode(), np.uint8
    )
    buffer = io.BytesIO()
    np.savez(buffer, **flat)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def load(path: pathlib.Path) -> tuple[dict[str, list[np.ndarray]], Any]:
    """Read what `save` wrote.

    Every member's checksum is verified and pickled objects are refused. Raises
    RunError that names the file if it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            lengths = json.loads(file["lengths"].tobytes())
            arrays = {
                k: [file[f"{k}/{i}"] for i in range(n)] for k, n in lengths.items()
            }
            return arrays, json.loads(file["note"].tobytes())
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such checkpoint") from None
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise RunError(f"{path}: the checkpoint is damaged: {error}") from None
