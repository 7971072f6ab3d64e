"""A run's files -> one self-contained HTML page."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kcnn import pages
from kcnn.confidence import Rule
from kcnn.config import KNOBS
from kcnn.errors import UsageError
from kcnn.files import write_text
from kcnn.knobs import By, show
from kcnn.run import Run, read_rows

# Name of a picture in plots/ -> its title and how to read it, in the page's order.
_PICTURES = {
    "learning_curves": (
        "Learning curves",
        "The training figures are averages over an epoch, taken with dropout and "
        "augmentation while the weights change, so they can look worse than those of "
        "the finished epoch; their loss includes label smoothing and class weights.",
    ),
    "confusion_matrix": (
        "Confusion matrix, in images",
        "Each row is a true class; what is off the grey diagonal was taken for "
        "another class.",
    ),
    "confusion_matrix_normalized": (
        "Confusion matrix, in percent",
        "The same with each row divided by its number of images, so that rare and "
        "frequent classes can be compared.",
    ),
    "per_class": (
        "Per class",
        "Precision is the part of the predictions of a class that are right, recall "
        "the part of its images that are found, and F1 their harmonic mean.",
    ),
    "reliability": (
        "Calibration",
        "Where bars end below the dashed line the model is surer than it is right; "
        "a long interval means few images in that bin. Of the test images; before and "
        "after, where a temperature was fitted to the validation images.",
    ),
    "risk_coverage": (
        "Risk and coverage",
        "The fewer images are accepted, the surest first, the fewer of them are wrong; "
        'what lies right of the threshold is answered with "unknown".',
    ),
    "scores": (
        "Scores of known and unknown images",
        "AUROC is the chance that a test image has a higher score than an image of no "
        "class: 1 tells all apart, 0.5 none.",
    ),
    "mistakes": (
        "Mistakes",
        "The wrong predictions of highest probability, which are often the images "
        "with doubtful labels.",
    ),
    "training_images": (
        "Training images",
        "What the first trained layer sees, after preprocessing and augmentation.",
    ),
}
_ARCHITECTURE = "architecture"  # has its own place on the page

_HIGHEST_OPEN = 20  # classes; a longer table starts folded
_LISTED_FILES = 100  # skipped files on the page; evaluation.json has all


def write_report(model_dir: str | os.PathLike) -> pathlib.Path:
    """Render a finished run's report.html from its files, and return its path.

    Raises UsageError if `model_dir` holds no finished run.
    """
    run = Run(pathlib.Path(model_dir))
    note = run.read_config()
    if not run.evaluation.exists() or not run.metrics.exists():
        raise UsageError(
            f"{run.path}: this run has not finished, so there is nothing to report; "
            "go on with it by kcnn train --resume"
        )
    page = pages.render("report.html", _facts(run, note, run.read_evaluation()))
    write_text(run.report, page)
    return run.report


def _facts(
    run: Run, note: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """Gather what the template shows."""
    test = result["test"]
    names = ("train", "validation", "test")
    skipped = result["skipped_files"]
    images = {path.stem: path for path in sorted(run.plots.glob("*.png"))}
    drawn = images.pop(_ARCHITECTURE, None)
    return {
        "note": note,
        "subject": note["experiment"] or note["config"]["model"],
        "test": test,
        "mistakes": round(test["n"] * (1 - test["accuracy"])),
        "splits": {name: result[name] for name in names if result[name]},
        "comparison": _comparison(result),
        "reported": result.get("reported"),
        "pictures": _pictures(images),
        "architecture": pages.embedded(drawn) if drawn else None,
        "epochs": read_rows(run.metrics),
        "changed": _changed(note["config"]),
        "sections": _sections(note["config"]),
        "skipped": skipped[:_LISTED_FILES],
        "skipped_count": len(skipped),
        "classes_open": len(test["per_class"]) <= _HIGHEST_OPEN,
        "timing": result["timing"],
        "export": result.get("export"),
        "calibration": result.get("calibration"),
        "rejection": result.get("rejection"),
        "unknown": result.get("unknown"),
        "rule": str(Rule.of(result)),
    }


def _pictures(images: dict[str, pathlib.Path]) -> list[dict[str, str]]:
    """Return title, caption and data of each picture, those unknown here last."""
    known = [name for name in _PICTURES if name in images]
    others = [name for name in images if name not in _PICTURES]
    found = []
    for name in known + others:
        title, caption = _PICTURES.get(name, (name.replace("_", " "), ""))
        data = pages.embedded(images[name])
        found.append({"name": name, "title": title, "caption": caption, "data": data})
    return found


def _comparison(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what, published and measured, for each figure that was published."""
    reported = result.get("reported") or {}
    test, seconds = result["test"], result["timing"]["train_seconds"]
    accuracy, low, high = map(
        pages.percent, (test["accuracy"], *test["accuracy_interval"])
    )
    measured = {
        "accuracy": (
            "test accuracy",
            pages.percent,
            f"{accuracy} ({low} to {high})",
        ),
        "loss": ("test loss", pages.decimal, pages.decimal(test["loss"])),
        "seconds": ("training time", pages.duration, pages.duration(seconds)),
    }
    return [
        (label, form(reported[key]), ours)
        for key, (label, form, ours) in measured.items()
        if reported.get(key) is not None
    ]


def _default(name: str, config: Mapping[str, Any]) -> Any:
    """Return what a knob would be had nobody set it, given the other knobs."""
    default = KNOBS[name].default
    if isinstance(default, By):
        return default.defaults.get(config[default.knob])
    return default


def _changed(config: Mapping[str, Any]) -> list[tuple[str, Any, Any, str]]:
    """Return name, value, default and help of the knobs that were set."""
    return [
        (name, value, _default(name, config), KNOBS[name].help)
        for name, value in config.items()
        if name in KNOBS and show(value) != show(_default(name, config))
    ]


def _sections(config: Mapping[str, Any]) -> dict[str, list[tuple[str, Any, str]]]:
    """Return section -> name, value and help of its knobs that this run has."""
    sections: dict[str, list[tuple[str, Any, str]]] = {}
    for name, value in config.items():
        knob = KNOBS.get(name)
        section, text = (knob.section, knob.help) if knob else ("other", "")
        if value is not None:
            sections.setdefault(section, []).append((name, value, text))
    return sections
