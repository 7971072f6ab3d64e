"""Published against measured, as JSON, CSV, Markdown and one HTML page."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from kcnn import pages
from kcnn.files import write_csv, write_json, write_text
from kcnn.knobs import show
from kcnn.reproduction import AS_PUBLISHED, QUICK, VARIANT
from kcnn.reproduction_results import (
    AGREES,
    EXPLAINED,
    NOT_JUDGED,
    NOT_RUN,
    UNEXPLAINED,
)
from kcnn.table import escape_markdown, render

# How the verdicts are counted in the headline.
_VERDICTS = {
    AGREES: "as published",
    EXPLAINED: "different for a reason that holds",
    UNEXPLAINED: "different for no reason given",
    NOT_JUDGED: "not judged",
    NOT_RUN: "not run",
}
_TEXT = ("run", "verdict")  # columns that are set to the left

_METHOD = (
    "Measured figures are means over n random seeds, ± their standard deviation. A "
    "published figure, which is one run, agrees where it lies in the 99% interval of "
    "one more run of the measured recipe (Student's prediction interval), widened by "
    "half of its last printed digit. A row with a single run goes by the number of "
    "test images instead, which does not know how random seeds vary. At 95% some four "
    "of so many figures would lie outside by chance alone. An interval from three "
    "seeds is wide: agreement says that nothing speaks against the published figure, "
    "not that it is exact. Seconds are those of training (the median over "
    "seeds), longer where several runs went on at a time; the publications' are of "
    "other machines and are not judged."
)


def write(result: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Write reproduction.json, .csv, .md and .html; return the path of the page."""
    write_json(folder / "reproduction.json", result)
    write_csv(folder / "reproduction.csv", list(_csv_rows(result)))
    write_text(folder / "reproduction.md", _markdown(result))
    page = folder / "reproduction.html"
    write_text(page, pages.render("reproduction.html", _facts(result)))
    return page


def headline(result: Mapping[str, Any]) -> str:
    """Return in one sentence how many of the rows came out as published."""
    if result["quick"]:
        lowered = " and ".join(f"{name} {show(most)}" for name, most in QUICK.items())
        return (
            f"QUICK: at most {lowered}. This shows that every row runs; its figures "
            "are not comparable with the published ones, and nothing is judged."
        )
    verdicts = [row["verdict"] for row in result["rows"]]
    counts = [(verdicts.count(verdict), told) for verdict, told in _VERDICTS.items()]
    told = ", ".join(f"{count} {text}" for count, text in counts if count)
    rows = (
        "1 published row" if len(verdicts) == 1 else f"{len(verdicts)} published rows"
    )
    return f"{rows}: {told}."


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "result": result,
        "headline": headline(result),
        "method": _METHOD,
        "groups": [
            {
                **group,
                "heads": _heads(_cells(rows[0], result["quick"])),
                "table": [_cells(row, result["quick"]) for row in rows],
                "remarks": [line for row in rows for line in _remarks(row)],
            }
            for group, rows in _by_group(result)
        ],
        "text_columns": _TEXT,
        "made": _made(result),
    }


