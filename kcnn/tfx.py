"""The functions that the components of a TFX pipeline call; TFX is not imported.

Name them as `run_fn="kcnn.tfx.run_fn"`, `tuner_fn="kcnn.tfx.tuner_fn"` and
`preprocessing_fn="kcnn.tfx.preprocessing_fn"`, or import them in a module_file. What
can be set goes into custom_config, by the names of kcnn's knobs:

    {"model": "convnet", "epochs": 5, "image_key": "image", "label_key": "label"}
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

from kcnn import datasets, runtime, tensorboard, trainer
from kcnn.batches import nearest_epochs
from kcnn.cluster import joined
from kcnn.config import KNOBS, Config, overlay
from kcnn.errors import UsageError
from kcnn.examples import Place, image_feature
from kcnn.files import write_json
from kcnn.knobs import did_you_mean
from kcnn.progress import Progress
from kcnn.run import Run
from kcnn.transform_graph import TransformedFeature

# Keys of custom_config that are no knobs, with their defaults.
KEYS: dict[str, Any] = {
    "image_key": "image",
    "label_key": "label",
    "image_shape": (),
    "class_names": (),
    "eval_split": "test",
}
# What TFX's own executors read, for jobs on Google's machines.
_FOR_TFX = ("ai_platform_", "remote_trials_working_dir")
# What the component's arguments say.
_GIVEN = ("dataset", "data_dir")


def run_fn(fn_args: Any) -> None:
    """Train a model for TFX's Trainer component.

    It leaves a SavedModel in serving_model_dir, whose serving_default takes serialized
    tf.Examples, and all that `kcnn train` writes in model_run_dir, report.html too.

    Args:
        fn_args: TFX's FnArgs. train_files and eval_files are patterns of TFRecord files
            of tf.Examples. The eval files are the test images, read once at the end;
            validation images are taken from the others. train_steps becomes whole
            epochs unless custom_config or hyperparameters have them; eval_steps is not
            used, since every image is scored. hyperparameters are those of `tuner_fn`.
            custom_config has kcnn's knobs, and

            image_key, label_key: the features' names. An image is an encoded file, raw
                bytes or floats from 0 to 1; a label is an int64 or a class's name.
            image_shape: [height, width, channels] of raw bytes and of floats that the
                schema gives no shape for.
            class_names: by label, where labels are numbers.
            eval_split: "validation" lets decisions go by the eval files; the test
                images are then taken from the train files (test_fraction).

    Raises:
        UsageError: custom_config, hyperparameters or the data are wrong.
        RunError: the training diverged, or the export does not agree.
    """
    keys, settings, _ = divided(fn_args.custom_config)
    if fn_args.base_model:
        raise UsageError(
            f"base_model: got {fn_args.base_model}; kcnn trains fresh weights: leave "
            "it out"
        )
    place = place_of(fn_args, keys)
    if fn_args.hyperparameters:
        settings = overlay(settings, _found(fn_args.hyperparameters))
    runtime.use_exact_float32()
    config = Config.from_dict({**settings, "dataset": str(place)})
    if joined(config.strategy):
        raise UsageError(
            "strategy: TFX's Trainer runs as one process here, and TF_CONFIG names "
            "several workers; set strategy to one in custom_config"
        )
    reader = image_feature(place)
    graph = fn_args.transform_graph_path
    example_reader = TransformedFeature(graph, reader) if graph else reader
    data = datasets.load(config)
    notes = []
    if fn_args.train_steps and "epochs" not in settings:
        epochs = nearest_epochs(fn_args.train_steps, len(data.train), config.batch_size)
        config = dataclasses.replace(config, epochs=epochs)
        notes.append(f"train_steps={fn_args.train_steps}: {epochs} whole epochs")
    if fn_args.eval_steps:
        notes.append("eval_steps is not used: every image is scored")
    with _written(fn_args.model_run_dir) as folder, Progress(sys.stdout) as progress:
        for text in notes:
            progress.note("tfx", text)
        _train(config, data, example_reader, folder, progress, fn_args)


def _train(
    config: Config,
    data: datasets.Dataset,
    reader: Any,
    folder: pathlib.Path,
    progress: Progress,
    fn_args: Any,
) -> None:
    """Train, export, and draw the run's pictures and page."""
    from kcnn import pictures, report

    run = Run(folder)
    about = {"command": "kcnn.tfx.run_fn", "experiment": None, "reported": None}
    trained = trainer.train(
        config,
        run,
        progress,
        about=about | {"export_base": ""},
        on_epoch=_epoch_logger(run),
        data=data,
    )
    assert trained is not None  # which only another worker of a cluster gets
    with tempfile.TemporaryDirectory(prefix="kcnn-") as base:
        exported = trainer.export_and_check(
            trained.model,
            trained.data.spec,
            trained.data.test,
            pathlib.Path(base, config.model),
            trained.evaluation,
            run.read_config(),
            trained.rule,
            reader=reader,
        )
        _copy(exported["path"], fn_args.serving_model_dir)
    exported["path"] = fn_args.serving_model_dir
    evaluation = trained.evaluation | {"export": exported}
    write_json(run.evaluation, evaluation)
    trained = dataclasses.replace(trained, evaluation=evaluation)
    pictures.draw(run, config, trained)
    report.write_report(run.path)
    test = evaluation["test"]
    low, high = test["accuracy_interval"]
    progress.note(
        "test",
        f"accuracy {test['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%})",
    )
    progress.note("model", fn_args.serving_model_dir)


