"""Finished runs -> published and measured figures side by side: plain dictionaries."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.agreement import agreement
from kcnn.comparison import compare
from kcnn.conclusions import conclusion
from kcnn.errors import RunError
from kcnn.experiments import Experiment, Reported
from kcnn.reasons import by_seed, holds
from kcnn.recipes import collect
from kcnn.reproduction import AS_PUBLISHED, VARIANT, Row
from kcnn.statistics import paired_test
from kcnn.sweep_record import Outcome, SweepRecord

FIGURES = ("accuracy", "loss")  # those that are judged; seconds are another machine's
_LOSS_DIGITS = 4  # after the point, of every published loss

AGREES = "agrees"
EXPLAINED = "differs, explained"
UNEXPLAINED = "differs, unexplained"
NOT_JUDGED = "not judged"
NOT_RUN = "not run"


def results(
    rows: Sequence[Row], record: SweepRecord, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the reproduction's files hold.

    Args:
        rows: of `kcnn.reproduction.plan_rows`.
        record: what came of their runs.
        about: quick (then nothing is judged), and what else is told of the command.

    Returns:
        `about`, and of the runs hardware, versions, commit and precision; groups:
        name -> conclusions, sentences about the rows of that group; rows: for each
        published run its settings, published and measured figures, their agreement,
        the reasons for what does not agree, and a verdict.
    """
    outcomes = {outcome.planned.name: outcome for outcome in record.outcomes}
    made_on = _made_on(record)
    table = {row.name: _measured(row, outcomes) for row in rows}
    for row in rows:
        _judge(row, table, bool(about["quick"]))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.experiment.group, []).append(row)
    return {
        **about,
        **made_on,
        "groups": [
            {"group": group, "conclusions": _conclusions(members, outcomes)}
            for group, members in groups.items()
        ],
        "rows": list(table.values()),
    }


def _measured(row: Row, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    experiment = row.experiment
    measured = {
        recipe: _recipe(experiment, [outcomes[name] for name in names])
        for recipe, names in row.runs.items()
    }
    published, variant = measured.get(AS_PUBLISHED), measured.get(VARIANT)
    return {
        "experiment": row.name,
        "group": experiment.group,
        "about": experiment.about,
        "stands_for": experiment.stands_for,
        "settings": dict(experiment.settings),
        "variant_knobs": dict(experiment.variant),
        "variant_about": experiment.variant_about,
        "reported": dataclasses.asdict(experiment.reported),
        "as_published": published,
        "variant": variant,
        "variant_shows": _variant_shows(published, variant),
    }


def _recipe(experiment: Experiment, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the figures of one recipe over its random seeds.

    Of a row that went through several values, a seed's figures are those of its most
    accurate run, as in the publication, and its seconds are those of all its runs.
    `train_seconds` is the median over seeds, which one disturbed run does not move.
    """
    by_seed: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status == "done":
            seed = outcome.planned.config.random_seed
            by_seed.setdefault(seed, []).append(outcome)
    best = [max(some, key=lambda o: o.accuracy or 0) for some in by_seed.values()]
    test = best[0].run.read_evaluation()["test"] if best else None
    seconds = [sum(o.train_seconds or 0 for o in some) for some in by_seed.values()]
    return {
        "random_seeds": list(by_seed),
        "accuracy": _accuracy(experiment.reported, best, test),
        "loss": _loss(experiment.reported, best),
        "train_seconds": statistics.median(seconds) if seconds else None,
        "first_class_part": test and test["per_class"][0]["support"] / test["n"],
        "best": [
            {knob: o.planned.swept[knob] for knob in experiment.sweep} for o in best
        ]
        if experiment.sweep
        else None,
        "failed": {o.planned.name: o.reason for o in outcomes if o.status == "failed"},
    }


def _accuracy(
    reported: Reported, outcomes: Sequence[Outcome], test: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    values = [o.accuracy for o in outcomes if o.accuracy is not None]
    if not values or test is None:
        return None
    found = agreement(reported.accuracy, values, reported.digits, test["n"])
    return dataclasses.asdict(found)


def _loss(reported: Reported, outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    values = [o.loss for o in outcomes if o.loss is not None]
    if not values:
        return None
    return dataclasses.asdict(agreement(reported.loss, values, _LOSS_DIGITS))


def _variant_shows(
    published: Mapping[str, Any] | None, variant: Mapping[str, Any] | None
) -> str | None:
    """Say what the knobs of the variant do to the accuracy."""
    if not published or not variant:
        return None
    accuracies = [
        by_seed(one, "accuracy") for one in (variant, published) if one["accuracy"]
    ]
    if len(accuracies) < 2:
        return None
    return conclusion("the variant", "the row as published", paired_test(*accuracies))


def _judge(row: Row, table: Mapping[str, dict[str, Any]], quick: bool) -> None:
    """Add the reasons of a row, each with whether it holds, and the verdict."""
    facts, reported = table[row.name], row.experiment.reported
    measured = facts["as_published"]
    facts["reasons"], facts["verdict"] = [], NOT_JUDGED
    if not measured or not measured["accuracy"]:
        facts["verdict"] = NOT_RUN
    if quick:
        return
    facts["reasons"] = [
        {**dataclasses.asdict(reason), "holds": holds(reason, table, row.name)}
        for reason in row.experiment.reasons
    ]
    if facts["verdict"] == NOT_RUN:
        return
    agrees = {name: measured[name]["agrees"] for name in FIGURES}
    if reported.loss_was_nan:
        agrees["loss"] = False  # a number was measured
    explained = {r["figure"] for r in facts["reasons"] if r["holds"]}
    differing = {name for name, agreed in agrees.items() if agreed is False}
    if differing:
        facts["verdict"] = EXPLAINED if differing <= explained else UNEXPLAINED
    elif any(agrees.values()):
        facts["verdict"] = AGREES


def _conclusions(rows: Sequence[Row], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Say of a group's rows, as published, which is better than which."""
    runs = {
        name: outcomes[name].run.path
        for row in rows
        if not row.experiment.sweep
        for name in row.runs.get(AS_PUBLISHED, [])
        if outcomes[name].status == "done"
    }
    if not runs:
        return []
    recipes, _ = collect([str(path) for path in runs.values()])
    return compare(recipes)["conclusions"]


def _made_on(record: SweepRecord) -> dict[str, Any]:
    """Return hardware, versions, commits and precisions of the runs."""
    notes = [o.run.read_config() for o in record.outcomes if o.status == "done"]
    if not notes:
        raise RunError(f"{record.folder}: no run ended well; see the reasons above")

    def every(key: str) -> list[Any]:
        return sorted({note[key] for note in notes if note[key]})

    first = notes[0]
    keys = ("processor", "cores", "memory_gib", "gpus")
    return {
        "hardware": {key: first["hardware"][key] for key in keys},
        "versions": first["versions"],
        "commits": every("commit"),
        "precision": sorted({note["precision"]["policy"] for note in notes}),
    }
