"""Accuracy against training-set size: what to run, and what came of it.

Nothing here starts a process or imports TensorFlow, but `count_training_images`.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kcnn.batches import nearest_epochs, steps_per_epoch
from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.power_law import power_law
from kcnn.run import read_rows
from kcnn.statistics import summarize
from kcnn.sweep import PlannedRun
from kcnn.sweep_record import Outcome, SweepRecord

SIZES = "100,250,500,1000,all"
ALL = "all"
_LEAST_SIZES = 4  # that a power law has a degree of freedom left for


def sizes_of(text: str, available: int, *, asked: bool) -> tuple[list[int], str]:
    """Turn --sizes into numbers of images, ascending; and say what was left out.

    Args:
        text: whole numbers and "all", separated by commas.
        available: the training images that there are.
        asked: False for the default: what is too large is then left out.

    Raises:
        UsageError: no such list, a size that is too large, or one that stands twice.
    """
    numbers = [_size(part, available) for part in text.split(",")]
    if not asked:
        return sorted({n for n in numbers if n <= available}), ", ".join(
            f"{n:,}" for n in numbers if n > available
        )
    for n, times in collections.Counter(numbers).items():
        if n > available:
            raise UsageError(
                f"--sizes: got {n}; there are {available} training images (all)"
            )
        if times > 1:
            also = f" ({ALL} is {available})" if n == available else ""
            raise UsageError(f"--sizes: got {n} {times} times{also}, expected once")
    return sorted(numbers), ""


def _size(part: str, available: int) -> int:
    if part == ALL:
        return available
    if not part.isascii() or not part.isdigit() or not int(part):
        raise UsageError(
            f"--sizes: got {part!r}, expected whole numbers from 1 up and {ALL}, "
            f"separated by commas, such as {SIZES}"
        )
    return int(part)


def count_training_images(config: Config) -> int:
    """Return how many images --train_size can take, by loading the data set.

    In a process of its own, whose memory and GPU are free again for the runs.

    Raises UsageError as `kcnn.datasets.load` does.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(_count, config).result()
        except concurrent.futures.BrokenExecutor:
            raise RunError("the process that counts the images was killed") from None


def _count(config: Config) -> int:
    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets

    return len(datasets.load_training_images(config)[1])


def plan(
    given: Mapping[str, Any], sizes: Sequence[int], seeds: Sequence[int], equal: str
) -> list[PlannedRun]:
    """Return a run for every size and seed, each with fresh weights.

    Args:
        given: knobs and their values, without train_size and random_seed.
        sizes: numbers of training images, ascending.
        seeds: values of random_seed.
        equal: what is the same for every size: "steps" or "epochs".

    Raises:
        UsageError: a combination of knobs that cannot be run.
    """
    config = Config.from_dict(given)
    if equal == "steps" and config.early_stopping:
        raise UsageError(
            "--early_stopping ends runs after different numbers of steps; give "
            "--equal=epochs too"
        )
    runs = []
    for n in sizes:
        same = _same_steps(config, n, sizes[-1]) if equal == "steps" else {}
        for seed in seeds:
            swept = {"train_size": n, "random_seed": seed}
            flags = {**given, **same, **swept}
            name = f"train_size={n},random_seed={seed}"
            runs.append(PlannedRun(name, swept, Config.from_dict(flags), None, flags))
    return runs


def _same_steps(config: Config, n: int, largest: int) -> dict[str, Any]:
    """Return the knobs with which n images get the steps that the most images take.

    Epochs are whole ones. What is counted in epochs follows, so that the schedule
    keeps its shape.
    """
    steps = config.epochs * steps_per_epoch(largest, config.batch_size)
    epochs = nearest_epochs(steps, n, config.batch_size)
    if epochs == config.epochs:
        return {}
    longer = epochs / config.epochs
    knobs: dict[str, Any] = {"epochs": epochs}
    if config.warmup_epochs:
        knobs["warmup_epochs"] = config.warmup_epochs * longer
    if config.step_epochs:
        knobs["step_epochs"] = max(1, round(config.step_epochs * longer))
    return knobs


