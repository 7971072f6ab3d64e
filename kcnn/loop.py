"""Optimizer steps on TensorFlow's graph, and every bit of state they change.

A loop of our own instead of Keras's fit: it can stop and go on between any two
steps with nothing lost, tells the step at which the loss went astray, and
runs several steps in a call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from kcnn import models, towers
from kcnn.config import Config
from kcnn.divergence import EXPLODED
from kcnn.replicas import Replicas, seeds_of


@dataclasses.dataclass(frozen=True)
class Totals:
    """Means since the last reset; the first step that went astray, and its loss."""

    loss: float
    accuracy: float
    bad_step: int | None
    bad_loss: float


class TrainingLoop:
    """A model, its optimizer, and the averages that go with them.

    Args:
        model: ends in logits.
        optimizer: a Keras optimizer, not built yet.
        config: uses label_smoothing and ema_momentum.
        jit_compile: compile a step with XLA. It does so for every size of batch that
            it meets, for half a minute on a GPU: give it batches of one size.
        parts: how many a batch is computed in, see kcnn.towers.
        replicas: the copies of the model and of the optimizer's variables.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        config: Config,
        jit_compile: bool,
        parts: int = 1,
        replicas: Replicas | None = None,
    ):
        self.model = model
        self.optimizer = optimizer
        self.replicas = replicas or Replicas()
        with self.replicas.scope():
            optimizer.build(model.trainable_variables)
        self.replicas.scatter_seeds(model)
        self._loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing, reduction="sum"
        )
        self._ema_momentum = config.ema_momentum
        self._ema = [tf.Variable(w) for w in model.weights if config.ema_momentum]
        # Not optimizer.iterations: loss scaling leaves out steps there.
        self._steps_done = tf.Variable(0, dtype=tf.int64)
        self._sums = tf.Variable(tf.zeros(3, tf.float64))  # loss, correct, images
        self._bad_step = tf.Variable(-1, dtype=tf.int64)
        self._bad_loss = tf.Variable(0.0)
        self.jit_compile = jit_compile
        self._parts = parts
        towers.share_batch_norm(model, parts)
        self._predict = towers.predictor(model, parts)
        self.trace_again()

    def trace_again(self) -> None:
        """Build the graphs anew at the next step, with another learning rate in it."""
        # AutoGraph has nothing to translate in a step, and takes a third of a second
        # to find that out.
        self._step = tf.function(
            self._train_step, jit_compile=self.jit_compile, autograph=False
        )
        self._run = tf.function(self._run_steps, autograph=False)

    @property
    def steps_done(self) -> int:
        """Batches trained on since the beginning of the run."""
        return int(self._steps_done)

    def run(self, batches: Iterator, steps: int) -> None:
        """Take `steps` batches from a tf.data iterator, an optimizer step for each."""
        self._run(batches, tf.constant(steps, tf.int32))

    def _run_steps(self, batches, steps):
        def one_more(done):
            self._step(*next(batches))
            return (done + 1,)

        tf.while_loop(lambda done: done < steps, one_more, (tf.constant(0),))

    def _train_step(self, *batch):
        step = self._steps_done.read_value()
        *gradients, loss, correct = self.replicas.sum(self._of_share, batch)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        self._average_weights(step)
        self._count(self.replicas.size(batch), loss, correct)
        limit = EXPLODED * math.log(self.model.output_shape[-1])
        # Not ~(loss < limit): TensorFlow makes loss >= limit of it, and lets NaN pass.
        astray = ~tf.math.is_finite(loss) | (loss >= limit)
        first_bad = (self._bad_step < 0) & astray
        self._bad_step.assign(tf.where(first_bad, step, self._bad_step))
        self._bad_loss.assign(tf.where(first_bad, loss, self._bad_loss))
        self._steps_done.assign_add(1)

    def _of_share(self, size, copies, *share):
        """Return gradients, mean loss and right images of a batch, as of this share.

        They add up to those of the batch, of `size` images, over the replicas. So many
        `copies` of each image are in one share or another.
        """
        loss, correct = 0.0, 0.0
        with tf.GradientTape() as tape:
            for counts, part in towers.parts(share, self._parts):
                images, labels, *weights = part
                logits = self.model(images, training=True)
                # Of what a softmax made Keras would take the softmax's input: the
                # identity keeps it from seeing where the logits come from.
                seen = tf.identity(logits)
                loss += counts * self._loss(labels, seen, *weights)
                hits = tf.argmax(labels, -1) == tf.argmax(logits, -1)
                correct += counts * tf.reduce_sum(tf.cast(hits, tf.float32))
            loss /= size * copies
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        return [*gradients, loss, correct / copies]

    def _count(self, size, loss, correct):
        loss, correct, images = (tf.cast(x, tf.float64) for x in (loss, correct, size))
        self._sums.assign_add(tf.stack([loss * images, correct, images]))

    def _average_weights(self, step):
        """Move the averages; early on they forget the initial weights faster."""
        if not self._ema_momentum:
            return
        done = tf.cast(step, tf.float32)
        momentum = tf.minimum(self._ema_momentum, (1 + done) / (10 + done))
        for average, weight in zip(self._ema, self.model.weights, strict=True):
            # In this form the average of a weight that is frozen is that weight.
            average.assign_add((1 - momentum) * (weight - average))

    def totals(self) -> Totals:
        """Return the running means; waits for the device."""
        loss, correct, images = self._sums.numpy()
        bad = int(self._bad_step)
        count = max(images, 1)
        return Totals(
            loss / count,
            correct / count,
            None if bad < 0 else bad,
            float(self._bad_loss),
        )

    def reset_totals(self) -> None:
        """Begin the running means again, at the start of an epoch."""
        self._sums.assign(tf.zeros_like(self._sums))

    def weights(self) -> list[np.ndarray]:
        """Return the weights to evaluate: the averages if there are any."""
        if self._ema:
            return [average.numpy() for average in self._ema]
        return self.model.get_weights()

    def predict(self, batches: tf.data.Dataset) -> np.ndarray:
        """Return the logits of batches of images, by the weights to evaluate."""
        if self.replicas.count > 1:  # Keras's own predict knows of no cluster
            self._alone.set_weights(self.weights())
            return self._alone.predict(batches, verbose=0)
        with self._averaged_weights():
            return self._predict(batches)

    @functools.cached_property
    def _alone(self) -> keras.Model:
        """A copy of the model that is on one device only."""
        return models.copy_of(self.model)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Put the weights to evaluate into the model for the block."""
        if not self._ema:
            yield
            return
        trained = self.model.get_weights()
        self.model.set_weights(self.weights())
        try:
            yield
        finally:
            self.model.set_weights(trained)

    def state(self) -> list[np.ndarray]:
        """Return a copy of all that changes in a step; of seeds those of the chief."""
        seeds = set(map(id, seeds_of(self.model)))
        return [
            self.replicas.first_seed(v.numpy())
            if id(v) in seeds
            else np.array(v.numpy())
            for v in self._state_variables()
        ]

    def restore(self, state: list[np.ndarray]) -> None:
        """Put a `state` back; raises ValueError if it is not of this model."""
        variables = self._state_variables()
        if [tuple(v.shape) for v in variables] != [a.shape for a in state]:
            raise ValueError("the saved state belongs to another model")
        for variable, array in zip(variables, state, strict=True):
            variable.assign(array)
        self.replicas.scatter_seeds(self.model)

    def _state_variables(self):
        own = [*self._ema, self._steps_done, self._sums, self._bad_step]
        own.append(self._bad_loss)
        return [*self.model.variables, *self.optimizer.variables, *own]
