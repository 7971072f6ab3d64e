"""Trials in several processes: keras-tuner's distributed mode, started and watched.

The command itself is the chief: it holds the oracle and answers its workers, which are
the same command with keras-tuner's three environment variables. A worker that dies is
started again under its name and gets its trial again. keras-tuner's own chief waits
for ever for a worker that is gone, and its messages print a line for each condition
of the space; so only the messages' form is keras-tuner's here.

With the variables set by hand, one command with KERASTUNER_TUNER_ID=chief and others
with names of their own search together on several machines that share the folder.
The channel is not encrypted.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import grpc
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from kcnn.errors import RunError
from kcnn.interruption import StopRequest, stopped_by
from kcnn.jobs import Job, threads_of
from kcnn.locks import FolderLock
from tuning.journal import Journal, Record
from tuning.oracles import Durable
from tuning.search import Clock

_POLL_SECONDS = 0.2
_MOST_DEATHS = 4  # of a worker in a row, with no trial ended in between
_SILENT_SECONDS = 600  # a worker elsewhere that writes nothing for so long is gone
_LINGER_SECONDS = 30  # for workers elsewhere to hear that the search is over
_GRACE_SECONDS = 30  # for workers to put their trials back


def role() -> str | None:
    """Return what keras-tuner's variables make of this process: chief, worker or None.

    Raises:
        RunError: some of the three are missing.
    """
    names = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
    missing = [name for name in names if not os.environ.get(name)]
    if len(missing) == len(names):
        return None
    if missing:
        raise RunError(
            f"{', '.join(missing)}: not set, and {names[0]} is or others are"
        )
    return "chief" if "chief" in os.environ[names[2]] else "worker"


def address() -> str:
    """Return where a chief listens: as the variables say, else on a free port."""
    ip = os.environ.get("KERASTUNER_ORACLE_IP", "127.0.0.1")
    return f"{ip}:{os.environ.get('KERASTUNER_ORACLE_PORT', '0')}"


class _Servicer(OracleServicer):
    """Answers workers with a trial's values alone: they know the space themselves."""

    def CreateTrial(self, request, context):
        """Return a trial to run, or one that says STOPPED or IDLE."""
        trial = self.oracle.create_trial(request.tuner_id)
        if trial.status == TrialStatus.STOPPED:
            self.stop_triggered = True
        values = keras_tuner.HyperParameters()
        values.values = dict(trial.hyperparameters.values)
        answer = Trial(values, trial.trial_id, trial.status)
        return protos.get_service().CreateTrialResponse(trial=answer.to_proto())

    def UpdateTrial(self, request, context):
        """Take a trial's score."""
        self.oracle.update_trial(
            request.trial_id, dict(request.metrics), step=request.step
        )
        empty = Trial(keras_tuner.HyperParameters(), request.trial_id)
        return protos.get_service().UpdateTrialResponse(trial=empty.to_proto())


