"""A comparison -> the pictures in its folder."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kcnn import comparison_curves, comparison_plots, contrast, galleries
from kcnn.config import Config
from kcnn.contrast_plots import confusion_difference
from kcnn.errors import RunError, UsageError
from kcnn.recipes import Recipe, swept_knob
from kcnn.run import Run, config_of, read_rows, spec_of
from kcnn.spec import ImageSpec

MOST_RECIPES = 20  # in a picture with a line each
_GALLERY = 25

Result = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file, with its title and how to read it."""

    path: pathlib.Path
    title: str
    caption: str


def draw(
    result: Result, recipes: Sequence[Recipe], folder: pathlib.Path
) -> tuple[list[Picture], list[str]]:
    """Draw what a comparison can show; what it cannot is said, and not left stale.

    Args:
        result: what `kcnn.comparison.compare` returns.
        recipes: what it was made of.
        folder: where the pictures go.

    Returns:
        The pictures, and a line about each that could not be drawn.
    """
    by_name = {recipe["name"]: recipe for recipe in recipes}
    ranked = [by_name[row["recipe"]] for row in result["recipes"]]
    drawn, notes = [], []
    for name, make in _PICTURES.items():
        path = folder / f"{name}.png"
        try:
            said = make(result["recipes"], ranked, path)
        except (UsageError, RunError, OSError) as error:
            said = None
            notes.append(f"{path.name}: left out: {error}")
        if said:
            drawn.append(Picture(path, *said))
        else:
            path.unlink(missing_ok=True)  # of an earlier comparison
    return drawn, notes


_Said = tuple[str, str] | None  # title and caption; None where there is nothing to draw
_Rows = Sequence[Mapping[str, Any]]


