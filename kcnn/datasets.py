"""The data set that a Config names -> its splits, with the images of --other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from kcnn import splits
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.images import Shape
from kcnn.origins import (
    check_strict,
    naming,
    open_data_set,
    open_unlabeled,
    unlabeled_config,
)
from kcnn.sources import Origin, Pool
from kcnn.spec import ImageSpec
from kcnn.splits import Split

__all__ = ["Dataset", "Split", "TrainingData", "load", "load_split", "load_training"]

# The class of the images of --other.
OTHER = "other"


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What training needs of a data set.

    Attributes:
        spec: shape of the images; class names, with those of --other and --extra_class
            at the end.
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
    opened = _Opened.of(config, None)
    origin = opened.known
    default = KNOBS["test_fraction"].default
    if not opened.carves("test") and config.test_fraction != default:
        raise UsageError(
            f"--test_fraction changes nothing: {config.dataset} has a test split"
        )
    names = _with_extra_class(opened.class_names, config.extra_class)
    spec = ImageSpec(*origin.shape, names, config.normalize_input)
    parts = opened.read(config, wanted)
    training = TrainingData(
        spec,
        parts["train"],
        parts.get("validation"),
        opened.skipped,
        opened.notes + _notes(opened, config, parts),
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
        config: the data set, and --other; image_size, color_mode and extra_class are
            not read.
        name: train, validation or test, as `load` has it.
        spec: the model's; the images are given its shape. Its class names
            may differ from the data set's.

    Raises:
        UsageError: as for `load`; or there is no such split.
    """
    if config.other and OTHER not in spec.class_names:
        raise UsageError(
            f"--other: the model has no class {OTHER!r}; its classes are "
            f"{_some(spec.class_names)}"
        )
    opened = _Opened.of(config, spec.shape)
    parts = opened.read(config, (name,))
    if name not in parts:
        raise UsageError(f"--dataset: {config.dataset} has no {name} split")
    return OneSplit(parts[name], opened.class_names, opened.skipped)


def other_class(config: Config, spec: ImageSpec) -> int | None:
    """Return which class is that of --other; None without it."""
    return spec.class_names.index(OTHER) if config.other else None


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
    source = unlabeled_config(config, config.unknown)
    with naming("unknown"):
        origin = open_unlabeled(source, spec.shape)
        read = origin.splits.get("test") or origin.splits["train"]
        split = splits.split_of(read())
        check_strict(origin, source)
        if not len(split):
            raise UsageError(f"--dataset: {config.unknown} holds no image")
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


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A data set, and the images of --other if there are any."""

    known: Origin
    other: Origin | None

    @classmethod
    def of(cls, config: Config, shape: Shape | None) -> _Opened:
        known = open_data_set(config, shape)
        if not config.other:
            return cls(known, None)
        if OTHER in known.class_names:
            raise UsageError(f"--other: {config.dataset} has a class {OTHER!r} already")
        with naming("other"):
            source = unlabeled_config(config, config.other)
            other = open_unlabeled(source, known.shape)
        if "train" not in other.splits:  # not divided: images are images
            other.splits["train"] = other.splits.pop("test")
        return cls(known, other)

    @property
    def class_names(self) -> tuple[str, ...]:
        return (*self.known.class_names, *([OTHER] if self.other else []))

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return self.known.skipped + (self.other.skipped if self.other else [])

    @property
    def notes(self) -> list[str]:
        return self.known.notes + (self.other.notes if self.other else [])

    def carves(self, split: str) -> bool:
        """Tell whether a split is set aside from training images."""
        return any(split not in o.splits for o in (self.known, self.other) if o)

    def read(self, config: Config, names: Iterable[str]) -> dict[str, Split]:
        """Read the splits named, as far as there are any, and nothing else."""
        parts = _read(self.known, config, names)
        check_strict(self.known, config)
        if self.other:
            source = unlabeled_config(config, config.other)
            with naming("other"):
                others = _read(self.other, source, parts)
                check_strict(self.other, source)
                if not all(map(len, others.values())):
                    raise UsageError(f"--dataset: {config.other} holds no image")
            label = len(self.known.class_names)
            parts = {
                name: splits.with_class(part, others[name], label, config.other)
                for name, part in parts.items()
            }
        if "train" in parts:
            size, seed = config.train_size, config.random_seed
            parts["train"] = splits.subset_of(parts["train"], size, seed)
        return parts


def _with_extra_class(class_names: tuple[str, ...], extra: str) -> tuple[str, ...]:
    if not extra:
        return class_names
    if extra in class_names:
        raise UsageError(f"--extra_class: the data set has a class {extra!r} already")
    return (*class_names, extra)


def _read(origin: Origin, config: Config, names: Iterable[str]) -> dict[str, Split]:
    """Read the splits named, as far as there are any; train before --train_size."""
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
    shares["train"] = rest
    return shares


def _notes(opened: _Opened, config: Config, parts: dict[str, Split]) -> list[str]:
    """Return what the user should know of the division."""
    origin, notes = opened.known, []
    if "test" not in origin.splits:
        how = "the same one for every seed"
        if config.dataset.startswith("folder:"):
            how += "; files are chosen by their content, whatever is added later"
        notes.append(
            f"no test split: {config.test_fraction:.0%} of the images, stratified, are "
            f"the test set, {how}"
        )
    if "validation" in parts and not opened.carves("validation"):
        notes.append(
            "validation: the data set's own split; --validation_fraction is not used"
        )
    if opened.other:
        label = len(origin.class_names)
        counts = (f"{(p.labels == label).sum():,} {name}" for name, p in parts.items())
        notes.append(f"class {OTHER!r}: {config.other}: {', '.join(sorted(counts))}")
    present = np.unique(parts["train"].labels)
    missing = [n for i, n in enumerate(opened.class_names) if i not in present]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"no training image of {len(missing)} of the classes: {some}")
    return notes
