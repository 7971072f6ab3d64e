"""A trained model -> a SavedModel that plain TensorFlow and TF Serving load.

The layout is BASE/NAME/VERSION/saved_model.pb. Preprocessing, image decoding and
the class names are inside; neither Keras nor kcnn is needed to load it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from kcnn import images as image_ops
from kcnn.confidence import ENERGY, MAX_PROBABILITY, PLAIN, Judged, Rule
from kcnn.decoding import as_it_is, batch_decoder
from kcnn.errors import RunError
from kcnn.files import flush, flush_tree
from kcnn.image_feature import ImageFeature
from kcnn.spec import ImageSpec
from kcnn.transform_graph import TransformedFeature

# Where TF Serving's conventions put what belongs to a model but is not its graph.
CARD = pathlib.Path("assets.extra") / "kcnn.json"

_ASIDE = ".writing-"

# Logits of the export may differ from the model's by float32's rounding only.
TOLERANCE = 1e-4

_NORMALIZED = 32  # images that are checked of a model that normalizes them

_TOP = 5  # classes that `classify` gives, if there are so many


class ExampleReader(Protocol):
    """How the images in serialized tf.Examples are read; see ImageFeature."""

    def images(self, examples: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
        """Turn (n,) string into (n, height, width, channels) uint8."""

    def example(self, image: np.ndarray) -> bytes:
        """Return a serialized tf.Example with one image."""


def export_model(
    model: keras.Model,
    spec: ImageSpec,
    base: pathlib.Path,
    card: dict[str, Any],
    images: np.ndarray,
    rule: Rule = PLAIN,
    beside: Mapping[str, bytes] | None = None,
    reader: ExampleReader | None = None,
) -> dict[str, Any]:
    """Write BASE/VERSION/ with the next free version number, whole or not at all.

    Before it gets its name it is loaded again and compared with the model.

    Args:
        model: uint8 images in, float32 logits out, without augmentation.
        spec: the images' shape and the class names.
        base: the folder of this model's versions.
        card: what to keep beside the graph, in assets.extra/kcnn.json.
        images: (n, height, width, channels) uint8 real images to compare on.
        rule: the temperature of the probabilities, and which images are accepted.
        beside: further files of assets.extra: name -> contents.
        reader: what `serving_default` reads tf.Examples by, as TFX wants it to; the
            images are taken by `serving_images` then. None: as below.

    Returns:
        path, signatures, checked_images and largest_difference of a probability. The
        signatures:

        serving_default: `images` (n, height, width, channels) uint8; of any height
            and width where the model normalizes its input;
        serving_bytes: `contents` (n,) string, encoded PNG, JPEG, GIF or BMP files of
            any size;
        serving_examples: `examples` (n,) string, serialized tf.Examples with the
            encoded file in the feature `image`.

        classify: `inputs` (n,) string, as `serving_examples`, for TensorFlow Serving's
            method of that name; gives the most probable 5 classes, `classes` (n, 5)
            string and their probabilities `scores` (n, 5) float32.
        preprocess: `contents` as above; gives `images`, (n, height, width, channels)
            uint8, what the network is shown of them.

        The others give `probabilities` (n, classes) float32, `classes` (n,) int64 and
        `labels` (n,) string; where the rule rejects images also `accepted` (n,) bool
        and `score` (n,) float32, by which they are.

    Raises:
        RunError: it could not be written, or an output differs from the model's.
    """
    base.mkdir(parents=True, exist_ok=True)
    with folder_aside(base) as folder:
        target = folder / "model"
        try:
            _archive(model, spec, rule, reader).write_out(str(target), verbose=False)
        except tf.errors.OpError as error:  # a full disk, to TensorFlow
            raise RunError(f"{base}: could not be written: {error.message}") from None
        (target / CARD).parent.mkdir()
        (target / CARD).write_text(json.dumps(card, indent=2) + "\n")
        for name, contents in (beside or {}).items():
            (target / CARD).with_name(name).write_bytes(contents)
        found = check_export(target, model, spec, images, rule, reader)
        return {"path": str(move_to_next_version(target, base)), **found}


@contextlib.contextmanager
def folder_aside(base: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a folder to write in, and take away those of exporters that were killed."""
    with _locked(base):
        _remove_left_ones(base)
        folder = pathlib.Path(tempfile.mkdtemp(dir=base, prefix=_ASIDE))
        lock = contextlib.ExitStack()
        lock.enter_context(_locked(folder))
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def remove_unfinished(base: pathlib.Path) -> None:
    """Take away the folders that exporters of a model left when they were killed."""
    with _locked(base):
        _remove_left_ones(base)


