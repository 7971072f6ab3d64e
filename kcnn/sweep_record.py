"""What came of a sweep's runs: sweep.json, sweep.csv and the table of means."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kcnn.errors import RunError
from kcnn.files import write_csv, write_json
from kcnn.knobs import show
from kcnn.run import Run
from kcnn.sweep import PlannedRun


@dataclasses.dataclass
class Outcome:
    """What is known of one run; figures are None until it is done.

    `accuracy` is a fraction of the test images, `loss` their mean cross-entropy,
    `train_seconds` those of its epochs, `seconds` those of the process that ended it.
    """

    planned: PlannedRun
    run: Run
    status: str = "waiting"
    accuracy: float | None = None
    loss: float | None = None
    train_seconds: float | None = None
    seconds: float | None = None
    reason: str = ""

    def read(self) -> None:
        """Take the figures of a complete run."""
        try:
            result = self.run.read_evaluation()
            self.accuracy = result["test"]["accuracy"]
            self.loss = result["test"]["loss"]
            self.train_seconds = result["timing"]["train_seconds"]
            self.seconds = result["timing"]["total_seconds"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.run.evaluation}: damaged: {error}") from None
        self.status, self.reason = "done", ""


class SweepRecord:
    """The outcomes of all runs, written to the sweep's folder as they come."""

    def __init__(
        self,
        folder: pathlib.Path,
        planned: Iterable[PlannedRun],
        about: Mapping[str, Any],
    ):
        self.folder = folder
        self.outcomes = [Outcome(one, Run(folder / one.name)) for one in planned]
        self.about = about

    @property
    def knobs(self) -> list[str]:
        """The names of all that is swept."""
        return list(dict.fromkeys(k for o in self.outcomes for k in o.planned.swept))

    def count(self, status: str) -> int:
        """Return how many runs have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """The runs that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def raise_failures(self) -> None:
        """Raise RunError if runs failed, with the first one's reason."""
        if self.failed:
            first = self.failed[0]
            raise RunError(
                f"{len(self.failed)} of {len(self.outcomes)} runs failed, the first of "
                f"them {first.planned.name}: {first.reason}"
            )

    def write(self) -> None:
        """Write sweep.json and sweep.csv, each of them whole or not at all."""
        recipes = self._recipes()
        ranked = [outcome for recipe in recipes for outcome in recipe]
        write_json(
            self.folder / "sweep.json",
            {
                **self.about,
                "recipes": [
                    {"values": recipe[0].planned.recipe, **_means(recipe)}
                    for recipe in recipes
                ],
                "runs": [
                    {
                        "name": outcome.planned.name,
                        "values": outcome.planned.swept,
                        **_figures(outcome),
                    }
                    for outcome in ranked
                ],
            },
        )
        write_csv(
            self.folder / "sweep.csv",
            [
                {
                    "name": outcome.planned.name,
                    **_cells(self.knobs, outcome.planned.swept),
                    **_figures(outcome),
                }
                for outcome in ranked
            ],
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of the recipes, best mean first, as text."""
        names = [name for name in self.knobs if name != "random_seed"]
        rows = []
        for recipe in self._recipes():
            means = _means(recipe)
            row: dict[str, Any] = dict(_cells(names, recipe[0].planned.recipe))
            row |= {"done": f"{means['done']} of {means['runs']}"}
            row |= {"accuracy": "", "loss": "", "train seconds": ""}
            if means["done"]:
                row["accuracy"] = f"{means['accuracy']:.2%}"
                row["loss"] = f"{means['loss']:.4g}"
                row["train seconds"] = f"{means['train_seconds']:.1f}"
            if means["accuracy_deviation"] is not None:
                row["accuracy"] += f" ± {100 * means['accuracy_deviation']:.2f}"
            rows.append(row)
        return rows

    def _recipes(self) -> list[list[Outcome]]:
        """Return the outcomes by recipe, best mean first."""
        recipes: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            recipes.setdefault(repr(outcome.planned.recipe), []).append(outcome)

        def rank(recipe: list[Outcome]) -> tuple[float, float]:
            means = _means(recipe)
            if not means["done"]:
                return math.inf, math.inf
            return -means["accuracy"], means["loss"]

        return sorted(recipes.values(), key=rank)


def _figures(outcome: Outcome) -> dict[str, Any]:
    fields = ("status", "accuracy", "loss", "train_seconds", "seconds", "reason")
    figures = {name: getattr(outcome, name) for name in fields}
    return figures | {"model_dir": str(outcome.run.path)}


def _means(recipe: Sequence[Outcome]) -> dict[str, Any]:
    """Return means over the runs done; the deviation is the sample's (n - 1)."""
    done = [outcome for outcome in recipe if outcome.status == "done"]
    means: dict[str, Any] = {"runs": len(recipe), "done": len(done)}
    for name in ("accuracy", "loss", "train_seconds"):
        values = [getattr(outcome, name) for outcome in done]
        means[name] = statistics.fmean(values) if values else None
        if name == "accuracy":
            several = len(values) > 1
            means["accuracy_deviation"] = statistics.stdev(values) if several else None
    return means


def _cells(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, str]:
    return {name: show(values[name]) if name in values else "" for name in names}