def _accuracy(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    comparison_plots.accuracies(rows[:MOST_RECIPES], path)
    return "Accuracy", (
        "Intervals that overlap do not mean that nothing differs: the tests above go "
        "by the differences between equal seeds."
    ) + _best_of(rows, MOST_RECIPES)


def _knob(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    knob = swept_knob(ranked)
    if knob is None:
        return None
    values = [recipe["settings"][knob] for recipe in ranked]
    comparison_curves.against_knob(knob, values, rows, path)
    return f"Accuracy against {knob}", "The only knob in which the recipes differ."


def _curves(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    most = comparison_curves.MOST_CURVES
    shown = [
        {
            "name": recipe["name"],
            "runs": [_metrics(run["path"]) for run in recipe["runs"]],
        }
        for recipe in ranked[:most]
    ]
    comparison_curves.learning_curves(shown, path)
    return "Learning curves", (
        "Means over the seeds, as far as all of a recipe's runs go; the numbers are "
        "those of the legend. Training loss is the average during an epoch, with "
        "dropout and augmentation, label smoothing and class weights: compare it only "
        "where these are the same."
    ) + _best_of(rows, most)


def _metrics(path: str) -> list[dict[str, Any]]:
    try:
        rows = read_rows(Run(path).metrics)
    except FileNotFoundError:
        raise UsageError(f"{path} has no metrics.csv") from None
    except ValueError as error:
        raise RunError(f"{path}/metrics.csv: damaged: {error}") from None
    if not rows:
        raise RunError(f"{path}/metrics.csv: damaged: it has no rows")
    return rows


def _cost(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    front = comparison_plots.pareto_front(rows)
    shown = [r for i, r in enumerate(rows) if i < MOST_RECIPES or i in front]
    comparison_plots.cost(shown, path)
    caption = (
        "No recipe is as fast and as accurate as one of the Pareto front and better in "
        "one of the two. Seconds depend on the machine, and on what else it did."
    )
    if len(shown) < len(rows):
        caption += f" The best {MOST_RECIPES} of {len(rows)}, and the front."
    return "Accuracy and cost", caption


def _best_of(rows: _Rows, most: int) -> str:
    return f" The best {most} of {len(rows)} recipes." if len(rows) > most else ""


def _confusion(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    if len(ranked) < 2:
        return None
    a, b = ranked[:2]
    specs = [_spec(recipe["runs"][0]) for recipe in (a, b)]
    names = max((spec.class_names for spec in specs), key=len)
    values, seeds = contrast.confusion_difference(a, b, len(names))
    confusion_difference(values, names, (a["name"], b["name"]), path)
    return "Difference of the confusion matrices", (
        f"The two best recipes, A less B, in test images ({contrast.seeds_said(seeds)}"
        "). On the framed diagonal + is good for A; elsewhere + is a mistake that A "
        "makes more often."
    )


def _disagreements(rows: _Rows, ranked: Sequence[Recipe], path: pathlib.Path) -> _Said:
    if len(ranked) < 2:
        return None
    a, b = (contrast.best_run(recipe) for recipe in ranked[:2])
    groups = contrast.disagreements(a, b)
    shown = np.concatenate(list(contrast.fair_share(groups, _GALLERY).values()))
    if not len(shown):
        raise UsageError(
            f"{a['path']} and {b['path']} say the same of every test image"
        )
    items = _items(a, b, shown)
    names = tuple(
        f"{recipe['name']}, random seed {run['random_seed']}"
        for recipe, run in zip(ranked, (a, b), strict=False)
    )
    counts = {name: len(group) for name, group in groups.items()}
    galleries.disagreements(items, path, (names[0], names[1]), counts)
    total = sum(counts.values())
    return "Where two models disagree", (
        f"The best run of each of the two best recipes; {len(shown):,} of the "
        f"{total:,} test images of which they say different things, first what only A "
        "has right, then what only B has; in each group what both are surest of first."
    )


def _items(
    a: Mapping[str, Any], b: Mapping[str, Any], positions: np.ndarray
) -> list[dict[str, Any]]:
    """Return the test images at some positions, and what two runs say of them."""
    spec, other = _spec(a), _spec(b)
    said = [contrast.probabilities(run)[positions] for run in (a, b)]
    images, files = _images(a, spec, positions)
    return [
        {
            "image": image,
            "name": file,
            "true": spec.class_names[a["labels"][position]],
            "a": spec.class_names[row_a.argmax()],
            "b": other.class_names[row_b.argmax()],
            "probability_a": float(row_a.max()),
            "probability_b": float(row_b.max()),
        }
        for position, image, file, row_a, row_b in zip(
            positions, images, files, *said, strict=True
        )
    ]


def _spec(run: Mapping[str, Any]) -> ImageSpec:
    return spec_of(Run(run["path"]).read_config())


def _images(
    run: Mapping[str, Any], spec: ImageSpec, positions: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Read a run's test images again, and their names; nothing is downloaded.

    Raises UsageError where the data set is not to be had, or is another one now.
    """
    config = config_of(Run(run["path"]).read_config())
    _check_prepared(config)

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, pipeline

    split = datasets.load_split(config, "test", spec).split
    if not (
        np.array_equal(split.indices, run["indices"])
        and np.array_equal(split.labels, run["labels"])
    ):
        raise UsageError(
            f"--dataset: {config.dataset} has changed since {run['path']} was tested"
        )
    return pipeline.images_at(split, positions), [split.names(p) for p in positions]


def _check_prepared(config: Config) -> None:
    from kcnn.catalog import data_dir, prepared_names

    folder = data_dir(config)
    for flag in ("dataset", "other"):
        base = re.split("[/:]", name := getattr(config, flag))[0]
        if base in ("", "digits", "npz", "folder", "examples"):
            continue
        if base not in {one.split("/")[0] for one in prepared_names(folder)}:
            raise UsageError(
                f"--{flag}: {name} is not prepared in {folder}, so its images cannot "
                "be shown; TFDS_DATA_DIR tells where it is"
            )


_PICTURES: dict[str, Callable[[_Rows, Sequence[Recipe], pathlib.Path], _Said]] = {
    "accuracy": _accuracy,
    "knob": _knob,
    "learning_curves": _curves,
    "cost": _cost,
    "confusion_difference": _confusion,
    "disagreements": _disagreements,
}
