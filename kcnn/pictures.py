"""A tested run -> what its pictures show, to be drawn here or in another process."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import scipy

from kcnn import pipeline
from kcnn.batches import steps_per_epoch
from kcnn.beside import Helper
from kcnn.config import Config
from kcnn.datasets import Dataset, other_class
from kcnn.evaluation import worst_mistakes
from kcnn.optimization import build_schedule
from kcnn.preprocessing import augmentation_layers
from kcnn.run import Run, read_rows
from kcnn.trainer import Trained

_GALLERY = 25


def draw(run: Run, config: Config, trained: Trained) -> None:
    """Draw all plots of a run; what was trained is still in memory."""
    from kcnn import drawing  # and with it Matplotlib

    drawing.draw(run.plots, facts(run, config, trained))


def draw_beside(helper: Helper, run: Run, config: Config, trained: Trained) -> None:
    """Begin to draw all plots of a run in another process, by kcnn.drawing.draw."""
    helper.start(run.plots, facts(run, config, trained))


def facts(run: Run, config: Config, trained: Trained) -> dict[str, Any]:
    """Gather what the plots show: numbers, names and images; see kcnn.drawing."""
    data, test = trained.data, trained.evaluation["test"]
    names = data.spec.class_names
    rows = read_rows(run.metrics)
    calibration = trained.evaluation["calibration"]
    rejection = trained.evaluation["rejection"]
    known = trained.test.but(other_class(config, data.spec), data.test.labels)
    images, labels = training_sample(config, data, trained.model)
    return {
        "rows": rows,
        "learning_rates": learning_rates(config, data, len(rows)),
        "class_names": names,
        "test": test,
        "mistakes": mistakes(trained),
        "before": calibration and calibration["test"]["before"],
        "rule": trained.rule,
        "known": (rejection and rejection["test"], known),
        "unknown": (trained.evaluation["unknown"], trained.unknown),
        "training_images": (images, [names[label] for label in labels]),
        "layers": run.read_config()["model"]["layers"],
        "model": config.model,
    }


def learning_rates(
    config: Config, data: Dataset, epochs: int
) -> list[tuple[float, float]]:
    """Return the learning rate over some epochs, finely enough for a curve."""
    steps = steps_per_epoch(len(data.train), config.batch_size)
    schedule = build_schedule(config, steps)
    at = np.unique(np.linspace(0, epochs * steps - 1, 200).astype(int))
    rates = np.asarray(schedule(at))
    rates = np.broadcast_to(rates, at.shape)  # one for all, if it stays the same
    return [(step / steps, float(rate)) for step, rate in zip(at, rates, strict=True)]


def mistakes(trained: Trained) -> list[dict]:
    """Return the test images that were wrong with the highest probability."""
    split, logits = trained.data.test, trained.test.logits
    names = trained.data.spec.class_names
    worst = worst_mistakes(logits, split.labels, _GALLERY)
    images = pipeline.images_at(split, worst)
    probabilities = scipy.special.softmax(logits[worst], axis=1)
    return [
        {
            "image": image,
            "true": names[split.labels[position]],
            "predicted": names[row.argmax()],
            "probability": float(row.max()),
            "name": split.names(position),
        }
        for position, image, row in zip(worst, images, probabilities, strict=True)
    ]


def training_sample(
    config: Config, data: Dataset, model: keras.Model
) -> tuple[np.ndarray, np.ndarray]:
    """Return training images as the network sees them, with their labels.

    They went through rescaling, augmentation and standardization: (n, height, width,
    channels) float32.
    """
    positions = np.random.default_rng(config.random_seed).permutation(len(data.train))
    positions = positions[:_GALLERY]
    seen = pipeline.images_at(data.train, positions)
    layers = [model.get_layer("rescaling"), *augmentation_layers(config)]
    layers += [layer for layer in model.layers if layer.name == "standardization"]
    for layer in layers:
        seen = layer(seen, training=True)
    return np.asarray(seen), data.train.labels[positions]
