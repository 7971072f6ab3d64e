"""Test a run or a SavedModel on a split of its own data set or of another one.

Every image of the split is scored. Another data set's images are brought to the
model's shape, and its classes, in whatever order, are found among the model's by name.
--unknown names images of no class: how well the model's scores tell them from the
others is tested too. Images of --other are tested as the class of that name.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.run import TRUST, Run, config_of
from kcnn.table import render

USAGE = "kcnn evaluate RUN|SAVED_MODEL [--dataset=NAME] [--unknown=NAME]"

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
    "plots": Knob(
        "evaluate",
        "",
        "draw risk_coverage.png, of a model that rejects images, and with --unknown "
        "scores.png into this folder",
    ),
}

_KNOBS = ("dataset", "data_dir", "other", "strict", "cache", "batch_size", "unknown")


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
    from kcnn import datasets, finished
    from kcnn.evaluation import evaluate_logits
    from kcnn.files import write_json
    from kcnn.rejection import known_against_unknown, selective_scores
    from kcnn.rejection_plots import draw
    from kcnn.repetition import other_images

    if Run(path).exists:
        if values.trust:
            raise UsageError("--trust changes nothing for a run: it holds no program")
        model = finished.of_run(path)
    else:
        model = finished.of_saved_model(path, bool(values.trust))
    given = flags.knobs_given(values)
    trained = config_of(model.note)
    config = _config(trained, given)
    name = values.split or "test"
    loaded = datasets.load_split(config, name, model.spec)
    split = datasets.in_classes_of(model.spec, loaded)
    unknown = datasets.load_unknown(config, model.spec)
    if values.plots and model.rule.threshold is None and unknown is None:
        raise UsageError(
            "--plots: nothing to draw; the model rejects no image and no --unknown is "
            "given"
        )
    if given.keys().isdisjoint(("dataset", "other")) and other_images(
        model.note, name, split.fingerprint
    ):
        print(
            f"kcnn evaluate: {config.dataset} has changed: its {name} split is taken "
            "from other images or labels than the model's was",
            file=sys.stderr,
        )
    began = time.perf_counter()
    judged = model.judge(split, config.batch_size)
    seconds = time.perf_counter() - began
    other = datasets.other_class(trained, model.spec)
    scores = evaluate_logits(judged.logits, split.labels, model.spec.class_names, other)
    known = judged.but(other, split.labels)
    rejected = figures = strange = None
    if judged.accepted is not None:
        rejected = selective_scores(judged, model.rule.score, split.labels)
    if unknown:
        strange = model.judge(unknown.split, config.batch_size)
        found = known_against_unknown(known, strange, other)
        figures = {"dataset": config.unknown, **found}
    skipped = loaded.skipped + (unknown.skipped if unknown else [])
    result = {
        "model": str(path),
        "dataset": config.dataset,
        "split": name,
        **scores,
        "rule": dataclasses.asdict(model.rule),
        "rejection": rejected,
        "unknown": figures,
        "skipped_files": [{"file": f, "reason": r} for f, r in skipped],
        "seconds": seconds,
        "images_per_second": len(split) / seconds,
    }
    if values.plots:
        folder = pathlib.Path(values.plots)
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder, model.rule, (rejected, known), (figures, strange))
    if values.output:
        write_json(values.output, result)
    print(json.dumps(result, indent=2) if values.format == "json" else _text(result))


def _config(trained: Config, given: dict[str, Any]) -> Config:
    """Return the data to score: the model's own, or another data set.

    Another one is divided as the model's was, should it be the same that has moved.
    """
    settings = trained.to_dict() | given
    if "dataset" in given:
        own = ("train_size", "strict", "data_dir", "other")
        settings |= {name: KNOBS[name].default for name in own} | given
    return Config.from_dict(settings)


def _text(result: dict[str, Any]) -> str:
    from kcnn.confidence import Rule
    from kcnn.evaluation import known_classes
    from kcnn.rejection import lines

    low, high = result["accuracy_interval"]
    rule = Rule(**result["rule"])
    texts = [
        f"{result['model']} on {result['dataset']}, {result['split']}:",
        f"accuracy {result['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}; "
        f"{result['mistakes']:,} of {result['n']:,} wrong)",
        *known_classes(result),
        f"loss {result['loss']:.4f}, macro F1 {result['macro_f1']:.4f}, calibration "
        f"error {result['expected_calibration_error']:.4f}",
        *([f"{rule}"] if str(rule) else []),
        *lines(result["rejection"], result["unknown"]),
        f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s",
        *(f"skipped {one['file']}: {one['reason']}" for one in result["skipped_files"]),
        "",
        render(result["per_class"], "table"),
    ]
    if "top_5_accuracy" in result:
        texts.insert(2, f"top-5 accuracy {result['top_5_accuracy']:.2%}")
    return "\n".join(texts)
