"""A learning-rate range test: the loss while the rate rises step by step.

After Smith, "Cyclical learning rates for training neural networks" (2015), section 3.3,
in the exponential form of fastai. Only training images are read.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.errors import RunError
from kcnn.fresh import FreshModel
from kcnn.optimization import RisingRate
from kcnn.pipeline import reading, training_batches
from kcnn.spec import ImageSpec
from kcnn.splits import Split

STEPS = 100

# Optimizer -> where its test starts and ends: from no progress to harm.
RANGES = {
    "adadelta": (1e-3, 100.0),
    "sgd": (1e-4, 100.0),
    "momentum": (1e-5, 10.0),
    "nesterov": (1e-5, 10.0),
    "rmsprop": (1e-6, 1.0),
    "adam": (1e-6, 1.0),
    "adamw": (1e-6, 1.0),
    "muon": (1e-4, 10.0),
}

# The suggestion is this much below the rate at the lowest smoothed loss. A tenth is
# the usual advice; on MNIST a third did better with all four tried: see README.md.
BELOW = 3

_SMOOTHING = 0.8  # decay of the average; the last five steps or so count
_START = 4  # the step, from 0, from which on an average holds enough losses
_EXPLODED = 4  # times the lowest smoothed loss
_FALLEN = 0.9  # of the start; from there on, half of the way back is a rise too
_LEAST_FALL = 0.99  # of the start; less is noise, not a minimum


@dataclasses.dataclass(frozen=True)
class Curve:
    """One fresh model's test: a learning rate, loss and smoothed loss a step.

    `ended` says what stopped it; a loss that is not finite is left out.
    """

    random_seed: int
    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    ended: str

    @property
    def lowest(self) -> int:
        """The step of the lowest smoothed loss, from 0."""
        return min(range(_START, len(self.smoothed)), key=self.smoothed.__getitem__)


def range_test(
    config: Config, spec: ImageSpec, train: Split, course: RisingRate
) -> Curve:
    """Train a fresh model while the learning rate rises, and note every step's loss.

    Stops where the smoothed loss has exploded or the loss is not finite.

    Args:
        config: the recipe; its learning_rate and schedule are not followed.
        spec: of the images and classes.
        train: the training images.
        course: the learning rate of every step.

    Raises:
        RunError: not even the first few losses are finite.
    """
    steps = course.total_steps
    needed = -(-steps // steps_per_epoch(len(train), config.batch_size))
    config = dataclasses.replace(config, epochs=max(config.epochs, needed))
    loop = FreshModel.build(config, spec, train, steps).loop(config, course)
    stream = training_batches(
        train, config, spec.num_classes, one_size=loop.jit_compile
    )
    batches = iter(stream)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    ended = "came to its last step"
    for _ in range(steps):
        rate = float(course(loop.optimizer.iterations))
        loop.reset_totals()
        with reading(train):
            loop.run(batches, 1)
        totals = loop.totals()
        if totals.bad_step is not None:
            ended = f"the loss at {rate:.2g} is {totals.bad_loss:.3g}"
            break
        rates.append(rate)
        losses.append(float(totals.loss))
        smoothed.append(smooth(losses)[-1])
        if has_exploded(smoothed):
            ended = f"the smoothed loss at {rate:.2g} has exploded"
            break
    if len(losses) <= _START:
        raise RunError(
            f"the loss of step {len(losses) + 1} is {totals.bad_loss:.3g}; lower "
            "--from, or look at --precision and the data"
        )
    return Curve(config.random_seed, rates, losses, smoothed, ended)


def smooth(losses: Sequence[float]) -> list[float]:
    """Return exponential averages, each corrected for its start at 0 as in Adam."""
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed.append(average / (1 - _SMOOTHING**i))
    return smoothed


def has_exploded(smoothed: Sequence[float]) -> bool:
    """Tell whether the last smoothed loss is far above the lowest one.

    That is four times as high, or half of the way back to the start, as a network that
    has died stays at the loss of guessing.
    """
    settled = smoothed[_START:]
    if not settled:
        return False
    lowest, start = min(settled), settled[0]
    limit = _EXPLODED * lowest
    if lowest < _FALLEN * start:
        limit = min(limit, (lowest + start) / 2)
    return smoothed[-1] > limit


def suggest(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return a learning rate, and the rates at the lowest smoothed losses behind it.

    The median over the seeds (of the logarithms) of the rate at the lowest smoothed
    loss, divided by `BELOW`, to two digits.

    Returns:
        learning_rate; lowest_at, a rate for each curve; still_falling, how many curves
        had their lowest loss at the last step.

    Raises:
        RunError: in one the loss never fell.
    """
    for curve in curves:
        start = curve.smoothed[_START]
        if curve.smoothed[curve.lowest] > _LEAST_FALL * start:
            raise RunError(
                f"random seed {curve.random_seed}: the loss never fell, from learning "
                f"rate {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}; move --from and "
                "--to, or look at the data"
            )
    lowest = [curve.rates[curve.lowest] for curve in curves]
    middle = math.exp(statistics.median(map(math.log, lowest)))
    return {
        "learning_rate": float(f"{middle / BELOW:.2g}"),
        "lowest_at": lowest,
        "still_falling": sum(c.lowest == len(c.rates) - 1 for c in curves),
    }


def rows(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Return a row of plain figures for each step of each curve, for CSV."""
    return [
        {
            "random_seed": curve.random_seed,
            "step": step,
            "learning_rate": rate,
            "loss": loss,
            "smoothed_loss": smoothed,
        }
        for curve in curves
        for step, (rate, loss, smoothed) in enumerate(
            zip(curve.rates, curve.losses, curve.smoothed, strict=True), 1
        )
    ]


def result(
    curves: Sequence[Curve], found: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything as plain figures, ready for JSON."""
    return {**about, **found, "curves": [dataclasses.asdict(c) for c in curves]}