def _by_group(
    result: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    for group in result["groups"]:
        yield (
            group,
            [row for row in result["rows"] if row["group"] == group["group"]],
        )


def _cells(row: Mapping[str, Any], quick: bool) -> dict[str, str]:
    """Return a row of the table, as text."""
    reported, measured = row["reported"], row["as_published"] or {}
    accuracy, loss = measured.get("accuracy"), measured.get("loss")
    seconds = measured.get("train_seconds")
    ratio = ""
    if seconds and reported["train_seconds"] and not quick:
        ratio = f"{reported['train_seconds'] / seconds:.0f}"
    digits = max(reported["digits"] - 2, 0)
    return {
        "run": row["experiment"],
        "verdict": row["verdict"],
        "n": str(len(accuracy["values"])) if accuracy else "",
        "accuracy %: published": _number(reported["accuracy"], 100, digits),
        "accuracy %: measured": _spread(accuracy, 100, 2),
        "accuracy %: one more run": _interval(accuracy, 100, 2),
        "accuracy %: difference": _signed(accuracy, 100, 2),
        "loss: published": "NaN"
        if reported["loss_was_nan"]
        else _number(reported["loss"], 1, 4),
        "loss: measured": _spread(loss, 1, 4),
        "seconds: published": _number(reported["train_seconds"], 1, 0),
        "seconds: measured": _number(seconds, 1, 0 if seconds and seconds >= 10 else 1),
        "seconds: ratio": ratio,
    }


def _heads(cells: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return what stands above the columns: a name, and those under it if several."""
    heads: list[tuple[str, list[str]]] = []
    for name in cells:
        group, _, column = name.partition(": ")
        if heads and heads[-1][0] == group:
            heads[-1][1].append(column)
        else:
            heads.append((group, [column] if column else []))
    return heads


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{scale * value:,.{digits}f}"


def _spread(figure: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if figure is None:
        return ""
    mean = _number(figure["mean"], scale, digits)
    if figure["deviation"] is None:
        return mean
    return f"{mean} ± {_number(figure['deviation'], scale, digits)}"


def _interval(figure: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if figure is None or figure["interval"] is None:
        return ""
    low, high = (_number(max(0.0, v), scale, digits) for v in figure["interval"])
    return f"{low} to {high}"


def _signed(figure: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if figure is None or figure["difference"] is None:
        return ""
    return f"{scale * figure['difference']:+.{digits}f}"


def _remarks(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a row's name and what is to be said of it, sentence by sentence."""
    name = row["experiment"]
    yield name, row["about"]
    for reason in row["reasons"]:
        held = {True: "holds", False: "does NOT hold", None: "could not be tested"}
        checked = held[reason["holds"]]
        yield name, f"{reason['figure']}: {reason['text']} (tested: {checked})"
    if row["variant_shows"]:
        knobs = ", ".join(f"{k}={show(v)}" for k, v in row["variant_knobs"].items())
        found = _spread(row["variant"]["accuracy"], 100, 2)
        told = f"{row['variant_about']} ({knobs}): {found}%; {row['variant_shows']}"
        yield name, told
    best = (row["as_published"] or {}).get("best")
    if best:
        told = "; ".join(
            ", ".join(f"{knob}={show(v)}" for knob, v in one.items()) for one in best
        )
        yield name, f"best of the sweep, seed by seed: {told}"
    if row["verdict"] == NOT_RUN and row["stands_for"]:
        yield name, f"not run: it is {row['stands_for']}"
    for recipe in (row["as_published"], row["variant"]):
        for run, reason in (recipe or {}).get("failed", {}).items():
            yield name, f"failed: {run}: {reason}"


def _made(result: Mapping[str, Any]) -> dict[str, str]:
    hardware = result["hardware"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return {
        "command": result["command"],
        "started": result["started"],
        "runs at a time": str(result["jobs"]),
        "random seeds": ", ".join(map(str, result["random_seeds"])),
        "data": ", ".join(
            name if name == read else f"{read} as {name}"
            for name, read in result["data"].items()
        ),
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB, {gpus}",
        "precision": ", ".join(result["precision"]),
        "versions": ", ".join(f"{k} {v}" for k, v in result["versions"].items()),
        "commits": ", ".join(result["commits"]) or "unknown",
    }


def _markdown(result: Mapping[str, Any]) -> str:
    lines = ["# Published and measured", "", f"**{headline(result)}**", "", _METHOD]
    for group, rows in _by_group(result):
        table = [_cells(row, result["quick"]) for row in rows]
        right = set(table[0]) - set(_TEXT)
        lines += [
            "",
            f"## {group['group']}",
            "",
            render(table, "markdown", right=right),
        ]
        if group["conclusions"]:
            lines += ["", "What these runs show:", ""]
            lines += [f"- {escape_markdown(text)}" for text in group["conclusions"]]
        lines += ["", "About the rows:", ""]
        lines += [
            f"- **{escape_markdown(name)}**: {escape_markdown(text)}"
            for row in rows
            for name, text in _remarks(row)
        ]
    lines += ["", "## How it was made", ""]
    lines += [
        f"- {topic}: {escape_markdown(text)}" for topic, text in _made(result).items()
    ]
    return "\n".join(lines) + "\n"


def _csv_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a line a row and recipe, with plain numbers."""
    for row in result["rows"]:
        for recipe in (AS_PUBLISHED, VARIANT):
            found = row[recipe]
            if found is None and recipe == VARIANT:
                continue
            cells = {
                "experiment": row["experiment"],
                "group": row["group"],
                "recipe": recipe,
                "seeds": len(found["random_seeds"]) if found else 0,
            }
            for figure in ("accuracy", "loss"):
                one = (found or {}).get(figure) or {}
                cells[f"published_{figure}"] = row["reported"][figure]
                for key in ("mean", "deviation", "difference", "agrees"):
                    cells[f"{figure}_{key}"] = one.get(key)
            cells["published_train_seconds"] = row["reported"]["train_seconds"]
            cells["train_seconds"] = (found or {}).get("train_seconds")
            cells["verdict"] = row["verdict"] if recipe == AS_PUBLISHED else ""
            yield cells
