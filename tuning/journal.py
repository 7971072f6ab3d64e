"""What is known of each trial: a file each, written whole, and the tables of all.

A trial's file is written before keras-tuner hears of its end. So a search that is
killed between the two finds the result there and does not run the trial again.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from kcnn import checkpoint
from kcnn.errors import RunError
from kcnn.files import write_csv, write_json
from kcnn.knobs import show
from tuning.objective import Objective

Row = dict[str, Any]


@dataclasses.dataclass
class Record:
    """One trial.

    Attributes:
        trial: keras-tuner's id, a number from 0 with leading zeros.
        values: what was tried, by knob.
        epochs: planned in each execution.
        status: running, done, pruned (stopped as hopeless) or failed.
        score: mean of `scores`, one an execution; None without any.
        deviation: the sample's over the executions; None for fewer than two.
        histories: an execution's epochs, each with epoch, loss, accuracy, val_loss,
            val_accuracy, val_macro_f1, learning_rate and seconds.
        seconds: the trial took.
        elapsed: seconds of searching when it ended.
        attempts: how often it was begun; more than once after a kill.
        reason: why it failed or was stopped.
        worker: who ran it.
        bracket: of Hyperband, and its `rung`; else None.
    """

    trial: str
    values: dict[str, Any]
    epochs: int
    status: str = "running"
    score: float | None = None
    deviation: float | None = None
    scores: list[float] = dataclasses.field(default_factory=list)
    histories: list[list[Row]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    elapsed: float = 0.0
    attempts: int = 0
    reason: str = ""
    worker: str = ""
    bracket: int | None = None
    rung: int | None = None

    @property
    def number(self) -> int:
        """The trial's number, from 1."""
        return int(self.trial) + 1

    @property
    def ended(self) -> bool:
        """Whether the trial is over, however it went."""
        return self.status != "running"

    @property
    def told(self) -> str:
        """What was tried, as it is typed."""
        return " ".join(
            f"{name}={show(v) or 'none'}" for name, v in self.values.items()
        )

    def row(self) -> Row:
        """Return the trial's row of trials.csv."""
        return {
            "trial": self.number,
            "status": self.status,
            "score": self.score,
            "deviation": self.deviation,
            **{name: show(value) for name, value in self.values.items()},
            "epochs_planned": self.epochs,
            "epochs_done": sum(map(len, self.histories)),
            "bracket": self.bracket,
            "rung": self.rung,
            "seconds": round(self.seconds, 3),
            "elapsed": round(self.elapsed, 3),
            "attempts": self.attempts,
            "worker": self.worker,
            "reason": self.reason,
        }


class Journal:
    """The records of a search in its folder, and the weights of its best trials."""

    def __init__(self, folder: pathlib.Path):
        self._trials = folder / "trials"
        self._folder = folder
        self._ended: dict[str, Record] = {}

    def read(self, trial: str) -> Record | None:
        """Return a trial's record, None before there is one."""
        if trial in self._ended:
            return self._ended[trial]
        path = self._path(trial)
        try:
            content = json.loads(path.read_text())
            content["values"] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in content["values"].items()
            }
            record = Record(**content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}: damaged: {error}") from None
        if record.ended:
            self._ended[trial] = record
        return record

    def write(self, record: Record) -> None:
        """Write a trial's record, whole or not at all."""
        write_json(self._path(record.trial), dataclasses.asdict(record))

    def heard(self, trial: str) -> float | None:
        """Return when a trial's record was last written, in seconds since 1970."""
        try:
            return self._path(trial).stat().st_mtime
        except FileNotFoundError:
            return None

    def all(self) -> list[Record]:
        """Return every record in the order of the trials."""
        names = sorted((path.stem for path in self._trials.glob("*.json")), key=int)
        found = (self.read(name) for name in names)
        return [record for record in found if record is not None]

    def write_tables(self, records: Sequence[Record]) -> None:
        """Write trials.csv and trials.json."""
        names = list(dict.fromkeys(n for record in records for n in record.values))
        rows = [record.row() for record in records]
        first = dict.fromkeys(["trial", "status", "score", "deviation", *names])
        keys = list(first | dict.fromkeys(rows[0] if rows else []))
        write_csv(
            self._folder / "trials.csv",
            [{key: row.get(key) for key in keys} for row in rows],
        )
        write_json(
            self._folder / "trials.json", [dataclasses.asdict(r) for r in records]
        )

    def keep_weights(
        self, record: Record, weights: Any, objective: Objective, most: int
    ) -> None:
        """Keep a trial's weights while it is among the best `most`; drop others'."""
        records = [*(r for r in self.all() if r.trial != record.trial), record]
        best = {r.trial for r in ranked(records, objective)[:most]}
        if record.trial in best:
            checkpoint.save(self.weights(record.trial), {"weights": weights})
        for path in self._trials.glob("*.npz"):
            if path.stem not in best:
                path.unlink(missing_ok=True)  # another worker may be as quick

    def weights(self, trial: str) -> pathlib.Path:
        """Return where a trial's weights lie while it is among the best."""
        return self._trials / f"{trial}.npz"

    def _path(self, trial: str) -> pathlib.Path:
        return self._trials / f"{trial}.json"


def ranked(records: Sequence[Record], objective: Objective) -> list[Record]:
    """Return the trials that came to their end, the best score first.

    Hyperband's of a higher rung come before those of a lower one: a score after one
    epoch says little beside one after nine.
    """
    done = [r for r in records if r.status == "done"]

    def key(record: Record) -> tuple[float, float, int]:
        of_rung = 0 if record.rung is None else record.epochs
        return -of_rung, objective.cost(record.score), record.number

    return sorted(done, key=key)


def elapsed(records: Sequence[Record]) -> float:
    """Return the seconds that a search has taken by its records."""
    return max((record.elapsed for record in records), default=0.0)
