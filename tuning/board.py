"""What a person sees of a search: a line a trial, with the best so far."""

from __future__ import annotations

import statistics
from typing import Any, TextIO

from kcnn.progress import Progress, duration
from tuning.journal import Record, ranked
from tuning.objective import Objective
from tuning.space import Space


class Board(Progress):
    """Prints a line for each trial; a terminal sees the steps of the one under way."""

    def __init__(self, stream: TextIO | None, objective: Objective):
        super().__init__(stream)
        self._objective = objective
        self._total: int | None = None

    def begun(self, space: Space, total: int | None, done: int, folder: str) -> None:
        """Print what is searched.

        Args:
            space: the space.
            total: the number of trials, where it is known.
            done: trials that an earlier command has ended.
            folder: of the search.
        """
        self._total = total
        told = f"{total} at most" if total else "as many as there is time for"
        self.note("trials", told + f"; {done} done already" * (done > 0))
        for i, (name, domain) in enumerate(space.domains.items()):
            self.note("" if i else "space", f"{name}={domain}")
        self.note("folder", folder)

    def epoch(
        self, row: dict[str, Any], epochs: int, seconds_left: float | None
    ) -> None:
        """Print nothing: a search has a line a trial."""

    def ended(
        self, record: Record, records: list[Record], time_left: float | None
    ) -> None:
        """Print the line of a trial.

        Args:
            record: the trial.
            records: all trials, this one among them.
            time_left: seconds of the search's budget; None without one.
        """
        total = f"/{self._total}" if self._total else ""
        parts = [_outcome(record, self._objective)]
        best = ranked(records, self._objective)[:1]
        if best:
            score = self._objective.show(best[0].score)
            parts.append(f"best {score} (trial {best[0].number})")
        parts.append(f"{record.seconds:.1f} s")
        left = self._left(records, time_left)
        if left:
            parts.append(f"{duration(left)} left")
        epochs = f"epochs={record.epochs} " if record.rung is not None else ""
        parts.append(epochs + record.told)
        if record.status == "failed":
            parts.append(record.reason)
        self.note(f"trial {record.number}{total}".ljust(12), "  ".join(parts))

    def _left(self, records: list[Record], time_left: float | None) -> float | None:
        """Return the seconds left if the other trials take what these took."""
        ended = [record for record in records if record.ended]
        if self._total is None:
            return time_left
        mean = statistics.fmean(record.seconds for record in ended)
        expected = mean * max(self._total - len(ended), 0)
        return expected if time_left is None else min(expected, time_left)


def _outcome(record: Record, objective: Objective) -> str:
    if record.score is None:
        return record.status
    said = objective.show(record.score)
    if record.deviation is not None:
        said += f" ± {objective.show_deviation(record.deviation)}"
    if record.status == "pruned":
        done = len(record.histories[-1])
        said += f" (stopped after epoch {done}/{record.epochs})"
    return said
