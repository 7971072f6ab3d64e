"""Epoch after epoch: steps, validation, best epoch, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kcnn import checkpoint
from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.datasets import TrainingData
from kcnn.divergence import Anchor, Diverged, are_finite
from kcnn.errors import Interrupted, RunError
from kcnn.evaluation import QUICK_SCORES, quick_scores
from kcnn.history import History
from kcnn.interruption import StopRequest, stopped_by
from kcnn.loop import TrainingLoop
from kcnn.optimization import Schedule
from kcnn.pipeline import (
    check_unchanged,
    evaluation_batches,
    reading,
    training_batches,
)
from kcnn.progress import Progress
from kcnn.run import Run

# Steps handed to TensorFlow in one call take about this long, so that the cost of a
# call vanishes and a signal is still answered at once.
_CALL_SECONDS = 0.1
_MOST_STEPS_A_CALL = 100

# Between two writings of metrics.csv, which is always written whole: an epoch of a few
# images takes milliseconds, and there may be thousands.
_METRICS_SECONDS = 1.0


class Fitting:
    """One run's way through its epochs.

    Args:
        config: the recipe.
        data: the splits.
        loop: a fresh model's loop.
        schedule: the learning rate that loop's optimizer follows.
        run: where metrics.csv and checkpoints go; None: nothing is written.
        progress: what the user sees.
        on_epoch: called with each row of metrics.csv at the end of its epoch.

    Attributes:
        steps_a_call: steps that TensorFlow is handed at once, by how long they take.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        loop: TrainingLoop,
        schedule: Schedule,
        run: Run | None,
        progress: Progress,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ):
        self.config = config
        self.data = data
        self.loop = loop
        self.schedule = schedule
        self.run = run
        self.progress = progress
        self.on_epoch = on_epoch
        self.history = History()
        self.best_weights: list[np.ndarray] = []
        self.first_step_began: float | None = None  # in this process
        self.steps = steps_per_epoch(len(data.train), config.batch_size)
        self._seconds_a_step = 0.0
        self.steps_a_call = 1
        self._signal_number: int | None = None
        self._saved = self._written = time.monotonic()
        self._anchor: Anchor | None = None

    def resume(self) -> None:
        """Go on from the last whole checkpoint, if the run has come to one.

        A damaged one is named, and the one before it taken. Raises RunError if that is
        damaged too, or they are not of this run, or another worker sees others.
        """
        if self.run is None:
            return
        found = checkpoint.load_newest((self.run.state, self.run.previous_state))
        if found is not None:
            self._take_up(found, self.run.state.parent)
        done = self.loop.steps_done
        chiefs = self.loop.replicas.from_chief(lambda: [done], 1)[0]
        if done != chiefs:
            raise RunError(
                f"{self.run.state.parent}: step {done} of the run is here, step "
                f"{chiefs:.0f} where the chief is; all workers need the same folder"
            )

    def _take_up(self, found: checkpoint.Found, folder: pathlib.Path) -> None:
        for text in found.damage:
            self.progress.note("", f"{text}; going on from the one before")
        try:
            self._take(found.arrays["state"], found.arrays["best"], found.note["now"])
            if found.note["anchor"] is not None:
                arrays = found.arrays["anchor"], found.arrays["anchor_best"]
                self._anchor = Anchor(*arrays, found.note["anchor"])
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{folder}: no state of this run: {error}") from None
        self._write_metrics()  # it may have been killed before it wrote them

    def _take(
        self, state: list[np.ndarray], best: list[np.ndarray], history: dict[str, Any]
    ) -> None:
        """Put the run back to where it was."""
        self.history = History(**history)
        self.best_weights = best
        self.loop.restore(state)
        self.schedule.factor = 0.5 ** len(self.history.rollbacks)

    def fit(self) -> list[np.ndarray]:
        """Train to the end and return the weights that the run keeps.

        Raises:
            RunError: the training diverged.
            Interrupted: a signal came; the state is saved, if there is a run.
        """
        with StopRequest(then_dies=True) as stop:
            while True:
                try:
                    self._fit_on(stop)
                    break
                except Diverged as error:
                    self._roll_back(error)
        if self.config.keep == "best":
            return self.best_weights
        return self.loop.weights()

    def _fit_on(self, stop: StopRequest) -> None:
        """Take all the steps that are left."""
        start = self.loop.steps_done
        batches = iter(
            training_batches(
                self.data.train,
                self.config,
                self.data.spec.num_classes,
                start_step=start,
                share=self.loop.replicas.share,
                one_size=self.loop.jit_compile,
            )
        )
        for epoch in range(start // self.steps, self.config.epochs):
            if self.history.stopped_early:
                break
            if self.loop.steps_done == epoch * self.steps:
                self._begin_epoch()
            self._train_epoch(epoch, batches, stop)
            if self.loop.steps_done == (epoch + 1) * self.steps:
                self._finish_epoch(epoch)
            self._heed(stop)
            if self._signal_number is not None:
                self._save()
                raise self._stopped(self._signal_number, epoch)

    def _heed(self, stop: StopRequest) -> None:
        """Note a signal that came to any worker, and how to go on; the same in all."""
        steps = 1
        if self._seconds_a_step:
            steps = max(1, int(_CALL_SECONDS / self._seconds_a_step))
        self.steps_a_call, self._signal_number = self.loop.replicas.agree(
            min(_MOST_STEPS_A_CALL, steps), stop.signal_number
        )

    def _begin_epoch(self) -> None:
        self.loop.reset_totals()
        self.history.epoch_seconds = 0.0
        if self.config.on_divergence == "rollback":
            # Taken by epoch, not by time: where it goes back to is always the same.
            history = dataclasses.asdict(self.history)
            self._anchor = Anchor(self.loop.state(), self.best_weights, history)

    def _roll_back(self, error: Diverged) -> None:
        """Go back to the epoch's start with half the learning rate, if that is asked.

        Raises RunError that says where the training diverged if it is not, or has been
        done --max_rollbacks times.
        """
        done = self.history.rollbacks
        if self._anchor is None or len(done) == self.config.max_rollbacks:
            self._write_metrics()
            raise RunError(self._advice(error)) from None
        epoch = error.step // self.steps + 1
        done = [*done, {"epoch": epoch, "step": error.step, "loss": error.value}]
        anchor = self._anchor
        kept = {
            "rollbacks": done,
            "checkpoint_seconds": self.history.checkpoint_seconds,
        }
        self._take(anchor.state, anchor.best, anchor.history | kept)
        self.loop.trace_again()
        self._save()
        self.progress.note(
            "diverged",
            f"{error.cause}; back to the start of epoch {len(self.history.rows) + 1} "
            f"with half the learning rate ({len(done)} of "
            f"{self.config.max_rollbacks} rollbacks)",
        )

    def _train_epoch(self, epoch: int, batches, stop: StopRequest) -> None:
        """Take the epoch's steps, or what is left of them, until a signal comes."""
        end = (epoch + 1) * self.steps
        while (done := self.loop.steps_done) < end:
            count = min(self.steps_a_call, end - done)
            began = time.perf_counter()
            self.first_step_began = self.first_step_began or began
            with reading(self.data.train):
                self.loop.run(batches, count)
            totals = self.loop.totals()
            seconds = time.perf_counter() - began
            self.history.epoch_seconds += seconds
            if totals.bad_step is not None:
                raise Diverged("loss at", totals.bad_step, totals.bad_loss)
            if done == 0:
                self.history.first_step_seconds = seconds
            else:
                self._seconds_a_step = seconds / count
            self.progress.step(
                f"epoch {epoch + 1}/{self.config.epochs}  "
                f"step {done + count - epoch * self.steps}/{self.steps}  "
                f"loss {totals.loss:.4f}  accuracy {totals.accuracy:.2%}",
                self._seconds_left(done + count),
            )
            self._heed(stop)
            if self._signal_number is not None:
                return
            # At the epoch's end its row must be in the checkpoint too.
            if self.loop.steps_done < end:
                self._save_in_time()

    def _finish_epoch(self, epoch: int) -> None:
        check_unchanged(self.data.train)
        totals = self.loop.totals()
        if not are_finite(self.loop.weights()):  # the last step's loss was before them
            raise Diverged("weights after", self.loop.steps_done - 1)
        seconds = self.history.epoch_seconds
        row = {
            "epoch": epoch + 1,
            "loss": totals.loss,
            "accuracy": totals.accuracy,
            "val_loss": None,
            "val_accuracy": None,
            "val_macro_f1": None,
            "learning_rate": float(self.schedule(self.loop.steps_done - 1)),
            "seconds": seconds,
            "images_per_second": len(self.data.train) / seconds,
        }
        if self.data.validation is not None:
            scores = self._validate()
            row |= {f"val_{name}": score for name, score in scores.items()}
        is_best = self.history.add(row, self.config.early_stopping)
        if is_best and self.config.keep == "best":
            self.best_weights = self.loop.weights()
        if time.monotonic() - self._written >= _METRICS_SECONDS:
            self._write_metrics()
        if self.on_epoch is not None:
            self.on_epoch(row)
        last = epoch + 1 == self.config.epochs or self.history.stopped_early
        every = self.config.checkpoint_epochs
        if last or (every and (epoch + 1) % every == 0):
            self._save()
        else:
            self._save_in_time()
        left = None if last else self._seconds_left(self.loop.steps_done)
        self.progress.epoch(row, self.config.epochs, left)

    def _validate(self) -> dict[str, float]:
        found = self.loop.replicas.from_chief(self._scores, len(QUICK_SCORES))
        if not np.isfinite(found).all():
            raise Diverged("validation loss after", self.loop.steps_done - 1)
        return dict(zip(QUICK_SCORES, found, strict=True))

    def _scores(self) -> list[float]:
        """Return the validation images' scores, NaN where there is none to tell."""
        split = self.data.validation
        assert split is not None
        batches = evaluation_batches(split, self.config.batch_size)
        with reading(split):
            logits = self.loop.predict(batches)
        if not np.isfinite(logits).all():
            return [math.nan] * len(QUICK_SCORES)
        return list(quick_scores(logits, split.labels).values())

    def _save_in_time(self) -> None:
        """Write a checkpoint if the last one is --checkpoint_every old."""
        if time.monotonic() - self._saved >= self.config.checkpoint_every:
            self._save()

    def _save(self) -> None:
        if self.run is None or not self.loop.replicas.is_chief:
            return
        began = time.monotonic()
        arrays = {"state": self.loop.state(), "best": self.best_weights}
        note = {"now": dataclasses.asdict(self.history), "anchor": None}
        if self._anchor is not None:
            arrays |= {"anchor": self._anchor.state, "anchor_best": self._anchor.best}
            note["anchor"] = self._anchor.history
        checkpoint.save(self.run.state, arrays, note, keep=self.run.previous_state)
        self._saved = time.monotonic()
        self.history.checkpoint_seconds += self._saved - began
        self._write_metrics()

    def _write_metrics(self) -> None:
        if self.run is None or not self.loop.replicas.is_chief:
            return
        if self.history.rows:
            self.run.write_metrics(self.history.rows)
            self._written = time.monotonic()

    def _stopped(self, signal_number: int, epoch: int) -> Interrupted:
        advice = "its state is lost" if self.run is None else self.run.how_to_go_on
        return stopped_by(signal_number, advice, f" in epoch {epoch + 1}")

    def _seconds_left(self, done: int) -> float | None:
        """Return how long the steps that are left take at this epoch's mean pace.

        The run's first call, in which TensorFlow builds graphs, is left out of it. One
        call alone tells little: the last of an epoch can be a single batch.
        """
        seconds, steps = self.history.epoch_seconds, (done - 1) % self.steps + 1
        if done <= self.steps:
            seconds, steps = seconds - self.history.first_step_seconds, steps - 1
        if not steps:
            return None
        return (self.config.epochs * self.steps - done) * seconds / steps

    def _advice(self, error: Diverged) -> str:
        rate = float(self.schedule(max(error.step - 1, 0)))
        advice = (
            f"lower --learning_rate={self.config.learning_rate:g} or set --clip_norm=1"
        )
        if self.history.rollbacks:
            advice = f"{len(self.history.rollbacks)} rollbacks did not help; {advice}"
        elif self.config.on_divergence == "stop":
            advice += ", or --on_divergence=rollback"
        if error.step == 0:
            advice = "no step was taken yet, so look at --precision and the data"
        said = (
            f"diverged: {error.cause} (epoch {error.step // self.steps + 1}), "
            f"learning rate {rate:.3g}; {advice}"
        )
        if self.run is not None:
            epochs = len(self.history.rows)
            said += f"; the {epochs} epochs before are kept in {self.run.path}"
        return said
