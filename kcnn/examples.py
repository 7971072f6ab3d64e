"""examples:DIR, tf.Examples in TFRecord files, gzipped or not -> splits.

They lie in DIR/Split-train, DIR/Split-eval and so on, as TFX's ExampleGen and
`kcnn data export-examples` write them, or where patterns say. Paths may be of any file
system that TensorFlow knows. Every record is read once before training starts; one
whose image cannot be decoded is named and skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn import images
from kcnn.config import Config
from kcnn.decoding import as_it_is
from kcnn.errors import UsageError
from kcnn.folders import GREY_MODES
from kcnn.image_feature import ImageFeature
from kcnn.images import Shape, reason
from kcnn.knobs import did_you_mean
from kcnn.sources import (
    CHUNK,
    MIXED_SIZE,
    MOST_CLASSES,
    Origin,
    Pool,
    decodable,
    keep,
    mixed_sizes_note,
)
from kcnn.spec import wanted_shape

PREFIX = "examples:"

# Folders below DIR -> kcnn's split. Split-eval holds the test images where there are no
# others: what is called so in TFX is what a model is judged by in the end.
_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "eval": "validation",
    "test": "test",
}
_OPTIONS = ("image", "label", "shape", "classes")
_SAFE = "/:,*[]?~ "  # need not be quoted


@dataclasses.dataclass(frozen=True)
class Place:
    """What stands behind `examples:`, read and written.

    Attributes:
        patterns: train, validation, test -> patterns of file names.
        folder: the folder that was named instead of them, or "".
        image: name of the feature with the image.
        label: name of the feature with the label: an int64, or the class's name. For an
            int64 the feature LABEL_name may hold the name.
        shape: height, width and channels of raw bytes and floats, or ().
        classes: the class names, where they are known, or ().
    """

    patterns: dict[str, tuple[str, ...]]
    folder: str = ""
    image: str = "image"
    label: str = "label"
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read DIR or train=PATTERN&test=PATTERN, and &OPTION=VALUE after it.

        Raises UsageError if it is wrong, or DIR holds no such splits.
        """
        first, *rest = text.split("&")
        folder = "" if _is_pair(first) else os.path.expanduser(_unquoted(first))
        patterns: dict[str, tuple[str, ...]] = {}
        options: dict[str, Any] = {}
        for part in rest if folder else [first, *rest]:
            name, _, value = part.partition("=")
            if name in ("train", "validation", "test") and not folder:
                patterns[name] = (*patterns.get(name, ()), _unquoted(value))
            elif name in _OPTIONS and value:
                options[name] = value
            else:
                known = _OPTIONS if folder else ("train", "validation", "test")
                raise UsageError(
                    f"--dataset: got {part!r} in {PREFIX}..., expected OPTION=VALUE "
                    f"with one of {', '.join(dict.fromkeys((*known, *_OPTIONS)))}"
                    f"{did_you_mean(name, (*known, *_OPTIONS))}"
                )
        for name in ("image", "label"):
            if name in options:
                options[name] = _unquoted(options[name])
        if "shape" in options:
            options["shape"] = _shape_of(options["shape"])
        if "classes" in options:
            options["classes"] = tuple(map(_unquoted, options["classes"].split(",")))
        if folder:
            patterns = _splits_in(folder)
        return cls(patterns, folder, **options)

    def __str__(self) -> str:
        parts = [_quoted(self.folder)] if self.folder else []
        if not self.folder:
            for split, patterns in self.patterns.items():
                parts += [f"{split}={_quoted(pattern)}" for pattern in patterns]
        for name in ("image", "label"):
            if getattr(self, name) != name:
                parts.append(f"{name}={_quoted(getattr(self, name))}")
        if self.shape:
            parts.append(f"shape={','.join(map(str, self.shape))}")
        if self.classes:
            names = (urllib.parse.quote(name, safe=" ") for name in self.classes)
            parts.append(f"classes={','.join(names)}")
        return PREFIX + "&".join(parts)


def _is_pair(text: str) -> bool:
    return text.partition("=")[0] in ("train", "validation", "test") and "=" in text


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe=_SAFE)


_unquoted = urllib.parse.unquote


