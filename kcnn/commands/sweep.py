"""Train a model for every combination of several values of any knobs.

Values are separated by commas, lists such as --filters='16,32;32,64' by semicolons;
FIRST..LAST stands for whole numbers. Each run is a kcnn train in a process of its own
and a folder of its own under --model_dir. The same command again goes on.
"""

from __future__ import annotations

import datetime
import pathlib
import shlex
import signal
import sys
from collections.abc import Mapping
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import Interrupted, RunError, UsageError
from kcnn.interruption import StopRequest
from kcnn.jobs import FolderLock, Job, default_jobs
from kcnn.knobs import Knob
from kcnn.run import Run
from kcnn.scheduler import Board, Scheduler
from kcnn.sweep import PlannedRun, action_for, plan
from kcnn.sweep_record import Outcome, SweepRecord
from kcnn.table import render

USAGE = "kcnn sweep --model_dir=DIR [--experiment=PATTERN] [--KNOB=VALUE,VALUE ...]"

FLAGS = {
    "experiment": Knob(
        "sweep",
        "",
        "start from named runs: ids or groups, or patterns of them as 'lab8-*'",
    ),
    "model_dir": Knob("sweep", "", "folder of the sweep, one folder a run in it"),
    "export_dir": Knob(
        "sweep", "", "where each run's model is exported to, as RUN/VERSION"
    ),
    "jobs": Knob(
        "sweep",
        None,
        "runs at a time (default: one for every two cores and 2 GiB of available "
        "memory; one where there is a GPU)",
        low=1,
        high=1024,
        kind=int,
    ),
    "overwrite": Knob(
        "sweep", False, "replace runs in --model_dir that had other knobs", kind=bool
    ),
    "dry_run": Knob(
        "sweep", False, "print the command of every run and run none", kind=bool
    ),
}

define_knobs = flags.define_knobs_of_many


def main(values: FlagValues, arguments: list[str]) -> None:
    """Run the cross product of the values given."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    if not values.model_dir:
        raise UsageError("--model_dir: say where the runs go: --model_dir=runs/NAME")
    patterns = [p for p in (values.experiment or "").split(",") if p]
    chosen = flags.knobs_given(values)
    planned, left_out = plan(chosen, patterns)
    folder = pathlib.Path(values.model_dir)
    if values.dry_run:
        _print_commands(planned, values)
        return
    _actions(planned, values)  # refuse before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "command": shlex.join(["kcnn", *sys.argv[1:]]),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "chosen": chosen,
        "left_out": left_out,
    }
    record = SweepRecord(folder, planned, about)
    board = Board(sys.stdout, record)
    jobs = values.jobs or default_jobs()
    with FolderLock(folder) as lock, StopRequest() as stop:
        actions = _actions(planned, values)  # another sweep may just have ended
        todo = _take_what_is_done(record, actions)
        record.write()
        _announce(board, record, chosen, jobs)

        def start(outcome: Outcome) -> Job:
            return _start(outcome, actions[outcome.planned.name], values, lock)

        Scheduler(record, start, jobs).run(todo, board, stop)
    _conclude(board, record, stop.signal_number)


def _actions(planned: list[PlannedRun], values: FlagValues) -> dict[str, str]:
    """Return what to do about each run; raises UsageError before any is touched."""
    folder = pathlib.Path(values.model_dir)
    overwrite = bool(values.overwrite)
    return {
        one.name: action_for(one, Run(folder / one.name), overwrite) for one in planned
    }


def _arguments(planned: PlannedRun, action: str, values: FlagValues) -> list[str]:
    model_dir = pathlib.Path(values.model_dir) / planned.name
    export = [f"--export_dir={values.export_dir or ''}"]
    if values.export_dir:
        export.append(f"--export_name={planned.name}")
    if action == "resume":
        return ["--resume", f"--model_dir={model_dir}", *export]
    replace = ["--overwrite"] if action == "replace" else []
    return [*planned.arguments(model_dir), *export, *replace]


def _print_commands(planned: list[PlannedRun], values: FlagValues) -> None:
    actions = _actions(planned, values)
    for one in planned:
        action = actions[one.name]
        line = shlex.join(["kcnn", "train", *_arguments(one, action, values)])
        print(f"# done: {line}" if action == "keep" else line)


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


def _start(outcome: Outcome, action: str, values: FlagValues, lock: FolderLock) -> Job:
    arguments = _arguments(outcome.planned, action, values)
    return Job(arguments, outcome.run.path / "train.log", lock)


def _announce(
    board: Board, record: SweepRecord, chosen: Mapping[str, Any], jobs: int
) -> None:
    total, done = len(record.outcomes), record.count("done")
    several = [
        f"{len(values)} of {name}" for name, values in chosen.items() if values[1:]
    ]
    by = f": {' x '.join(several)}" if several else ""
    kept = f"; {done} of them done already" if done else ""
    board.note("sweep", f"{total} runs{by}{kept}; {jobs} at a time")
    for name, why in record.about["left_out"].items():
        board.note("left out", f"{name} {why}")
    board.note("folder", str(record.folder))


def _conclude(board: Board, record: SweepRecord, signal_number: int | None) -> None:
    total, done = len(record.outcomes), record.count("done")
    if signal_number is not None and done + record.count("failed") < total:
        raise Interrupted(
            f"stopped by {signal.Signals(signal_number).name}: {done} of {total} runs "
            f"are done, {record.count('stopped')} stopped; the same command goes on: "
            f"{record.about['command']}",
            signal_number,
        )
    board.line("")
    for line in render(record.rows(), "table").splitlines():
        board.line(line)
    board.note("table", str(record.folder / "sweep.csv"))
    failed = [o for o in record.outcomes if o.status == "failed"]
    for outcome in failed:
        board.note("failed", f"{outcome.planned.name}: {outcome.reason}")
    if failed:
        raise RunError(
            f"{len(failed)} of {total} runs failed, the first of them "
            f"{failed[0].planned.name}: {failed[0].reason}"
        )