def tuner_fn(fn_args: Any) -> Any:
    """Return a tuner for TFX's Tuner component; see `tuning.tfx.tuner_fn`."""
    from tuning import tfx

    return tfx.tuner_fn(fn_args)


def preprocessing_fn(
    inputs: Mapping[str, Any], custom_config: Mapping[str, Any] | None = None
) -> dict[str, tf.Tensor]:
    """Pass on image and label for TFX's Transform component, and nothing else.

    All preprocessing is in kcnn's model, where no other program can do it otherwise.

    Args:
        inputs: raw features by name: tensors of (batch,), (batch, 1) or any shape of
            an image, dense or sparse.
        custom_config: as that of `run_fn`.

    Returns:
        image and label (and LABEL_name, if it is there), (batch,) or the image's shape.

    Raises:
        UsageError: there is no such feature; custom_config is wrong.
    """
    keys, _, _ = divided(custom_config)
    image, label = keys["image_key"], keys["label_key"]
    for key in (image, label):
        if key not in inputs:
            raise UsageError(
                f"preprocessing_fn: no feature {key!r}; there are: "
                f"{', '.join(sorted(inputs))}"
            )
    found = {image: _dense(inputs[image])}
    for key in (label, f"{label}_name"):
        if key in inputs:
            found[key] = _dense(inputs[key])
    return found


def _dense(value: Any) -> tf.Tensor:
    """Return a feature of one value an example as (batch,); floats as they are."""
    if isinstance(value, tf.SparseTensor):
        # What is missing must not become class 0.
        value = tf.sparse.to_dense(value, -1 if value.dtype == tf.int64 else None)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor(-1 if value.dtype == tf.int64 else None)
    if value.dtype == tf.float32:
        return value
    return tf.reshape(value, [-1])


