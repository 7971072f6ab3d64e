"""What a run's pictures show -> the pictures in its plots/ folder. No TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kcnn import diagram, galleries, plots, rejection_plots


def draw(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Draw all plots of a run into a folder; `kcnn.pictures.facts` are its facts."""
    names, test = facts["class_names"], facts["test"]
    plots.learning_curves(
        facts["rows"], folder / "learning_curves.png", facts["learning_rates"]
    )
    matrix = np.array(test["confusion_matrix"])
    plots.confusion_matrix(
        matrix, names, folder / "confusion_matrix.png", normalize=False
    )
    plots.confusion_matrix(
        matrix, names, folder / "confusion_matrix_normalized.png", normalize=True
    )
    galleries.mistakes(facts["mistakes"], folder / "mistakes.png", tested=test["n"])
    plots.reliability(
        test["reliability"],
        test["expected_calibration_error"],
        folder / "reliability.png",
        facts["before"],
    )
    rejection_plots.draw(folder, facts["rule"], facts["known"], facts["unknown"])
    plots.per_class(test["per_class"], folder / "per_class.png")
    images, labels = facts["training_images"]
    galleries.image_grid(images, labels, folder / "training_images.png")
    diagram.architecture(facts["layers"], folder / "architecture.png", facts["model"])
