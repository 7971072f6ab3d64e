"""Round after round, every side once a round; what is measured, as plain values."""

from __future__ import annotations

import json
import math
import pathlib
import secrets
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcnn.benchmark import processes
from kcnn.benchmark.plan import Plan
from kcnn.benchmark.sides import (
    Side,
    Task,
    command_of,
    speed_sides,
    time_to_sides,
    torch_side,
)
from kcnn.errors import RunError
from kcnn.run import Run, read_rows

_ROOF = [sys.executable, "-m", "kcnn.benchmark.roof"]


def measure(
    plan: Plan, prepared: Mapping[str, Any], folder: pathlib.Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what has been measured: ("round", ...) and then ("run", ...) of each side.

    In place of a run of PyTorch that failed comes ("failure", ...), with its reason.

    A round has part (speed or time_to), round (from 1), random_seed (a fresh one), and
    in speed roof: dtype -> FLOP/s. A run has part, round, random_seed, model (or
    experiment), side, images, epochs, epoch_seconds, images_per_second (without the
    first epoch; None where there is no other), peak_memory_mib, accuracy (of the test
    images, at the end), and accuracies (after each epoch), None where not measured.

    Args:
        plan: what is measured.
        prepared: of `prepare`.
        folder: for what the sides leave; it may be removed afterwards.

    Raises:
        RunError: another side failed.
    """
    speed = []
    for number in range(1, plan.rounds + 1):
        seed = secrets.randbelow(2**31)
        about = {"part": "speed", "round": number, "random_seed": seed}
        yield "round", {**about, "roof": roof(folder)}
        for model in plan.models:
            task = _task(prepared, "speed", model, plan.epochs, seed)
            policy = prepared["precision"]["policy"]
            sides = speed_sides(plan, policy, prepared["onednn_chosen"])
            for kind, one in _turn(sides, task, plan, prepared, folder, about):
                if kind == "run":
                    speed.append(one)
                yield kind, one
    variant = fastest_variant(plan, speed)
    for number in range(1, plan.rounds + 1 if plan.targets else 0):
        seed = secrets.randbelow(2**31)
        about = {"part": "time_to", "round": number, "random_seed": seed}
        yield "round", about
        epochs, last = plan.time_to_epochs, plan.targets[-1]
        task = _task(prepared, "time_to", plan.time_to_model, epochs, seed, last)
        sides = time_to_sides(plan, variant)
        yield from _turn(sides, task, plan, prepared, folder, about)


def _turn(
    sides: Sequence[Side],
    task: Task,
    plan: Plan,
    prepared: Mapping[str, Any],
    folder: pathlib.Path,
    about: Mapping[str, Any],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Have each side do a task; another one begins in every round.

    PyTorch is another environment, some of whose variants may not work there: one that
    fails is told, and the rest goes on.
    """
    first = (about["round"] - 1) % len(sides)
    for side in (*sides[first:], *sides[:first]):
        try:
            yield "run", {**about, **_run(side, task, plan, prepared, folder)}
        except RunError as error:
            if side.program != "torch":
                raise
            model = side.experiment or task.model
            failed = {"model": model, "side": side.name, "reason": str(error)}
            yield "failure", {**about, **failed}


def fastest_variant(plan: Plan, runs: list[dict[str, Any]]) -> str:
    """Return PyTorch's fastest variant with --time_to_model, the first if none ran.

    That of the least seconds for --time_to_epochs, the first of them, in which it may
    compile, included; the median over the rounds.
    """

    def seconds(variant: str) -> float:
        name = torch_side(variant).name
        found = [
            run["epoch_seconds"][0]
            + (plan.time_to_epochs - 1) * statistics.median(run["epoch_seconds"][1:])
            for run in runs
            if run["side"] == name and run["model"] == plan.time_to_model
        ]
        return statistics.median(found) if found else math.inf

    return min(plan.torch_variants, key=seconds)


def _task(
    prepared: Mapping[str, Any],
    part: str,
    model: str,
    epochs: int,
    seed: int,
    last_target: float = 0.0,
) -> Task:
    files = prepared[part]
    return Task(part, model, files["npz"], files["dataset"], epochs, seed, last_target)


def roof(folder: pathlib.Path) -> dict[str, float]:
    """Return dtype -> FLOP/s of a large matrix product, measured in a process.

    `folder` is for its output. Raises RunError if it failed.
    """
    done = processes.run(_ROOF, "the roof", folder)
    return _told(done.output, "the roof")


def _run(
    side: Side,
    task: Task,
    plan: Plan,
    prepared: Mapping[str, Any],
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Have a side do a task; return what its figures are."""
    run = Run(folder / "run")
    model = side.experiment or task.model
    name = f"{side.name}, {model}, random seed {task.random_seed}"
    command = command_of(side, task, plan.torch_python, run.path)
    done = processes.run(command, name, folder, dict(side.environment))
    found = _of_run(run) if side.program == "kcnn" else _told(done.output, name)
    seconds = found["seconds"]
    images = prepared[task.part]["images"]
    later = statistics.median(seconds[1:]) if seconds[1:] else None
    return {
        "model": model,
        "side": side.name,
        "images": images,
        "epochs": len(seconds),
        "epoch_seconds": seconds,
        "images_per_second": later and images / later,
        "peak_memory_mib": done.peak_memory_mib,
        "accuracy": found["accuracy"],
        "accuracies": found["accuracies"] or None,
    }


def _of_run(run: Run) -> dict[str, Any]:
    """Return what a kcnn train measured, as the scripts tell it."""
    rows = read_rows(run.metrics)
    return {
        "seconds": [row["seconds"] for row in rows],
        "accuracies": [a for row in rows if (a := row["val_accuracy"]) is not None],
        "accuracy": run.read_evaluation()["test"]["accuracy"],
    }


def _told(output: str, name: str) -> dict[str, Any]:
    """Read the line of JSON that a script ends with."""
    try:
        return json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        raise RunError(f"{name} ended without its line of figures") from None
