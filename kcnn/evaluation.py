"""A model and a split -> a plain dictionary of figures, and per-image predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from kcnn.errors import RunError
from kcnn.statistics import wilson_interval

RELIABILITY_BINS = 15
QUICK_SCORES = ("accuracy", "macro_f1", "loss")


def evaluate_logits(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    other: int | None = None,
) -> dict[str, Any]:
    """Score predictions.

    Args:
        logits: (n, classes) float.
        labels: (n,) int, the true classes.
        class_names: a name for each class.
        other: the class of the images of --other, if there are any.

    Returns:
        n, mistakes, accuracy in [0, 1] with its 95% Wilson interval, loss (mean
        cross-entropy in nats), macro_f1, expected_calibration_error, per_class,
        confusion_matrix (rows are true classes), reliability (a dictionary a bin),
        top_5_accuracy where there are more than 10 classes, and, with `other`,
        known_classes: the first four of the images of all classes but that.

    Raises:
        RunError: a logit is not finite.
    """
    check_finite(logits)
    calibration = calibration_scores(logits, labels)
    predicted = logits.argmax(1)
    hits = predicted == labels
    matrix = _confusion_matrix(labels, predicted, len(class_names))
    scores = {
        **_accuracy(hits),
        "loss": calibration["loss"],
        "macro_f1": _macro_f1(matrix),
        "expected_calibration_error": calibration["expected_calibration_error"],
        "per_class": _per_class(matrix, class_names),
        "confusion_matrix": matrix.tolist(),
        "reliability": calibration["reliability"],
    }
    if len(class_names) > 10:
        scores["top_5_accuracy"] = top_k_accuracy(logits, labels, 5)
    if other is not None and (labels != other).any():
        scores["known_classes"] = _accuracy(hits[labels != other])
    return scores


def _accuracy(hits: np.ndarray) -> dict[str, Any]:
    return {
        "n": len(hits),
        "mistakes": int((~hits).sum()),
        "accuracy": float(hits.mean()),
        "accuracy_interval": wilson_interval(int(hits.sum()), len(hits)),
    }


def known_classes(scores: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `evaluate_logits` found of all classes but that of --other, if so."""
    if "known_classes" in scores:
        known = scores["known_classes"]
        low, high = known["accuracy_interval"]
        yield (
            f"known classes {known['accuracy']:.2%} (95% interval {low:.2%} to "
            f"{high:.2%}; {known['mistakes']:,} of {known['n']:,} wrong)"
        )


def check_finite(logits: np.ndarray) -> None:
    """Raise RunError if a logit is not finite."""
    if not np.isfinite(logits).all():
        raise RunError(
            "the model's outputs are not finite numbers: the training diverged; "
            "lower --learning_rate or use --precision=float32"
        )


def calibration_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return loss, expected_calibration_error and reliability of `evaluate_logits`."""
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    hits = logits.argmax(1) == labels
    bins = reliability_bins(probabilities.max(1), hits)
    return {
        "loss": cross_entropy(logits, labels),
        "expected_calibration_error": calibration_error(bins),
        "reliability": bins,
    }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy, in nats."""
    log_probabilities = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def quick_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, loss (mean cross-entropy in nats) and macro F1, every epoch."""
    predicted = logits.argmax(1)
    scores = (
        float((predicted == labels).mean()),
        _macro_f1(_confusion_matrix(labels, predicted, logits.shape[1])),
        cross_entropy(logits, labels),
    )
    return dict(zip(QUICK_SCORES, scores, strict=True))


def _confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """Return (classes, classes) counts; rows are the true classes."""
    cells = np.bincount(labels * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def _macro_f1(matrix: np.ndarray) -> float:
    """Return the mean F1 of the classes that are there or were predicted."""
    right, true, said = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return float(_ratio(2 * right, true + said)[true + said > 0].mean())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide counts; 0 where there is nothing to divide by."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return how often the true class is among the k likeliest."""
    top = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    return float((top == labels[:, None]).any(1).mean())


def reliability_bins(confidence: np.ndarray, hits: np.ndarray) -> list[dict[str, Any]]:
    """Group predictions by their probability, in bins of equal width over (0, 1].

    Returns:
        For each bin low, high, n, and the means confidence and accuracy (None where
        n is 0).
    """
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    index = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, None)
    bins = []
    for i in range(RELIABILITY_BINS):
        inside = index == i
        n = int(inside.sum())
        bins.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "n": n,
                "confidence": float(confidence[inside].mean()) if n else None,
                "accuracy": float(hits[inside].mean()) if n else None,
            }
        )
    return bins


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3)."""
    filled = [b for b in bins if b["n"]]
    total = sum(b["n"] for b in filled)
    gaps = (b["n"] * abs(b["accuracy"] - b["confidence"]) for b in filled)
    return float(sum(gaps) / total)


def worst_mistakes(logits: np.ndarray, labels: np.ndarray, limit: int) -> np.ndarray:
    """Return positions of wrong predictions, the most confident first."""
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    confidence = scipy.special.softmax(logits[wrong].astype(np.float64), axis=1).max(1)
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


def _per_class(matrix: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    right, true, said = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    columns = (
        _ratio(right, said),
        _ratio(right, true),
        _ratio(2 * right, true + said),
        true,
    )
    return [
        {
            "name": name,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(
            class_names, *columns, strict=True
        )
    ]