def _remove_left_ones(base: pathlib.Path) -> None:
    """Remove folders that are locked by nobody: a living exporter holds its own."""
    for left in base.glob(f"{_ASIDE}*"):
        with contextlib.suppress(BlockingIOError), _locked(left, fcntl.LOCK_NB):
            shutil.rmtree(left)


@contextlib.contextmanager
def _locked(folder: pathlib.Path, how: int = 0) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)


def export_of(base: pathlib.Path, run_id: str) -> pathlib.Path | None:
    """Return the newest version that a run exported, None where there is none."""
    for version in reversed(versions_of(base)):
        path = base / str(version)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads((path / CARD).read_text()).get("run_id") == run_id:
                return path
    return None


def _archive(
    model: keras.Model, spec: ImageSpec, rule: Rule, reader: ExampleReader | None
) -> keras.export.ExportArchive:
    names = tf.constant(spec.class_names)
    read = reader or ImageFeature()

    # Functions of TensorFlow's own are kept once, however many signatures call them.
    # None is for AutoGraph to rewrite, which would take longer than the rest.
    by_shape = [tf.TensorSpec([None, *spec.shape], tf.uint8)]

    @tf.function(input_signature=by_shape, autograph=False)
    def outputs(images):
        found = answers(model, images, rule)
        return {**found, "labels": tf.gather(names, found["classes"])}

    decode = batch_decoder(spec.shape, spec.normalize_input)

    def from_images(images):
        return outputs(image_ops.fit(images, spec.shape, spec.normalize_input))

    def from_examples(examples):
        return outputs(read.images(examples, spec))

    def classify(inputs):
        probabilities = from_examples(inputs)["probabilities"]
        scores, classes = tf.math.top_k(probabilities, min(_TOP, spec.num_classes))
        return {"classes": tf.gather(names, classes), "scores": scores}

    archive = keras.export.ExportArchive()

    def add(name: str, function: Callable, taken: tf.TensorSpec) -> None:
        archive.add_endpoint(name, as_it_is(function), [taken])

    if isinstance(reader, TransformedFeature):
        archive.track(reader.resource)
    size = spec.shape[:2] if spec.normalize_input == "none" else (None, None)
    images = tf.TensorSpec([None, *size, spec.channels], tf.uint8, name="images")
    add(image_signature(reader), from_images, images)
    contents = tf.TensorSpec([None], tf.string, name="contents")
    add("serving_bytes", lambda c: outputs(decode(c)), contents)
    examples = tf.TensorSpec([None], tf.string, name="examples")
    add("serving_examples", from_examples, examples)
    if reader:
        add("serving_default", from_examples, examples)
    inputs = tf.TensorSpec([None], tf.string, name="inputs")
    add("classify", classify, inputs)
    add("preprocess", lambda c: {"images": decode(c)}, contents)
    return archive


def image_signature(reader: ExampleReader | None) -> str:
    """Return which signature takes images, by the reader of `export_model`."""
    return "serving_images" if reader else "serving_default"


def answers(model: keras.Model, images: tf.Tensor, rule: Rule) -> dict[str, tf.Tensor]:
    """Return what every signature gives of uint8 images, but for the labels."""
    logits = model(images, training=False)
    if rule.temperature != 1:
        logits = logits / rule.temperature
    probabilities = tf.nn.softmax(logits)
    found = {
        "probabilities": probabilities,
        "classes": tf.argmax(probabilities, -1),
    }
    if rule.threshold is not None:
        found["score"] = _SCORES[rule.score](logits, rule.temperature)
        found["accepted"] = found["score"] >= rule.threshold
    return found


def _log_max_probability(scaled: tf.Tensor, temperature: float) -> tf.Tensor:
    predicted = tf.one_hot(tf.argmax(scaled, -1), scaled.shape[-1], True, False)
    others = tf.where(predicted, -np.inf, scaled)
    odds_against = tf.reduce_logsumexp(others, -1) - tf.reduce_max(scaled, -1)
    return -tf.nn.softplus(odds_against)


