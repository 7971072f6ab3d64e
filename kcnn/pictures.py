"""A finished run -> the pictures in its plots/ folder."""

from __future__ import annotations

import keras
import numpy as np
import scipy

from kcnn import diagram, galleries, pipeline, plots, rejection_plots
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
    data, test = trained.data, trained.evaluation["test"]
    names = data.spec.class_names
    folder = run.plots
    rows = read_rows(run.metrics)
    plots.learning_curves(
        rows, folder / "learning_curves.png", learning_rates(config, data, len(rows))
    )
    matrix = np.array(test["confusion_matrix"])
    plots.confusion_matrix(
        matrix, names, folder / "confusion_matrix.png", normalize=False
    )
    plots.confusion_matrix(
        matrix, names, folder / "confusion_matrix_normalized.png", normalize=True
    )
    galleries.mistakes(mistakes(trained), folder / "mistakes.png", tested=test["n"])
    calibration = trained.evaluation["calibration"]
    plots.reliability(
        test["reliability"],
        test["expected_calibration_error"],
        folder / "reliability.png",
        calibration and calibration["test"]["before"],
    )
    rejection = trained.evaluation["rejection"]
    known = trained.test.but(other_class(config, data.spec), data.test.labels)
    rejection_plots.draw(
        folder,
        trained.rule,
        (rejection and rejection["test"], known),
        (trained.evaluation["unknown"], trained.unknown),
    )
    plots.per_class(test["per_class"], folder / "per_class.png")
    images, labels = training_sample(config, data, trained.model)
    galleries.image_grid(
        images, [names[label] for label in labels], folder / "training_images.png"
    )
    layers = run.read_config()["model"]["layers"]
    diagram.architecture(layers, folder / "architecture.png", config.model)


def learning_rates(
    config: Config, data: Dataset, epochs: int
) -> list[tuple[float, float]]:
    """Return the learning rate over some epochs, finely enough for a curve."""
    steps = pipeline.steps_per_epoch(data.train, config.batch_size)
    schedule = build_schedule(config, steps)
    at = np.unique(np.linspace(0, epochs * steps - 1, 200).astype(int))
    return [(step / steps, float(schedule(step))) for step in at]


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
