"""Which runs repeat the published ones, and what they are called.

Nothing here starts a process or imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.config import Config
from kcnn.experiments import EXPERIMENTS, Experiment
from kcnn.sweep import PlannedRun, Point, planned, points

AS_PUBLISHED, VARIANT = "as_published", "variant"

# What --quick lowers settings to. Its figures say only that everything runs.
QUICK = {"train_size": 5000, "epochs": 2}


@dataclasses.dataclass(frozen=True)
class Row:
    """One published run and the runs that repeat it.

    `runs` holds names of runs under "as_published" and, where the experiment has one,
    "variant"; it is empty for a row that cannot be trained. Rows of one recipe share
    their runs.
    """

    name: str
    experiment: Experiment
    runs: dict[str, list[str]]


def plan_rows(
    seeds: Mapping[str, Sequence[int]],
    given: Mapping[str, Any],
    instead: Mapping[str, str],
    quick: bool = False,
) -> tuple[list[Row], list[PlannedRun]]:
    """Return the rows of some experiments, and the runs that they need, each once.

    Args:
        seeds: the random seeds of each experiment, in place of its own.
        given: knobs for every run, such as precision.
        instead: data set to read in place of the published one, by its name.
        quick: train on less data and for less time; see QUICK.
    """
    every: list[tuple[Point, str, str]] = []
    for name, its_seeds in seeds.items():
        for variant, its_points in _recipes(name, its_seeds, given, instead, quick):
            every += [(point, name, variant) for point in its_points]
    runs: dict[Config, PlannedRun] = {}
    used: dict[str, dict[str, list[str]]] = {name: {} for name in seeds}
    for run, (_, name, variant) in zip(
        planned([point for point, *_ in every]), every, strict=True
    ):
        first = runs.setdefault(run.config, run)
        used[name].setdefault(variant, []).append(first.name)
    rows = [Row(name, EXPERIMENTS[name], used[name]) for name in used]
    # All rows once, then again: a reader who cannot wait has a figure for each early.
    return rows, sorted(runs.values(), key=lambda run: run.config.random_seed)


def _recipes(
    name: str,
    seeds: Sequence[int],
    given: Mapping[str, Any],
    instead: Mapping[str, str],
    quick: bool,
) -> list[tuple[str, list[Point]]]:
    experiment = EXPERIMENTS[name]
    if not experiment.can_be_run:
        return []
    settings = experiment.settings
    common = {knob: (value,) for knob, value in given.items()}
    if settings["dataset"] in instead:
        common["dataset"] = (instead[settings["dataset"]],)
        common.pop("data_dir", None)
    swept = dict(experiment.sweep)
    if quick:
        common |= {
            knob: (min(most, settings.get(knob) or most),)
            for knob, most in QUICK.items()
        }
        for knob, every in swept.items():
            swept[knob] = (every[0], every[len(every) // 2], every[-1])
    recipes: dict[str, Mapping[str, Any]] = {AS_PUBLISHED: {}}
    if experiment.variant:
        recipes[VARIANT] = experiment.variant
    found = []
    for recipe, knobs in recipes.items():
        apart = {
            **swept,
            **{knob: (value,) for knob, value in knobs.items()},
            "random_seed": tuple(seeds),
        }
        found.append((recipe, list(points(name, common | apart, set(apart)))))
    return found
