"""Run folders -> recipes: the runs that differ in nothing but their random seed."""

from __future__ import annotations

import datetime
import glob
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kcnn import predictions
from kcnn.config import KNOBS
from kcnn.errors import RunError, UsageError
from kcnn.knobs import By, default_among, show
from kcnn.run import Run

# What a recipe's result does not depend on, as far as it can be helped. Accuracy and
# loss are those of all test images, accepted or not.
_NO_RECIPE = {"random_seed", "data_dir", "cache", "strict"} | {
    name for name, knob in KNOBS.items() if knob.section == "machine"
}
_NO_RECIPE |= {"reject", "coverage", "unknown"}

Recipe = dict[str, Any]
_Found = dict[str, Any]


def collect(arguments: Sequence[str]) -> tuple[list[Recipe], list[str]]:
    """Return the recipes of the runs named, and what a person should know of them.

    Args:
        arguments: run folders, or patterns of such.

    Returns:
        For each recipe: name, settings (its knobs) and runs, in the order of their
        random_seed, each with path, random_seed, accuracy in [0, 1], hits of images,
        loss, calibration_error, train_seconds, test_seconds, images_per_second,
        parameters, flops and, where predictions.npz has them, indices, labels and
        predicted classes of the test images and whether each is `right`. And lines
        about runs left out.

    Raises:
        UsageError: nothing is found, or two runs have different test sets.
    """
    found, notes = [], []
    for path in _folders(arguments):
        try:
            found.append(_read(Run(path)))
        except _Incomplete as error:
            notes.append(f"{path}: left out: {error}")
    if not found:
        reasons = f" ({'; '.join(notes[:3])})" if notes else ""
        raise UsageError(f"no complete run in {' '.join(arguments)}{reasons}")
    _check_test_sets(found)
    recipes: dict[str, Recipe] = {}
    for run in found:
        key = json.dumps(run["settings"], sort_keys=True)
        recipe = recipes.setdefault(key, {"settings": run["settings"], "runs": {}})
        notes += _add(recipe["runs"], run)
    for recipe in recipes.values():
        recipe["runs"] = [run for _, run in sorted(recipe["runs"].items())]
    names = _names(list(recipes.values()))
    return [
        {"name": name, **recipe}
        for name, recipe in zip(names, recipes.values(), strict=True)
    ], notes


class _Incomplete(Exception):
    """A folder that holds no complete run; says why."""


def _folders(arguments: Iterable[str]) -> list[pathlib.Path]:
    """Return the folders named, and for a sweep's folder those of its runs.

    A sweep's own files, which a shell's RUNS/* names too, are passed over.
    """
    folders: dict[pathlib.Path, pathlib.Path] = {}
    for argument in arguments:
        path = pathlib.Path(argument)
        found = [path] if path.exists() else map(pathlib.Path, _matches(argument))
        if path.name in ("sweep.json", "sweep.csv"):
            continue
        paths = [run for one in found if one.is_dir() for run in _runs_in(one)]
        if not paths:
            raise UsageError(
                f"{argument}: no such folder; expected runs, as kcnn train writes them"
            )
        for path in paths:
            folders.setdefault(path.resolve(), path)
    return list(folders.values())


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))


def _runs_in(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / "sweep.json").exists():
        return sorted(path.parent for path in folder.glob("*/config.json"))
    return [folder]


def _read(run: Run) -> _Found:
    if not run.exists:
        raise _Incomplete("no config.json")
    if not run.evaluation.exists():  # its page may be missing
        raise _Incomplete("not complete, no evaluation.json")
    try:
        note, evaluation = run.read_config(), run.read_evaluation()
        test, timing = evaluation["test"], evaluation["timing"]
        config = _complete(note["config"])
        return {
            "path": str(run.path),
            "random_seed": config["random_seed"],
            "started": datetime.datetime.fromisoformat(note["started"]),
            "experiment": note["experiment"],
            "settings": {k: v for k, v in config.items() if k not in _NO_RECIPE},
            "other": config.get("other", ""),
            "accuracy": test["accuracy"],
            "hits": test["n"] - test["mistakes"],
            "images": test["n"],
            "loss": test["loss"],
            "calibration_error": test["expected_calibration_error"],
            "train_seconds": timing["train_seconds"],
            "test_seconds": timing["test_seconds"],
            "images_per_second": timing["images_per_second"],
            "parameters": note["model"]["parameters"],
            "flops": note["model"]["flops"],
            **_predictions(run.predictions),
        }
    except RunError as error:
        raise _Incomplete(str(error).removeprefix(f"{run.path}/")) from None
    except KeyError as error:
        raise _Incomplete(f"{error} is missing in its files") from None
    except Exception as error:
        # A damaged file of any kind must not hide the other runs.
        raise _Incomplete(f"damaged: {error}") from None


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's knobs, and the defaults of those that are newer than the run."""
    full = dict(config)
    for name, knob in KNOBS.items():
        if name not in full:
            default = default_among(knob, full)
            full[name] = list(default) if isinstance(default, tuple) else default
    return full


