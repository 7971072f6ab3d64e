"""A comparison -> its folder: pictures, and one self-contained HTML page."""

from __future__ import annotations

import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn import comparison, comparison_pictures, pages
from kcnn.contrast import best_run
from kcnn.files import write_text
from kcnn.recipes import Recipe
from kcnn.run import Run
from kcnn.statistics import ALPHA

PAGE = "comparison.html"

# Bytes of runs' reports in the page: many a mail server takes no more than 20 MB, and
# coding for mail adds a third.
MOST_EMBEDDED = 10_000_000

_MOST_SAID = 5  # sentences; more start folded
_WIDEST_NAME = 32  # characters of a recipe's name on one line

# Column of `comparison.shown` -> what it is sorted by, and which way first; the others
# are sorted as texts.
_SORTED = {
    "rank": ("rank", "ascending"),
    "n": ("n", "descending"),
    "accuracy": ("accuracy", "descending"),
    "deviation": ("deviation", "ascending"),
    "95% interval": ("interval_low", "descending"),
    "loss": ("loss", "ascending"),
    "calibration error": ("calibration_error", "ascending"),
    "parameters": ("parameters", "ascending"),
    "MFLOP": ("flops", "ascending"),
    "train s": ("train_seconds", "ascending"),
    "test s": ("test_seconds", "ascending"),
    "images/s": ("images_per_second", "descending"),
}
_MINOR = {"interval of", "test s", "images/s"}  # left out on paper, for its width

Result = Mapping[str, Any]


def write(
    result: Result, recipes: Sequence[Recipe], folder: str | os.PathLike
) -> tuple[pathlib.Path, list[str]]:
    """Write the pictures of a comparison, and its page.

    Args:
        result: what `kcnn.comparison.compare` returns.
        recipes: what it was made of.
        folder: where the files go.

    Returns:
        The page's path, and a line about each picture that could not be drawn.
    """
    folder = pathlib.Path(folder)
    pictures, notes = comparison_pictures.draw(result, recipes, folder)
    page = folder / PAGE
    script, script_hash = pages.script("comparison.js")
    rows = result["recipes"]
    facts = {
        "script": script,
        "script_hash": script_hash,
        "dataset": result["dataset"],
        "images": result["images"],
        "count": "1 recipe" if len(rows) == 1 else f"{len(rows)} recipes",
        "runs": sum(row["n"] for row in rows),
        "best": rows[0],
        "headline": headline(result),
        "columns": _columns(rows[0]),
        "table": [_cells(row) for row in rows],
        "name_width": min(max(len(row["recipe"]) for row in rows) + 2, _WIDEST_NAME),
        "conclusions": result["conclusions"],
        "most_said": _MOST_SAID,
        "pictures": [
            {
                "title": picture.title,
                "caption": picture.caption,
                "data": pages.embedded(picture.path),
            }
            for picture in pictures
        ],
        "notes": notes,
        "reports": _reports(rows, recipes, folder),
    }
    write_text(page, pages.render("comparison.html", facts))
    return page, notes


def headline(result: Result) -> str:
    """Say in a few sentences what the comparison came to."""
    best, tests = result["recipes"][0], result["comparisons"]
    low, high = (pages.percent(best[f"interval_{end}"]) for end in ("low", "high"))
    if best["interval_of"] == "seeds":
        said = f"mean test accuracy of {best['n']} seeds of {best['recipe']}"
    else:
        said = f"test accuracy of one run of {best['recipe']}"
    said += f" (95% interval {low} to {high})"
    if not tests:
        return said + "."
    said += f", the highest of {len(tests) + 1} recipes. "
    decided = [one for one in tests if one["method"] in ("paired t", "Welch")]
    shown = sum(_better(one) for one in decided)
    if not decided:
        return said + "Whether it is the better recipe cannot be told from these runs."
    if len(tests) == 1:
        return said + ("The other is worse." if shown else "No difference is shown.")
    others = "all" if shown == len(tests) else f"{shown or 'none'}"
    return said + f"It is shown to be better than {others} of the {len(tests)} others."


def _better(one: Mapping[str, Any]) -> bool:
    seeds = one["seeds"]
    p = seeds["p"] if one["holm_p"] is None else one["holm_p"]
    return p <= ALPHA and seeds["difference"] > 0


def _order(names: Sequence[str]) -> list[str]:
    """Return the columns with the recipe first, which stays in sight on a phone."""
    return sorted(names, key=lambda name: name != "recipe")


def _columns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "first": _SORTED.get(name, ("", "ascending"))[1],
            "minor": name in _MINOR,
        }
        for name in _order(list(comparison.shown(row)))
    ]


def _cells(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return text and number of each cell; None for a text, "" for what is missing."""
    cells = []
    shown = comparison.shown(row)
    for name in _order(list(shown)):
        text = shown[name]
        if isinstance(text, int):
            text = pages.whole(text)
        value = None
        if name in _SORTED:
            number = row[_SORTED[name][0]]
            value = "" if number is None else number
        cells.append(("\u2013" if text is None else text, value))  # a dash
    return cells


def _reports(
    rows: Sequence[Mapping[str, Any]], recipes: Sequence[Recipe], folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Return name, runs and place of the best run of each recipe, in the table's order.

    A run has its report's text as `page` as long as there is room: the best run of
    each recipe first, then the others, best recipes first.
    """
    by_name = {recipe["name"]: recipe for recipe in recipes}
    ranked = [by_name[row["recipe"]] for row in rows]
    bests = [best_run(recipe) for recipe in ranked]
    every = [run for recipe in ranked for run in recipe["runs"]]
    room, texts = MOST_EMBEDDED, {}
    for run in sorted(every, key=lambda run: all(run is not best for best in bests)):
        path = Run(run["path"]).report
        if path.exists() and path.stat().st_size <= room:
            texts[run["path"]] = path.read_text(encoding="utf-8")
            room -= path.stat().st_size
    return [
        {
            "name": recipe["name"],
            "best": next(i for i, run in enumerate(recipe["runs"]) if run is best),
            "runs": [
                _run(run, texts.get(run["path"]), folder) for run in recipe["runs"]
            ],
        }
        for recipe, best in zip(ranked, bests, strict=True)
    ]


def _run(
    run: Mapping[str, Any], page: str | None, folder: pathlib.Path
) -> dict[str, Any]:
    report = Run(run["path"]).report
    reason = "This run has no report.html:"
    if report.exists():
        reason = "To keep this page small, the report is not in it; it should be here:"
    return {
        "seed": run["random_seed"],
        "accuracy": pages.percent(run["accuracy"]),
        "page": page,
        "reason": None if page else reason,
        "path": str(report),
        "link": _link(report, folder),
    }


def _link(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Return the way from a folder to a file, as a page in the folder links it."""
    way = os.path.relpath(path.resolve(), folder.resolve())
    return urllib.parse.quote(pathlib.Path(way).as_posix())
