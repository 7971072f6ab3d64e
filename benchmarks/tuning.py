"""kcnn tune against a plain keras-tuner loop on the same work: trials an hour.

All train the same random trials (same knobs, data, epochs and one_cycle schedule, the
same order) one after the other in one process, and score them on the same validation
images. The plain loop is what keras-tuner's documentation shows: a model of stock
layers, in their default precision, built and compiled in each trial, model.fit with a
tf.data set, its own checkpoints; and oneDNN, where kcnn prefers that for this process.
It runs a second time with kcnn's layers and precision: what is left then is gained by
the loop itself.

    python -m benchmarks.tuning --dataset=mnist --train_size=5000 --epochs=3 --trials=20
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

from kcnn import runtime
from kcnn.batches import steps_per_epoch

runtime.start_tensorflow()

import keras  # noqa: E402
import keras_tuner  # noqa: E402
import tensorflow as tf  # noqa: E402

from kcnn import datasets, models, optimization  # noqa: E402
from kcnn.config import KNOBS, Config  # noqa: E402
from kcnn.errors import run_program  # noqa: E402
from kcnn.extras import check_installed  # noqa: E402
from kcnn.progress import Progress  # noqa: E402
from kcnn.spec import ImageSpec  # noqa: E402
from tuning.journal import Journal  # noqa: E402
from tuning.session import Settings, open_session  # noqa: E402
from tuning.space import Space, build_space, parse_domain  # noqa: E402

# What a compiled step can take as a variable, in both loops alike.
SEARCHED = {
    "learning_rate": "log:5e-4..1e-2",
    "dropout": "0.1..0.6",
    "conv_dropout": "0.05..0.4",
    "kernel_size": "3,5",
}


def search_with_kcnn(space: Space, trials: int) -> dict[str, Any]:
    """Search with kcnn; return its seconds and scores."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        session = open_session(
            space,
            Settings(max_trials=trials, pruning="none"),
            pathlib.Path(folder),
            progress=Progress(None),
        )
        session.tuner.search()
        seconds = time.perf_counter() - began
        records = Journal(pathlib.Path(folder)).all()
    return {
        "seconds": seconds,
        "trials": [record.values for record in records],
        "scores": [record.score for record in records],
    }


def stock_model(config: Config, spec: ImageSpec) -> keras.Model:
    """Return the tutorial model as it is written with Keras alone."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(spec.shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, config.kernel_size, activation="relu"),
            layers.Conv2D(64, config.kernel_size, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(config.conv_dropout),
            layers.Flatten(),
            *(layers.Dense(n, activation="relu") for n in config.dense_units),
            layers.Dropout(config.dropout),
            layers.Dense(spec.num_classes),
        ]
    )


def search_plainly(
    space: Space, trials: list[dict[str, Any]], stock: bool
) -> dict[str, Any]:
    """Run the given trials in a plain keras-tuner loop; return seconds and scores."""
    began = time.perf_counter()
    data = datasets.load_training(space.baseline)
    assert data.validation is not None
    policy = "float32"
    if not stock:
        policy = runtime.choose_precision(space.baseline.precision).policy

    class Plain(keras_tuner.HyperModel):
        def build(self, hp):
            config = space.config(trials[hp.Choice("trial", list(range(len(trials))))])
            keras.utils.set_random_seed(config.random_seed)
            model = models.build_model(config, data.spec, policy=policy)
            if stock:
                same = model.count_params()
                model = stock_model(config, data.spec)
                assert model.count_params() == same
            steps = steps_per_epoch(len(data.train), config.batch_size)
            schedule = optimization.build_schedule(config, steps)
            model.compile(
                optimization.build_optimizer(config, schedule, policy),
                keras.losses.CategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            return model

        def fit(self, hp, model, **kwargs):
            config = space.config(trials[hp.get("trial")])
            return model.fit(
                _batches(data.train, config),
                validation_data=_batches(data.validation, config, shuffle=False),
                epochs=config.epochs,
                shuffle=False,  # the data set is shuffled already
                verbose=0,
                **kwargs,
            )

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.GridSearch(
            Plain(),
            objective="val_accuracy",
            max_trials=len(trials),
            directory=folder,
            project_name="plain",
        )
        tuner.search(callbacks=[])
        seconds = time.perf_counter() - began
        found = tuner.oracle.trials.values()
        scores = [trial.score for trial in found]
    return {"seconds": seconds, "scores": scores}


def _batches(
    split: datasets.Split, config: Config, shuffle: bool = True
) -> tf.data.Dataset:
    images = split.images.gather(tf.constant(split.indices)).numpy()
    labels = keras.utils.to_categorical(split.labels, len(set(split.labels.tolist())))
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        batches = batches.shuffle(len(split), seed=config.random_seed)
    return batches.batch(config.batch_size).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Run both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train_size", default=None)
    parser.add_argument("--epochs", default="3")
    parser.add_argument("--trials", type=int, default=12)
    arguments = parser.parse_args()
    check_installed("keras-tuner's own loop", "tensorboard", "tensorboard")
    tf.get_logger().setLevel("ERROR")
    fixed = {
        name: getattr(arguments, name) for name in ("dataset", "train_size", "epochs")
    }
    only = {"batch_size": "128", "dense_units": "128", "batch_norm": "0"}
    texts = SEARCHED | only | {n: t for n, t in fixed.items() if t is not None}
    given = {name: parse_domain(KNOBS[name], text) for name, text in texts.items()}
    space = build_space(given)
    kcnn = search_with_kcnn(space, arguments.trials)
    sides = {
        "kcnn": kcnn,
        "plain": search_plainly(space, kcnn["trials"], stock=True),
        "plain, kcnn's model": search_plainly(space, kcnn["trials"], stock=False),
    }
    hourly = {n: 3600 * arguments.trials / one["seconds"] for n, one in sides.items()}
    report = {
        "work": texts | {"trials": arguments.trials},
        "hardware": runtime.hardware(),
        "versions": runtime.versions(),
        "trials_an_hour": hourly,
        "ratio": {n: hourly["kcnn"] / hourly[n] for n in sides if n != "kcnn"},
        "mean_score": {n: statistics.fmean(one["scores"]) for n, one in sides.items()},
        "best_score": {n: max(one["scores"]) for n, one in sides.items()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    run_program(main)
