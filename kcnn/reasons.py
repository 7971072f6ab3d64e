"""Reasons why a published figure is not measured again, each with its check.

A reason is kept with the experiment as the name of a claim; what the claim says is
tested against the measured figures, so that it cannot outlive them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcnn.experiments import Reason
from kcnn.reproduction import AS_PUBLISHED, VARIANT
from kcnn.statistics import paired_test

# Of kcnn.reproduction_results: rows by name.
Rows = Mapping[str, Mapping[str, Any]]


def holds(reason: Reason, rows: Rows, name: str) -> bool | None:
    """Tell whether the measured figures bear out a reason given for a row.

    None: figures that it needs have not been measured.
    """
    try:
        return CLAIMS[reason.claim](reason, rows, name)
    except _NotMeasuredError:
        return None


def by_seed(recipe: Mapping[str, Any], figure: str) -> dict[int, float]:
    """Return random seed -> a figure that was measured of a recipe."""
    return dict(zip(recipe["random_seeds"], recipe[figure]["values"], strict=True))


class _NotMeasuredError(Exception):
    """A claim needs a figure that is not there."""


def _measured(rows: Rows, name: str, figure: str, recipe: str = AS_PUBLISHED) -> Any:
    """Return a figure of a row's recipe; raises _NotMeasuredError without it."""
    found = (rows.get(name, {}).get(recipe) or {}).get(figure)
    if found is None:
        raise _NotMeasuredError
    return found


def _weights_carried_over(reason: Reason, rows: Rows, name: str) -> bool:
    """Better than a fresh run, and no better than the run it went on from."""
    published = rows[name]["reported"][reason.figure]
    fresh = _measured(rows, name, reason.figure)
    source = _measured(rows, reason.argument, reason.figure)
    return (fresh["interval"] or [0, fresh["mean"]])[1] < published <= source["mean"]


def _not_a_number(reason: Reason, rows: Rows, name: str) -> bool:
    """Class 0 said of every image, as the largest of ten NaNs is the first."""
    published = rows[name]["reported"]
    off = abs(published["accuracy"] - _measured(rows, name, "first_class_part"))
    return published["loss_was_nan"] and off < 5e-5


def _other_images(reason: Reason, rows: Rows, name: str) -> bool:
    """A part of so many images, and worse than on the data's own test images."""
    published = rows[name]["reported"]
    right = round(published["accuracy"] * reason.argument)
    return (
        abs(right / reason.argument - published["accuracy"]) < 5e-5
        and published["accuracy"] < _measured(rows, name, "accuracy")["mean"]
    )


def _variant_agrees(reason: Reason, rows: Rows, name: str) -> bool:
    """What one run of the row's variant gives."""
    return _measured(rows, name, reason.figure, VARIANT)["agrees"] is True


def _not_by_the_knob(reason: Reason, rows: Rows, name: str) -> bool:
    """The published gap to another row is outside the measured gap's 95% interval."""
    theirs = [rows[one]["reported"][reason.figure] for one in (name, reason.argument)]
    ours = []
    for one in (name, reason.argument):
        _measured(rows, one, reason.figure)
        ours.append(by_seed(rows[one][AS_PUBLISHED], reason.figure))
    interval = paired_test(*ours).interval
    if interval is None:
        raise _NotMeasuredError
    return not interval[0] <= theirs[0] - theirs[1] <= interval[1]


def _within_seeds_of(reason: Reason, rows: Rows, name: str) -> bool:
    """As far off as one more run of another row, of the same net, may be."""
    other = _measured(rows, reason.argument, reason.figure)
    if other["interval_of"] != "seeds":
        raise _NotMeasuredError
    low, high = other["interval"]
    off = _measured(rows, name, reason.figure)["difference"]
    return abs(off) <= (high - low) / 2


CLAIMS: dict[str, Callable[[Reason, Rows, str], bool]] = {
    "weights_carried_over": _weights_carried_over,
    "not_a_number": _not_a_number,
    "other_images": _other_images,
    "variant_agrees": _variant_agrees,
    "not_by_the_knob": _not_by_the_knob,
    "within_seeds_of": _within_seeds_of,
}
