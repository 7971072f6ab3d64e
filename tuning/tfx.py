"""The function that TFX's Tuner component calls; TFX itself is not imported.

Name it as `tuner_fn="tuning.tuner_fn"`, with a custom_config such as

    {"space": {"model": "convnet", "epochs": 3, "dropout": "0..0.5"},
     "tuner": "hyperband", "image_shape": [28, 28, 1]}
"""

from __future__ import annotations

import glob
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kcnn.config import KNOBS
from kcnn.datasets import TrainingData
from kcnn.errors import UsageError
from kcnn.fingerprint import of_arrays
from kcnn.knobs import did_you_mean
from kcnn.pipeline import steps_per_epoch
from kcnn.progress import Progress
from kcnn.sources import MemoryImages, Pool, decode_batch
from kcnn.spec import ImageSpec
from kcnn.splits import Split, split_of
from tuning.search import KcnnTuner
from tuning.session import Settings, open_session
from tuning.space import Choices, build_space, domains_of

_BATCH = 256

# custom_config beside what Settings has: its default, or None where it must be given.
_KEYS: dict[str, Any] = {
    "space": {},
    "image_key": "image",
    "label_key": "label",
    "image_shape": None,
    "class_names": (),
}
_SETTINGS = (
    "tuner",
    "objective",
    "executions",
    "pruning",
    "factor",
    "iterations",
    "keep",
    "max_trials",
    "time_budget",
)


class TunerFnResult(NamedTuple):
    """What TFX's executor takes: it calls tuner.search(**fit_kwargs)."""

    tuner: KcnnTuner
    fit_kwargs: dict[str, Any]


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Return a tuner for TFX's Tuner component.

    Args:
        fn_args: TFX's FnArgs. train_files and eval_files are patterns of gzipped
            TFRecord files of tf.Examples with an encoded image and an int64 label; the
            eval files are the validation images. train_steps, if given, becomes
            whole epochs unless the space says how many. working_dir takes the search's
            files. custom_config has image_shape and may have space (as a --space
            file), image_key, label_key, class_names, and the fields of
            `tuning.session.Settings`.

    Raises:
        UsageError: custom_config or the files are wrong.
    """
    given = dict(fn_args.custom_config or {})
    for name in given:
        if name not in _KEYS and name not in _SETTINGS:
            known = [*_KEYS, *_SETTINGS]
            raise UsageError(
                f"custom_config: unknown key {name!r}{did_you_mean(name, known)}"
            )
    options = _KEYS | {name: given[name] for name in _KEYS if name in given}
    settings = Settings(**{name: given[name] for name in _SETTINGS if name in given})
    if options["image_shape"] is None:
        raise UsageError(
            "custom_config: image_shape is missing: [height, width, channels]"
        )
    train = _read(fn_args.train_files, options)
    validation = _read(fn_args.eval_files, options)
    names = tuple(options["class_names"]) or _numbered(train, validation)
    height, width, channels = options["image_shape"]
    spec = ImageSpec(height, width, channels, names)
    data = TrainingData(spec, train, validation, [], [])
    domains = domains_of(options["space"], "custom_config: space")
    if fn_args.train_steps and "epochs" not in domains:
        steps = steps_per_epoch(train, KNOBS["batch_size"].default)
        domains["epochs"] = Choices((max(1, round(fn_args.train_steps / steps)),))
    space = build_space(domains)
    folder = pathlib.Path(fn_args.working_dir)
    session = open_session(space, settings, folder, progress=Progress(None), data=data)
    return TunerFnResult(session.tuner, {})


def _read(patterns: Sequence[str], options: dict[str, Any]) -> Split:
    """Read the images and labels of tf.Examples into memory."""
    files = sorted(file for pattern in patterns for file in glob.glob(pattern))
    if not files:
        raise UsageError(f"no file is named {' or '.join(patterns)}")
    features = {
        options["image_key"]: tf.io.FixedLenFeature([], tf.string),
        options["label_key"]: tf.io.FixedLenFeature([], tf.int64),
    }
    shape = tuple(options["image_shape"])
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH)
    images, labels = [], []
    for batch in records:
        found = tf.io.parse_example(batch, features)
        images.append(decode_batch(found[options["image_key"]], shape).numpy())
        labels.append(found[options["label_key"]].numpy())
    if not labels:
        raise UsageError(f"there is no example in {' or '.join(patterns)}")
    pixels, classes = np.concatenate(images), np.concatenate(labels)
    pool = Pool(MemoryImages(pixels), classes, of_arrays(pixels, classes))
    return split_of(pool)


def _numbered(*splits: Split) -> tuple[str, ...]:
    highest = max(int(split.labels.max()) for split in splits)
    return tuple(map(str, range(highest + 1)))
