"""The model card of an export: what the model is, was measured to do, and cannot do.

README.md is for people, model_card.json for programs; both are made of what the run
knows (after Mitchell et al., Model Cards for Model Reporting, 2019).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from kcnn import pages
from kcnn.confidence import Rule
from kcnn.rejection import lines
from kcnn.table import escape_markdown

_MOST_CONFUSED = 10  # pairs of classes that are listed
_LARGEST_MATRIX = 20  # classes; a larger matrix is in the JSON only

_FIGURES: tuple[str, ...] = ("n", "accuracy", "accuracy_interval", "loss", "macro_f1")
_FIGURES += ("expected_calibration_error", "per_class", "confusion_matrix")


def model_card(
    name: str,
    note: Mapping[str, Any],
    scores: Mapping[str, Any],
    rule: Rule,
    license: str | None,
) -> dict[str, Any]:
    """Gather the facts of a trained model.

    Args:
        name: the export's.
        note: the run's config.json.
        scores: its evaluation.json, as far as `test`, `rejection` and `unknown` go.
        rule: which images the model accepts.
        license: under which the model may be used; None where nobody has said.

    Returns:
        plain values, with `confused`: true class, predicted class and number of test
        images, the most frequent first.
    """
    config, spec, test = note["config"], note["spec"], scores["test"]
    network = note["model"]
    return {
        "name": name,
        "license": license,
        "model": {
            "architecture": config["model"],
            "parameters": network["parameters"],
            "flops": network["flops"],
        },
        "input": {k: spec[k] for k in ("height", "width", "channels")}
        | {"dtype": "uint8", "normalize_input": spec.get("normalize_input", "none")},
        "classes": list(spec["class_names"]),
        "data": {"dataset": config["dataset"], **note["data"]},
        "random_seed": config["random_seed"],
        "test": {key: test[key] for key in _FIGURES},
        "confused": _confused(test["confusion_matrix"], spec["class_names"]),
        "confidence": dataclasses.asdict(rule),
        "confidence_on_test": _confidence(scores, rule),
        "intended_use": list(_intended_use(spec, config["dataset"])),
        "limits": list(_limits(note, scores, rule)),
        "training": {
            key: note.get(key)
            for key in ("command", "started", "commit", "versions", "hardware")
        },
    }


def files(card: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the card as README.md and model_card.json."""
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    page = (
        _environment()
        .get_template("model_card.md")
        .render(card=card, matrix=len(card["classes"]) <= _LARGEST_MATRIX)
    )
    return {"README.md": page.encode(), "model_card.json": f"{text}\n".encode()}


def _confidence(scores: Mapping[str, Any], rule: Rule) -> list[str]:
    rejected = (scores.get("rejection") or {}).get("test")
    texts = [str(rule), *lines(rejected, scores.get("unknown"))]
    return [text for text in texts if text]


def _confused(
    matrix: Sequence[Sequence[int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = [
        {"true": names[i], "predicted": names[j], "images": count}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda p: -p["images"])[:_MOST_CONFUSED]


def _intended_use(spec: Mapping[str, Any], dataset: str) -> Iterator[str]:
    count = len(spec["class_names"])
    yield (
        f"To tell which of {count:,} classes an image shows, where the images are of "
        f"the kind of {dataset}, and each shows one of the classes."
    )
    yield "To learn from and compare with: the command below trains it again."


def _limits(
    note: Mapping[str, Any], scores: Mapping[str, Any], rule: Rule
) -> Iterator[str]:
    spec, test = note["spec"], scores["test"]
    yield (
        "The accuracy is that on these test images. On images made in another way it "
        "can be far lower, and nothing here tells how far."
    )
    yield (
        "The interval tells how well the number of test images lets the accuracy be "
        "known. It is one run with one random seed; another seed moves the figure."
    )
    if rule.threshold is None:
        yield (
            "It names one of its classes for every image, also for one that shows none "
            "of them, and its probability can be high then."
        )
    elif not scores.get("unknown"):
        yield "How many images of no class it accepts has not been tested."
    if rule.temperature == 1:
        yield "Its probabilities were not calibrated."
    weakest = min(test["per_class"], key=lambda one: one["recall"])
    yield (
        f"Of its classes {weakest['name']} is recognized least: "
        f"{weakest['recall']:.2%} of its {weakest['support']:,} test images."
    )
    yield _what_is_lost(spec)
    yield "It was not tested for fairness between groups of people, nor for attacks."


def _what_is_lost(spec: Mapping[str, Any]) -> str:
    size = f"{spec['height']}x{spec['width']} pixels"
    if spec.get("normalize_input", "none") != "none":
        return (
            f"Every image is put as MNIST's digits were made, in {size} of grey: its "
            "size, place, color and paper count for nothing."
        )
    grey = " and to grey" if spec["channels"] == 1 else ""
    return f"Every image is brought to {size}{grey} first; what that loses is not seen."


@functools.cache
def _environment() -> jinja2.Environment:
    environment = pages.template_environment(
        finalize=_plain, keep_trailing_newline=True
    )
    environment.filters.update(
        percent=lambda part: f"{part:.2%}",
        whole=lambda number: f"{number:,}",
        block=lambda text: markupsafe.Markup(textwrap.indent(text, "    ")),
    )
    return environment


def _plain(value: Any) -> str:
    """Return what Markdown shows as it stands, of all that a template inserts."""
    if isinstance(value, markupsafe.Markup):
        return value
    return escape_markdown(str(value))
