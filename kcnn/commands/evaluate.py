"""Test a run or a SavedModel on a split of its own data set or of another one.

Every image of the split is scored. Another data set's images are brought to the
model's shape, and its classes, in whatever order, are found among the model's by name.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.run import TRUST, Run, config_of, load_model, spec_of
from kcnn.spec import ImageSpec
from kcnn.table import render

USAGE = "kcnn evaluate RUN|SAVED_MODEL [--split=test] [--dataset=NAME]"

FLAGS = {
    "split": Knob(
        "evaluate",
        "test",
        "which images to score",
        choices=("train", "validation", "test"),
    ),
    "format": Knob(
        "evaluate", "table", "form of the output", choices=("table", "json")
    ),
    "trust": Knob("evaluate", False, TRUST, kind=bool),
    "output": Knob("evaluate", "", "write the figures to this JSON file too"),
}

_KNOBS = ("dataset", "data_dir", "strict", "cache", "batch_size")


class _Scorer(NamedTuple):
    """What was trained on, and a function from image batches to log-probabilities.

    `note` is the run's config.json, or what the export keeps of it.
    """

    note: dict[str, Any]
    spec: ImageSpec
    score: Callable[[Any], np.ndarray]


def define_knobs(values: FlagValues) -> None:
    """Define the flags of the data."""
    flags.define_knobs(values, _KNOBS)


def main(values: FlagValues, arguments: list[str]) -> None:
    """Score a split and print the figures."""
    if len(arguments) != 1:
        raise UsageError(f"expected one folder, a run or a SavedModel: {USAGE}")
    path = pathlib.Path(arguments[0])
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; expected a run or a SavedModel")

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, pipeline
    from kcnn.evaluation import evaluate_logits
    from kcnn.files import write_json
    from kcnn.repetition import other_images

    if Run(path).exists:
        if values.trust:
            raise UsageError("--trust changes nothing for a run: it holds no program")
        scorer = _run_scorer(path)
    else:
        scorer = _saved_model_scorer(path, bool(values.trust))
    given = flags.knobs_given(values)
    config = _config(config_of(scorer.note), given)
    name = values.split or "test"
    loaded = datasets.load_split(config, name, scorer.spec)
    split = datasets.in_classes_of(scorer.spec, loaded)
    if "dataset" not in given and other_images(scorer.note, name, split.fingerprint):
        print(
            f"kcnn evaluate: {config.dataset} has changed: its {name} split is taken "
            "from other images or labels than the model's was",
            file=sys.stderr,
        )
    began = time.perf_counter()
    with pipeline.reading(split):
        logits = scorer.score(pipeline.evaluation_batches(split, config.batch_size))
    seconds = time.perf_counter() - began
    scores = evaluate_logits(logits, split.labels, scorer.spec.class_names)
    result = {
        "model": str(path),
        "dataset": config.dataset,
        "split": name,
        **scores,
        "skipped_files": [{"file": f, "reason": r} for f, r in loaded.skipped],
        "seconds": seconds,
        "images_per_second": len(split) / seconds,
    }
    if values.output:
        write_json(values.output, result)
    print(json.dumps(result, indent=2) if values.format == "json" else _text(result))


def _config(trained: Config, given: dict[str, Any]) -> Config:
    """Return the data to score: the model's own, or another data set.

    Another one is divided as the model's was, should it be the same that has moved.
    """
    settings = trained.to_dict() | given
    if "dataset" in given:
        own = {name: KNOBS[name].default for name in ("train_size", "strict")}
        settings |= own | {"data_dir": KNOBS["data_dir"].default} | given
    return Config.from_dict(settings)


def _run_scorer(path: pathlib.Path) -> _Scorer:
    run = Run(path)
    note = run.read_config()
    model = load_model(run)
    return _Scorer(
        note,
        spec_of(note),
        lambda batches: model.predict(batches, verbose=0),
    )


def _saved_model_scorer(path: pathlib.Path, trust: bool) -> _Scorer:
    from kcnn.inference import Classifier

    classifier = Classifier(path, trust)

    def score(batches: Any) -> np.ndarray:
        # Logits up to a constant; a probability that underflowed stays finite.
        tiny = np.finfo(np.float32).tiny
        return np.log(np.maximum(classifier.probabilities_of_batches(batches), tiny))

    return _Scorer(classifier.card, spec_of(classifier.card), score)


def _text(result: dict[str, Any]) -> str:
    low, high = result["accuracy_interval"]
    lines = [
        f"{result['model']} on {result['dataset']}, {result['split']}:",
        f"accuracy {result['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}; "
        f"{result['mistakes']:,} of {result['n']:,} wrong)",
        f"loss {result['loss']:.4f}, macro F1 {result['macro_f1']:.4f}, calibration "
        f"error {result['expected_calibration_error']:.4f}",
        f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s",
        *(f"skipped {one['file']}: {one['reason']}" for one in result["skipped_files"]),
        "",
        render(result["per_class"], "table"),
    ]
    if "top_5_accuracy" in result:
        lines.insert(2, f"top-5 accuracy {result['top_5_accuracy']:.2%}")
    return "\n".join(lines)
