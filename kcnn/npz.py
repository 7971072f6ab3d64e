"""npz:FILE, NumPy arrays x_train, y_train, x_test, y_test -> splits.

The file is read as a stream, some images at a time.
"""

from __future__ import annotations

import contextlib
import functools
import lzma
import math
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from kcnn import memory
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fingerprint import of_members
from kcnn.images import MAX_PIXELS, Shape, fit
from kcnn.sources import MOST_CLASSES, Origin, Pool, chunk_of, keep
from kcnn.spec import wanted_shape

_PREFIX = "npz:"

_LONGEST_NAME = 256  # characters of a class


def open_npz(config: Config, shape: Shape | None) -> Origin:
    """Open the file of a Config's dataset; `shape` overrides its images' own."""
    path = _path(config)
    with _complaints(path):
        return _open(path, config, shape)


def _path(config: Config) -> pathlib.Path:
    path = pathlib.Path(config.dataset.removeprefix(_PREFIX))
    if config.cache == "none":
        raise UsageError(
            f"--cache=none: {path.name} is a compressed stream and cannot be read "
            "again by index; --cache=memory and --cache=disk work"
        )
    return path


def _open(path: pathlib.Path, config: Config, shape: Shape | None) -> Origin:
    labels = {}
    for split in ("train", "test"):
        _check_images(path, f"x_{split}")
        _check_counts(path, f"x_{split}", f"y_{split}")
        labels[split] = _read_labels(path, f"y_{split}")
    class_names = _class_names(path, labels)
    if shape is None:
        _, height, width, *channels = _array_shape(path, "x_train")
        shape = wanted_shape(config, (height, width, channels[0] if channels else 1))
    origin = Origin(class_names, shape, {})
    sizes = {split: _array_shape(path, f"x_{split}")[1:3] for split in labels}
    if sizes["train"] != sizes["test"] and config.normalize_input == "none":
        height, width = sizes["test"]
        origin.notes.append(
            f"x_test is {height}x{width}, resized as x_train to {shape[0]}x{shape[1]}"
        )

    def read(split: str) -> Pool:
        with _complaints(path):
            names = (f"x_{split}", f"y_{split}", "class_names")
            return _read(path, config, origin, names, labels[split])

    origin.splits["train"] = lambda: read("train")
    origin.splits["test"] = lambda: read("test")
    return origin


def open_unlabeled(config: Config, shape: Shape) -> Origin:
    """Open the images of a Config's dataset as one class.

    They are x_train and x_test, as far as there are these, or else `images`, as train.
    """
    path = _path(config)
    origin = Origin(("unknown",), shape, {})
    with _complaints(path):
        found = _array_names(path)
        arrays = {s: f"x_{s}" for s in ("train", "test") if f"x_{s}" in found}
        arrays = arrays or ({"train": "images"} if "images" in found else {})
        if not arrays:
            raise ValueError(
                f"no array x_test or images or x_train (there are: {', '.join(found)})"
            )
        for x in arrays.values():
            _check_images(path, x)

    def read(x: str) -> Pool:
        with _complaints(path):
            labels = np.zeros(_array_shape(path, x)[0], np.int64)
            return _read(path, config, origin, (x,), labels)

    for split, x in arrays.items():
        origin.splits[split] = functools.partial(read, x)
    return origin


def _read(
    path: pathlib.Path,
    config: Config,
    origin: Origin,
    names: tuple[str, ...],
    labels: np.ndarray,
) -> Pool:
    """Read the images of names[0]; the fingerprint is of all arrays named."""
    scale = _scale(path, names[0], origin.notes)
    batches = (
        fit(_to_uint8(chunk, scale), origin.shape, config.normalize_input).numpy()
        for chunk in _chunks(path, names[0])
    )
    images = keep(batches, len(labels), origin.shape, config.cache)
    return Pool(images, labels, of_members(path, names))


@contextlib.contextmanager
def _complaints(path: pathlib.Path) -> Iterator[None]:
    """Turn what is wrong with the file into one line."""
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"--dataset: {path}: no such file") from None
    except OSError as error:
        raise UsageError(f"--dataset: {path}: {error.strerror or error}") from None
    except zipfile.BadZipFile as error:
        raise UsageError(f"--dataset: {path}: no npz file: {error}") from None
    except (ValueError, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        # RuntimeError: encrypted, or of a kind that zipfile does not read.
        raise UsageError(f"--dataset: {path}: {error}") from None


def _array_names(path: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


@contextlib.contextmanager
def _member(
    path: pathlib.Path, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype]]:
    """Open an array: its data, shape, whether it is in Fortran order, and dtype.

    Its shape is true: zipfile reads no more of a member than the archive's directory
    says, and that is what the shape needs.
    """
    found = _array_names(path)
    if name not in found:
        raise ValueError(
            f"no array {name} (there are: {', '.join(found)}); expected x_train, "
            "y_train, x_test, y_test"
        )
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        else:
            header = np.lib.format.read_array_header_2_0(file)
        shape, fortran_order, dtype = header
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects; expected numbers")
        size = archive.getinfo(f"{name}.npy").file_size - file.tell()
        if min(shape, default=0) < 0 or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{name} holds {size:,} bytes, which are no {dtype} of shape "
                f"{shape}: it is cut short, or somebody made it so"
            )
        yield file, shape, fortran_order, dtype


def _array_shape(path: pathlib.Path, name: str) -> tuple[int, ...]:
    with _member(path, name) as (_, shape, _, _):
        return shape


