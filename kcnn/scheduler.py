"""Runs of a sweep, several at a time, and what a person sees of them meanwhile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from kcnn.interruption import StopRequest
from kcnn.jobs import Job
from kcnn.progress import Output, duration
from kcnn.sweep_record import Outcome, SweepRecord

_POLL_SECONDS = 0.1
_REFRESH_SECONDS = 0.5
_MOST_ROWS = 20  # of the live table; a terminal cannot move up beyond its top


class Scheduler:
    """Starts what waits, `jobs` at a time, and records how each run ended."""

    def __init__(self, record: SweepRecord, start: Callable[[Outcome], Job], jobs: int):
        self._record = record
        self._start = start
        self._jobs = jobs
        self._running: list[tuple[Outcome, Job]] = []
        self._took: list[float] = []  # seconds of the runs that ended well

    def run(self, todo: list[Outcome], board: Board, stop: StopRequest) -> None:
        """Run everything, or until a stop is asked for and the children have ended.

        The children get the signal and keep their state. Whatever happens here, none
        of them is left.
        """
        waiting = list(todo)
        told = False
        try:
            while self._running or (waiting and stop.signal_number is None):
                if stop.signal_number is not None and not told:
                    told = True
                    for _, job in self._running:
                        job.send(stop.signal_number)
                while waiting and len(self._running) < self._jobs and not told:
                    self._begin(waiting.pop(0))
                for outcome, job in list(self._running):
                    if job.status is not None:
                        self._running.remove((outcome, job))
                        self._conclude(outcome, job, told)
                        left = self._seconds_left(len(waiting))
                        board.ended(outcome, self._record, job.seconds, left)
                board.show(
                    self._running,
                    self._record,
                    lambda: self._seconds_left(len(waiting)),
                )
                time.sleep(_POLL_SECONDS)
        finally:
            for _, job in self._running:
                job.kill()
            board.close()

    def _begin(self, outcome: Outcome) -> None:
        outcome.status = "running"
        self._running.append((outcome, self._start(outcome)))
        self._record.write()

    def _conclude(self, outcome: Outcome, job: Job, stopping: bool) -> None:
        if job.status == 0:
            outcome.read()
            self._took.append(job.seconds)
        elif stopping:
            outcome.status = "stopped"
        else:
            outcome.status, outcome.reason = "failed", job.reason()
            outcome.seconds = job.seconds
        self._record.write()

    def _seconds_left(self, waiting: int) -> float | None:
        """Return what is left if each run takes the mean of those that have ended."""
        expected = self._took or [
            job.seconds * of / done
            for done, of, job in ((*job.epoch(), job) for _, job in self._running)
            if done
        ]
        if not expected:
            return None
        mean = sum(expected) / len(expected)
        rest = [max(0.0, mean - job.seconds) for _, job in self._running]
        return max((sum(rest) + waiting * mean) / self._jobs, *rest, 0.0)


class Board:
    """A live table of the runs on a terminal, and a line for each that has ended."""

    def __init__(self, stream: TextIO):
        self._output = Output(stream)
        self._live = self._output.is_terminal
        self._height = 0
        self._shown = 0.0

    def note(self, topic: str, text: str) -> None:
        """Print a line with its topic in a column of its own."""
        self.line(f"{topic:<10} {text}")

    def ended(
        self,
        outcome: Outcome,
        record: SweepRecord,
        seconds: float,
        seconds_left: float | None,
    ) -> None:
        """Print the line of a run that has ended, `seconds` after its start."""
        total = len(record.outcomes)
        ended = record.count("done") + record.count("failed")
        text = f"{outcome.status:<7} {ended:>{len(str(total))}}/{total}  "
        text += outcome.planned.name
        if outcome.status == "done":
            text += f"  accuracy {outcome.accuracy:.2%}  loss {outcome.loss:.4g}"
        elif outcome.reason:
            text += f"  {outcome.reason}"
        text += f"  {seconds:.1f} s"
        if seconds_left:
            text += f"  {duration(seconds_left)} left"
        self.line(text)
        self._shown = 0.0

    def failures(self, record: SweepRecord) -> None:
        """Print the reason of each run that failed."""
        for outcome in record.failed:
            self.note("failed", f"{outcome.planned.name}: {outcome.reason}")

    def show(
        self,
        running: list[tuple[Outcome, Job]],
        record: SweepRecord,
        left: Callable[[], float | None],
    ) -> None:
        """Draw the table anew, twice a second, where the stream is a terminal."""
        now = time.monotonic()
        if not self._live or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        size = shutil.get_terminal_size()
        most = max(1, min(_MOST_ROWS, size.lines - 2))
        width = max((len(o.planned.name) for o, _ in running[:most]), default=0)
        lines = [
            f"{outcome.planned.name:<{width}}  {_stage(job):<13}  "
            f"{duration(job.seconds)}"
            for outcome, job in running[:most]
        ]
        counts = ("done", "failed", "running", "waiting")
        total = ", ".join(f"{record.count(name)} {name}" for name in counts)
        seconds = left()
        if seconds is not None:
            total += f"; {duration(seconds)} left"
        lines = [line[: size.columns - 1] for line in [*lines, total]]
        self._output.write(self._erased() + "\n".join(lines) + "\n")
        self._height = len(lines)

    def close(self) -> None:
        """Take the live table away."""
        self._output.write(self._erased())

    def line(self, text: str) -> None:
        """Print a line above the live table."""
        self._output.write(self._erased() + text + "\n")

    def _erased(self) -> str:
        """Return what moves to the table's first line and clears from there on."""
        height, self._height = self._height, 0
        return f"\x1b[{height}F\x1b[J" if height else ""


def _stage(job: Job) -> str:
    done, of = job.epoch()
    return f"epoch {done}/{of}" if done else "starting"