class Chief:
    """Serves an oracle to workers, here or on other machines.

    Args:
        oracle: proposes the trials.
        journal: where the workers leave their records.
        clock: ends the search.
        on_end: called with the record of each trial that has ended.
        address: to listen on, IP:PORT; at port 0 any free one.
    """

    def __init__(
        self,
        oracle: Durable,
        journal: Journal,
        clock: Clock,
        on_end: Callable[[Record], None],
        address: str,
    ):
        self._oracle = oracle
        self._journal = journal
        self._clock = clock
        self._on_end = on_end
        self._told = {record.trial for record in journal.all() if record.ended}
        self._servicer = _Servicer(oracle)
        # Workers are forked while it serves, which it would remark on each time.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=1),
            options=[("grpc.so_reuseport", 0)],  # two chiefs on one port: an error
        )
        protos.get_service_grpc().add_OracleServicer_to_server(
            self._servicer, self._server
        )
        self._ip = address.rpartition(":")[0]
        try:
            self._port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise RunError(f"cannot listen on {address}: {error}") from None

    def run_workers(
        self, count: int, arguments: Sequence[str], logs: pathlib.Path, lock: FolderLock
    ) -> None:
        """Start workers on this machine and watch them until the search is over.

        Args:
            count: how many.
            arguments: of the command.
            logs: folder of what each of them says.
            lock: of the search; they hold it too.

        Raises:
            Interrupted: a signal came; the trials under way will be run again.
            RunError: every worker died again and again.
        """
        crew = [
            _Worker(
                f"worker-{i + 1}", self._ip, self._port, count, arguments, logs, lock
            )
            for i in range(count)
        ]
        self._server.start()
        try:
            with StopRequest() as stop:
                while crew_left := [worker for worker in crew if not worker.gone]:
                    self._tell()
                    if stop.signal_number is not None or self._clock.is_over:
                        break
                    for worker in crew_left:
                        self._watch(worker)
                    time.sleep(_POLL_SECONDS)
            self._oracle.closed = True
            for worker in crew:
                worker.stop()
        finally:
            for worker in crew:
                worker.kill()
            self._server.stop(None)
            self._tell()
        if stop.signal_number is not None:
            raise stopped_by(stop.signal_number)
        reasons = [worker.reason for worker in crew if worker.reason]
        if len(reasons) == count:
            raise RunError(f"every worker died again and again: {reasons[-1]}")

    def serve(self) -> None:
        """Answer workers on other machines until the search is over.

        A worker that has written nothing for ten minutes is taken for dead.

        Raises:
            Interrupted: a signal came.
        """
        self._server.start()
        over: float | None = None
        try:
            with StopRequest() as stop:
                while stop.signal_number is None:
                    self._tell()
                    self._oracle.closed |= self._clock.is_over
                    self._put_back_the_silent()
                    stopped = self._servicer.stop_triggered or self._oracle.closed
                    if stopped and not self._oracle.ongoing_trials:
                        over = over or time.monotonic()
                        if (
                            not self._oracle.tuner_ids
                            or time.monotonic() - over > _LINGER_SECONDS
                        ):
                            return
                    time.sleep(_POLL_SECONDS)
        finally:
            self._server.stop(None)
        if stop.signal_number is not None:
            raise stopped_by(stop.signal_number)

    def _watch(self, worker: _Worker) -> None:
        """Start a worker that has died; let others have its trial if it always does."""
        if not worker.has_died:
            return
        ended = sum(
            record.worker == worker.name and record.ended
            for record in self._journal.all()
        )
        if not worker.start_again(ended):
            self._oracle.put_back(worker.name)

    def _put_back_the_silent(self) -> None:
        for name, trial in list(self._oracle.ongoing_trials.items()):
            heard = self._journal.heard(trial.trial_id)
            if heard is not None and time.time() - heard > _SILENT_SECONDS:
                self._oracle.put_back(name)

    def _tell(self) -> None:
        for record in self._journal.all():
            if record.ended and record.trial not in self._told:
                self._told.add(record.trial)
                self._on_end(record)


class _Worker:
    """A worker's process, and those that come after it."""

    def __init__(
        self,
        name: str,
        ip: str,
        port: int,
        count: int,
        arguments: Sequence[str],
        logs: pathlib.Path,
        lock: FolderLock,
    ):
        self.name = name
        self.reason = ""  # why it was given up
        self._arguments = list(arguments)
        self._log = logs / f"{name}.log"
        self._lock = lock
        self._deaths = 0
        self._ended = 0
        self._environment = {
            "KERASTUNER_ORACLE_IP": ip,
            "KERASTUNER_ORACLE_PORT": str(port),
            "KERASTUNER_TUNER_ID": name,
            **threads_of(count),  # else each takes all the cores
        }
        self._job = self._start()

    def _start(self) -> Job:
        return Job(self._arguments, self._log, self._lock, "tune", self._environment)

    @property
    def gone(self) -> bool:
        """Whether it has come to its end, or was given up."""
        return self._job.status == 0 or bool(self.reason)

    @property
    def has_died(self) -> bool:
        """Whether it ended otherwise than because there is nothing left to do."""
        return not self.reason and self._job.status not in (None, 0)

    def start_again(self, ended: int) -> bool:
        """Start it again, unless it died too often since a trial of its own ended.

        Args:
            ended: how many of its trials have ended so far.

        Returns:
            Whether it was started.
        """
        self._deaths = 1 if ended > self._ended else self._deaths + 1
        self._ended = ended
        if self._deaths >= _MOST_DEATHS:
            self.reason = f"{self.name}: {self._job.reason()}"
            return False
        self._job = self._start()
        return True

    def stop(self) -> None:
        """Let it put its trial back and end."""
        if self._job.status is not None:
            return
        self._job.send(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._job.status is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """End it at once, if it is still there."""
        self._job.kill()
