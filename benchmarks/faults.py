"""What --deterministic and checkpoints cost.

Usage: python benchmarks/faults.py [--rounds=7] [--steps=20] [--KNOB=VALUE ...]

Two processes train one recipe, one of them with --deterministic, in turn: `rounds`
times `steps` steps each, the first of a round taking turns too. After its steps the
plain one writes a checkpoint. Printed are the median over the rounds and the range, of
the clock's time and of the processor's (all threads of the process), which other
programs disturb less, and a checkpoint's part of the --checkpoint_every it is written
once in. Knobs are those of kcnn train; --dataset=digits if nothing is said.
"""

import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

from absl import flags

from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.errors import run_program
from kcnn.flags import define, define_knobs, knobs_given, parse
from kcnn.knobs import Knob
from kcnn.table import render

OWN = {
    "rounds": Knob("benchmark", 7, "", low=1, high=1000, kind=int),
    "steps": Knob("benchmark", 20, "", low=1, high=100_000, kind=int),
}
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}


def main(argv):
    """Print a row for each thing that is measured, then the costs."""
    values = flags.FlagValues()
    define_knobs(values)
    for name, declared in OWN.items():
        define(values, name, declared)
    if parse(values, argv):
        raise SystemExit("flags are given as --name=value")
    rounds, steps = (values[n].value or OWN[n].default for n in OWN)
    settings = {"dataset": "digits"} | knobs_given(values)
    sides = [
        Side(settings | {"deterministic": d}, steps, rounds) for d in (False, True)
    ]
    plain, deterministic = sides
    for number in range(rounds):
        for side in sides if number % 2 else reversed(sides):
            side.take_steps()
        plain.write_checkpoint()
    ratios = [
        {clock: there[clock] / here[clock] for clock in CLOCKS}
        for here, there in zip(plain.steps, deterministic.steps, strict=True)
    ]
    checkpoints = plain.checkpoints
    for side in sides:
        side.end()
    named = {
        "a step, ms": (plain.steps, 1000 / steps),
        "a step with --deterministic, ms": (deterministic.steps, 1000 / steps),
        "the second over the first, by round": (ratios, 1),
        "writing a checkpoint, ms": (checkpoints, 1000),
    }
    print(f"{plain.about}; {rounds} rounds of {steps} steps")
    print(render([_row(*item) for item in named.items()], "table"))
    every = Config.from_dict(settings).checkpoint_every
    parts = [
        f"{statistics.median(one[clock] for one in checkpoints) / every:.2%} by {clock}"
        for clock in CLOCKS
    ]
    print(f"a checkpoint every {every:g} s: {', '.join(parts)}")


def _row(name, measured):
    spent, scale = measured
    row = {"": name}
    for clock in CLOCKS:
        found = [one[clock] * scale for one in spent]
        row[f"{clock}, median"] = f"{statistics.median(found):.3g}"
        row[f"{clock}, range"] = f"{min(found):.3g} to {max(found):.3g}"
    return row


class Side:
    """A process that trains when it is told to: --deterministic is one's for life."""

    def __init__(self, settings, steps, rounds):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, settings, steps, rounds), daemon=True
        )
        self._process.start()
        self.about = self._here.recv()
        self.steps, self.checkpoints = [], []

    def take_steps(self):
        """Train; append what it took."""
        self.steps.append(self._ask("steps"))

    def write_checkpoint(self):
        """Write all that changes in a step; append what it took."""
        self.checkpoints.append(self._ask("checkpoint"))

    def end(self):
        """Let the process go."""
        self._here.send(None)
        self._process.join()

    def _ask(self, what):
        self._here.send(what)
        return self._here.recv()


def _serve(connection, settings, steps, rounds):
    """Do as the connection says, after a warm-up that builds the graphs."""
    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import checkpoint, datasets, pipeline
    from kcnn.fresh import FreshModel
    from kcnn.optimization import build_schedule

    config = Config.from_dict(settings)
    data = datasets.load(config)
    an_epoch = steps_per_epoch(len(data.train), config.batch_size)
    epochs = (rounds + 1) * steps // an_epoch + 1
    config = Config.from_dict(settings | {"epochs": epochs})
    fresh = FreshModel.build(config, data.spec, data.train, epochs * an_epoch)
    loop = fresh.loop(config, build_schedule(config, an_epoch))
    batches = iter(pipeline.training_batches(data.train, config, data.spec.num_classes))

    def train():
        loop.run(batches, steps)
        loop.totals()  # waits for the device

    train()
    with tempfile.TemporaryDirectory() as folder:
        last, previous = (pathlib.Path(folder, f"{name}.npz") for name in "ab")

        def save():
            checkpoint.save(last, {"state": loop.state()}, keep=previous)

        save()
        count = sum(weight.shape.num_elements() for weight in fresh.model.weights)
        connection.send(
            f"{config.model} on {config.dataset}, {config.optimizer}, batches of "
            f"{config.batch_size}, {count:,} weights, {fresh.precision.policy}, "
            f"a checkpoint of {last.stat().st_size / 1e6:.1f} MB"
        )
        while what := connection.recv():
            connection.send(_timed(train if what == "steps" else save))


def _timed(function):
    before = {name: clock() for name, clock in CLOCKS.items()}
    function()
    return {name: clock() - before[name] for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
