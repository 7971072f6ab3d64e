"""A model as a training begins with it, and its first step's loop."""

from __future__ import annotations

import dataclasses

import keras

from kcnn import (
    estimate,
    models,
    optimization,
    pipeline,
    preprocessing,
    runtime,
    towers,
)
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.loop import TrainingLoop
from kcnn.replicas import Replicas
from kcnn.spec import ImageSpec
from kcnn.splits import Split, sample_of
from kcnn.transfer import Source


@dataclasses.dataclass(frozen=True)
class FreshModel:
    """A model that knows nothing yet but its training images' statistics.

    With --init_from it knows what another run has learnt, of its own images'
    statistics too: `source` is that run. `shortened` says how batch normalization was
    set for a short run, if it was.
    """

    model: keras.Model
    precision: runtime.Precision
    jit_compile: bool
    towers: towers.Towers
    replicas: Replicas
    shortened: str | None
    source: Source | None

    @classmethod
    def build(
        cls,
        config: Config,
        spec: ImageSpec,
        train: Split,
        steps: int,
        replicas: Replicas | None = None,
    ) -> FreshModel:
        """Build the model of a training of so many steps, by random_seed.

        It is on one device unless `replicas` say otherwise.

        Raises RunError if it cannot fit into memory, UsageError if --init_from names
        no finished run, or one of another architecture, or --strategy asks for replicas
        that the caller has none of.
        """
        if replicas is None and config.strategy not in ("auto", "one"):
            raise UsageError(
                f"--strategy: got {config.strategy}, expected auto or one: only kcnn "
                "train is on several devices"
            )
        source = Source.read(config.init_from) if config.init_from else None
        precision = runtime.choose_precision(config.precision)
        if config.deterministic:
            runtime.make_deterministic()
        estimate.check_memory(config, spec, precision.policy, runtime.has_gpu())
        keras.utils.set_random_seed(config.random_seed)
        replicas = replicas or Replicas()
        with replicas.scope():
            model = models.build_model(config, spec, policy=precision.policy)
        if source:
            source.start(model, spec)
        else:
            batches, some = pipeline.evaluation_batches(train, config.batch_size), None
            if config.whiten:
                size = preprocessing.WHITENED_IMAGES
                part = sample_of(train, size, config.random_seed)
                some = pipeline.evaluation_batches(part, config.batch_size)
            with pipeline.reading(train):
                preprocessing.measure_statistics(model, batches, some)
        shortened = models.shorten_batch_norm(model, config, steps)
        jit_compile = runtime.choose_jit(config, model, replicas.count)
        whole_batch = min(config.batch_size, len(train))
        as_it_is = dataclasses.replace(config, batch_size=whole_batch)
        return cls(
            model,
            precision,
            jit_compile,
            towers.in_this_process(as_it_is, replicas.count),
            replicas,
            shortened,
            source,
        )

    def loop(
        self,
        config: Config,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
    ) -> TrainingLoop:
        """Return a loop with an optimizer that follows a course of learning rates."""
        policy = self.precision.policy
        with self.replicas.scope():
            optimizer = optimization.build_optimizer(config, schedule, policy)
        return TrainingLoop(
            self.model,
            optimizer,
            config,
            self.jit_compile,
            self.towers.parts,
            self.replicas,
        )
