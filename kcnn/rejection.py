"""What rejecting images costs and gains, as plain dictionaries of figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy

from kcnn.confidence import Judged, Rule
from kcnn.config import Config
from kcnn.evaluation import calibration_scores
from kcnn.statistics import wilson_interval

_NOTHING_WRONG = (
    "no validation image is wrong, so that no temperature fits best: 1 is kept"
)

_CURVE_POINTS = 200


def figures(
    config: Config,
    rule: Rule,
    known: Mapping[str, tuple[np.ndarray, np.ndarray]],
    unknown: np.ndarray | None,
    other: int | None = None,
) -> dict[str, Any]:
    """Return what calibrating and rejecting came to, for evaluation.json.

    Args:
        config: coverage and unknown are read.
        rule: fitted to the validation images.
        known: "validation" and "test" -> logits and labels, as far as there are any.
        unknown: logits of the images of --unknown.
        other: the class of the images of --other.

    Returns:
        calibration, rejection and unknown, each None where it was not asked for.
    """
    judged = {name: rule.judge(logits) for name, (logits, _) in known.items()}
    found: dict[str, Any] = dict.fromkeys(("calibration", "rejection", "unknown"))
    if config.calibrate:
        found["calibration"] = {
            "temperature": rule.temperature,
            "note": "" if rule.temperature != 1 else _NOTHING_WRONG,
        } | {
            name: {
                "before": calibration_scores(logits, labels),
                "after": calibration_scores(judged[name].logits, labels),
            }
            for name, (logits, labels) in known.items()
        }
    if rule.threshold is not None:
        found["rejection"] = {
            "score": rule.score,
            "coverage": config.coverage,
            "threshold": rule.threshold,
        } | {
            name: selective_scores(judged[name], rule.score, labels)
            for name, (_, labels) in known.items()
        }
    if unknown is not None:
        found["unknown"] = {
            "dataset": config.unknown,
            **known_against_unknown(
                judged["test"].but(other, known["test"][1]), rule.judge(unknown), other
            ),
        }
    return found


def selective_scores(judged: Judged, score: str, labels: np.ndarray) -> dict[str, Any]:
    """Score a classifier that may decline to answer (El-Yaniv and Wiener 2010).

    Args:
        judged: its outputs for n images; it answers where they are accepted.
        score: the name of that by which they are.
        labels: (n,) int, the true classes.

    Returns:
        n, accepted (images), coverage (their part of n) and its 95% interval; mistakes
        and accuracy on the accepted and its 95% interval (None where none is);
        risk_coverage, at most 200 points of that curve, and aurc, the area under all
        of it.
    """
    assert judged.accepted is not None
    hits = judged.hits(labels)
    n, answered = len(hits), int(judged.accepted.sum())
    right = int(hits[judged.accepted].sum())
    coverage, risk = risk_coverage(judged.scores[score], hits)
    counts = np.diff(np.concatenate([[0], coverage]))  # images with each score
    kept = np.unique(np.linspace(0, len(risk) - 1, _CURVE_POINTS).round().astype(int))
    return {
        "n": n,
        "accepted": answered,
        "coverage": answered / n,
        "coverage_interval": wilson_interval(answered, n),
        "mistakes": answered - right,
        "accuracy": right / answered if answered else None,
        "accuracy_interval": wilson_interval(right, answered) if answered else None,
        "aurc": float((counts * risk).sum()),
        "risk_coverage": [
            {"coverage": float(coverage[i]), "risk": float(risk[i])} for i in kept
        ],
    }


def risk_coverage(
    scores: np.ndarray, hits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the risk-coverage curve, a point for each score there is.

    Images of one score are accepted together. The area under the steps is the mean over
    all images of the risk at their own score: AURC (Geifman et al. 2019, equation 3).

    Args:
        scores: (n,) float.
        hits: (n,) bool.

    Returns:
        coverage, ascending to 1, and the part of mistakes among the images covered.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    mistakes = np.cumsum(~hits[order])[last]
    return (last + 1) / len(scores), mistakes / (last + 1)


def known_against_unknown(
    known: Judged, unknown: Judged, other: int | None = None
) -> dict[str, Any]:
    """Score how well images of no class are told from those of a class.

    Args:
        known: images of classes, none of --other.
        unknown: images of no class.
        other: the class of the images of --other, if the model has it.

    Returns:
        n (unknown images); auroc: for each score its value and its 95% interval, with
        `other` also by the probability of all classes but that; with a threshold, how
        many are accepted, accepted_part and its 95% interval; with `other`, the same
        as taken, taken_part, taken_interval: how many are given a known class, being
        neither rejected nor called other.
    """
    by = {name: (known.scores[name], s) for name, s in unknown.scores.items()}
    if other is not None:
        by["not_other"] = _not_other(known, other), _not_other(unknown, other)
    areas = {name: auroc(*scores) for name, scores in by.items()}
    found: dict[str, Any] = {"n": len(unknown.logits), "auroc": areas}
    accepted = unknown.accepted
    if accepted is not None:
        found |= _counted("accepted", accepted)
    if other is not None:
        taken = unknown.logits.argmax(1) != other
        found |= _counted("taken", taken if accepted is None else taken & accepted)
    return found


def _not_other(judged: Judged, other: int) -> np.ndarray:
    """Return the log odds against the class of --other, (n,) float64."""
    logits = judged.logits.astype(np.float64)
    rest = np.delete(logits, other, axis=1)
    return scipy.special.logsumexp(rest, axis=1) - logits[:, other]


def _counted(name: str, which: np.ndarray) -> dict[str, Any]:
    count, n = int(which.sum()), len(which)
    interval = wilson_interval(count, n)
    return {name: count, f"{name}_part": count / n, f"{name}_interval": interval}


def auroc(high: np.ndarray, low: np.ndarray) -> dict[str, Any]:
    """Return the area under the ROC curve of two samples, with its 95% interval.

    The interval is DeLong's (Biometrics 44, 837-845, 1988), cut at 0 and 1; it needs
    two values of each sample.

    Args:
        high: (n,) float, which should be the greater.
        low: (m,) float.

    Returns:
        value: the chance that one of `high` is greater than one of `low`, a tie
        counting half; interval, or None.
    """
    import sklearn.metrics  # a second, which few runs need

    labels = np.repeat([1, 0], [len(high), len(low)])
    value = float(sklearn.metrics.roc_auc_score(labels, np.concatenate([high, low])))
    if min(len(high), len(low)) < 2:
        return {"value": value, "interval": None}
    rank = scipy.stats.rankdata
    together = rank(np.concatenate([high, low]))
    above = (together[: len(high)] - rank(high)) / len(low)
    below = 1 - (together[len(high) :] - rank(low)) / len(high)
    error = math.sqrt(above.var(ddof=1) / len(high) + below.var(ddof=1) / len(low))
    half = scipy.stats.norm.ppf(0.975) * error
    return {
        "value": value,
        "interval": [max(0.0, value - half), min(1.0, value + half)],
    }


def lines(
    rejected: Mapping[str, Any] | None, unknown: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield what `selective_scores` and `known_against_unknown` found, for a person.

    Args:
        rejected: the former, or None where every image is accepted.
        unknown: the latter and `dataset`, or None where there are no such images.
    """
    if rejected:
        yield f"accepted {_part(rejected, 'coverage')} of the images"
        if rejected["accepted"]:
            yield (
                f"accuracy {_part(rejected, 'accuracy')} on them, "
                f"{rejected['mistakes']:,} wrong"
            )
        yield f"area under the risk-coverage curve {rejected['aurc']:.3g}"
    if unknown:
        text = f"{unknown['n']:,} unknown images of {unknown['dataset']}"
        if "accepted" in unknown:
            text += f": {_part(unknown, 'accepted_part', 'accepted_interval')} accepted"
        yield text
        if "taken" in unknown:
            part = _part(unknown, "taken_part", "taken_interval")
            yield f"taken for a known class, not for other: {part}"
        for name, area in unknown["auroc"].items():
            yield f"AUROC of known against unknown, {name}: {_area(area)}"


def _part(figures: Mapping[str, Any], key: str, interval: str = "") -> str:
    low, high = figures[interval or f"{key}_interval"]
    return f"{figures[key]:.2%} (95% interval {low:.2%} to {high:.2%})"


def _area(area: Mapping[str, Any]) -> str:
    if area["interval"] is None:
        return f"{area['value']:.4f}"
    low, high = area["interval"]
    return f"{area['value']:.4f} (95% interval {low:.4f} to {high:.4f})"
