"""What a Config names as its data set, or as images of no class -> its reader.

`digits` is embedded in scikit-learn; npz.py, folders.py, examples.py and records.py
read the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from kcnn import examples, folders, npz
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fingerprint import of_arrays
from kcnn.images import Shape, fit
from kcnn.records import open_records
from kcnn.sources import MOST_CLASSES, Origin, Pool, keep
from kcnn.spec import wanted_shape


def open_data_set(config: Config, shape: Shape | None) -> Origin:
    """Open a Config's data set; `shape` overrides its images' own.

    Raises UsageError if it cannot be had, or not with these flags; one line.
    """
    sources = (config.dataset, config.unknown, config.other)
    kinds = {_kind(spec) for spec in sources if spec}
    if config.strict and not kinds & {"folder", "examples"}:
        raise UsageError(
            "--strict changes nothing: it belongs to folder:DIR and examples:DIR"
        )
    if config.data_dir and kinds <= _OPENERS.keys():
        raise UsageError(
            f"--data_dir changes nothing for --dataset={config.dataset}: it belongs "
            "to the data sets of tensorflow-datasets"
        )
    origin = _opener(config, _OPENERS)(config, shape)
    count = len(origin.class_names)
    if not 2 <= count <= MOST_CLASSES:
        raise UsageError(
            f"--dataset: {config.dataset} has {count} "
            f"{'class' if count == 1 else 'classes'}; expected 2 to {MOST_CLASSES:,}"
        )
    return origin


def _open_digits(config: Config, shape: Shape | None) -> Origin:
    from sklearn.datasets import load_digits

    if config.dataset != "digits":
        raise UsageError(f"--dataset: got {config.dataset!r}, expected digits")
    if config.cache == "none":
        raise UsageError("--cache=none: digits is in memory; use memory or disk")
    digits = load_digits()
    shape = shape or wanted_shape(config, (28, 28, 1))
    origin = Origin(tuple(map(str, digits.target_names)), shape, {})
    if config.normalize_input == "none" and shape[:2] != (8, 8):
        origin.notes.append(f"digits: 8x8 images resized to {shape[0]}x{shape[1]}")

    def read() -> Pool:
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        fitted = fit(pixels, shape, config.normalize_input).numpy()
        images = keep([fitted], len(pixels), shape, config.cache)
        fingerprint = of_arrays(digits.images, digits.target)
        return Pool(images, digits.target.astype(np.int64), fingerprint)

    origin.splits["train"] = read
    return origin


# Other names are those of tensorflow-datasets.
_OPENERS: dict[str, Callable[[Config, Shape], Origin]] = {
    "digits": _open_digits,
    "npz": npz.open_npz,
    "folder": folders.open_folder,
    "examples": examples.open_examples,
}


def _kind(dataset: str) -> str:
    return dataset.partition(":")[0]


def _opener(config: Config, openers: Mapping[str, Callable]) -> Callable:
    """Return what opens a Config's dataset."""
    kind, _, place = config.dataset.partition(":")
    if kind in ("npz", "folder", "examples") and not place:
        raise UsageError(f"--dataset: got {config.dataset!r}, expected {kind}:PATH")
    return openers.get(kind, open_records)


def unlabeled_config(config: Config, dataset: str) -> Config:
    """Return what reads images of no class, beside those of the data set."""
    # What cannot be read again by index is kept; it is not --dataset's affair.
    again = _kind(dataset) not in ("digits", "npz", "examples")
    cache = config.cache if again or config.cache == "disk" else "memory"
    return dataclasses.replace(config, dataset=dataset, cache=cache, other="")


def open_unlabeled(source: Config, shape: Shape) -> Origin:
    """Open a Config's dataset as images of no class, to be read in a shape."""
    openers = _OPENERS | {
        "npz": npz.open_unlabeled,
        "folder": folders.open_unlabeled,
    }
    return _opener(source, openers)(source, shape)


@contextlib.contextmanager
def naming(flag: str) -> Iterator[None]:
    """Name a flag where the readers name the one that they are for else."""
    try:
        yield
    except UsageError as error:
        text = str(error).replace("--dataset", f"--{flag}")
        raise UsageError(text if f"--{flag}" in text else f"--{flag}: {text}") from None


def check_strict(origin: Origin, config: Config) -> None:
    """Raise UsageError if files were left out and --strict forbids it."""
    if not config.strict or not origin.skipped:
        return
    first = "; ".join(f"{name}: {reason}" for name, reason in origin.skipped[:3])
    more = "; ..." if len(origin.skipped) > 3 else ""
    raise UsageError(
        f"--strict: {len(origin.skipped)} files of {config.dataset} cannot be read: "
        f"{first}{more}"
    )
