"""A search: keras-tuner proposes trials, kcnn trains them."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus

from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.interruption import StopRequest, stopped_by
from kcnn.knobs import parse
from tuning.final import flags_of
from tuning.journal import Record, ranked
from tuning.oracles import Durable, decoded, encoded
from tuning.trial import OutOfTime, Trainer

_IDLE_SECONDS = 0.5


class Clock:
    """How long a search has taken, over all of its commands, and what it may take.

    Args:
        spent: seconds by its records, before this command.
        budget: seconds; None: without end.
    """

    def __init__(self, spent: float, budget: float | None):
        self._spent = spent
        self._budget = budget
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of searching."""
        return self._spent + time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that are left, 0 or more; None: without end."""
        return None if self._budget is None else max(0.0, self._budget - self.elapsed)

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.left == 0


def settings_of(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in what `KcnnTuner.get_best_hyperparameters` returned.

    Args:
        hyperparameters: its get_config(), as TFX hands it to run_fn; or that of any
            tuner of keras-tuner over kcnn's knobs, with values as after a flag.

    Raises:
        UsageError: something in it is no knob, or no value of one.
    """
    values = keras_tuner.HyperParameters.from_config(dict(hyperparameters)).values
    settings = {}
    for name, value in values.items():
        if name.startswith("tuner/"):  # Hyperband's own
            continue
        if name not in KNOBS:
            raise UsageError(f"hyperparameters: {name} is no knob of kcnn")
        try:
            is_text = isinstance(value, str)
            settings[name] = parse(KNOBS[name], value) if is_text else value
        except ValueError as error:
            raise UsageError(f"hyperparameters: {name}: {error}") from None
    return settings


def config_of(hyperparameters: Mapping[str, Any]) -> Config:
    """Return the Config of such hyperparameters, see `settings_of`."""
    return Config.from_dict(settings_of(hyperparameters))


class KcnnTuner(BaseTuner):
    """keras-tuner's loop over trials, without what it does to models and files.

    Args:
        oracle: proposes; a chief's in another process where keras-tuner's environment
            variables say so.
        trainer: trains.
        clock: ends the search.
        folder: of the search.
        on_end: called with the record of each trial that has ended.
    """

    def __init__(
        self,
        oracle: Durable,
        trainer: Trainer,
        clock: Clock,
        folder: pathlib.Path,
        on_end: Callable[[Record], None],
    ):
        self.trainer = trainer
        self.clock = clock
        self._on_end = on_end
        super().__init__(oracle, directory=str(folder), project_name=".")

    def search(self, *fit_args, **fit_kwargs) -> None:
        """Run trials until there are no more, the time is over, or a signal comes.

        Raises:
            Interrupted: a signal came; the trial under way will be run again.
        """
        with StopRequest() as stop:
            while stop.signal_number is None and not self.clock.is_over:
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == TrialStatus.STOPPED:
                    return
                if trial.status == TrialStatus.IDLE:
                    time.sleep(_IDLE_SECONDS)
                    continue
                try:
                    self.run_trial(trial)
                except OutOfTime:
                    return
                self.on_trial_end(trial)
        if stop.signal_number is not None:
            raise stopped_by(stop.signal_number)

    def run_trial(self, trial: Trial, *fit_args, **fit_kwargs) -> None:
        """Train a trial, unless its record has its end already, and report it."""
        record = self.trainer.journal.read(trial.trial_id)
        if record is None:
            record = self._new_record(trial)
        if not record.ended:
            record.worker = self.tuner_id
            self.trainer.run(record)
            record.elapsed = self.clock.elapsed
            self.trainer.journal.write(record)
        self._on_end(record)
        if record.status == "failed":
            trial.status, trial.message = TrialStatus.FAILED, record.reason
            return
        column = self.trainer.objective.column
        self.oracle.update_trial(trial.trial_id, {column: record.score})
        trial.status = TrialStatus.COMPLETED

    def _new_record(self, trial: Trial) -> Record:
        given = trial.hyperparameters.values
        values = decoded(self.trainer.space, given)
        epochs = self.trainer.space.config(values).epochs
        return Record(
            trial.trial_id,
            values,
            given.get("tuner/epochs", epochs),
            bracket=given.get("tuner/bracket"),
            rung=given.get("tuner/round"),
        )

    def get_best_hyperparameters(
        self, num_trials: int = 1
    ) -> list[keras_tuner.HyperParameters]:
        """Return what the best trials that came to their end were made of.

        Every knob that is not at its default is among the values, those that were
        fixed and Hyperband's epochs too: `config_of` makes a Config of them again.
        """
        found = []
        records = self.trainer.journal.all()
        for record in ranked(records, self.trainer.objective)[:num_trials]:
            hp = keras_tuner.HyperParameters()
            for name, value in flags_of(self.trainer.config(record)).items():
                hp.Fixed(name, encoded(value))
            found.append(hp)
        return found

    def save(self) -> None:
        """Write nothing: the oracle keeps all that there is to keep."""

    def load_model(self, trial: Trial):
        """Return the model of one of the best trials, float32, without augmentation.

        Raises:
            RunError: its weights were not among the best that are kept.
        """
        from kcnn import checkpoint, models

        journal = self.trainer.journal
        arrays, _ = checkpoint.load(journal.weights(trial.trial_id))
        config = self.trainer.space.config(
            decoded(self.trainer.space, trial.hyperparameters.values)
        )
        spec = self.trainer.bench.data(config).spec
        model = models.build_model(config, spec, augment=False)
        model.set_weights(arrays["weights"])
        return model
