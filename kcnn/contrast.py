"""Two recipes -> where their models differ: which images, which classes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kcnn import predictions
from kcnn.errors import UsageError
from kcnn.recipes import Recipe
from kcnn.run import Run

_Groups = dict[str, np.ndarray]


def confusion_difference(
    a: Recipe, b: Recipe, classes: int
) -> tuple[np.ndarray, list[int]]:
    """Return A's confusion matrix less B's, in test images, and the seeds behind it.

    It is the mean over the random seeds that both have. Where they share none, the
    mean of B's runs is taken from that of A's, and the list of seeds is empty.

    Args:
        a: a recipe of `kcnn.recipes.collect`.
        b: another one, tested on the same images.
        classes: how many there are.

    Returns:
        (classes, classes) float64, rows are the true classes; and the common seeds.

    Raises:
        UsageError: a run has no predictions.
    """
    of_a, of_b = (
        {run["random_seed"]: _confusion(run, classes) for run in recipe["runs"]}
        for recipe in (a, b)
    )
    common = sorted(of_a.keys() & of_b.keys())
    if common:
        return np.mean([of_a[s] - of_b[s] for s in common], axis=0), common
    mean_a, mean_b = (np.mean(list(of.values()), axis=0) for of in (of_a, of_b))
    return mean_a - mean_b, []


def _confusion(run: Mapping[str, Any], classes: int) -> np.ndarray:
    _need_predictions(run)
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (run["labels"], run["predicted"]), 1)
    return matrix


def best_run(recipe: Recipe) -> Mapping[str, Any]:
    """Return the run of the highest accuracy, of several the one of lowest loss."""
    return max(recipe["runs"], key=lambda run: (run["accuracy"], -run["loss"]))


def disagreements(a: Mapping[str, Any], b: Mapping[str, Any]) -> _Groups:
    """Return the test images of which two runs say different things.

    Returns:
        only_a, only_b: positions of those that only A or only B has right; neither:
        of those that each takes for another wrong class. The images that both are
        surest of come first: by the smaller of the two probabilities.

    Raises:
        UsageError: a run has no predictions.
    """
    _need_predictions(a)
    _need_predictions(b)
    differ = a["predicted"] != b["predicted"]
    sure = np.minimum(probabilities(a).max(1), probabilities(b).max(1))
    order = np.argsort(-sure, kind="stable")

    def among(which: np.ndarray) -> np.ndarray:
        return order[which[order]]

    return {
        "only_a": among(differ & a["right"]),
        "only_b": among(differ & b["right"]),
        "neither": among(differ & ~a["right"] & ~b["right"]),
    }


def probabilities(run: Mapping[str, Any]) -> np.ndarray:
    """Return a run's probabilities, (test images, classes) float32."""
    return predictions.read(Run(run["path"]).predictions).probabilities


def fair_share(groups: _Groups, most: int) -> _Groups:
    """Return the first of each group, `most` in all, taken from them in turn."""
    turns = itertools.zip_longest(*groups.values())
    taken = [p for turn in turns for p in turn if p is not None][:most]
    return {name: group[np.isin(group, taken)] for name, group in groups.items()}


def _need_predictions(run: Mapping[str, Any]) -> None:
    if run["predicted"] is None:
        raise UsageError(f"{run['path']} has no predictions.npz")


def seeds_said(seeds: Sequence[int]) -> str:
    """Say over which seeds a difference was taken."""
    if not seeds:
        return "mean of all runs of the one less that of the other: no common seed"
    if len(seeds) == 1:
        return f"random seed {seeds[0]}"
    return f"mean over {len(seeds)} common random seeds"
