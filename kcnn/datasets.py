"""The data set that a Config names -> its splits.

`digits` is embedded in scikit-learn; npz.py, folders.py, examples.py and records.py
read the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from kcnn import examples, folders, npz, splits
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.fingerprint import of_arrays
from kcnn.images import Shape, fit
from kcnn.records import open_records
from kcnn.sources import MOST_CLASSES, Origin, Pool, keep
from kcnn.spec import ImageSpec, wanted_shape
from kcnn.splits import Split

__all__ = ["Dataset", "Split", "TrainingData", "load", "load_split", "load_training"]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What training needs of a data set.

    Attributes:
        spec: shape of the images; class names, with --extra_class at the end.
        train: the training images.
        validation: set aside from them, or given, or None.
        skipped: name and reason of each file left out.
        notes: lines to show the user.
    """

    spec: ImageSpec
    train: Split
    validation: Split | None
    skipped: list[tuple[str, str]]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Dataset(TrainingData):
    """What a run needs of a data set: `test` is read once, at the end."""

    test: Split


def load(config: Config) -> Dataset:
    """Load all splits of a Config's data set.

    Raises:
        UsageError: the data set cannot be had, or not with these flags; one line.
    """
    training, test = _load(config, ("train", "validation", "test"))
    assert test is not None  # there always is one, given or set aside
    return Dataset(**vars(training), test=test)


def load_training(config: Config) -> TrainingData:
    """Load what a search may see: the splits that `load` returns, without the test.

    A test split of the data set's own is not even read. Raises what `load` raises.
    """
    return _load(config, ("train", "validation"))[0]


def _load(config: Config, wanted: tuple[str, ...]) -> tuple[TrainingData, Split | None]:
    origin = _open(config, None)
    default = KNOBS["test_fraction"].default
    if "test" in origin.splits and config.test_fraction != default:
        raise UsageError(
            f"--test_fraction changes nothing: {config.dataset} has a test split"
        )
    names = _with_extra_class(origin, config.extra_class)
    spec = ImageSpec(*origin.shape, names, config.normalize_input)
    parts = _read(origin, config, wanted)
    _check_strict(origin, config)
    training = TrainingData(
        spec,
        parts["train"],
        parts.get("validation"),
        origin.skipped,
        origin.notes + _notes(origin, config, parts),
    )
    return training, parts.get("test")


def load_training_images(config: Config) -> tuple[ImageSpec, Split]:
    """Load what `load` has as train, and leave a data set's other splits unread.

    Raises UsageError as for `load`.
    """
    training, _ = _load(config, ("train",))
    return training.spec, training.train


@dataclasses.dataclass(frozen=True)
class OneSplit:
    """One split, with the data set's own class names and the files left out of it."""

    split: Split
    class_names: tuple[str, ...]
    skipped: list[tuple[str, str]]


def load_split(config: Config, name: str, spec: ImageSpec) -> OneSplit:
    """Load one split for a model that exists already.

    Args:
        config: the data set; image_size, color_mode and extra_class are not read.
        name: train, validation or test, as `load` has it.
        spec: the model's; the images are given its shape. Its class names
            may differ from the data set's.

    Raises:
        UsageError: as for `load`; or there is no such split.
    """
    origin = _open(config, spec.shape)
    parts = _read(origin, config, (name,))
    _check_strict(origin, config)
    if name not in parts:
        raise UsageError(f"--dataset: {config.dataset} has no {name} split")
    return OneSplit(parts[name], origin.class_names, origin.skipped)


def load_unknown(config: Config, spec: ImageSpec) -> OneSplit | None:
    """Load the images of no class that --unknown names; None where it names none.

    They are the data set's test images, or all where it has no test split; of a folder
    all images in it, however nested.

    Args:
        config: unknown, data_dir, strict and cache are read.
        spec: the model's; the images are given its shape.

    Raises:
        UsageError: they cannot be had; one line.
    """
    if not config.unknown:
        return None
    # What cannot be read again by index is kept; it is not --dataset's affair.
    again = _kind(config.unknown) not in ("digits", "npz", "examples")
    cache = config.cache if again or config.cache == "disk" else "memory"
    source = dataclasses.replace(config, dataset=config.unknown, cache=cache)
    openers = _OPENERS | {
        "npz": npz.open_unlabeled,
        "folder": folders.open_unlabeled,
    }
    try:
        origin = _opener(source, openers)(source, spec.shape)
        read = origin.splits.get("test") or origin.splits["train"]
        split = splits.split_of(read())
        _check_strict(origin, source)
        if not len(split):
            raise UsageError(f"--dataset: {config.unknown} holds no image")
    except UsageError as error:  # the readers name the flag that they are for else
        raise UsageError(str(error).replace("--dataset", "--unknown")) from None
    return OneSplit(split, origin.class_names, origin.skipped)