def divided(
    custom_config: Mapping[str, Any] | None, others: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Divide a custom_config into KEYS, with their defaults, knobs, and others.

    Raises UsageError for what is none of them.
    """
    given = {
        name: value
        for name, value in (custom_config or {}).items()
        if not name.startswith(_FOR_TFX)
    }
    rest = {name: given.pop(name) for name in others if name in given}
    keys = {name: given.pop(name, default) for name, default in KEYS.items()}
    for name in given:
        if name in _GIVEN:
            raise UsageError(
                f"custom_config: {name}: train_files and eval_files say it"
            )
        if name not in KNOBS:
            hint = did_you_mean(name, [*KEYS, *others, *KNOBS])
            raise UsageError(f"custom_config: unknown key {name!r}{hint}")
    if keys["eval_split"] not in ("test", "validation"):
        raise UsageError(
            f"custom_config: eval_split: got {keys['eval_split']!r}, expected test or "
            "validation"
        )
    for name in ("image_key", "label_key"):
        if not isinstance(keys[name], str):
            raise UsageError(
                f"custom_config: {name}: got {keys[name]!r}, expected text"
            )
    for name, kind in (("image_shape", int), ("class_names", str)):
        value = keys[name]
        if not isinstance(value, list | tuple) or any(
            type(v) is not kind for v in value
        ):
            raise UsageError(
                f"custom_config: {name}: got {value!r}, expected a list of "
                f"{'whole numbers' if kind is int else 'names'}"
            )
        keys[name] = tuple(value)
    return keys, given, rest


def place_of(fn_args: Any, keys: Mapping[str, Any]) -> Place:
    """Return where a component's examples are, and what they hold.

    Raises UsageError if the schema has no such features.
    """
    patterns = {"train": tuple(fn_args.train_files or ())}
    patterns[keys["eval_split"]] = tuple(fn_args.eval_files or ())
    for split, files in patterns.items():
        if not files:
            raise UsageError(f"there are no {split} files; kcnn needs both")
    shape = keys["image_shape"] or _shape_in_schema(fn_args, keys)
    place = Place(
        patterns,
        image=keys["image_key"],
        label=keys["label_key"],
        shape=tuple(shape),
        classes=keys["class_names"],
    )
    return Place.parse(str(place).removeprefix("examples:"))  # checks it


def _shape_in_schema(fn_args: Any, keys: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of an image of floats, () where the schema has none."""
    path = fn_args.schema_path
    if fn_args.transform_graph_path:
        path = f"{fn_args.transform_graph_path}/transformed_metadata/schema.pbtxt"
    if not path or not tf.io.gfile.exists(path):
        return ()
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    with tf.io.gfile.GFile(path) as file:
        schema = text_format.Parse(file.read(), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    for name in ("image_key", "label_key"):
        if keys[name] not in features:
            raise UsageError(
                f"custom_config: {name}: got {keys[name]!r}, expected one of the "
                f"schema's {', '.join(sorted(features))}"
            )
    image = features[keys["image_key"]]
    if image.type != schema_pb2.FLOAT:
        return ()
    shape = tuple(dim.size for dim in image.shape.dim)
    if len(shape) == 2:
        return (*shape, 1)
    return shape if len(shape) == 3 else ()


def _found(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a tuner found, but for where its images were."""
    from tuning.search import settings_of

    settings = settings_of(hyperparameters)
    return {name: value for name, value in settings.items() if name not in _GIVEN}


def _epoch_logger(run: Run) -> Any:
    """Log for TensorBoard, where it is installed: TFX shows model_run_dir in it."""
    try:
        tensorboard.check_installed()
    except UsageError:
        return None
    return tensorboard.epoch_logger(run.tensorboard)


@contextlib.contextmanager
def _written(folder: str | None) -> Iterator[pathlib.Path]:
    """Give a folder of this machine, whose files are in `folder` at the end."""
    if folder and "://" not in folder:
        yield pathlib.Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="kcnn-") as local:
        yield pathlib.Path(local)
        if folder:
            _copy(local, folder)


def _copy(source: str, target: str) -> None:
    """Copy a folder to any file system, saved_model.pb last: it tells that all is."""
    files = [
        os.path.relpath(os.path.join(folder, name), source)
        for folder, _, names in os.walk(source)
        for name in names
    ]
    for file in sorted(files, key=lambda file: (file == "saved_model.pb", file)):
        place = f"{target}/{file}"
        tf.io.gfile.makedirs(os.path.dirname(place))
        tf.io.gfile.copy(os.path.join(source, file), place, overwrite=True)
