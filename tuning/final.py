"""The best trials trained again from scratch, tested once, against the untuned recipe.

A search's best score is the highest of many figures on one validation set: it is
better than what it stands for. So the recipe is trained again with random seeds that
the search has not used, on the training images and on these with the validation
images, and is tested beside the untuned recipe with the same seeds.
"""

from __future__ import annotations

import dataclasses
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn import comparison
from kcnn.config import KNOBS, Config
from kcnn.errors import RunError
from kcnn.knobs import By, show
from kcnn.recipes import collect
from kcnn.run import Run
from kcnn.sweep import PlannedRun
from kcnn.sweep_record import SweepRecord
from tuning.objective import Objective

UNTUNED = "untuned"
TRAIN, ALL = "train", "train+validation"


def flags_of(config: Config) -> dict[str, Any]:
    """Return the knobs that have to be given to get a Config, and their values."""
    flags = {}
    for name, knob in KNOBS.items():
        value, default = getattr(config, name), knob.default
        if isinstance(default, By):
            default = default.defaults.get(getattr(config, default.knob))
        if value != default:
            flags[name] = value
    return flags


def train_command(config: Config) -> str:
    """Return the command that trains a Config."""
    flags = [f"--{name}={show(value)}" for name, value in flags_of(config).items()]
    return shlex.join(["kcnn", "train", *flags])


def plan(recipes: Mapping[str, Config], seeds: Sequence[int]) -> list[PlannedRun]:
    """Return every run: of each recipe, on both sets of images, with each seed.

    A recipe that needs validation images, such as keep=best, is not trained on them.
    """
    planned = []
    for images in (TRAIN, ALL):
        for name, config in recipes.items():
            if images == ALL and config.needs_validation:
                continue
            part = config.validation_fraction if images == TRAIN else 0.0
            for seed in seeds:
                own = dataclasses.replace(
                    config, random_seed=seed, validation_fraction=part
                )
                swept = {"recipe": name, "images": images, "random_seed": seed}
                folder = f"{name},{images},random_seed={seed}".replace(" ", "-")
                planned.append(PlannedRun(folder, swept, own, None, flags_of(own)))
    return planned


def conclude(
    record: SweepRecord, searched: Mapping[str, float], objective: Objective
) -> dict[str, Any]:
    """Compare the tested recipes and choose among the tuned ones.

    Args:
        record: what came of the runs of `plan`.
        searched: the search's score of each tuned recipe, by name, best first.
        objective: of the search.

    Returns:
        compared: for each set of images what `kcnn.comparison.compare` returns;
        optimism: of each tuned recipe its score in the search, and the mean of the
        same figure on the validation and on the test images over the seeds, when
        trained on the training images; winner: the name with the best validation
        mean; notes: lines about runs left out.

    Raises:
        RunError: no tuned recipe was trained to its end.
    """
    compared, notes = {}, []
    for images in (TRAIN, ALL):
        of = {
            str(outcome.run.path): outcome.planned.swept["recipe"]
            for outcome in record.outcomes
            if outcome.planned.swept["images"] == images and outcome.status == "done"
        }
        if not of:
            continue
        recipes, said = collect(list(of))
        for recipe in recipes:
            recipe["name"] = of[recipe["runs"][0]["path"]]
        compared[images] = comparison.compare(recipes)
        notes += said
    optimism = {}
    for name, score in searched.items():
        runs = [
            outcome.run
            for outcome in record.outcomes
            if outcome.planned.swept["recipe"] == name
            and outcome.planned.swept["images"] == TRAIN
            and outcome.status == "done"
        ]
        if runs:
            optimism[name] = {
                "search": score,
                **{
                    part: _mean(runs, part, objective)
                    for part in ("validation", "test")
                },
            }
    if not optimism:
        reasons = [outcome.reason for outcome in record.outcomes if outcome.reason]
        raise RunError(f"no tuned recipe was trained to its end: {reasons[-1]}")
    winner = min(optimism, key=lambda n: objective.cost(optimism[n]["validation"]))
    return {
        "compared": compared,
        "optimism": optimism,
        "winner": winner,
        "notes": notes,
    }


def _mean(runs: Sequence[Run], part: str, objective: Objective) -> float:
    return statistics.fmean(run.read_evaluation()[part][objective.name] for run in runs)
