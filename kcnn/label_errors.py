"""Labels that a trained model confidently disagrees with."""

from __future__ import annotations

import numpy as np


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the images whose label is likely wrong, the likeliest first.

    Confident learning (Northcutt, Jiang and Chuang 2021): an image is counted for a
    class where its probability is no less than the mean probability of that class
    among the images labelled so; where it is counted for several, for the likeliest.
    One that is counted for a class other than its label is suspicious if that class is
    likelier than all others together, too: a poor model is never confident. They are
    ordered by the probability of that class less that of the label.

    Args:
        labels: (n,) int.
        probabilities: (n, classes) float, of images that the model was not trained on.

    Returns:
        (m, 2) int64: position, and the class that it is counted for.
    """
    own = probabilities[np.arange(len(labels)), labels]
    classes = probabilities.shape[1]
    count = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, weights=own, minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        threshold = np.where(count, total / count, np.inf)
    counted = np.where(probabilities >= threshold, probabilities, 0.0)
    said = counted.argmax(axis=1)
    wrong = np.flatnonzero((counted.max(axis=1) > 0.5) & (said != labels))
    margin = probabilities[wrong, said[wrong]] - own[wrong]
    wrong = wrong[np.argsort(-margin, kind="stable")]
    return np.stack((wrong, said[wrong]), axis=1)
