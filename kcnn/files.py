"""Files written so that a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from kcnn.errors import UsageError


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, keep: pathlib.Path | None = None
) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place when the block ends well.

    The file that was there becomes `keep`, if given: a kill between the two renames
    leaves `keep` alone. An OSError, such as of a full disk, names `path`.
    """
    path = pathlib.Path(path)
    try:
        with _replacing(path, keep) as file:
            yield file
    except OSError as error:
        # Nobody knows the temporary file's name, and a write tells none at all.
        error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def _replacing(path: pathlib.Path, keep: pathlib.Path | None) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp made it private
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        flush(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def flush(path: pathlib.Path) -> None:
    """Have a file's contents, or a folder's names, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: pathlib.Path) -> None:
    """Have all in a folder that another library wrote survive a loss of power."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


@contextlib.contextmanager
def new_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder beside `target` that gets its name when the block ends well.

    What is left of it otherwise is removed. `target` is no folder yet, or an empty one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as private:
        folder = pathlib.Path(private, "new")
        folder.mkdir()  # with the usual rights
        yield folder
        os.replace(folder, target)  # takes the place of an empty folder too


def check_new_folder(target: pathlib.Path, flag: str) -> None:
    """Raise UsageError unless `target` is no folder yet, or an empty one."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(
            f"--{flag}: {target} exists; expected a new or an empty folder"
        )


def remove_unfinished(path: pathlib.Path) -> None:
    """Remove what a process that was killed while writing `path` left beside it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*"):
        temporary.unlink(missing_ok=True)


def is_within(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Tell whether a path, its links followed, is a folder or lies in it."""
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV under the first row's keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