def _predictions(path: pathlib.Path) -> dict[str, Any]:
    """Return which test images a run saw and which it got right, where it says so."""
    try:
        found = predictions.read(path)
    except FileNotFoundError:
        return dict.fromkeys(("indices", "labels", "predicted", "right"))
    predicted = found.probabilities.argmax(1).astype(np.int16)
    return {
        "indices": found.indices,
        "labels": found.labels,
        "predicted": predicted,
        "right": predicted == found.labels,
    }


def _check_test_sets(found: Sequence[_Found]) -> None:
    first = found[0]
    known = next((run for run in found if run["labels"] is not None), first)
    for run in found:
        for one, key, what in (
            (first, "dataset", "data set"),
            (first, "other", "images of no class"),
            (first, "images", "number of test images"),
            (known, "indices", "choice of test images"),
            (known, "labels", "labels of the test images"),
        ):
            a, b = (r["settings"].get(key, r.get(key)) for r in (one, run))
            if b is None or np.array_equal(a, b):
                continue
            said = f" ({a} and {b})" if np.ndim(a) == 0 else ""
            raise UsageError(
                f"{one['path']} and {run['path']} were tested on different images: "
                f"another {what}{said}; compare runs with the same test set"
            )


def _add(runs: dict[int, _Found], run: _Found) -> list[str]:
    """Add a run to those of its recipe; of two with one seed the newest stays."""
    seed = run["random_seed"]
    other = runs.get(seed)
    if other is None:
        runs[seed] = run
        return []
    older, newer = sorted((other, run), key=lambda r: r["started"])
    runs[seed] = newer
    return [
        f"{older['path']}: left out: {newer['path']} is the newer run of the same "
        f"recipe with random seed {seed}"
    ]


def swept_knob(recipes: Sequence[Recipe]) -> str | None:
    """Return the one knob in which recipes differ, if it is a number in all of them.

    A knob whose values are the defaults that follow from the other does not count.
    """
    differing = _differing(recipes)
    swept = [
        name
        for name in differing
        if not all(_follows(name, r["settings"], differing) for r in recipes)
    ]
    if len(swept) != 1:
        return None
    values = [recipe["settings"].get(swept[0]) for recipe in recipes]
    return swept[0] if all(type(v) in (int, float) for v in values) else None


def _differing(recipes: Sequence[Recipe]) -> list[str]:
    every = dict.fromkeys(k for recipe in recipes for k in recipe["settings"])
    return [k for k in every if len({_value(r, k) for r in recipes}) > 1]


def _names(recipes: Sequence[Recipe]) -> list[str]:
    """Name each recipe by its experiment, else by the knobs in which they differ."""
    differing = _differing(recipes)
    experiments = []
    for recipe in recipes:
        used = {run["experiment"] for run in recipe["runs"]}
        experiments.append(used.pop() if len(used) == 1 else None)
    names = []
    for recipe, experiment in zip(recipes, experiments, strict=True):
        told = _told(recipe["settings"], differing)
        if not experiment:
            names.append(told or _plain(recipe["settings"]))
        elif experiments.count(experiment) == 1:
            names.append(experiment)
        else:  # a flag beside --experiment made another recipe of it
            names.append(f"{experiment} {told}")
    return names


def _plain(settings: Mapping[str, Any]) -> str:
    kind, _, place = settings["dataset"].partition(":")
    return f"{pathlib.Path(place).stem if place else kind}-{settings['model']}"


def _value(recipe: Recipe, knob: str) -> str:
    return json.dumps(recipe["settings"].get(knob))


def _told(settings: Mapping[str, Any], differing: Sequence[str]) -> str:
    """Return the differing knobs of one recipe, less those that follow from others."""
    return " ".join(
        f"{name}={_shown(name, settings.get(name))}"
        for name in differing
        if not _follows(name, settings, differing)
    )


def _follows(name: str, settings: Mapping[str, Any], differing: Sequence[str]) -> bool:
    """Whether a value is the default of another knob's that differs too."""
    knob = KNOBS.get(name)
    if knob is None or not isinstance(knob.default, By):
        return False
    usual = show(default_among(knob, settings))
    return knob.default.knob in differing and show(settings.get(name)) == usual


def _shown(name: str, value: Any) -> str:
    if value not in (None, "", []):
        return show(value)
    unset = name in KNOBS and KNOBS[name].default in (None, "", ())
    return "default" if unset else "none"
