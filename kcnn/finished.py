"""A finished run, or its SavedModel -> what it makes of the images of a split."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from kcnn import pipeline
from kcnn.confidence import MAX_PROBABILITY, PLAIN, Judged, Rule, scores_of
from kcnn.errors import UsageError
from kcnn.evaluation import check_finite
from kcnn.inference import Classifier
from kcnn.run import Run, config_of, load_model, spec_of
from kcnn.spec import ImageSpec
from kcnn.splits import Split


class Finished(NamedTuple):
    """A model that can be tested.

    Attributes:
        note: the run's config.json, or what the export keeps of it.
        spec: the images' shape and the class names.
        rule: what was fitted to the validation images.
        of_batches: makes of (batch, ...) uint8 images what comes out for all of them.
    """

    note: dict[str, Any]
    spec: ImageSpec
    rule: Rule
    of_batches: Callable[[Iterable[Any]], Judged]

    def judge(self, split: Split, batch_size: int) -> Judged:
        """Return what comes out for every image of a split.

        Raises RunError if a logit is not finite.
        """
        with pipeline.reading(split):
            judged = self.of_batches(pipeline.evaluation_batches(split, batch_size))
        check_finite(judged.logits)
        return judged


def of_run(path: pathlib.Path) -> Finished:
    """Return a run to test; raises UsageError if it is not complete."""
    run = Run(path)
    note = run.read_config()
    model = load_model(run)
    rule = PLAIN
    if config_of(note).fits_confidence:
        if not run.evaluation.exists():
            raise UsageError(f"{run.path}: the run is not complete; {run.how_to_go_on}")
        rule = Rule.of(run.read_evaluation())

    def judge(batches: Iterable[Any]) -> Judged:
        return rule.judge(model.predict(batches, verbose=0))

    return Finished(note, spec_of(note), rule, judge)


def of_saved_model(path: pathlib.Path, trust: bool) -> Finished:
    """Return an export to test; see kcnn.inference.Classifier."""
    classifier = Classifier(path, trust)
    try:
        rule = Rule(**classifier.card.get("confidence", {}))
    except TypeError as error:
        raise UsageError(f"{path}: a damaged SavedModel: {error}") from None

    def judge(batches: Iterable[Any]) -> Judged:
        found = classifier.outputs_of_batches(batches)
        # Logits up to a constant; a probability that underflowed stays finite.
        tiny = np.finfo(np.float32).tiny
        logits = np.log(np.maximum(found["probabilities"], tiny))
        scores = {MAX_PROBABILITY: scores_of(logits, 1.0)[MAX_PROBABILITY]}
        if "score" in found:  # an energy is not in the probabilities
            scores[rule.score] = found["score"]
        return Judged(logits, scores, found.get("accepted"))

    return Finished(classifier.card, spec_of(classifier.card), rule, judge)
