"""A trained model -> the figures of its splits, and its outputs for the test images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kcnn import evaluation, pipeline, rejection, towers, views
from kcnn.confidence import PLAIN, Judged, Rule, fit_rule
from kcnn.config import Config
from kcnn.datasets import Dataset, other_class
from kcnn.splits import Split, sample_of

# Views of training images that are scored at the end; of all images they can take as
# long as an epoch. Their accuracy is there to be set beside the test's: so many images
# tell 90% to 0.6 points, and a sixth of them 99.8% to 0.2.
_TRAIN_SAMPLE = 10_000


class Scored(NamedTuple):
    """What testing a model gave.

    Attributes:
        rule: fitted to the validation images, as far as the Config asks for it.
        test: what it makes of the test images.
        unknown: what it makes of the images of no class, if there are any.
        scores: for evaluation.json: train, validation and test, each with the time it
            took or None; calibration, rejection and unknown.
    """

    rule: Rule
    test: Judged
    unknown: Judged | None
    scores: dict[str, Any]


def score(
    model: keras.Model, config: Config, data: Dataset, unknown: Split | None
) -> Scored:
    """Score train, validation and test, in this order, and the images of no class.

    Of more than 10,000 training images a stratified sample is scored, as many fewer as
    --test_views shows each: its "n" says so.
    Raises RunError if an output is not finite.
    """
    size = _TRAIN_SAMPLE // len(views.KINDS.get(config.test_views, (1,)))
    train = sample_of(data.train, size, config.random_seed)
    splits = {"train": train, "validation": data.validation, "test": data.test}
    scores: dict[str, Any] = dict.fromkeys(splits)
    there = {name: split for name, split in splits.items() if split is not None}
    predict = towers.predictor(model, towers.in_this_process(config).parts)
    predicted = {
        name: _predict(predict, split, config.batch_size)
        for name, split in there.items()
    }
    rule = PLAIN
    if data.validation is not None:
        logits, _ = predicted["validation"]
        rule = fit_rule(config, logits, data.validation.labels)
    strange = None
    if unknown is not None:
        strange, _ = _predict(predict, unknown, config.batch_size)
    known = {}
    other = other_class(config, data.spec)
    for name, (logits, seconds) in predicted.items():
        labels = there[name].labels
        scores[name] = evaluation.evaluate_logits(
            rule.judge(logits).logits, labels, data.spec.class_names, other
        ) | {"seconds": seconds, "images_per_second": len(labels) / seconds}
        if name != "train":
            known[name] = logits, labels
    scores |= rejection.figures(config, rule, known, strange, other)
    judged = None if strange is None else rule.judge(strange)
    return Scored(rule, rule.judge(predicted["test"][0]), judged, scores)


def _predict(
    predict: Callable[[tf.data.Dataset], np.ndarray], split: Split, batch_size: int
) -> tuple[np.ndarray, float]:
    """Return the logits of every image of a split, and the seconds it took."""
    began = time.perf_counter()
    batches = pipeline.evaluation_batches(split, batch_size)
    with pipeline.reading(split):
        logits = predict(batches)
    pipeline.check_unchanged(split)
    evaluation.check_finite(logits)
    return logits, time.perf_counter() - began
