"""Train a model for every combination of several values of any knobs.

Values are separated by commas, lists such as --filters='16,32;32,64' by semicolons;
FIRST..LAST stands for whole numbers. Each run is a kcnn train in a process of its own
and a folder of its own under --model_dir. The same command again goes on.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.scheduler import Board
from kcnn.sweep import PlannedRun, plan
from kcnn.sweep_record import SweepRecord
from kcnn.sweep_runner import JOBS, OVERWRITE, SweepRunner
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
    "jobs": JOBS,
    "overwrite": OVERWRITE,
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
    runner = SweepRunner(
        pathlib.Path(values.model_dir),
        "kcnn sweep",
        export_dir=values.export_dir or "",
        overwrite=bool(values.overwrite),
        jobs=values.jobs,
    )
    if values.dry_run:
        _print_commands(planned, runner)
        return
    board = Board(sys.stdout)
    about = {"chosen": chosen, "left_out": left_out}
    record = runner.run(planned, about, board, _notes(chosen, left_out))
    _conclude(board, record)


def _print_commands(planned: list[PlannedRun], runner: SweepRunner) -> None:
    actions = runner.actions(planned)
    for one in planned:
        action = actions[one.name]
        line = shlex.join(["kcnn", "train", *runner.arguments(one, action)])
        print(f"# done: {line}" if action == "keep" else line)


def _notes(chosen: Mapping[str, Any], left_out: Mapping[str, str]) -> dict[str, str]:
    several = [
        f"{len(values)} of {name}" for name, values in chosen.items() if values[1:]
    ]
    notes = {"values": " x ".join(several)} if several else {}
    if left_out:
        lines = (f"{name} {why}" for name, why in left_out.items())
        notes["left out"] = "; ".join(lines)
    return notes


def _conclude(board: Board, record: SweepRecord) -> None:
    board.line("")
    for line in render(record.rows(), "table").splitlines():
        board.line(line)
    board.note("table", str(record.folder / "sweep.csv"))
    board.failures(record)
    record.raise_failures()
