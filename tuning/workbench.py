"""What trials share: data sets and compiled training loops.

Building a network and tracing its step takes seconds, as long as a short trial. A
trial that changes only what a compiled step can read from a variable (the learning
rate and its whole course, dropout rates, weight decay, the number of epochs, the seed,
and the batch size where XLA does not compile for one) takes over an earlier trial's
loop, whose every variable is put back to what a fresh one of the same seed begins with:
nothing is carried over, and the figures are those of kcnn train.
"""

from __future__ import annotations

import collections
import dataclasses
import gc
import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kcnn import models, optimization
from kcnn.batches import steps_per_epoch
from kcnn.config import KNOBS, Config
from kcnn.datasets import TrainingData, load_training
from kcnn.errors import UsageError
from kcnn.fresh import FreshModel
from kcnn.layers import Dropout, drop_numbers
from kcnn.loop import TrainingLoop
from kcnn.optimization import Schedule
from kcnn.spec import ImageSpec
from kcnn.transfer import Source

_MOST_LOOPS = 4  # kept; each holds a network, its optimizer and its traced steps

# Read from variables, or not by the compiled step at all.
_FREE = {
    "learning_rate",
    "schedule",
    "warmup_epochs",
    "step_epochs",
    "step_factor",
    "epochs",
    "batch_size",
    "early_stopping",
    "keep",
    "random_seed",
    "batch_norm_momentum",  # what matters of it is in the key by itself
}
# Variables, but at 0 the layer or the term is left out.
_FREE_ABOVE_ZERO = ("dropout", "conv_dropout", "weight_decay")

_DATA = [name for name, knob in KNOBS.items() if knob.section == "data"]
# What decides whether a network can be built, and given the weights of a run.
_NETWORK = [
    name
    for name, knob in KNOBS.items()
    if knob.section in ("model", "preprocessing", "transfer")
]


@keras.saving.register_keras_serializable("kcnn")
class VariableDropout(Dropout):
    """Dropout whose rate is a variable; computes bit for bit what kcnn's does."""

    def __init__(self, rate: float, whole_channels: bool = False, **kwargs):
        super().__init__(rate, whole_channels, **kwargs)
        self._numbers = tf.Variable(drop_numbers(rate))

    def set_rate(self, rate: float) -> None:
        """Drop this part of the inputs from now on."""
        self._numbers.assign(drop_numbers(rate))

    def call(self, inputs, training=False):
        """Drop inputs and scale up the others, in training only."""
        if not training:
            return inputs
        return self.drop_some(inputs, self._numbers)


class VariableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step, from a table that can be replaced."""

    def __init__(self, schedule: Schedule):
        self._table = tf.Variable(_table(schedule), shape=[None], trainable=False)
        self._factor = tf.Variable(1.0, trainable=False)

    def follow(self, schedule: Schedule) -> None:
        """Take the course of another schedule from now on."""
        self._table.assign(_table(schedule))
        self.factor = 1.0

    @property
    def factor(self) -> float:
        """Factor of every learning rate; a rollback halves it."""
        return float(self._factor)

    @factor.setter
    def factor(self, value: float) -> None:
        self._factor.assign(value)

    def __call__(self, step):
        """Return the learning rate of a step, counted from 0, as float32."""
        return self._factor * tf.gather(self._table, tf.cast(step, tf.int64))


def _table(schedule: Schedule) -> np.ndarray:
    rates = schedule(np.arange(schedule.total_steps + 1))
    return np.broadcast_to(np.asarray(rates, np.float32), schedule.total_steps + 1)


@dataclasses.dataclass
class _Station:
    """A compiled loop with all that can be changed in it without tracing anew."""

    loop: TrainingLoop
    schedule: VariableSchedule
    dropouts: dict[str, VariableDropout]
    weight_decay: tf.Variable | None
    beginnings: dict[str, list[np.ndarray]]  # state at step 0, by seed and data


class Workbench:
    """Keeps the data sets and loops of a search; see the module.

    Args:
        executions: how many random seeds a trial is run with; so many data sets are
            kept, since the seed divides train and validation.
        reuse: False builds and traces everything anew in each execution.
    """

    def __init__(self, executions: int = 1, reuse: bool = True):
        self._executions = executions
        self._reuse = reuse
        self._data: collections.OrderedDict[str, TrainingData] = (
            collections.OrderedDict()
        )
        self._stations: collections.OrderedDict[str, _Station] = (
            collections.OrderedDict()
        )
        self._refusals: dict[str, str | None] = {}
        self.built = 0  # loops made so far

    def data(self, config: Config) -> TrainingData:
        """Return the training and validation images of a Config."""
        key = _key(config, [*_DATA, "random_seed"])
        if key not in self._data:
            _forget_oldest(self._data, self._executions - 1)
            self._data[key] = load_training(config)
        self._data.move_to_end(key)
        return self._data[key]

    def refusal(self, config: Config) -> str | None:
        """Return why a network cannot be built, None if it can."""
        spec = self.data(config).spec
        key = _key(config, _NETWORK)
        key += repr(spec.shape)
        if key not in self._refusals:
            self._refusals[key] = _refusal(config, spec)
        return self._refusals[key]

    def loop(self, config: Config) -> tuple[TrainingLoop, VariableSchedule]:
        """Return a loop at step 0 with the Config's fresh weights, and its schedule."""
        data = self.data(config)
        steps = steps_per_epoch(len(data.train), config.batch_size)
        schedule = optimization.build_schedule(config, steps)
        key = self._structure(config, steps * config.epochs)
        beginning = _key(config, [*_DATA, "random_seed"])
        station = self._stations.get(key) if self._reuse else None
        if station is None or beginning not in station.beginnings:
            fresh = self._build(config, data, schedule)
            if station is None:
                _forget_oldest(self._stations, _MOST_LOOPS - 1)
                station = self._stations[key] = fresh
            station.beginnings[beginning] = fresh.loop.state()
        self._stations.move_to_end(key)
        _set_up(station, config, schedule)
        station.loop.restore(station.beginnings[beginning])
        return station.loop, station.schedule

    def _structure(self, config: Config, total_steps: int) -> str:
        """Return what two Configs share that can use one compiled loop."""
        names = KNOBS.keys() - _FREE - set(_FREE_ABOVE_ZERO) - set(_DATA)
        parts = [bool(getattr(config, name)) for name in _FREE_ABOVE_ZERO]
        momentum = models.effective_momentum(config, total_steps)
        shape = self.data(config).spec
        return _key(config, sorted(names)) + repr((parts, momentum, shape))

    def _build(
        self, config: Config, data: TrainingData, schedule: Schedule
    ) -> _Station:
        """Make what kcnn.trainer makes, with variables where numbers would be."""
        self.built += 1
        fresh = FreshModel.build(config, data.spec, data.train, schedule.total_steps)
        model = _with_variable_dropout(fresh.model)
        course = VariableSchedule(schedule)
        loop = dataclasses.replace(fresh, model=model).loop(config, course)
        inner = getattr(loop.optimizer, "inner_optimizer", loop.optimizer)
        decay = None
        if config.weight_decay:
            decay = inner.weight_decay = tf.Variable(config.weight_decay)
        dropouts = {
            layer.name: layer
            for layer in model.layers
            if isinstance(layer, VariableDropout)
        }
        return _Station(loop, course, dropouts, decay, {})


def _with_variable_dropout(model: keras.Model) -> keras.Model:
    """Return a model of the same layers but for its dropout, whose seeds stay."""

    def exchanged(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is not Dropout or not layer.rate:
            return layer
        own = VariableDropout(
            layer.rate,
            layer.whole_channels,
            seed=0,
            name=layer.name,
            dtype=layer.dtype_policy,
        )
        own.seed_generator.state.assign(layer.seed_generator.state)
        return own

    return models.copy_of(model, exchanged)


def _set_up(station: _Station, config: Config, schedule: Schedule) -> None:
    """Give a compiled loop the numbers of a trial."""
    station.schedule.follow(schedule)
    for name, layer in station.dropouts.items():
        layer.set_rate(getattr(config, name))  # layers are named after their knobs
    if station.weight_decay is not None:
        station.weight_decay.assign(config.weight_decay)


def _refusal(config: Config, spec: ImageSpec) -> str | None:
    try:
        model = models.build_model(config, spec, augment=False)
        if config.init_from:
            Source.read(config.init_from).start(model, spec)
    except UsageError as error:
        return str(error)
    return None


def _key(config: Config, names: list[str]) -> str:
    values: dict[str, Any] = {name: getattr(config, name) for name in names}
    return json.dumps(values)


def _forget_oldest(kept: collections.OrderedDict, most: int) -> None:
    while len(kept) > max(most, 0):
        kept.popitem(last=False)
        gc.collect()  # a traced step and its network refer to each other
