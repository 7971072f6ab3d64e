"""The optimizer and the learning rate's course over a run."""

from __future__ import annotations

import math

import keras
from keras import ops

from kcnn.config import Config
from kcnn.optimizers import SGD, Adadelta, Adam, AdamW, Muon

# Never decayed: biases, and the scale and shift of normalization.
_NOT_DECAYED = ["bias", "gamma", "beta"]

# Adam's learning rate in Muon, as a part of Muon's.
_ADAM_PART = 0.1

# Part of a one-cycle run in which the learning rate rises, and where it starts.
# From Smith and Topin, "Super-convergence" (2018), in fastai's form.
_RISING_PART = 0.3
_START_FACTOR = 1 / 25

# The triangle: its rising part, and where it starts and ends. From Jordan, "94% on
# CIFAR-10 in 3.29 seconds on a single GPU" (2024).
_TRIANGLE_PART, _TRIANGLE_START, _TRIANGLE_END = 0.23, 0.2, 0.07


@keras.saving.register_keras_serializable("kcnn")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate as a function of the step, for the schedules.

    Args:
        kind: constant, cosine, one_cycle, triangle or step.
        peak: highest learning rate.
        total_steps: steps of the whole run.
        warmup_steps: steps of linear rise from 0 (constant, cosine and step).
        drop_steps: steps between two drops (step only).
        drop_factor: factor of each drop (step only).
        factor: of every learning rate; a rollback halves it.
    """

    def __init__(
        self,
        kind: str,
        peak: float,
        total_steps: int,
        warmup_steps: float = 0.0,
        drop_steps: int | None = None,
        drop_factor: float | None = None,
        factor: float = 1.0,
    ):
        self.kind = kind
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.drop_steps = drop_steps
        self.drop_factor = drop_factor
        self.factor = factor

    def __call__(self, step):
        """Return the learning rate of a step, counted from 0, as float32."""
        step = ops.cast(step, "float32")
        peak = self.factor * self.peak
        if self.kind == "one_cycle":
            return peak * self._one_cycle(step)
        if self.kind == "triangle":
            return peak * self._triangle(step)
        warm = ops.minimum((step + 1) / max(self.warmup_steps, 1.0), 1.0)
        return peak * warm * self._after_warmup(step)

    def _after_warmup(self, step):
        if self.kind == "cosine":
            length = max(self.total_steps - self.warmup_steps, 1)
            done = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
            return _cosine_between(1.0, 0.0, done)
        if self.kind == "step":
            return self.drop_factor ** ops.floor(step / self.drop_steps)
        return 1.0

    def _one_cycle(self, step):
        rise = max(_RISING_PART * self.total_steps, 1.0)
        up = _cosine_between(_START_FACTOR, 1.0, ops.minimum(step / rise, 1.0))
        fall = max(self.total_steps - rise, 1.0)
        down = _cosine_between(1.0, 0.0, ops.clip((step - rise) / fall, 0.0, 1.0))
        return ops.where(step < rise, up, down)

    def _triangle(self, step):
        rise = max(_TRIANGLE_PART * self.total_steps, 1.0)
        up = _TRIANGLE_START + (1 - _TRIANGLE_START) * step / rise
        fall = max(self.total_steps - rise, 1.0)
        down = 1 - (1 - _TRIANGLE_END) * ops.clip((step - rise) / fall, 0.0, 1.0)
        return ops.minimum(up, down)

    def get_config(self):
        """Return the constructor's arguments."""
        return dict(vars(self))


def _cosine_between(start: float, end: float, done):
    return end + (start - end) * (1 + ops.cos(math.pi * done)) / 2


@keras.saving.register_keras_serializable("kcnn")
class RisingRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a range test: up by the same factor every step.

    Args:
        first: learning rate of the first step.
        last: learning rate of the last one.
        total_steps: number of steps, two or more.
    """

    def __init__(self, first: float, last: float, total_steps: int):
        self.first = first
        self.last = last
        self.total_steps = total_steps

    def __call__(self, step):
        """Return the learning rate of a step, counted from 0, as float32."""
        done = ops.cast(step, "float32") / (self.total_steps - 1)
        return self.first * (self.last / self.first) ** done

    def get_config(self):
        """Return the constructor's arguments."""
        return dict(vars(self))


def build_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a run of config.epochs epochs."""
    return Schedule(
        config.schedule,
        config.learning_rate,
        config.epochs * steps_per_epoch,
        warmup_steps=(config.warmup_epochs or 0) * steps_per_epoch,
        drop_steps=config.step_epochs and config.step_epochs * steps_per_epoch,
        drop_factor=config.step_factor,
    )


def build_optimizer(
    config: Config,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    policy: str,
):
    """Return the Keras optimizer; float16 gets loss scaling around it."""
    common = {
        "learning_rate": schedule,
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.clip_norm or None,
    }
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2}
    makers = {
        "adadelta": lambda: Adadelta(**common),
        "sgd": lambda: SGD(**common),
        "momentum": lambda: SGD(momentum=config.momentum, **common),
        "nesterov": lambda: SGD(momentum=config.momentum, nesterov=True, **common),
        "rmsprop": lambda: keras.optimizers.RMSprop(**common),
        "adam": lambda: Adam(**betas, **common),
        "adamw": lambda: AdamW(
            **betas, **{**common, "weight_decay": config.weight_decay}
        ),
        "muon": lambda: Muon(
            momentum=config.momentum,
            adam_beta_1=config.beta_1,
            adam_beta_2=config.beta_2,
            adam_lr_ratio=_ADAM_PART,
            **common,
        ),
    }
    optimizer = makers[config.optimizer]()
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
