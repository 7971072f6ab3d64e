"""How sure a model is: calibrated probabilities, and a score to reject images by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from kcnn.config import Config
from kcnn.evaluation import cross_entropy

MAX_PROBABILITY, ENERGY = "max_probability", "energy"

# Between these the temperature is searched.
_COLDEST, _HOTTEST = 0.01, 100.0


class Judged(NamedTuple):
    """What a rule makes of a model's outputs.

    Attributes:
        logits: (n, classes) float, their softmax being the probabilities.
        scores: name of a score -> (n,) float, high where the model is sure.
        accepted: (n,) bool; None where every image is.
    """

    logits: np.ndarray
    scores: dict[str, np.ndarray]
    accepted: np.ndarray | None

    def hits(self, labels: np.ndarray) -> np.ndarray:
        """Return (n,) bool, whether the predicted class is the true one."""
        return self.logits.argmax(1) == labels

    def but(self, other: int | None, labels: np.ndarray) -> Judged:
        """Return the same without the images whose label, of (n,) int, is `other`."""
        chosen = np.full(len(labels), True) if other is None else labels != other
        scores = {name: values[chosen] for name, values in self.scores.items()}
        accepted = None if self.accepted is None else self.accepted[chosen]
        return Judged(self.logits[chosen], scores, accepted)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is made of a model's logits.

    Attributes:
        temperature: probabilities are softmax(logits / temperature); 1 changes nothing.
        score: max_probability, energy, or none where every image is accepted.
        threshold: an image is accepted where its score is this or more, in the units of
            `scores_of`; None without a score.
    """

    temperature: float = 1.0
    score: str = "none"
    threshold: float | None = None

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> Rule:
        """Return the rule that an evaluation.json tells of."""
        calibration = evaluation.get("calibration") or {}
        rejection = evaluation.get("rejection") or {}
        return cls(
            calibration.get("temperature", 1.0),
            rejection.get("score", "none"),
            rejection.get("threshold"),
        )

    def judge(self, logits: np.ndarray) -> Judged:
        """Apply the rule to (n, classes) logits; the dtype of these stays."""
        scaled = logits / np.asarray(self.temperature, logits.dtype)
        scores = scores_of(logits, self.temperature)
        if self.threshold is None:
            return Judged(scaled, scores, None)
        return Judged(scaled, scores, scores[self.score] >= self.threshold)

    def __str__(self) -> str:
        """Say what the temperature is and what is accepted, as far as fitted."""
        parts = [] if self.temperature == 1 else [f"temperature {self.temperature:.4g}"]
        if self.threshold is not None:
            at = readable({self.score: self.threshold})[self.score]
            parts.append(f"accepted from {self.score} {at:.6g} on")
        return "; ".join(parts)


PLAIN = Rule()  # leaves logits as they are and accepts every image


def scores_of(logits: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """Return scores that are high where a model is sure.

    Args:
        logits: (n, classes) float, two classes or more.
        temperature: above 0.

    Returns:
        (n,) float64 each. max_probability: the natural logarithm of the predicted
        class's probability (Hendrycks and Gimpel 2017), which orders images as the
        probability does, and still tells those apart that it rounds to 1. energy: the
        negative free energy T logsumexp(logits / T) (Liu et al. 2020).
    """
    scaled = logits.astype(np.float64) / temperature
    others = scaled.copy()
    np.put_along_axis(others, scaled.argmax(1)[:, None], -np.inf, axis=1)
    odds_against = scipy.special.logsumexp(others, axis=1) - scaled.max(1)
    return {
        MAX_PROBABILITY: -np.logaddexp(0, odds_against),
        ENERGY: temperature * scipy.special.logsumexp(scaled, axis=1),
    }


def readable(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores, or thresholds, as a person reads them: not the logarithm."""
    return {n: np.exp(s) if n == MAX_PROBABILITY else s for n, s in scores.items()}


def fit_rule(config: Config, logits: np.ndarray, labels: np.ndarray) -> Rule:
    """Fit what a Config asks for on the validation images.

    Args:
        config: calibrate, reject and coverage are read.
        logits: (n, classes) float, of the validation images.
        labels: (n,) int, their classes.
    """
    temperature = fit_temperature(logits, labels) if config.calibrate else 1.0
    if config.reject == "none":
        return Rule(temperature)
    scores = scores_of(logits, temperature)[config.reject]
    threshold = threshold_at(scores, config.coverage)
    return Rule(temperature, config.reject, threshold)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of the least mean cross-entropy (Guo et al. 2017).

    Where every prediction is right there is none: the loss only falls as the
    temperature goes to 0. It is 1 then, which changes nothing.

    Args:
        logits: (n, classes) float.
        labels: (n,) int.
    """
    logits = logits.astype(np.float64)
    if (logits.argmax(1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / math.exp(log_temperature), labels)

    # Convex in 1 / temperature: the minimum that is found is the only one.
    bounds = math.log(_COLDEST), math.log(_HOTTEST)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(found.x)


def threshold_at(scores: np.ndarray, coverage: float) -> float:
    """Return the highest threshold that accepts a part of the images or more.

    More than that part only where several images have the score at which it ends: they
    are accepted together. The threshold lies halfway to the best score that is not
    accepted, so that rounding elsewhere changes no image's fate.

    Args:
        scores: (n,) float.
        coverage: in (0, 1].
    """
    count = math.ceil(coverage * len(scores) - 1e-9)  # 0.07 * 100 is above 7
    last = float(np.sort(scores)[-count])
    below = scores[scores < last]
    if not len(below):
        return last
    middle = (last + float(below.max())) / 2
    return middle if middle > below.max() else last
