"""Divide a folder of images into train, validation and test, in a new folder.

DIR holds a folder for each class, and is not changed. The division is stratified and by
seed. Equal and nearly equal images stay together, and so do those that --group_regex
says belong together. All is written, or nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl.flags import FlagValues

from kcnn.commands.data_check import DISTANCE, the_folder
from kcnn.config import KNOBS
from kcnn.errors import UsageError
from kcnn.files import check_new_folder, is_within
from kcnn.flags import value_of
from kcnn.interruption import stops_with
from kcnn.knobs import Knob
from kcnn.table import render

USAGE = "kcnn data split DIR --out=NEW_DIR [--test_fraction=0.2] [--group_regex=REGEX]"

FLAGS = {
    "out": Knob("data", "", "the new folder"),
    "test_fraction": KNOBS["test_fraction"],
    "validation_fraction": Knob(
        "data", 0.0, "part of all images for validation", low=0.0, high=0.9, kind=float
    ),
    "group_regex": Knob(
        "data",
        "",
        "images are of one group (a writer, a patient, a video) if this finds the same "
        "in their names below DIR, or its first parentheses do: '(writer\\d+)_'",
    ),
    "distance": DISTANCE,
    "random_seed": KNOBS["random_seed"],
    "hard_links": Knob(
        "data",
        False,
        "link the files and do not copy them; what changes one changes the other",
        kind=bool,
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define no more knobs: those that are meant are among FLAGS."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Divide the folder, and print what came where."""
    root = the_folder(arguments, USAGE)
    if not values.out:
        raise UsageError("--out: say where the divided folder goes: --out=NEW_DIR")
    target = pathlib.Path(values.out)
    _check_target(root, target)
    shares = _shares(
        value_of(values, "test_fraction", FLAGS),
        value_of(values, "validation_fraction", FLAGS),
    )

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import data_split
    from kcnn.duplicates import groups_of
    from kcnn.grouped_split import assign, groups_by_name, merged_groups
    from kcnn.inspection import inspect

    seen = inspect(root)
    if seen.divided:
        raise UsageError(
            f"{root} is divided already: it has {', '.join(seen.splits)}; name a "
            "folder that holds a folder for each class"
        )
    alike = groups_of(
        seen.contents, seen.hashes, seen.thumbnails, value_of(values, "distance", FLAGS)
    )
    parts: list[Sequence[Sequence[int]]] = [[group.members for group in alike]]
    if values.group_regex:
        parts.append(groups_by_name(seen.names(), values.group_regex))
    groups = merged_groups(len(seen.files), parts)
    seed = value_of(values, "random_seed", FLAGS)
    split = assign(seen.label, groups, shares, seed)
    with stops_with(lambda: "nothing was written"):
        data_split.write(seen, split, list(shares), target, bool(values.hard_links))
    for name, reason in seen.skipped:
        print(f"skipped    {name}: {reason}")
    print(_table(seen.class_names, seen.label, split, list(shares)))
    sizes = np.bincount(groups)
    several = sizes[sizes > 1]
    if len(several):
        print(
            f"\ngroups     {several.sum():,} images are kept together in "
            f"{len(several):,} groups, of {several.max():,} at most"
        )
    print(f"written    {target}")


def _check_target(root: str, target: pathlib.Path) -> None:
    """Raise UsageError unless `target` can be made, and outside `root`."""
    check_new_folder(target, "out")
    if is_within(target, root):
        raise UsageError(f"--out: {target} is in {root}, which is not changed")


def _shares(test: float, validation: float) -> dict[str, float]:
    train = 1 - test - validation
    if train < 0.01:
        raise UsageError(
            f"--test_fraction, --validation_fraction: got {test:g} and {validation:g}, "
            "expected less than 1 together"
        )
    shares = {"train": train, "validation": validation, "test": test}
    return {name: share for name, share in shares.items() if share}


def _table(
    class_names: Sequence[str],
    label: np.ndarray,
    split: np.ndarray,
    names: Sequence[str],
) -> str:
    def row(name: str, chosen: np.ndarray) -> Mapping[str, object]:
        counts = np.bincount(split[chosen], minlength=len(names))
        return {"class": name} | dict(zip(names, counts.tolist(), strict=True))

    rows = [row(name, label == i) for i, name in enumerate(class_names)]
    return render([*rows, row("all", label >= 0)], "table")
