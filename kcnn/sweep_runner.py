"""Runs what is planned in one folder, and goes on where an earlier command stopped."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from kcnn.interruption import StopRequest, stopped_by
from kcnn.jobs import Job, default_jobs
from kcnn.knobs import Knob
from kcnn.locks import FolderLock
from kcnn.run import Run
from kcnn.scheduler import Board, Scheduler
from kcnn.sweep import PlannedRun, action_for
from kcnn.sweep_record import Outcome, SweepRecord

# The flags of every command that runs a sweep.
JOBS = Knob(
    "sweep",
    None,
    "runs at a time (default: one for every two cores and 2 GiB of available "
    "memory; one where there is a GPU)",
    low=1,
    high=1024,
    kind=int,
)
OVERWRITE = Knob(
    "sweep", False, "replace runs in --model_dir that had other knobs", kind=bool
)


@dataclasses.dataclass(frozen=True)
class SweepRunner:
    """Where and how the runs of a sweep are made, each a kcnn train of its own.

    `command` is what others are told that find the folder taken: "kcnn sweep".
    `jobs` run at a time; None: as many as cores and memory allow. `export_dir` is
    where each model goes to as RUN/VERSION; empty: nowhere. `overwrite` replaces runs
    in the folder that had other knobs.
    """

    folder: pathlib.Path
    command: str
    export_dir: str = ""
    overwrite: bool = False
    jobs: int | None = None

    def actions(self, planned: Iterable[PlannedRun]) -> dict[str, str]:
        """Return what to do about each run, by name; see `kcnn.sweep.action_for`.

        Raises UsageError if other runs are in the way; nothing is touched.
        """
        return {
            one.name: action_for(one, Run(self.folder / one.name), self.overwrite)
            for one in planned
        }

    def arguments(self, planned: PlannedRun, action: str) -> list[str]:
        """Return the flags of the kcnn train that carries out an action."""
        model_dir = self.folder / planned.name
        export = [f"--export_dir={self.export_dir}"]
        if self.export_dir:
            export.append(f"--export_name={planned.name}")
        if action == "resume":
            return ["--resume", f"--model_dir={model_dir}", *export]
        replace = ["--overwrite"] if action == "replace" else []
        return [*planned.arguments(model_dir), *export, *replace]

    def run(
        self,
        planned: list[PlannedRun],
        about: Mapping[str, Any],
        board: Board,
        notes: Mapping[str, str],
    ) -> SweepRecord:
        """Run what is not done yet; return the record with what came of every run.

        Args:
            planned: the runs, each with a name of its own.
            about: what sweep.json says of the sweep beside command and time.
            board: where progress is shown.
            notes: lines to show before it starts, by topic.

        Raises:
            UsageError: other runs are in the way, or another sweep is running there.
            Interrupted: a signal stopped it with runs left to do.
        """
        self.actions(planned)  # refuse before the folder is made
        command = shlex.join(["kcnn", *sys.argv[1:]])
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        jobs = self.jobs or default_jobs()
        about = {"command": command, "started": now, "jobs": jobs, **about}
        record = SweepRecord(self.folder, planned, about)
        with FolderLock(self.folder, self.command) as lock, StopRequest() as stop:
            actions = self.actions(planned)  # another sweep may just have ended
            todo = _take_what_is_done(record, actions)
            record.write()
            kept = record.count("done")
            told = f"{len(planned)} runs; {jobs} at a time"
            board.note("runs", told + f"; {kept} done already" * (kept > 0))
            for topic, text in notes.items():
                board.note(topic, text)
            board.note("folder", str(self.folder))

            def start(outcome: Outcome) -> Job:
                one = outcome.planned
                arguments = self.arguments(one, actions[one.name])
                return Job(arguments, outcome.run.path / "train.log", lock)

            Scheduler(record, start, jobs).run(todo, board, stop)
        _check_stopped(record, stop.signal_number)
        return record


def _take_what_is_done(
    record: SweepRecord, actions: Mapping[str, str]
) -> list[Outcome]:
    todo = []
    for outcome in record.outcomes:
        if actions[outcome.planned.name] == "keep":
            outcome.read()
        else:
            todo.append(outcome)
    return todo


def _check_stopped(record: SweepRecord, signal_number: int | None) -> None:
    total, done = len(record.outcomes), record.count("done")
    if signal_number is not None and done + record.count("failed") < total:
        raise stopped_by(
            signal_number,
            f"the same command goes on: {record.about['command']}",
            f": {done} of {total} runs are done, {record.count('stopped')} stopped",
        )
