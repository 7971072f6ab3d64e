"""Epoch after epoch: steps, validation, best epoch, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kcnn import checkpoint
from kcnn.config import Config
from kcnn.datasets import TrainingData
from kcnn.errors import Interrupted, RunError
from kcnn.evaluation import quick_scores
from kcnn.interruption import StopRequest
from kcnn.loop import TrainingLoop
from kcnn.optimization import Schedule
from kcnn.pipeline import evaluation_batches, steps_per_epoch, training_batches
from kcnn.progress import Progress
from kcnn.run import Run

# Steps handed to TensorFlow in one call take about this long, so that the cost of a
# call vanishes and a signal is still answered at once.
_CALL_SECONDS = 0.1
_MOST_STEPS_A_CALL = 100

# Short epochs need no checkpoint each; longer ones all get theirs.
_CHECKPOINT_SECONDS = 10.0


@dataclasses.dataclass
class History:
    """What has happened so far, besides the weights; JSON in a checkpoint."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    lowest_loss: float = float("inf")  # for early stopping, of any epoch
    epochs_without_progress: int = 0
    first_step_seconds: float = 0.0
    epoch_seconds: float = 0.0  # of the epoch under way
    stopped_early: bool = False


class Fitting:
    """One run's way through its epochs.

    Args:
        config: the recipe.
        data: the splits.
        loop: a fresh model's loop.
        schedule: the learning rate that loop's optimizer follows.
        run: where metrics.csv and checkpoints go; None: nothing is written.
        progress: what the user sees.
        on_epoch: called with each row of metrics.csv when it is written.
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
        self.steps = steps_per_epoch(data.train, config.batch_size)
        self._seconds_a_step = 0.0
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the last checkpoint, if the run has come to one."""
        if self.run is None or not self.run.state.exists():
            return
        arrays, note = checkpoint.load(self.run.state)
        try:
            self.history = History(**note)
            self.best_weights = arrays["best"]
            self.loop.restore(arrays["state"])
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self.run.state}: no state of this run: {error}") from None

    def fit(self) -> list[np.ndarray]:
        """Train to the end and return the weights that the run keeps.

        Raises:
            RunError: the loss is not a finite number.
            Interrupted: a signal came; the state is saved, if there is a run.
        """
        start = self.loop.steps_done
        batches = iter(
            training_batches(
                self.data.train,
                self.config,
                self.data.spec.num_classes,
                start_step=start,
            )
        )
        with StopRequest() as stop:
            for epoch in range(start // self.steps, self.config.epochs):
                if self.history.stopped_early:
                    break
                self._train_epoch(epoch, batches, stop)
                if self.loop.steps_done == (epoch + 1) * self.steps:
                    self._finish_epoch(epoch)
                if stop.signal_number is not None:
                    self._save()
                    raise self._interrupted(epoch, stop.signal_number)
        if self.config.keep == "best":
            return self.best_weights
        return self.loop.weights()

    def _train_epoch(self, epoch: int, batches, stop: StopRequest) -> None:
        """Take the epoch's steps, or what is left of them, until a signal comes."""
        end = (epoch + 1) * self.steps
        if self.loop.steps_done == epoch * self.steps:
            self.loop.reset_totals()
            self.history.epoch_seconds = 0.0
        while (done := self.loop.steps_done) < end:
            count = min(self._steps_a_call(), end - done)
            began = time.perf_counter()
            self.loop.run(batches, count)
            totals = self.loop.totals()
            seconds = time.perf_counter() - began
            self.history.epoch_seconds += seconds
            if totals.bad_step is not None:
                raise RunError(self._divergence(totals.bad_step))
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
            if stop.signal_number is not None:
                return

    def _finish_epoch(self, epoch: int) -> None:
        totals = self.loop.totals()
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
            self._compare_with_best(row)
        self.history.rows.append(row)
        if self.run is not None:
            self.run.write_metrics(self.history.rows)
        if self.on_epoch is not None:
            self.on_epoch(row)
        last = epoch + 1 == self.config.epochs or self.history.stopped_early
        if last or time.monotonic() - self._saved > _CHECKPOINT_SECONDS:
            self._save()
        left = None if last else self._seconds_left(self.loop.steps_done)
        self.progress.epoch(row, self.config.epochs, left)

    def _validate(self) -> dict[str, float]:
        split = self.data.validation
        assert split is not None
        batches = evaluation_batches(split, self.config.batch_size)
        with self.loop.averaged_weights():
            logits = self.loop.model.predict(batches, verbose=0)
        if not np.isfinite(logits).all():
            step = self.loop.steps_done - 1
            raise RunError(self._divergence(step, "validation loss after"))
        return quick_scores(logits, split.labels)

    def _compare_with_best(self, row: dict[str, Any]) -> None:
        history = self.history
        score = (row["val_accuracy"], -row["val_loss"])
        if score > (history.best_accuracy, -history.best_loss):
            history.best_epoch = row["epoch"]
            history.best_accuracy, history.best_loss = score[0], row["val_loss"]
            if self.config.keep == "best":
                self.best_weights = self.loop.weights()
        if row["val_loss"] < history.lowest_loss:
            history.lowest_loss = row["val_loss"]
            history.epochs_without_progress = 0
        else:
            history.epochs_without_progress += 1
        patience = self.config.early_stopping
        if patience and history.epochs_without_progress >= patience:
            history.stopped_early = True

    def _save(self) -> None:
        if self.run is None:
            return
        arrays = {"state": self.loop.state(), "best": self.best_weights}
        checkpoint.save(self.run.state, arrays, dataclasses.asdict(self.history))
        self._saved = time.monotonic()

    def _steps_a_call(self) -> int:
        if not self._seconds_a_step:
            return 1
        return max(
            1, min(_MOST_STEPS_A_CALL, int(_CALL_SECONDS / self._seconds_a_step))
        )

    def _seconds_left(self, done: int) -> float | None:
        if not self._seconds_a_step:
            return None
        return (self.config.epochs * self.steps - done) * self._seconds_a_step

    def _interrupted(self, epoch: int, number: int) -> Interrupted:
        said = f"stopped by {signal.Signals(number).name} in epoch {epoch + 1}"
        if self.run is not None:
            said += f"; to go on: kcnn train --resume --model_dir={self.run.path}"
        return Interrupted(said, number)

    def _divergence(self, step: int, what: str = "loss at") -> str:
        rate = float(self.schedule(max(step - 1, 0)))
        advice = (
            f"lower --learning_rate={self.config.learning_rate:g} or set --clip_norm=1"
        )
        if step == 0:
            advice = "no step was taken yet, so look at --precision and the data"
        said = (
            f"diverged: the {what} step {step} is not a finite number (epoch "
            f"{step // self.steps + 1}), learning rate {rate:.3g}; {advice}"
        )
        if self.run is not None:
            epochs = len(self.history.rows)
            said += f"; the {epochs} epochs before are kept in {self.run.path}"
        return said
