"""List the named runs: what each is for, its settings and its published figures."""

from __future__ import annotations

from typing import Any

from absl.flags import FlagValues

from kcnn.experiments import NAMED, Experiment, matching
from kcnn.knobs import Knob, show
from kcnn.table import FORMATS, render

USAGE = "kcnn experiments [PATTERN ...] [--format=table|json|csv]"

FLAGS = {"format": Knob("experiments", "table", "form of the output", choices=FORMATS)}


def define_knobs(values: FlagValues) -> None:
    """Define no knobs."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Print a row an experiment whose id or group matches a pattern; all without."""
    form = values.format or "table"
    names = matching(arguments) if arguments else list(NAMED)
    rows = [_row(name, NAMED[name], form) for name in names]
    print(render(rows, form, below=("about", "settings")))


def _row(name: str, experiment: Experiment, form: str) -> dict[str, Any]:
    reported = experiment.reported
    loss = "nan" if reported.loss_was_nan and form != "json" else reported.loss
    settings = experiment.settings
    return {
        "experiment": name,
        "group": experiment.group,
        "published accuracy": reported.accuracy,
        "published loss": loss,
        "published seconds": reported.train_seconds,
        "about": experiment.about,
        "settings": dict(settings)
        if form == "json"
        else " ".join(f"--{key}={show(value)}" for key, value in settings.items()),
    }
