"""A search's pictures and its page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.files import write_text
from kcnn.knobs import show
from kcnn.pages import embedded, render
from tuning import plots
from tuning.importance import Importance, comparable, importances
from tuning.journal import Record, ranked
from tuning.objective import Objective
from tuning.session import Folder
from tuning.space import Space

_FEWEST_LINES = 3


def write_report(
    folder: Folder,
    records: Sequence[Record],
    space: Space,
    objective: Objective,
    result: Mapping[str, Any],
) -> pathlib.Path:
    """Draw the pictures of a search, write its page and return where it is.

    Args:
        folder: of the search; its search.json is read.
        records: of all trials, one at least done.
        space: what was searched.
        objective: of the search.
        result: what result.json holds.
    """
    importance = importances(records, space)
    pictures = _draw(folder.plots, records, space, objective, importance)
    best = ranked(records, objective)[0]
    names = list(space.domains)
    counts = {
        status: sum(record.status == status for record in records)
        for status in ("done", "pruned", "failed")
    }
    order = {record.trial: i for i, record in enumerate(ranked(records, objective))}
    facts = {
        "note": folder.read_note(),
        "baseline": space.baseline,
        "objective": objective,
        "best": best,
        "best_score": objective.show(best.score),
        "counts": counts,
        "seconds": max(record.elapsed for record in records),
        "space": [
            (name, str(domain), show(best.values[name]) if name in best.values else "")
            for name, domain in space.domains.items()
        ],
        "pictures": pictures,
        "importance": importance,
        "names": names,
        "rows": [
            _row(record, names, objective)
            for record in sorted(
                records, key=lambda r: (order.get(r.trial, len(order)), r.number)
            )
        ],
        "command": result["command"],
        "compared_by": result.get("compared") or {},
        "optimism": [
            (
                name,
                *(objective.show(figures[k]) for k in ("search", "validation", "test")),
            )
            for name, figures in (result.get("optimism") or {}).items()
        ],
    }
    write_text(folder.report, render("search.html", facts))
    return folder.report


def _row(record: Record, names: Sequence[str], objective: Objective) -> dict[str, Any]:
    score = "" if record.score is None else objective.show(record.score)
    if record.deviation is not None:
        score += f" ± {objective.show_deviation(record.deviation)}"
    return {
        "number": record.number,
        "status": record.status,
        "score": score,
        "values": [
            (show(record.values[name]) or "none") if name in record.values else ""
            for name in names
        ],
        "epochs": f"{len(record.histories[-1]) if record.histories else 0} of "
        f"{record.epochs}",
        "seconds": record.seconds,
        "reason": record.reason,
    }


def _draw(
    folder: pathlib.Path,
    records: Sequence[Record],
    space: Space,
    objective: Objective,
    importance: Importance | None,
) -> list[dict[str, str]]:
    """Draw what there is enough to draw of; return title, caption and picture."""
    pictures = []

    def add(name: str, title: str, caption: str) -> None:
        data = embedded(folder / f"{name}.png")
        pictures.append({"title": title, "caption": caption, "data": data})

    plots.best_so_far(records, objective, folder / "best_so_far.png")
    add(
        "best_so_far",
        "Best so far",
        "Every trial when it ended, and the best one. The scale is that of the trials "
        "trained to their end; what is beyond is drawn at its edge.",
    )
    used = comparable(records)
    only = ""
    if used and used[0].rung is not None:
        plural = "s" * (used[0].epochs > 1)
        only = f" Only the {len(used)} trials of {used[0].epochs} epoch{plural}."
    if len(used) >= _FEWEST_LINES:
        plots.by_knob(records, space, objective, importance, folder / "by_knob.png")
        caption = "Each dot is a trial; a bar is the median of a value."
        if importance:
            caption += (
                " The importance is what a random forest's R² loses when the knob is "
                f"shuffled; its R² on trials not seen is {importance.r2:.2f}"
            )
            caption += "." if importance.r2 > 0.2 else ": too low to believe it."
        add("by_knob", "Score against each knob", caption + only)
        plots.parallel_coordinates(
            records, space, objective, folder / "parallel_coordinates.png"
        )
        add(
            "parallel_coordinates",
            "All knobs together",
            "A line is a trial; the thick one is the best. The scale of the colors "
            f"ends at the worst tenth.{only}",
        )
    if any(record.bracket is not None for record in records):
        plots.rungs(records, objective, folder / "rungs.png")
        add(
            "rungs",
            "Hyperband's rungs",
            "A line is a configuration that was promoted; grey dots were not. Each "
            "rung is a training of its own, from the beginning.",
        )
    return pictures
