"""The workers of a cluster on this machine: started, watched, and started again.

A worker that is killed leaves the others waiting for what it would have told them. So
all are ended, and all start again from the chief's last checkpoint.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import time
from collections.abc import Callable, Sequence

from kcnn import jobs
from kcnn.cluster import VARIABLE, Cluster
from kcnn.errors import Interrupted, LostWorker, RunError, UsageError
from kcnn.interruption import StopRequest, stopped_by
from kcnn.jobs import Job
from kcnn.run import Run

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 15.0  # for workers that are stopping; they do so at the same step
_LOOPBACK = "127.0.0.1"


class Launcher:
    """Runs one training by several processes to its end.

    Args:
        count: how many workers, the chief among them.
        run: where they train; its folder `logs` gets what the others say.
        begin: arguments of kcnn train that begin the run.
        resume: those that go on with it; the same where it was begun before.
        most_restarts: after so many it is given up.
        tell: shows a line about what happens.
    """

    def __init__(
        self,
        count: int,
        run: Run,
        begin: Sequence[str],
        resume: Sequence[str],
        most_restarts: int,
        tell: Callable[[str], None],
    ):
        self._count = count
        self._run = run
        self._begin = list(begin)
        self._resume = list(resume)
        self._most_restarts = most_restarts
        self._tell = tell
        self._before = None if begin == resume else self._note()

    def run(self) -> int:
        """Return the chief's exit status.

        Raises:
            Interrupted: a signal came; the workers have ended.
            RunError: workers were killed again and again.
        """
        restarts = 0
        with StopRequest() as stop:
            while True:
                crew = self._start()
                try:
                    crew.watch(stop)
                finally:
                    crew.end()
                if stop.signal_number is not None:
                    return _after_signal(crew, stop.signal_number, self._run)
                lost = crew.lost()
                if lost is None:
                    return crew.status()
                if self._begun and self._run.complete:  # killed when all was done
                    return 0
                if restarts == self._most_restarts:
                    raise RunError(
                        f"{lost}, and all were started again {restarts} times "
                        f"already; {self._run.how_to_go_on}"
                    )
                restarts += 1
                place = "its last checkpoint" if self._begun else "the beginning"
                self._tell(
                    f"{lost}; starting all again from {place} "
                    f"({restarts} of {self._most_restarts})"
                )

    def _start(self) -> _Crew:
        arguments = self._resume if self._begun else self._begin
        return _Crew(self._count, arguments, self._run.path / "logs")

    @property
    def _begun(self) -> bool:
        """Whether the run in the folder is this one, not one that it replaces."""
        return self._note() != self._before

    def _note(self) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return self._run.config.read_bytes()
        return None


class _Crew:
    """The processes of one start, the chief first."""

    def __init__(self, count: int, arguments: Sequence[str], logs: pathlib.Path):
        addresses = tuple(f"{_LOOPBACK}:{port}" for port in free_ports(count))
        threads = jobs.threads_of(count)
        self._logs = [logs / f"worker-{i}.log" if i else None for i in range(count)]
        self._jobs = [
            Job(
                list(arguments),
                log,
                environment=threads | {VARIABLE: Cluster(addresses, i).text()},
            )
            for i, log in enumerate(self._logs)
        ]

    def status(self) -> int:
        """Return the chief's exit status.

        Raises RunError, or UsageError, with what another worker told if that made it
        end.
        """
        if 0 in self._ended:
            return self._ended[0]
        number, status = max(self._ended.items(), key=lambda item: item[1])
        kind = UsageError if status == UsageError.exit_status else RunError
        raise kind(f"worker {number}: {self._jobs[number].reason()}")

    def watch(self, stop: StopRequest) -> None:
        """Return when all have ended well, one has not, or a signal came."""
        while stop.signal_number is None:
            ended = [job.status for job in self._jobs]
            if any(status and status < 0 for status in ended):
                return  # the others would wait for it
            if any(ended) or ended[0] == 0:  # the others are about to end too
                self._wait(_GRACE_SECONDS)
                return
            time.sleep(_POLL_SECONDS)
        for job in self._jobs:
            job.send(stop.signal_number)
        self._wait(_GRACE_SECONDS)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(job.status is not None for job in self._jobs):
                return
            time.sleep(_POLL_SECONDS)

    def lost(self) -> str | None:
        """Return which worker was killed or lost the others; None: not so.

        An error that a worker tells of is not lost by a new start.
        """
        statuses = {i: status for i, status in self._ended.items() if status}
        if any(0 < status != LostWorker.exit_status for status in statuses.values()):
            return None
        for number, status in statuses.items():
            if status < 0:
                return f"worker {number} was killed by {signal.Signals(-status).name}"
        if LostWorker.exit_status in statuses.values():
            return "the workers lost each other"
        return None

    def told(self, status: int) -> bool:
        """Whether the chief ended by itself with this status."""
        return self._ended.get(0) == status

    def end(self) -> None:
        """Leave no process, and remember how each ended by itself."""
        found = enumerate(job.status for job in self._jobs)
        self._ended = {i: status for i, status in found if status is not None}
        for job in self._jobs:
            job.kill()


def _after_signal(crew: _Crew, number: int, run: Run) -> int:
    """Return the chief's status if it has told what to do now, else tell it."""
    if crew.told(Interrupted("", number).exit_status):
        return crew.status()
    raise stopped_by(number, run.how_to_go_on)


def free_ports(count: int) -> list[int]:
    """Return so many ports of the loopback address that nobody listens on.

    Another process can take one before its worker does; the workers then fail to meet
    and are started again, on others.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
