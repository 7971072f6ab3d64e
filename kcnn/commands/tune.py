"""Search for the best values of knobs, on validation images, with keras-tuner.

A knob takes values (3,5), LOW..HIGH, log:LOW..HIGH, or one value that fixes it; those
that are not given are searched as is usual for the model, or keep their defaults.
The same command again goes on. The test images are not read until the search is over.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import Interrupted, RunError, UsageError
from kcnn.jobs import FolderLock
from kcnn.knobs import Knob

if TYPE_CHECKING:
    from tuning.session import Folder, Session, Settings
    from tuning.space import Space

USAGE = (
    "kcnn tune [--dataset=NAME] [--model=NAME] [--tuner=NAME] [--max_trials=N] "
    "[--time_budget=20m] [--KNOB=DOMAIN ...]"
)

FLAGS = {
    "tuner": Knob(
        "tune",
        "random",
        "who proposes the trials",
        choices=("random", "bayesian", "hyperband", "grid"),
    ),
    "max_trials": Knob(
        "tune",
        None,
        "trials at most (default: 30; with a time budget, grid or hyperband as many as "
        "there is time or space for)",
        low=1,
        high=100_000,
        kind=int,
    ),
    "time_budget": Knob(
        "tune",
        "",
        "time of the search, as 90s, 20m or 2h, over all commands that go on with it; "
        "the trial under way is stopped then",
    ),
    "space": Knob(
        "tune", "", "JSON file with an object, knob: domain; flags win over it"
    ),
    "objective": Knob(
        "tune",
        "accuracy",
        "what is searched for, on the validation images",
        choices=("accuracy", "loss", "macro_f1"),
    ),
    "executions_per_trial": Knob(
        "tune",
        1,
        "random seeds that each trial is trained with; its score is their mean",
        low=1,
        high=100,
        kind=int,
    ),
    "pruning": Knob(
        "tune",
        "median",
        "stop a trial that is worse than the median of the others after as many "
        "epochs; not used by hyperband, which has its own rule",
        choices=("median", "none"),
    ),
    "factor": Knob(
        "tune",
        None,
        "hyperband only: one of so many trials goes on to the next rung (default: 3)",
        low=2,
        high=10,
        kind=int,
    ),
    "hyperband_iterations": Knob(
        "tune",
        None,
        "hyperband only: times that it goes through its brackets (default: 1)",
        low=1,
        high=1000,
        kind=int,
    ),
    "best": Knob(
        "tune",
        1,
        "so many of the best trials are trained again and tested; 0: none",
        low=0,
        high=20,
        kind=int,
    ),
    "final_seeds": Knob(
        "tune",
        3,
        "random seeds, not used in the search, of that training",
        low=1,
        high=100,
        kind=int,
    ),
    "model_dir": Knob(
        "tune", "", "folder of the search (default: runs/tune-DATASET-MODEL-TUNER)"
    ),
    "overwrite": Knob("tune", False, "replace the search in --model_dir", kind=bool),
}

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def define_knobs(values: FlagValues) -> None:
    """Define the flags of all knobs such that each takes a domain."""
    try:
        from tuning.space import parse_domain
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tuning":
            raise
        raise UsageError(
            "the package tuning, which this command needs, is not installed"
        ) from None
    flags.define_knobs_of_many(values, parse_domain)


def main(values: FlagValues, arguments: list[str]) -> None:
    """Search as the flags say, train the best again, and write the page."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    space = _space(values)
    settings_given = _settings(values)

    from kcnn import runtime

    runtime.start_tensorflow()
    _silence_retracing()
    from tuning.session import Folder, Settings

    settings = Settings(**settings_given)
    folder = Folder(pathlib.Path(values.model_dir or _default_folder(space, settings)))
    folder.path.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder.path, "search"):
        command = shlex.join(["kcnn", *sys.argv[1:]])
        folder.begin(space, settings, command, bool(values.overwrite))
        _search(space, settings, folder)


def _silence_retracing() -> None:
    """Keep TensorFlow from wondering at the many models of a search."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def _space(values: FlagValues) -> Space:
    from tuning.space import build_space, read_space

    given = read_space(pathlib.Path(values.space)) if values.space else {}
    return build_space(given | flags.knobs_given(values))


def _settings(values: FlagValues) -> dict[str, Any]:
    tuner = values.tuner or "random"
    hyperband = {"factor": values.factor, "iterations": values.hyperband_iterations}
    given = {name: value for name, value in hyperband.items() if value is not None}
    if given and tuner != "hyperband":
        flag = "factor" if "factor" in given else "hyperband_iterations"
        raise UsageError(f"--{flag} changes nothing for --tuner={tuner}")
    if tuner == "hyperband" and flags.is_given(values, "pruning"):
        raise UsageError("--pruning changes nothing for --tuner=hyperband")
    best = FLAGS["best"].default if values.best is None else values.best
    return {
        "tuner": tuner,
        "objective": values.objective or "accuracy",
        "executions": values.executions_per_trial or 1,
        "pruning": values.pruning or "median",
        **given,
        "keep": max(best, 1),
        "max_trials": values.max_trials,
        "time_budget": _seconds(values.time_budget or ""),
    }


def _seconds(text: str) -> float | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found or not float(found[1]):
        raise UsageError(
            f"--time_budget: got {text!r}, expected a time as 90s, 20m, 2h"
        )
    return float(found[1]) * _UNITS[found[2]]


def _default_folder(space: Space, settings: Settings) -> str:
    kind, _, place = space.baseline.dataset.partition(":")
    data = pathlib.Path(place).stem if place else kind
    name = f"tune-{data}-{space.baseline.model}-{settings.tuner}"
    return "runs/" + re.sub(r"[^\w.-]+", "_", name)


def _search(space: Space, settings: Settings, folder: Folder) -> Session:
    """Run the search to its end, with a line a trial."""
    from tuning.board import Board
    from tuning.journal import Record, ranked
    from tuning.objective import OBJECTIVES
    from tuning.session import open_session

    def on_end(record: Record) -> None:
        records = session.journal.all()
        session.journal.write_tables(records)
        board.ended(record, records, session.tuner.clock.left)

    board = Board(sys.stdout, OBJECTIVES[settings.objective])
    with board:
        session = open_session(
            space, settings, folder.path, progress=board, on_end=on_end
        )
        records = session.journal.all()
        done = sum(record.ended for record in records)
        board.begun(space, session.total, done, str(folder.path))
        try:
            session.tuner.search()
        except Interrupted as stopped:
            done = sum(record.ended for record in session.journal.all())
            raise Interrupted(
                f"{stopped}: {done} trials are done; the same command goes on: "
                f"{shlex.join(['kcnn', *sys.argv[1:]])}",
                stopped.exit_status - 128,
            ) from None
        records = session.journal.all()
        session.journal.write_tables(records)
        if session.oracle.refused:
            board.note(
                "left out", f"{session.oracle.refused} combinations: cannot be run"
            )
        if not ranked(records, session.objective):
            reasons = [record.reason for record in records if record.reason]
            last = f"; the last: {reasons[-1]}" if reasons else ""
            raise RunError(f"none of {len(records)} trials came to its end{last}")
    return session