def in_classes_of(spec: ImageSpec, loaded: OneSplit) -> Split:
    """Return a split with the labels of a model, its classes mapped by their names.

    The model may have more classes, and in another order. Raises UsageError for a
    class that it has not.
    """
    unknown = [name for name in loaded.class_names if name not in spec.class_names]
    if unknown:
        raise UsageError(
            f"--dataset: the model knows no {_some(tuple(unknown))}; its classes are "
            f"{_some(spec.class_names)}"
        )
    numbers = np.array([spec.class_names.index(n) for n in loaded.class_names])
    return dataclasses.replace(loaded.split, labels=numbers[loaded.split.labels])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names)})" if len(names) > 5 else "")


def _open(config: Config, shape: Shape | None) -> Origin:
    kinds = {_kind(spec) for spec in (config.dataset, config.unknown) if spec}
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


def _with_extra_class(origin: Origin, extra: str) -> tuple[str, ...]:
    if not extra:
        return origin.class_names
    if extra in origin.class_names:
        raise UsageError(f"--extra_class: the data set has a class {extra!r} already")
    return (*origin.class_names, extra)


def _read(origin: Origin, config: Config, names: Iterable[str]) -> dict[str, Split]:
    """Read the splits named, as far as there are any, and nothing else."""
    wanted = set(names)
    if config.validation_fraction == 0:
        wanted.discard("validation")
    given = wanted & origin.splits.keys() - {"train"}
    parts = {name: splits.split_of(origin.splits[name]()) for name in given}
    if wanted == given:
        return parts
    if "train" not in origin.splits:
        raise UsageError(
            f"--dataset: {config.dataset} has no train split, only "
            f"{', '.join(sorted(origin.splits))}"
        )
    pool = origin.splits["train"]()
    for name, indices in _share(pool, origin, config).items():
        if name in wanted:
            parts[name] = splits.split_of(pool, indices)
    return parts


def _share(pool: Pool, origin: Origin, config: Config) -> dict[str, np.ndarray]:
    """Divide the training images among train and the splits that are not given."""
    labels, contents = pool.labels, pool.contents
    shares = {}
    rest = np.arange(len(labels))
    if "test" not in origin.splits:
        rest, shares["test"] = splits.carve_test(labels, config.test_fraction, contents)
    if "validation" not in origin.splits and config.validation_fraction:
        stay, aside = splits.carve_validation(
            labels[rest],
            config.validation_fraction,
            config.random_seed,
            None if contents is None else contents[rest],
        )
        rest, shares["validation"] = rest[stay], rest[aside]
    subset = splits.take_subset(labels[rest], config.train_size, config.random_seed)
    shares["train"] = rest[subset]
    return shares


def _check_strict(origin: Origin, config: Config) -> None:
    if not config.strict or not origin.skipped:
        return
    first = "; ".join(f"{name}: {reason}" for name, reason in origin.skipped[:3])
    more = "; ..." if len(origin.skipped) > 3 else ""
    raise UsageError(
        f"--strict: {len(origin.skipped)} files of {config.dataset} cannot be read: "
        f"{first}{more}"
    )


def _notes(origin: Origin, config: Config, parts: dict[str, Split]) -> list[str]:
    """Return what the user should know of the division."""
    notes = []
    if "test" not in origin.splits:
        how = "the same one for every seed"
        if config.dataset.startswith("folder:"):
            how += "; files are chosen by their content, whatever is added later"
        notes.append(
            f"no test split: {config.test_fraction:.0%} of the images, stratified, are "
            f"the test set, {how}"
        )
    if "validation" in origin.splits and "validation" in parts:
        notes.append(
            "validation: the data set's own split; --validation_fraction is not used"
        )
    present = np.unique(parts["train"].labels)
    missing = [n for i, n in enumerate(origin.class_names) if i not in present]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"no training image of {len(missing)} of the classes: {some}")
    return notes