def _shape_of(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if all(n.isdecimal() and int(n) for n in numbers) and len(numbers) == 3:
        shape = tuple(map(int, numbers))
        if shape[2] in (1, 3) and shape[0] * shape[1] <= images.MAX_PIXELS:
            return shape
    raise UsageError(
        f"--dataset: got shape={text} in {PREFIX}..., expected HEIGHT,WIDTH,CHANNELS "
        "with 1 or 3 channels"
    )


def _splits_in(folder: str) -> dict[str, tuple[str, ...]]:
    """Return the patterns of the files below DIR/Split-NAME."""
    if not tf.io.gfile.isdir(folder):
        raise UsageError(f"--dataset: {folder}: no such folder")
    found = {
        name: f"{folder}/Split-{name}/*"
        for name in _FOLDERS
        if tf.io.gfile.isdir(f"{folder}/Split-{name}")
    }
    splits: dict[str, tuple[str, ...]] = {}
    for name, pattern in found.items():
        split = _FOLDERS[name]
        splits[split] = (*splits.get(split, ()), pattern)
    if "validation" in splits and "test" not in splits:
        splits["test"] = splits.pop("validation")
    if "train" not in splits:
        raise UsageError(
            f"--dataset: {folder}: no folder Split-train in it; expected TFRecord "
            f"files in {', '.join(f'Split-{name}' for name in _FOLDERS)}"
        )
    return splits


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the features of a record are parsed."""

    image: ImageFeature
    label: str
    named: bool  # the label is the class's name
    name: str  # the feature that has it besides, or ""

    @property
    def parsers(self) -> dict[str, tf.io.FixedLenFeature]:
        kind = tf.string if self.named else tf.int64
        parsers = {
            self.image.key: self.image.parser,
            self.label: tf.io.FixedLenFeature([], kind),
        }
        if self.name:
            parsers[self.name] = tf.io.FixedLenFeature([], tf.string, "")
        return parsers


@dataclasses.dataclass(frozen=True)
class _Survey:
    """What one reading of a split's records found, without the pixels.

    Attributes:
        labels: (n,) int64, or bytes where the labels are names.
        names: (n,) bytes, the classes' names besides; empty where there are none.
        sizes: (height, width, channels) of the images, each once.
        bad: index of a record -> why its image is not decoded.
        fingerprint: of all records in their order.
    """

    labels: np.ndarray
    names: np.ndarray
    sizes: set[tuple[int, int, int]]
    bad: dict[int, str]
    fingerprint: str


def open_examples(config: Config, shape: Shape | None) -> Origin:
    """Open the records of a Config's dataset; `shape` overrides their images' own."""
    if config.cache == "none":
        raise UsageError(
            "--cache=none: gzipped records cannot be read again by index; "
            "--cache=memory and --cache=disk work"
        )
    place = Place.parse(config.dataset.removeprefix(PREFIX))
    files = {split: _files(patterns) for split, patterns in place.patterns.items()}
    first = "train" if "train" in files else next(iter(files))
    layout = _layout(place, files[first])
    survey = _survey(files[first], layout)
    class_names = place.classes or _class_names(survey)
    notes = []
    if shape is None:
        natural, mixed = _natural_shape(survey, layout.image)
        notes += mixed_sizes_note(config, shape) if mixed else []
        shape = wanted_shape(config, natural)
    origin = Origin(class_names, shape, {}, notes)
    for split, own in files.items():
        known = survey if split == first else None
        origin.splits[split] = functools.partial(
            _read, config, origin, own, layout, known
        )
    return origin


def image_feature(place: Place) -> ImageFeature:
    """Return how the records of a place hold their images."""
    return _layout(place, _files(next(iter(place.patterns.values())))).image


def _files(patterns: Sequence[str]) -> list[str]:
    try:
        found = {file for pattern in patterns for file in tf.io.gfile.glob(pattern)}
    except tf.errors.OpError as error:
        raise UsageError(f"--dataset: {patterns[0]}: {reason(error)}") from None
    files = sorted(file for file in found if not tf.io.gfile.isdir(file))
    if not files:
        raise UsageError(f"--dataset: no file is named {' or '.join(patterns)}")
    return files


def _records(files: Sequence[str]) -> tf.data.Dataset:
    """Return the serialized records of all files, in order."""
    kinds = []
    for file in files:
        with tf.io.gfile.GFile(file, "rb") as opened:
            kinds.append("GZIP" if opened.read(2) == b"\x1f\x8b" else "")
    paths = tf.data.Dataset.from_tensor_slices((list(files), kinds))
    return paths.flat_map(
        as_it_is(
            lambda file, kind: tf.data.TFRecordDataset(file, compression_type=kind)
        )
    )


def _layout(place: Place, files: Sequence[str]) -> _Layout:
    """Look at the first record."""
    where = files[0]
    try:
        record = next(iter(_records(files).as_numpy_iterator()))
    except StopIteration:
        raise UsageError(f"--dataset: {where}: there is no record in it") from None
    except tf.errors.OpError as error:
        raise UsageError(f"--dataset: {where}: no TFRecords: {reason(error)}") from None
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception:  # DecodeError has no public name
        raise UsageError(
            f"--dataset: {where}: its records are no tf.Examples"
        ) from None
    kinds = {name: features[name].WhichOneof("kind") for name in sorted(features)}
    for option in ("image", "label"):
        key = getattr(place, option)
        if not kinds.get(key):
            found = ", ".join(kinds) or "none"
            raise UsageError(
                f"--dataset: {where}: no feature {key!r}; there are: {found} "
                f"({option}=NAME says which one it is)"
            )
    if kinds[place.label] == "float_list":
        raise UsageError(
            f"--dataset: {where}: the label {place.label!r} holds floats; expected an "
            "int64 or the name of a class"
        )
    name = f"{place.label}_name"
    named = kinds[place.label] == "bytes_list"
    return _Layout(
        _image_feature(place, where, features[place.image]),
        place.label,
        named,
        name if not named and kinds.get(name) == "bytes_list" else "",
    )


def _image_feature(place: Place, where: str, feature: Any) -> ImageFeature:
    kind = feature.WhichOneof("kind")
    key, shape = place.image, place.shape
    if kind == "bytes_list":
        value = feature.bytes_list.value[0]
        size = int(np.prod(shape)) if shape else None
        if len(value) != size:
            return ImageFeature(key)
        return ImageFeature(key, "raw", (shape[0], shape[1], shape[2]))
    if kind == "float_list" and shape:
        return ImageFeature(key, "floats", (shape[0], shape[1], shape[2]))
    if kind == "float_list":
        raise UsageError(
            f"--dataset: {where}: the image {key!r} is {len(feature.float_list.value)} "
            "floats; say of what shape: shape=HEIGHT,WIDTH,CHANNELS"
        )
    raise UsageError(
        f"--dataset: {where}: the image {key!r} holds whole numbers; expected an "
        "encoded file, bytes, or floats from 0 to 1"
    )


def _survey(files: Sequence[str], layout: _Layout) -> _Survey:
    """Read all records and the headers of their images."""
    digest = hashlib.sha256()
    labels, names = [], []
    sizes: set[tuple[int, int, int]] = set()
    bad: dict[int, str] = {}
    start = 0
    batches = _records(files).batch(CHUNK)
    parsed = batches.map(
        as_it_is(lambda r: (r, tf.io.parse_example(r, layout.parsers)))
    )
    try:
        for records, found in parsed.prefetch(2).as_numpy_iterator():
            for record in records:
                digest.update(len(record).to_bytes(8, "little") + record)
            labels.append(found[layout.label])
            names.append(found.get(layout.name, np.empty(0, object)))
            values = found[layout.image.key]
            if layout.image.kind == "floats":
                _check_range(values, layout.image.key)
            elif layout.image.kind == "encoded":
                for index, value in enumerate(values, start):
                    _look_at(index, value, sizes, bad)
            start += len(records)
    except tf.errors.OpError as error:
        raise UsageError(
            f"--dataset: {_common(files)}: cannot be read: {reason(error)}"
        ) from None
    if layout.image.shape:
        sizes = {layout.image.shape}
    all_labels = np.concatenate(labels)
    if not layout.named:
        _check_labels(all_labels, layout.label)
    return _Survey(all_labels, np.concatenate(names), sizes, bad, digest.hexdigest())


def _look_at(
    index: int, value: bytes, sizes: set[tuple[int, int, int]], bad: dict[int, str]
) -> None:
    try:
        header = images.check_header(value)
    except ValueError as error:
        bad[index] = str(error)
    else:
        channels = 1 if header.mode in GREY_MODES else 3
        sizes.add((header.height, header.width, channels))


def _check_range(values: np.ndarray, key: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise UsageError(
            f"--dataset: the image {key!r} has floats from {low:g} to {high:g}; "
            "expected 0 to 1"
        )


def _check_labels(labels: np.ndarray, key: str) -> None:
    bad = (labels < 0) | (labels >= MOST_CLASSES)
    if bad.any():
        raise UsageError(
            f"--dataset: the label {key!r} is {labels[bad][0]} in record "
            f"{bad.argmax()}; expected 0 to {MOST_CLASSES - 1}"
        )


def _common(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{os.path.dirname(files[0])}/*"


def _class_names(survey: _Survey) -> tuple[str, ...]:
    if survey.labels.dtype.kind not in "iu":
        return tuple(name.decode() for name in sorted(set(survey.labels.tolist())))
    count = int(survey.labels.max()) + 1
    names = list(map(str, range(count)))
    if len(survey.names):
        pairs = sorted(set(zip(survey.labels.tolist(), survey.names, strict=True)))
        for (label, name), (following, other) in itertools.pairwise(pairs):
            if label == following:
                raise UsageError(
                    f"--dataset: the label {label} has two names: {name.decode()!r} "
                    f"and {other.decode()!r}"
                )
        for label, name in pairs:
            names[label] = name.decode() or names[label]
    if len(set(names)) < len(names):
        raise UsageError("--dataset: two labels have one name")
    return tuple(names)


def _natural_shape(survey: _Survey, feature: ImageFeature) -> tuple[Shape, bool]:
    """Return the images' common shape, and whether their sizes differ."""
    if feature.shape:
        return feature.shape, False
    sizes = {(height, width) for height, width, _ in survey.sizes}
    grey = all(channels == 1 for *_, channels in survey.sizes)
    mixed = len(sizes) != 1
    height, width = (MIXED_SIZE, MIXED_SIZE) if mixed else sizes.pop()
    return (height, width, 1 if grey else 3), mixed


def _read(
    config: Config,
    origin: Origin,
    files: Sequence[str],
    layout: _Layout,
    survey: _Survey | None,
) -> Pool:
    """Read the images of a split; those that cannot be decoded are left out."""
    survey = survey or _survey(files, layout)
    labels = _numbers(survey.labels, origin.class_names, layout.label)
    good: list[np.ndarray] = []
    batches = _decoded(config, origin.shape, files, layout, survey, good)
    kept = keep(batches, len(labels), origin.shape, config.cache)
    indices = np.concatenate([np.empty(0, np.int64), *good])
    left_out = np.setdiff1d(np.arange(len(labels)), indices)
    for i in left_out:
        why = survey.bad.get(int(i), "its image cannot be decoded")
        origin.skipped.append((f"{_common(files)} record {i}", why))
    if not len(indices):
        raise UsageError(f"--dataset: {_common(files)}: no image can be decoded")
    return Pool(kept, labels[indices], survey.fingerprint)


def _numbers(labels: np.ndarray, names: Sequence[str], key: str) -> np.ndarray:
    """Return (n,) int64 labels, names as their numbers."""
    if labels.dtype.kind in "iu":
        if labels.max() >= len(names):
            raise UsageError(
                f"--dataset: the label {key!r} is {labels.max()}; there are "
                f"{len(names)} classes (classes=NAME,NAME... says which)"
            )
        return labels
    numbers = {name.encode(): number for number, name in enumerate(names)}
    for label in labels:
        if label not in numbers:
            raise UsageError(
                f"--dataset: the label {key!r} is {label.decode(errors='replace')!r}; "
                f"the classes are {', '.join(names)}"
            )
    return np.array([numbers[label] for label in labels], np.int64)


def _decoded(
    config: Config,
    shape: Shape,
    files: Sequence[str],
    layout: _Layout,
    survey: _Survey,
    good: list[np.ndarray],
) -> Iterator[np.ndarray]:
    """Decode the images of sound records; see `kcnn.sources.decodable`."""
    sound = np.ones(len(survey.labels), bool)
    sound[list(survey.bad)] = False
    mask = tf.constant(sound)
    feature = layout.image

    def decode(i: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(record, {feature.key: feature.parser})
        return i, feature.decode(parsed[feature.key], shape, config.normalize_input)

    # The survey has read every record: what fails now is an image.
    read = (
        _records(files)
        .enumerate()
        .filter(as_it_is(lambda i, record: tf.gather(mask, i)))
        .map(as_it_is(decode), tf.data.AUTOTUNE, deterministic=True)
    )
    return decodable(read, shape, good)
