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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl.flags import FlagValues

from kcnn import flags, tensorboard
from kcnn.errors import Interrupted, RunError, UsageError
from kcnn.knobs import Knob
from kcnn.locks import FolderLock

if TYPE_CHECKING:
    from kcnn.scheduler import Board
    from tuning.journal import Record
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
        5,
        "random seeds, not used in the search, of that training",
        low=1,
        high=100,
        kind=int,
    ),
    "workers": Knob(
        "tune",
        1,
        "processes that run trials, on this machine; with keras-tuner's environment "
        "variables on several, see README",
        low=1,
        high=256,
        kind=int,
    ),
    "model_dir": Knob(
        "tune", "", "folder of the search (default: runs/tune-DATASET-MODEL-TUNER)"
    ),
    "overwrite": Knob("tune", False, "replace the search in --model_dir", kind=bool),
    "tensorboard": Knob(
        "tune",
        False,
        "write TensorBoard logs, with HParams, to MODEL_DIR/tensorboard; needs "
        "the extra tensorboard",
        kind=bool,
    ),
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
    flags.define_knobs_of_many(values, read=parse_domain)


def main(values: FlagValues, arguments: list[str]) -> None:
    """Search as the flags say, train the best again, and write the page."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    space = _space(values)
    settings_given = _settings(values)
    if values.tensorboard:
        tensorboard.check_installed()

    from kcnn import runtime

    runtime.start_tensorflow()
    _silence_retracing()
    from tuning import workers
    from tuning.session import Folder, Settings

    settings = Settings(**settings_given)
    folder = Folder(pathlib.Path(values.model_dir or _default_folder(space, settings)))
    role = workers.role()
    if role == "chief" and flags.is_given(values, "workers"):
        raise UsageError("--workers and KERASTUNER_TUNER_ID: give one of them")
    if role == "worker":
        folder.check(space, settings)
        _search(space, settings, folder, lambda session, on_end: session.tuner.search())
        return
    logs = folder.tensorboard if values.tensorboard else None
    folder.path.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder.path, "kcnn tune") as lock:
        command = shlex.join(["kcnn", *sys.argv[1:]])
        folder.begin(space, settings, command, bool(values.overwrite))

        def run(session: Session, on_end: Callable[[Record], None]) -> None:
            count = flags.value_of(values, "workers", FLAGS)
            if role is None and count == 1:
                session.tuner.search()
                return
            clock, address = session.tuner.clock, workers.address()
            chief = workers.Chief(
                session.oracle, session.journal, clock, on_end, address
            )
            if role == "chief":
                chief.serve()
            else:
                chief.run_workers(count, sys.argv[2:], folder.logs, lock)

        session = _search(space, settings, folder, run, logs)
        _check(session)
        best = flags.value_of(values, "best", FLAGS)
        seeds = flags.value_of(values, "final_seeds", FLAGS)
        _finish(session, folder, best, seeds)


def _silence_retracing() -> None:
    """Keep TensorFlow from wondering at the many models of a search."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def _space(values: FlagValues) -> Space:
    from tuning.space import build_space, read_space

    given = read_space(pathlib.Path(values.space)) if values.space else {}
    return build_space(given | flags.knobs_given(values))


