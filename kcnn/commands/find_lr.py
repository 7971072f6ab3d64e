"""Suggest a learning rate by a range test.

A fresh model is trained while the learning rate rises by the same factor every step,
until the smoothed loss explodes. A third of the rate at the lowest smoothed loss is
suggested, the median over a few random seeds, which decide weights and order; the split
is that of the first. Only training images are read. The other knobs of a training, such
as epochs and schedule, do not change the test; they are checked, and stand in the
command that it prints. The suggestion is a place to start from. For adadelta,
and for sgd with batch normalization (convnet), it comes out too low: there kcnn's
default is better.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.knobs import Knob, show
from kcnn.progress import Progress

if TYPE_CHECKING:
    from kcnn.find_lr import Curve

USAGE = "kcnn find-lr --output=DIR [--from=RATE] [--to=RATE] [--KNOB=VALUE ...]"

FLAGS = {
    "output": Knob(
        "find-lr", "", "folder for find_lr.csv, find_lr.json and find_lr.png"
    ),
    "from": Knob(
        "find-lr",
        None,
        "first learning rate (default by --optimizer: adadelta 0.001, sgd 0.0001, "
        "momentum and nesterov 1e-05, others 1e-06)",
        low=1e-7,
        high=100.0,
        kind=float,
    ),
    "to": Knob(
        "find-lr",
        None,
        "last learning rate (default by --optimizer: adadelta and sgd 100, momentum "
        "and nesterov 10, others 1)",
        low=1e-7,
        high=100.0,
        kind=float,
    ),
    "steps": Knob(
        "find-lr",
        100,
        "batches from the first learning rate to the last; with more of them the model "
        "is further trained at low rates, and the suggestion comes out lower",
        low=20,
        high=10_000,
        kind=int,
    ),
}

_SEEDS = (0, 1, 2)


def define_knobs(values: FlagValues) -> None:
    """Define all knobs but learning_rate; random_seed takes several values."""
    own = ("learning_rate", "random_seed")
    flags.define_knobs(values, [name for name in KNOBS if name not in own])
    flags.define_knobs_of_many(values, ["random_seed"])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Test with every seed, write what came of it and print the suggestion."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    if not values.output:
        raise UsageError("--output: say where the results go: --output=runs/NAME")
    given = flags.knobs_given(values)
    seeds = given.pop("random_seed", _SEEDS)
    configs = [Config.from_dict({**given, "random_seed": seed}) for seed in seeds]
    config = configs[0]
    folder = pathlib.Path(values.output)
    folder.mkdir(parents=True, exist_ok=True)

    from kcnn import runtime

    runtime.start_tensorflow(config)
    from kcnn import datasets, find_lr
    from kcnn.optimization import RisingRate

    first, last = find_lr.RANGES[config.optimizer]
    first = first if values["from"].value is None else values["from"].value
    last = last if values.to is None else values.to
    if first >= last:
        raise UsageError(
            f"--from: got {show(first)}, expected less than --to={show(last)}"
        )
    course = RisingRate(first, last, values.steps or find_lr.STEPS)
    with Progress(sys.stdout) as progress:
        spec, train = datasets.load_training_images(configs[0])
        progress.note("data", f"{config.dataset}: {len(train):,} training images")
        progress.note(
            "test",
            f"{config.model} with {config.optimizer}, learning rate {show(first)} to "
            f"{show(last)} in {course.total_steps} steps",
        )
        curves = []
        for one in configs:
            curves.append(find_lr.range_test(one, spec, train, course))
            progress.note(f"seed {one.random_seed}", _ending(curves[-1]))
        found = find_lr.suggest(curves)
        if found["still_falling"]:
            progress.note(
                "", "the loss was still falling at the end; a higher --to may show more"
            )
        kept = given | ({"random_seed": seeds[0]} if len(seeds) == 1 else {})
        command = _command(found["learning_rate"], kept)
        about = {"command": shlex.join(["kcnn", *sys.argv[1:]]), "suggested": command}
        _write(folder, find_lr.rows(curves), find_lr.result(curves, found, about))
        progress.note("written", f"{folder}/find_lr.png, find_lr.csv, find_lr.json")
        progress.note("suggested", command)


def _ending(curve: Curve) -> str:
    """Say where a curve was lowest and why it ended."""
    at, rate = curve.smoothed[curve.lowest], curve.rates[curve.lowest]
    return f"lowest smoothed loss {at:.4g} at {rate:.2g}; {curve.ended}"


def _command(learning_rate: float, given: Mapping[str, Any]) -> str:
    """Return the training that a learning rate is suggested for."""
    knobs = {"learning_rate": learning_rate, **given}
    words = [f"--{name}={show(value)}" for name, value in knobs.items()]
    return shlex.join(["kcnn", "train", *words])


def _write(
    folder: pathlib.Path, rows: list[dict[str, Any]], result: Mapping[str, Any]
) -> None:
    from kcnn import find_lr_plot
    from kcnn.files import write_csv, write_json

    write_csv(folder / "find_lr.csv", rows)
    write_json(folder / "find_lr.json", result)
    find_lr_plot.loss_by_rate(result, folder / "find_lr.png")