def learning_curve(record: SweepRecord, equal: str) -> dict[str, Any]:
    """Return the figures of the runs that are done, ready for JSON.

    Returns:
        equal, dataset and model; sizes: for each train_size with runs done, n, the
        means, deviations and 95% intervals of the train and test accuracy, its runs;
        power_law: that of the test error, None where there is none; and sentence,
        what it says of twice the data or why it is missing.

    Raises:
        RunError: no run is done.
    """
    done: dict[int, list[Outcome]] = {}
    for outcome in record.outcomes:
        if outcome.status == "done":
            done.setdefault(outcome.planned.swept["train_size"], []).append(outcome)
    if not done:
        raise RunError(f"{record.folder}: no run is done; see train.log in its folders")
    largest = max(outcome.planned.swept["train_size"] for outcome in record.outcomes)
    sizes = [_figures(n, outcomes) for n, outcomes in done.items()]
    law, why_none = None, _why_no_law(sizes, largest)
    if not why_none:
        errors = [[1 - run["test_accuracy"] for run in row["runs"]] for row in sizes]
        law = dataclasses.asdict(
            power_law([row["train_size"] for row in sizes], errors)
        )
    config = record.outcomes[0].planned.config
    return {
        **record.about,
        "equal": equal,
        "dataset": config.dataset,
        "model": config.model,
        "sizes": sizes,
        "power_law": law,
        "sentence": _prediction(law, sizes[-1]) if law else why_none,
    }


def _figures(n: int, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    runs = []
    for outcome in outcomes:
        result = outcome.run.read_evaluation()
        epochs = len(read_rows(outcome.run.metrics))
        runs.append(
            {
                "random_seed": outcome.planned.swept["random_seed"],
                "epochs": epochs,
                "steps": epochs * steps_per_epoch(n, outcome.planned.config.batch_size),
                "train_accuracy": result["train"]["accuracy"],
                "test_accuracy": result["test"]["accuracy"],
                "train_seconds": result["timing"]["train_seconds"],
                "model_dir": str(outcome.run.path),
            }
        )
    row: dict[str, Any] = {"train_size": n, "n": len(runs)}
    for split in ("train", "test"):
        found = summarize([run[f"{split}_accuracy"] for run in runs])
        row[f"{split}_accuracy"] = found.mean
        row[f"{split}_deviation"] = found.deviation
        row[f"{split}_interval"] = found.interval
    for count in ("epochs", "steps"):
        row[count] = sum(run[count] for run in runs) / len(runs)
    return row | {"runs": runs}


def _why_no_law(sizes: Sequence[Mapping[str, Any]], largest: int) -> str:
    """Return why no prediction is made, "" if one is."""
    if sizes[-1]["train_size"] < largest:
        return (
            f"No prediction for twice the data: no run with {largest:,} images is done."
        )
    if len(sizes) < _LEAST_SIZES:
        found = f"{len(sizes)} size{'s' * (len(sizes) > 1)}"
        return (
            "No prediction for twice the data: a power law needs runs with "
            f"{_LEAST_SIZES} or more sizes, and there are runs with {found}."
        )
    return ""


def _prediction(law: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    interval = "no interval: no size has two runs that differ"
    if law["predicted_interval"]:
        low, high = law["predicted_interval"]
        interval = f"95% interval of the mean {1 - high:.2%} to {1 - low:.2%}"
    return (
        f"With twice the data, {law['predicted_size']:,} training images, the power "
        f"law predicts {1 - law['predicted_error']:.2%} test accuracy ({interval}); "
        f"{last['test_accuracy']:.2%} was measured with {last['train_size']:,}."
    )


def law_text(law: Mapping[str, Any]) -> str:
    """Return the fitted law as a formula."""
    return (
        f"error = {law['floor']:.4f} + {law['scale']:.3g} * size^-{law['exponent']:.3g}"
    )


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of a `learning_curve`, as text."""
    return [
        {
            "size": f"{row['train_size']:,}",
            "n": row["n"],
            "train accuracy": _with_deviation(row, "train"),
            "test accuracy": f"{row['test_accuracy']:.2%}",
            "deviation": _percent(row["test_deviation"]),
            "95% interval": " to ".join(map(_percent, row["test_interval"] or ())),
            "epochs": f"{row['epochs']:,.5g}",
            "steps": f"{row['steps']:,.5g}",
        }
        for row in result["sizes"]
    ]


def _with_deviation(row: Mapping[str, Any], split: str) -> str:
    text = f"{row[f'{split}_accuracy']:.2%}"
    deviation = row[f"{split}_deviation"]
    return text if deviation is None else f"{text} ± {100 * deviation:.2f}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.2%}"


def records(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row of plain figures for each size, for CSV."""
    table = []
    for size in result["sizes"]:
        row = {k: v for k, v in size.items() if k != "runs"}
        for split in ("train", "test"):
            low, high = row.pop(f"{split}_interval") or (None, None)
            row |= {f"{split}_interval_low": low, f"{split}_interval_high": high}
        table.append(row)
    return table