def _settings(values: FlagValues) -> dict[str, Any]:
    tuner = flags.value_of(values, "tuner", FLAGS)
    hyperband = {"factor": values.factor, "iterations": values.hyperband_iterations}
    given = {name: value for name, value in hyperband.items() if value is not None}
    if given and tuner != "hyperband":
        flag = "factor" if "factor" in given else "hyperband_iterations"
        raise UsageError(f"--{flag} changes nothing for --tuner={tuner}")
    if tuner == "hyperband" and flags.is_given(values, "pruning"):
        raise UsageError("--pruning changes nothing for --tuner=hyperband")
    return {
        "tuner": tuner,
        "objective": flags.value_of(values, "objective", FLAGS),
        "executions": flags.value_of(values, "executions_per_trial", FLAGS),
        "pruning": flags.value_of(values, "pruning", FLAGS),
        **given,
        "keep": max(flags.value_of(values, "best", FLAGS), 1),
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


def _search(
    space: Space,
    settings: Settings,
    folder: Folder,
    run: Callable[[Session, Callable[[Record], None]], None],
    logs: pathlib.Path | None = None,
) -> Session:
    """Run the search to its end by `run`, with a line a trial and TensorBoard logs."""
    from tuning.board import Board
    from tuning.objective import OBJECTIVES
    from tuning.session import open_session
    from tuning.tensorboard import log_trial

    def on_end(record: Record) -> None:
        records = session.journal.all()
        session.journal.write_tables(records)
        board.ended(record, records, session.tuner.clock.left)
        if logs:
            log_trial(logs, record, session.objective)

    board = Board(sys.stdout, OBJECTIVES[settings.objective])
    with board:
        session = open_session(
            space, settings, folder.path, progress=board, on_end=on_end
        )
        records = session.journal.all()
        done = sum(record.ended for record in records)
        board.begun(space, session.total, done, str(folder.path))
        try:
            run(session, on_end)
        except Interrupted as stopped:
            done = sum(record.ended for record in session.journal.all())
            raise Interrupted(
                f"{stopped}: {done} trials are done; the same command goes on: "
                f"{shlex.join(['kcnn', *sys.argv[1:]])}",
                stopped.exit_status - 128,
            ) from None
    return session


def _check(session: Session) -> None:
    """Raise UsageError if nothing can be run, RunError if no trial came to its end."""
    from tuning.journal import ranked

    records = session.journal.all()
    session.journal.write_tables(records)
    if not records and session.oracle.last_refusal:
        raise UsageError(
            "no combination of the space can be run; the last that was looked at: "
            f"{session.oracle.last_refusal}"
        )
    if not ranked(records, session.objective):
        reasons = [record.reason for record in records if record.reason]
        last = f"; the last: {reasons[-1]}" if reasons else ""
        raise RunError(f"none of {len(records)} trials came to its end{last}")


def _finish(session: Session, folder: Folder, best: int, seeds: int) -> None:
    """Train the best again and test it, if so asked; write the result and the page."""
    from kcnn.files import write_json
    from kcnn.scheduler import Board
    from tuning.final import train_command
    from tuning.journal import ranked
    from tuning.report import write_report

    records = session.journal.all()
    order = ranked(records, session.objective)
    recipes = {
        "tuned" if best == 1 else f"tuned {i}": record
        for i, record in enumerate(order[:best], start=1)
    }
    board = Board(sys.stdout)
    if session.oracle.refused:
        board.note("left out", f"{session.oracle.refused} combinations: cannot be run")
    winner, result = order[0], {}
    if recipes:
        result = _train_again(session, folder, recipes, seeds, board)
        winner = recipes[result["winner"]]
    command = train_command(session.tuner.trainer.config(winner))
    result |= {"trial": winner.number, "command": command}
    write_json(folder.result, result)
    page = write_report(folder, records, session.space, session.objective, result)
    board.note("best", f"trial {winner.number}: {winner.told}")
    board.note("", command)
    board.note("table", str(folder.path / "trials.csv"))
    board.note("page", str(page))


def _train_again(
    session: Session,
    folder: Folder,
    recipes: dict[str, Record],
    seeds: int,
    board: Board,
) -> dict[str, Any]:
    """Train and test the tuned recipes and the untuned one; print what it shows."""
    from kcnn import comparison
    from kcnn.sweep_runner import SweepRunner
    from tuning.final import UNTUNED, conclude, plan

    baseline = session.space.baseline
    trainer = session.tuner.trainer
    first = baseline.random_seed + session.settings.executions  # none of the search's
    configs = {UNTUNED: baseline}
    configs |= {name: trainer.config(record) for name, record in recipes.items()}
    planned = plan(configs, range(first, first + seeds))
    runner = SweepRunner(folder.retrained, "kcnn tune", overwrite=True)
    board.line("")
    board.note("again", f"the best and the untuned recipe, {seeds} new seeds, tested")
    about = {"recipes": {name: c.to_dict() for name, c in configs.items()}}
    record = runner.run(planned, about, board, {})
    searched = {name: r.score or 0.0 for name, r in recipes.items()}
    result = conclude(record, searched, session.objective)
    for images, compared in result["compared"].items():
        board.line("")
        board.line(f"trained on {images}:")
        for line in comparison.FORMS["table"](compared).splitlines():
            board.line(line)
    board.line("")
    show = session.objective.show
    for name, figures in result["optimism"].items():
        board.note(
            "optimism",
            f"{name}: {show(figures['search'])} in the search, "
            f"{show(figures['validation'])} on validation and {show(figures['test'])} "
            "on test images with new seeds",
        )
    for note in result["notes"]:
        board.note("", note)
    return result