def _energy(scaled: tf.Tensor, temperature: float) -> tf.Tensor:
    return temperature * tf.reduce_logsumexp(scaled, -1)


# As kcnn.confidence.scores_of has them, of logits over the temperature.
_SCORES = {MAX_PROBABILITY: _log_max_probability, ENERGY: _energy}


def versions_of(base: pathlib.Path) -> list[int]:
    """Return the version numbers under a model's folder, ascending."""
    if not base.is_dir():
        return []
    return sorted(int(p.name) for p in base.iterdir() if p.name.isdecimal())


def move_to_next_version(source: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Rename a folder to BASE/VERSION, the next number that is free; return that.

    All in it is on the disk before it gets its name.
    """
    flush_tree(source)
    version = max(versions_of(base), default=0) + 1
    while True:
        target = base / str(version)
        try:
            os.rename(source, target)
            break
        except OSError:
            # Renaming a folder onto one with something in it fails: another exporter
            # took the number meanwhile.
            if not target.exists():
                raise RunError(f"{target}: could not be written") from None
            version += 1
    flush(base)
    return target


def check_export(
    path: pathlib.Path,
    model: keras.Model,
    spec: ImageSpec,
    images: np.ndarray,
    rule: Rule = PLAIN,
    reader: ExampleReader | None = None,
) -> dict[str, Any]:
    """Load an export and compare every signature with the model on real images.

    A normalizing model gets some of them dark on light, so that there is work to do.

    Returns:
        signatures, checked_images and largest_difference of a probability.

    Raises:
        RunError: a probability differs by more than TOLERANCE, or an image is accepted
            that should not be, or the reverse, its score being further from the
            threshold than that.
    """
    if spec.normalize_input != "none":
        images = 255 - images[:_NORMALIZED]
    seen = image_ops.fit(images, spec.shape, spec.normalize_input).numpy()
    judged = rule.judge(model.predict(seen, verbose=0))
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    read = reader or ImageFeature()
    examples = tf.constant([read.example(image) for image in images])
    # A reader that resizes or transforms shows the model something else.
    read_from = read.images(examples, spec).numpy()
    same = np.array_equal(read_from, seen)
    others = judged if same else rule.judge(model.predict(read_from, verbose=0))
    inputs = {
        "serving_default": ({"images": tf.constant(images)}, judged),
        "serving_bytes": ({"contents": tf.constant(encoded)}, judged),
        "serving_examples": ({"examples": examples}, others),
    }
    if reader:
        inputs["serving_images"] = inputs["serving_default"]
        inputs["serving_default"] = inputs["serving_examples"]
    signatures = tf.saved_model.load(str(path)).signatures
    outputs = {name: signatures[name](**fed) for name, (fed, _) in inputs.items()}
    expected = {
        name: keras.ops.softmax(judged.logits) for name, (_, judged) in inputs.items()
    }
    differences = {
        name: float(np.abs(found["probabilities"] - expected[name]).max())
        for name, found in outputs.items()
    }
    top = signatures["classify"](inputs=examples)["scores"]
    sorted_ = np.sort(expected["serving_examples"])[:, ::-1][:, : top.shape[1]]
    differences["classify"] = float(np.abs(top - sorted_).max())
    shown = signatures["preprocess"](contents=tf.constant(encoded))["images"]
    differences["preprocess"] = float(np.abs(shown.numpy() != seen).max())
    name, largest = max(differences.items(), key=lambda item: item[1])
    if not largest <= TOLERANCE:
        raise RunError(
            f"the export was not kept: {name} differs from the model by {largest:.2g} "
            "in a probability"
        )
    for name, found in outputs.items():
        wrong = _wrongly_accepted(found, inputs[name][1], rule)
        if wrong:
            raise RunError(
                f"the export was not kept: {name} accepts or rejects {wrong} of "
                f"{len(images)} images otherwise than the model"
            )
    return {
        "signatures": list(differences),
        "checked_images": len(images),
        "largest_difference": largest,
    }


def _wrongly_accepted(
    outputs: Mapping[str, tf.Tensor], judged: Judged, rule: Rule
) -> int:
    """Return for how many images `accepted` is wrong, not by rounding."""
    if rule.threshold is None:
        return 0
    distance = np.abs(judged.scores[rule.score] - rule.threshold)
    wrong = outputs["accepted"].numpy() != judged.accepted
    return int((wrong & (distance > TOLERANCE)).sum())