def _chunks(path: pathlib.Path, name: str) -> Iterator[np.ndarray]:
    """Yield an array's images in order, (chunk, height, width, channels)."""
    with _member(path, name) as (file, shape, fortran_order, dtype):
        n, *item = shape
        channels = [1] if len(shape) == 3 else []
        if fortran_order:  # the first image is spread over the whole file
            memory.check(
                math.prod(shape) * dtype.itemsize,
                f"{n:,} images of {name} in Fortran order",
                "write the file from np.ascontiguousarray of them",
            )
            data = _read_exactly(file, math.prod(shape) * dtype.itemsize, name)
            array = np.frombuffer(data, dtype).reshape(shape, order="F")
        most = chunk_of(item)
        for start in range(0, n, most):
            count = min(most, n - start)
            if fortran_order:
                chunk = np.ascontiguousarray(array[start : start + count])
            else:
                size = count * math.prod(item) * dtype.itemsize
                chunk = np.frombuffer(_read_exactly(file, size, name), dtype)
            yield chunk.reshape(count, *item, *channels)


def _read_exactly(file: IO[bytes], size: int, name: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{name} is cut short")
    return data


def _read_labels(path: pathlib.Path, name: str) -> np.ndarray:
    """Return an array of labels, (n,) int64, none negative."""
    with _member(path, name) as (file, shape, _, dtype):
        is_column = len(shape) == 2 and shape[1] == 1
        if dtype.kind not in "iu" or not (len(shape) == 1 or is_column):
            raise ValueError(
                f"{name} is {dtype} of shape {shape}; expected whole numbers of "
                "shape (n,) or (n, 1)"
            )
        if not math.prod(shape):
            raise ValueError(f"{name} is empty")
        memory.check(
            math.prod(shape) * np.dtype(np.int64).itemsize,
            f"{shape[0]:,} labels of {name}",
            "take a part of them",
        )
        size = math.prod(shape) * dtype.itemsize
        labels = np.frombuffer(_read_exactly(file, size, name), dtype)
    labels = labels.astype(np.int64)
    bad = (labels < 0) | (labels >= MOST_CLASSES)
    _refuse_label(name, labels, bad, f"expected 0 to {MOST_CLASSES - 1}")
    return labels


def _refuse_label(name: str, labels: np.ndarray, bad: np.ndarray, why: str) -> None:
    if bad.any():
        index = bad.argmax()
        raise ValueError(f"{name}[{index}] is {labels[index]}; {why}")


def _class_names(path: pathlib.Path, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    if "class_names" not in _array_names(path):
        count = max(int(y.max()) for y in labels.values()) + 1
        return tuple(map(str, range(count)))
    with _member(path, "class_names") as (file, shape, _, dtype):
        if len(shape) != 1 or dtype.kind != "U":
            raise ValueError(
                f"class_names is {dtype} of shape {shape}; expected strings"
            )
        length = dtype.itemsize // np.dtype("U1").itemsize
        if shape[0] > MOST_CLASSES or length > _LONGEST_NAME:
            raise ValueError(
                f"class_names has {shape[0]:,} names of up to {length:,} characters; "
                f"expected {MOST_CLASSES:,} names of {_LONGEST_NAME} characters at most"
            )
        size = math.prod(shape) * dtype.itemsize
        names = np.frombuffer(_read_exactly(file, size, "class_names"), dtype)
    if len(set(names.tolist())) < len(names):
        raise ValueError("class_names has a name twice")
    for split, y in labels.items():
        why = f"class_names has {len(names)} names"
        _refuse_label(f"y_{split}", y, y >= len(names), why)
    return tuple(names.tolist())


def _check_images(path: pathlib.Path, name: str) -> None:
    """Refuse an array of images for what its header says, before it is read."""
    with _member(path, name) as (_, shape, _, dtype):
        fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        if not fits or 0 in shape[1:] or dtype.kind not in "uif":
            raise ValueError(
                f"{name} is {dtype} of shape {shape}; expected numbers of shape "
                "(n, height, width) or (n, height, width, 1 or 3)"
            )
        if shape[1] * shape[2] > MAX_PIXELS:
            raise ValueError(
                f"{name} has images of {shape[1]} x {shape[2]} pixels; the limit is "
                f"{MAX_PIXELS:,}"
            )


def _check_counts(path: pathlib.Path, images: str, labels: str) -> None:
    n_images, *_ = _array_shape(path, images)
    n_labels, *_ = _array_shape(path, labels) or (0,)
    if n_images != n_labels:
        raise ValueError(
            f"{images} has {n_images} images, {labels} has {n_labels} labels"
        )


def _scale(path: pathlib.Path, name: str, notes: list[str]) -> float:
    """Check the range of an array's pixels; return what makes it 0..255."""
    with _member(path, name) as (_, _, _, dtype):
        pass
    if dtype == np.uint8:
        return 1.0
    low, high = math.inf, -math.inf
    for chunk in _chunks(path, name):
        low, high = min(low, chunk.min()), max(high, chunk.max())
        if math.isnan(chunk.min()):
            raise ValueError(f"{name} has pixels that are not numbers (NaN)")
    most = 1 if dtype.kind == "f" else 255
    if low < 0 or high > most:
        raise ValueError(
            f"{name} is {dtype} from {low:g} to {high:g}; expected whole numbers from "
            "0 to 255 or floats from 0 to 1"
        )
    if dtype.kind == "f":
        notes.append(f"{name}: floats from {low:g} to {high:g}, times 255")
        return 255.0
    return 1.0


def _to_uint8(chunk: np.ndarray, scale: float) -> np.ndarray:
    if chunk.dtype.kind == "f":
        chunk = np.rint(chunk.astype(np.float64) * scale)
    return chunk.astype(np.uint8)
