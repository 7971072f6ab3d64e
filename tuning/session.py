"""A search in its folder: what it was begun with, and its parts put together."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from kcnn import runtime
from kcnn.errors import RunError, UsageError
from kcnn.files import write_json
from kcnn.knobs import show
from kcnn.progress import Progress
from tuning.journal import Journal, Record, elapsed
from tuning.objective import OBJECTIVES, Objective
from tuning.oracles import Durable, make_oracle
from tuning.search import Clock, KcnnTuner
from tuning.space import Space
from tuning.trial import Trainer
from tuning.workbench import Workbench

_DEFAULT_TRIALS = 30


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a space is searched.

    Attributes:
        tuner: random, bayesian, hyperband or grid.
        objective: accuracy, loss or macro_f1, on the validation images.
        executions: random seeds that each trial is trained with.
        pruning: median or none.
        factor: of Hyperband.
        iterations: of Hyperband.
        keep: so many of the best trials' weights stay.
        max_trials: None: by the tuner, see `most_trials`.
        time_budget: seconds, over all commands that go on with the search.
    """

    tuner: str = "random"
    objective: str = "accuracy"
    executions: int = 1
    pruning: str = "median"
    factor: int = 3
    iterations: int = 1
    keep: int = 1
    max_trials: int | None = None
    time_budget: float | None = None

    @property
    def most_trials(self) -> int | None:
        """The number of trials to end after; None: where the tuner ends."""
        if self.max_trials or self.time_budget or self.tuner in ("grid", "hyperband"):
            return self.max_trials
        return _DEFAULT_TRIALS

    def identity(self) -> dict[str, Any]:
        """Return what cannot change when a search goes on."""
        free = ("max_trials", "time_budget", "keep")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in free}


class Folder:
    """The files of a search."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.note = path / "search.json"
        self.oracle = path / "oracle.json"
        self.result = path / "result.json"
        self.plots = path / "plots"
        self.report = path / "report.html"
        self.retrained = path / "retrained"
        self.trials = path / "trials"
        self.logs = path / "workers"
        self.tensorboard = path / "tensorboard"

    def begin(
        self, space: Space, settings: Settings, command: str, overwrite: bool
    ) -> bool:
        """Make the folder, or make sure that it holds this search.

        Returns:
            Whether a search goes on.

        Raises:
            UsageError: another search is there, and may not be replaced.
        """
        identity = _identity(space, settings)
        difference = self._difference(identity)
        if difference is None and not overwrite:
            self._sweep_up()
            return True
        if difference and not overwrite:
            raise UsageError(
                f"--model_dir={self.path}: holds another search ({difference}); give "
                "another folder, or --overwrite to replace it"
            )
        self._clear()
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note = {
            **identity,
            "command": command,
            "started": now,
            "versions": runtime.versions(),
            "commit": runtime.commit(),
            "hardware": runtime.hardware(),
        }
        write_json(self.note, note)
        return False

    def check(self, space: Space, settings: Settings) -> None:
        """Raise UsageError if another search is here, or none yet, for a worker."""
        difference = self._difference(_identity(space, settings))
        if difference is not None:
            raise UsageError(
                f"--model_dir={self.path}: not this search"
                f" ({difference or 'there is none yet: start the chief first'})"
            )

    def _difference(self, identity: Mapping[str, Any]) -> str | None:
        """Return how another search differs, "" without one, None for this one."""
        if not self.note.exists():
            return ""
        found = self.read_note()
        for name, value in identity.items():
            if found.get(name) == value:
                continue
            if name == "space":
                return _space_difference(found.get(name) or {}, value)
            return f"--{name}={_shown(found.get(name))}, not {_shown(value)}"
        return None

    def read_note(self) -> dict[str, Any]:
        """Return search.json."""
        try:
            return dict(json.loads(self.note.read_text()))
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.note}: damaged: {error}") from None

    def _sweep_up(self) -> None:
        """Remove what a kill left of files that were being written."""
        for folder in (self.path, self.trials):
            for path in folder.glob(".*.json.*"):
                path.unlink()
        for path in self.trials.glob(".*.npz.*"):
            path.unlink()

    def _clear(self) -> None:
        """Remove what a search writes, and nothing else."""
        own = (self.trials, self.plots, self.retrained, self.logs, self.tensorboard)
        for path in own:
            if path.exists():
                shutil.rmtree(path)
        for name in ("trials.csv", "trials.json"):
            (self.path / name).unlink(missing_ok=True)
        for path in (self.note, self.oracle, self.result, self.report):
            path.unlink(missing_ok=True)


def _identity(space: Space, settings: Settings) -> dict[str, Any]:
    """Return what makes a search this one, in the form that JSON gives back."""
    identity = settings.identity() | {"space": space.to_dict()}
    return dict(json.loads(json.dumps(identity)))


def _space_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for part in ("fixed", "searched"):
        a, b = found.get(part, {}), wanted[part]
        for name in [*b, *a]:
            if a.get(name) != b.get(name):
                return f"--{name}={_shown(a.get(name))}, not {_shown(b.get(name))}"
    return "another space"


def _shown(value: Any) -> str:
    return "unset" if value is None else show(value)


@dataclasses.dataclass
class Session:
    """The parts of a search, put together."""

    settings: Settings
    space: Space
    objective: Objective
    journal: Journal
    oracle: Durable
    tuner: KcnnTuner
    bench: Workbench

    @property
    def total(self) -> int | None:
        """How many trials there are at most; None: as many as there is time for."""
        limits = [self.oracle.max_trials, self.space.size]
        if self.settings.tuner == "hyperband":
            return self.oracle.max_trials
        if self.settings.tuner == "grid":
            limits.append(self.space.grid_size)
        return min((n for n in limits if n is not None), default=None)


def open_session(
    space: Space,
    settings: Settings,
    folder: pathlib.Path,
    *,
    progress: Progress,
    on_end: Callable[[Record], None] = lambda record: None,
    reuse: bool = True,
) -> Session:
    """Put a search together, with what its folder holds of it.

    Args:
        space: what is searched.
        settings: how.
        folder: where its files are.
        progress: shows the steps of a trial.
        on_end: called with each trial that has ended.
        reuse: let trials share compiled loops.

    Raises:
        UsageError: the data cannot be had, has no validation images, or the untuned
            recipe cannot be built.
    """
    baseline = space.baseline
    bench = Workbench(settings.executions, reuse)
    if bench.data(baseline).validation is None:
        raise UsageError(
            "--validation_fraction: got 0; a search goes by validation images"
        )
    runtime.choose_precision(baseline.precision)
    objective = OBJECTIVES[settings.objective]
    journal = Journal(folder)
    clock = Clock(elapsed(journal.all()), settings.time_budget)

    def refusal(values: Mapping[str, Any]) -> str | None:
        try:
            return bench.refusal(space.config(values))
        except UsageError as error:
            return str(error)

    oracle = make_oracle(
        settings.tuner,
        max_trials=settings.most_trials,
        max_epochs=baseline.epochs,
        factor=settings.factor,
        iterations=settings.iterations,
        space=space,
        file=folder / "oracle.json",
        refusal=refusal,
        random_seed=baseline.random_seed,
        objective=objective,
    )
    trainer = Trainer(
        space=space,
        objective=objective,
        journal=journal,
        bench=bench,
        executions=settings.executions,
        pruning="none" if settings.tuner == "hyperband" else settings.pruning,
        keep=settings.keep,
        progress=progress,
        is_over=lambda: clock.is_over,
    )
    tuner = KcnnTuner(oracle, trainer, clock, folder, on_end)
    return Session(settings, space, objective, journal, oracle, tuner, bench)
