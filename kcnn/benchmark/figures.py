"""Raw numbers of rounds and runs -> medians, ratios, parts of the roof, times.

Everything goes by what is there: a benchmark that was stopped has its figures too.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.benchmark.sides import KCNN, STOCK, has_reached
from kcnn.statistics import (
    ALPHA,
    Comparison,
    holm,
    smallest_difference,
    summarize,
    unpaired_test,
)

TRAINING_STEP = 3  # times the FLOP of a forward pass: forward, and backward twice that

Runs = Sequence[Mapping[str, Any]]


def figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what follows from a benchmark's raw numbers.

    Args:
        record: rounds and runs, as `kcnn.benchmark.measure` yields them; flop: model ->
            FLOP of one image forward; targets.

    Returns:
        speed: see `speed_rows`; accuracy: see `accuracy_rows`; time_to: see
        `time_to_rows`.
    """
    return {
        "speed": speed_rows(record),
        "accuracy": accuracy_rows(record),
        "time_to": time_to_rows(record),
    }


def speed_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a model and side, of the rounds in which all sides ran.

    Each has model, side, rounds; medians images_per_second, kcnn_is_faster_by (kcnn's
    images/s over this side's of the same round; None for kcnn itself), roof_part (part
    of the round's roof), each with _low and _high, the range; peak_memory_mib, the
    median; accuracy, the mean, and accuracy_deviation, None with one run.
    """
    runs = runs_of(record, "speed")
    roofs = {
        one["round"]: max(one["roof"].values())
        for one in record["rounds"]
        if one["part"] == "speed"
    }
    ours = {
        (run["model"], run["round"]): run["images_per_second"]
        for run in runs
        if run["side"] == KCNN.name
    }
    rows = []
    for (model, side), own in _grouped(runs).items():
        speeds = [run["images_per_second"] for run in own]
        flop = TRAINING_STEP * record["flop"][model]
        ratios = [ours[model, run["round"]] / run["images_per_second"] for run in own]
        parts = [run["images_per_second"] * flop / roofs[run["round"]] for run in own]
        accuracy = summarize([run["accuracy"] for run in own])
        rows.append(
            {
                "model": model,
                "side": side,
                "rounds": len(own),
                **_spread("images_per_second", speeds),
                **_spread("kcnn_is_faster_by", [] if side == KCNN.name else ratios),
                **_spread("roof_part", parts),
                "peak_memory_mib": statistics.median(r["peak_memory_mib"] for r in own),
                "accuracy": accuracy.mean,
                "accuracy_deviation": accuracy.deviation,
            }
        )
    return rows


def accuracy_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for each model whether kcnn's accuracy is another than the stock script's.

    Welch's test: a random seed means other weights in each program, so that nothing
    pairs the runs of a round. p is adjusted for the number of models (Holm). Each row
    has model, kcnn and stock (means), difference, interval, p and sentence.
    """
    by_side = _grouped(runs_of(record, "speed"))
    models = dict.fromkeys(model for model, _ in by_side)
    tests: dict[str, tuple[list[float], list[float], Comparison]] = {}
    for model in models:
        a, b = (
            [run["accuracy"] for run in by_side.get((model, side.name), ())]
            for side in (KCNN, STOCK)
        )
        if a and b:
            tests[model] = a, b, unpaired_test(a, b)
    adjusted = holm({model: test.p for model, (_, _, test) in tests.items()})
    return [
        {
            "model": model,
            "kcnn": statistics.mean(a),
            "stock": statistics.mean(b),
            "difference": test.difference,
            "interval": test.interval,
            "p": adjusted[model],
            "sentence": _sentence(model, a, b, test, adjusted[model], len(tests)),
        }
        for model, (a, b, test) in tests.items()
    ]


def _sentence(
    model: str,
    ours: Sequence[float],
    stock: Sequence[float],
    test: Comparison,
    p: float | None,
    models: int,
) -> str:
    means = (
        f"{model}: kcnn {statistics.mean(ours):.2%}, the stock script "
        f"{statistics.mean(stock):.2%}"
    )
    if p is None:
        return f"{means}; from one run of a side nothing can be concluded."
    assert test.difference is not None and test.deviation is not None
    span = ""
    if test.interval:
        low, high = test.interval
        span = f" (95% interval {100 * low:+.2f} to {100 * high:+.2f})"
    adjusted = f", adjusted for {models} models" if models > 1 else ""
    by = f"Welch's test, {test.n_a} and {test.n_b} runs, p = {p:.2g}{adjusted}"
    difference = f"{means}; the difference of {100 * test.difference:+.2f} points{span}"
    if p <= ALPHA:
        return f"{difference} is more than noise: {by}."
    n = min(test.n_a, test.n_b)
    least = smallest_difference(test.deviation, n, paired=False)
    shown = f"; so many runs show {100 * least:.2g} points or more" if least else ""
    return f"{difference} cannot be told from noise: {by}{shown}."


def time_to_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a side and target, by target: seconds of training until it is met.

    Each has target, side, model (or experiment), rounds, reached (in how many of them),
    epochs (how many it had at most), and seconds, the median, with _low and _high. A
    round in which it was not reached counts as longer than all others: where that makes
    the median or the end of the range, it is None.
    """
    runs = runs_of(record, "time_to")
    rows = []
    for target in record["targets"]:
        for (model, side), own in _grouped(runs).items():
            seconds = [seconds_until(run, target) for run in own]
            reached = [s for s in seconds if s is not None]
            endless = [math.inf if s is None else s for s in seconds]
            spread = _spread("seconds", endless)
            rows.append(
                {
                    "target": target,
                    "side": side,
                    "model": model,
                    "rounds": len(own),
                    "reached": len(reached),
                    "epochs": max(run["epochs"] for run in own),
                    **{k: v if math.isfinite(v) else None for k, v in spread.items()},
                }
            )
    return rows


def seconds_until(run: Mapping[str, Any], target: float) -> float | None:
    """Return the seconds of a run's epochs up to the first that reaches a target."""
    for epoch, accuracy in enumerate(run["accuracies"] or (), start=1):
        if has_reached(accuracy, target):
            return sum(run["epoch_seconds"][:epoch])
    return None


def runs_of(record: Mapping[str, Any], part: str) -> Runs:
    """Return the runs of a part, without those of a round that was stopped.

    Beside the whole rounds it would set medians of other rounds side by side. Where no
    round is whole, all there is is kept. A side that failed has had its turn. In speed
    each model's part of a round is whole or not by itself.
    """

    def of_part(kind: str) -> list[Mapping[str, Any]]:
        return [one for one in record.get(kind, ()) if one["part"] == part]

    def turn(one: Mapping[str, Any]) -> tuple[Any, ...]:
        return one["round"], part == "speed" and one["model"]

    runs = of_part("runs")
    sizes = collections.Counter(map(turn, runs + of_part("failures")))
    most: dict[Any, int] = {}
    for (_, model), size in sizes.items():
        most[model] = max(size, most.get(model, 0))
    return [run for run in runs if sizes[turn(run)] == most[turn(run)[1]]]


def _grouped(runs: Runs) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return the runs of each model and side, in the order in which they first ran."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["model"], run["side"]), []).append(run)
    return found


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Return the median and the range of values, None where there are none."""
    if not values:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: statistics.median(values),
        f"{name}_low": min(values),
        f"{name}_high": max(values),
    }
