"""A benchmark's figures as lines and tables of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcnn.benchmark.sides import OWN_RECIPE
from kcnn.table import render

_SIDE = 28  # characters


def round_line(one: Mapping[str, Any], rounds: int) -> str:
    """Return the line that a round begins with."""
    what = "speed" if one["part"] == "speed" else "time to accuracy"
    text = f"round {one['round']}/{rounds}  {what}; random seed {one['random_seed']}"
    if "roof" in one:
        dtype = max(one["roof"], key=one["roof"].__getitem__)
        text += f"; roof {one['roof'][dtype] / 1e9:,.0f} GFLOP/s ({dtype})"
    return text


def run_line(run: Mapping[str, Any]) -> str:
    """Return the line of a run that has ended."""
    text = f"  {run['model']:<9} {run['side']:<{_SIDE}}"
    if run["part"] == "speed":
        text += f" {run['images_per_second']:>8,.0f} images/s"
        text += f" {run['peak_memory_mib']:>6,.0f} MiB"
    else:
        epochs = "epoch " if run["epochs"] == 1 else "epochs"
        text += f" {run['epochs']:>3} {epochs} {sum(run['epoch_seconds']):>7,.1f} s"
    return f"{text}  accuracy {run['accuracy']:.2%}"


def tables(figures: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of all that came out, as far as it came."""
    if figures["speed"]:
        yield from render(_speed(figures["speed"]), "table", right=_RIGHT).splitlines()
        yield ""
        yield from _note(_SPEED_NOTE)
    if figures["accuracy"]:
        yield ""
        for row in figures["accuracy"]:
            yield from _note(row["sentence"])
    if figures["time_to"]:
        yield ""
        rows = _time_to(figures["time_to"])
        yield from render(rows, "table", right=_RIGHT).splitlines()
        yield ""
        images, test = record["time_to"]["images"], record["data"]["test"]
        yield from _note(
            f"Seconds of training on {images:,} images until the accuracy on the "
            f"{test:,} test images was reached: {_TIME_TO_NOTE}"
        )
        if any(row["side"] == OWN_RECIPE.name for row in rows):
            yield from _note(_RECIPE_NOTE)


_RIGHT = ("images/s", "kcnn is faster by", "of the roof", "peak MiB", "accuracy")

_SPEED_NOTE = (
    "Medians over whole rounds, and their range; images/s by the median epoch after "
    "the first, in which graphs are built. kcnn is faster by: its images/s over this "
    "side's, round by round. Roof: the fastest 2048 x 2048 matrix product of the "
    "round; a training step counts as three times the model's forward FLOP. The stock "
    "script is run again with what of precision and oneDNN it could have by one line. "
    "Peak MiB: resident memory of the process, or of one that it started if that is "
    "larger. Accuracy: mean of the test accuracies at the end, and deviation."
)
_TIME_TO_NOTE = (
    "median over whole rounds, and the range, by whole epochs; building graphs counts, "
    "evaluation does not. It reads the test images after every epoch, to compare "
    "speed, and only for that: nothing may be chosen by such figures."
)
_RECIPE_NOTE = (
    f"{OWN_RECIPE.name} is not the same training faster: it is a smaller network with "
    "its own crop, optimizer and schedule, made for these images."
)


def _note(text: str) -> list[str]:
    return textwrap.wrap(text, 88, break_on_hyphens=False)


def _speed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the table of `kcnn.benchmark.figures.speed_rows`, as text."""
    return [
        {
            "model": row["model"],
            "side": row["side"],
            "images/s": _range(row, "images_per_second", ",.0f"),
            "kcnn is faster by": _range(row, "kcnn_is_faster_by", ".2f"),
            "of the roof": f"{row['roof_part']:.1%}",
            "peak MiB": f"{row['peak_memory_mib']:,.0f}",
            "accuracy": accuracy_text(row),
        }
        for row in rows
    ]


def accuracy_text(row: Mapping[str, Any]) -> str:
    """Return the mean accuracy of a row of speed, with its deviation."""
    deviation = row["accuracy_deviation"]
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{row['accuracy']:.2%}{spread}"


def _range(row: Mapping[str, Any], key: str, form: str) -> str:
    """Return a median, with its range where there are several rounds."""
    if row[key] is None:
        return ""
    middle, low, high = (
        format(row[k], form) for k in (key, f"{key}_low", f"{key}_high")
    )
    return middle if row["rounds"] == 1 else f"{middle} ({low} to {high})"


def _time_to(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row a side, a column a target."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        line = table.setdefault(
            row["side"], {"model": row["model"], "side": row["side"]}
        )
        line[percent(row["target"])] = seconds_text(row)
    return list(table.values())


def percent(target: float) -> str:
    """Return a target as people write it: 99.2%."""
    return f"{100 * target:.6g}%"


def seconds_text(row: Mapping[str, Any]) -> str:
    """Return the seconds of a row of time_to, or that they were not enough."""
    if not row["reached"]:
        epochs = "1 epoch" if row["epochs"] == 1 else f"{row['epochs']} epochs"
        return f"not reached in {epochs}"
    some = f"{row['reached']} of {row['rounds']} rounds"
    if row["seconds"] is None:
        return f"{row['seconds_low']:.3g} s at best, {some}"
    text = f"{row['seconds']:.3g} s"
    if row["rounds"] > 1:
        high = "-" if row["seconds_high"] is None else f"{row['seconds_high']:.3g}"
        text += f" ({row['seconds_low']:.3g} to {high})"
    return text if row["reached"] == row["rounds"] else f"{text}, {some}"
