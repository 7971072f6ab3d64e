"""One trial: a recipe trained with one or several random seeds, and its record."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kcnn.config import Config
from kcnn.errors import Interrupted, RunError, UsageError
from kcnn.fitting import Fitting
from kcnn.progress import Progress
from tuning.journal import Journal, Record
from tuning.objective import Objective
from tuning.pruning import is_hopeless
from tuning.space import Space
from tuning.workbench import Workbench

_BEAT_SECONDS = 10.0  # between two records of a trial under way: a sign of life
_MOST_ATTEMPTS = 3  # a trial that kills its process each time must come to an end

_KEPT = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "learning_rate",
    "seconds",
)


class OutOfTime(Exception):
    """The search's time is over; the trial under way is put back."""


class _HopelessError(Exception):
    """The trial is stopped; says after how many epochs."""


@dataclasses.dataclass
class Trainer:
    """Runs trials.

    Attributes:
        space: makes Configs of values.
        objective: what a trial's score is.
        journal: where its record is written.
        bench: data and compiled loops.
        executions: how many random seeds each is trained with.
        pruning: median or none.
        keep: so many of the best trials' weights stay.
        progress: shows the step of an epoch on a terminal.
        is_over: tells, after each epoch, whether the search's time is over.
    """

    space: Space
    objective: Objective
    journal: Journal
    bench: Workbench
    executions: int
    pruning: str
    keep: int
    progress: Progress
    is_over: Callable[[], bool]

    def run(self, record: Record) -> None:
        """Train a trial and complete its record.

        A trial that cannot be trained, or diverges, is failed and has a reason; what
        concerns the whole search is raised.

        Raises:
            Interrupted, OutOfTime: the trial is to be run again; its record says so.
            OSError: nothing can be written.
        """
        record.status, record.reason = "running", ""
        record.scores, record.histories = [], []
        record.attempts += 1
        if record.attempts > _MOST_ATTEMPTS:
            record.status = "failed"
            record.reason = (
                f"its process was killed {_MOST_ATTEMPTS} times, perhaps for want of "
                "memory"
            )
            return
        self.journal.write(record)
        began = time.monotonic()
        try:
            self._run(record)
        except (Interrupted, OutOfTime):
            record.attempts -= 1  # it was not the trial's fault
            self.journal.write(record)
            raise
        except OSError:
            raise
        except Exception as error:
            # Whatever a recipe does to TensorFlow must not end the search.
            record.status, record.reason = "failed", _reason(error)
        record.seconds = time.monotonic() - began

    def _run(self, record: Record) -> None:
        """Train every execution; leave score and status in the record."""
        first = self.config(record)
        weights: list[Any] = []
        try:
            for execution in range(self.executions):
                seed = first.random_seed + execution
                config = dataclasses.replace(first, random_seed=seed)
                own = self._execute(record, config)
                weights = weights or own
            record.status = "done"
        except _HopelessError as stopped:
            record.status, record.reason = "pruned", str(stopped)
            record.scores.append(self.objective.value(record.histories[-1][-1]))
        record.score = statistics.fmean(record.scores)
        several = len(record.scores) > 1
        record.deviation = statistics.stdev(record.scores) if several else None
        if record.status == "done":
            self.journal.keep_weights(record, weights, self.objective, self.keep)

    def config(self, record: Record) -> Config:
        """Return what a trial trains with its first random seed."""
        config = self.space.config(record.values)
        return dataclasses.replace(config, epochs=record.epochs)

    def _execute(self, record: Record, config: Config) -> list[Any]:
        """Train one execution and return its weights."""
        rows: list[dict[str, Any]] = []
        record.histories.append(rows)

        def on_epoch(row: dict[str, Any]) -> None:
            rows.append({name: row[name] for name in _KEPT})
            heard = self.journal.heard(record.trial)
            if heard is None or time.time() - heard > _BEAT_SECONDS:
                self.journal.write(record)
            if len(rows) < config.epochs:
                self._check(record, rows)

        loop, schedule = self.bench.loop(config)
        data = self.bench.data(config)
        fitting = Fitting(config, data, loop, schedule, None, self.progress, on_epoch)
        weights = fitting.fit()
        best = fitting.history.best_epoch if config.keep == "best" else len(rows)
        record.scores.append(self.objective.value(rows[best - 1]))
        return weights

    def _check(self, record: Record, rows: list[dict[str, Any]]) -> None:
        """Stop the trial between two epochs if there is no use in going on."""
        if self.is_over():
            raise OutOfTime
        if self.pruning == "none":
            return
        values = [self.objective.value(row) for row in rows]
        others = self.journal.all()
        if is_hopeless(values, others, record.epochs, self.objective):
            execution = len(record.histories)
            of = f" of execution {execution}" if self.executions > 1 else ""
            raise _HopelessError(
                f"stopped after epoch {len(rows)}{of}: worse than the median"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, RunError | UsageError):
        return str(error)
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return "out of memory; lower the largest --batch_size or model of the space"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
