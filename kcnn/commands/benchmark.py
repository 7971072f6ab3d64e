"""Measure kcnn beside a stock Keras script and PyTorch, on this machine.

Every side is a process of its own and is given the same images, batches of 128,
optimizer (Adadelta, rate 1) and epochs, in turn, a random seed a round; kcnn
also with --towers=1, each batch computed as a whole. Images/s leave out the first
epoch, in which graphs are built. The roof is the fastest product of two 2048 x 2048
matrices; a training step counts as three times the model's forward FLOP, as is usual:
the backward pass takes about twice the forward one. --time_to measures the accuracy on
the test images after every epoch. That is for this comparison of speed, and never to
choose by.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.benchmark import plan as plans
from kcnn.benchmark.plan import Plan
from kcnn.errors import Interrupted, RunError, UsageError
from kcnn.interruption import stops_with
from kcnn.knobs import Knob
from kcnn.scheduler import Board

USAGE = "kcnn benchmark [--torch_python=PYTHON] [--output=DIR] [--flags]"

FLAGS = {
    "dataset": Knob(
        "benchmark", "mnist", "28x28 grey images of 10 classes, as for kcnn train"
    ),
    "images": Knob(
        "benchmark",
        20_000,
        "training images for images/s; fewer where there are not as many",
        low=plans.BATCH_SIZE,
        high=10_000_000,
        kind=int,
    ),
    "models": Knob(
        "benchmark", ",".join(plans.MODELS), "which are trained for images/s"
    ),
    "rounds": Knob(
        "benchmark", 3, "times that every side runs", low=1, high=1000, kind=int
    ),
    "epochs": Knob(
        "benchmark", 5, "of each run for images/s", low=2, high=1000, kind=int
    ),
    "stock": Knob("benchmark", True, "run the stock Keras script", kind=bool),
    "torch_python": Knob(
        "benchmark",
        "",
        "a Python that has PyTorch and NumPy; without it PyTorch is out",
    ),
    "torch_variants": Knob("benchmark", ",".join(plans.VARIANTS), "how PyTorch runs"),
    "time_to": Knob(
        "benchmark",
        "0.97,0.98,0.99,0.992",
        "test accuracies; the seconds of training until each is reached are measured, "
        "of PyTorch with the variant that is fastest with that model; empty: none",
    ),
    "time_to_model": Knob(
        "benchmark",
        "tutorial",
        f"which model has to reach them; kcnn's recipe {plans.RECIPE}, for "
        f"--dataset={plans.RECIPE_DATASET}, has its own",
        choices=plans.MODELS,
    ),
    "time_to_images": Knob(
        "benchmark",
        60_000,
        "training images for that; fewer where there are not as many",
        low=plans.BATCH_SIZE,
        high=10_000_000,
        kind=int,
    ),
    "time_to_epochs": Knob(
        "benchmark",
        12,
        "epochs at most for that; the scripts stop at the last accuracy",
        low=1,
        high=1000,
        kind=int,
    ),
    "output": Knob(
        "benchmark",
        "",
        "folder for benchmark.json with every raw number, tables as CSV, and plots",
    ),
}


_RECORD = "benchmark.json"
# What else is written -> the figures that it shows.
_TABLES = {"benchmark.csv": "speed", "time_to.csv": "time_to"}
_PICTURES = {"speed.png": "speed", "accuracy.png": "speed", "time_to.png": "time_to"}


def define_knobs(values: FlagValues) -> None:
    """Define what says where the images are."""
    flags.define_knobs(values, ["data_dir"])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Measure round after round, and show what came of it, even if it was stopped."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    plan = _plan(values)
    output = pathlib.Path(values.output) if values.output else None

    from kcnn.benchmark import measure, prepare, sides, text

    board = Board(sys.stdout)
    torch = sides.about_torch(plan.torch_python) if plan.torch_python else None
    if output:
        output.mkdir(parents=True, exist_ok=True)
    with stops_with(lambda: _kept(output)), tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        prepared = prepare.prepare(plan, folder)
        record = _record(plan, prepared, torch)
        _announce(board, plan, record)
        if output:
            _clear(output)
        with _shown(board, record, output):
            for kind, one in measure.measure(plan, prepared, folder):
                record[f"{kind}s"].append(one)
                if output:
                    _write_record(record, output)
                if kind == "round":
                    board.line(text.round_line(one, plan.rounds))
                elif kind == "run":
                    board.line(text.run_line(one))
                else:
                    board.line(f"  {one['reason']}")
    failures = record["failures"]
    if failures:
        more = f", and {len(failures) - 1} more times" if failures[1:] else ""
        raise RunError(f"{failures[0]['reason']}{more}; all else was measured")


def _kept(output: pathlib.Path | None) -> str:
    path = output / _RECORD if output else None
    return f"what was measured is in {path}" if path and path.exists() else ""


def _plan(values: FlagValues) -> Plan:
    def value(name: str) -> Any:
        return flags.value_of(values, name, FLAGS)

    if flags.is_given(values, "torch_variants") and not values.torch_python:
        raise UsageError("--torch_variants changes nothing without --torch_python")
    targets = plans.targets_of(value("time_to"))
    for name in ("time_to_model", "time_to_images", "time_to_epochs"):
        if flags.is_given(values, name) and not targets:
            raise UsageError(f"--{name} changes nothing with an empty --time_to")
    models, of_time = plans.models_of(value("models")), value("time_to_model")
    if targets and values.torch_python and of_time not in models:
        raise UsageError(
            f"--time_to_model: got {of_time}, expected one of --models="
            f"{','.join(models)}, by whose seconds PyTorch's variant is chosen"
        )
    return Plan(
        dataset=value("dataset"),
        data_dir=values.data_dir or "",
        images=value("images"),
        models=models,
        rounds=value("rounds"),
        epochs=value("epochs"),
        stock=value("stock"),
        torch_python=value("torch_python"),
        torch_variants=plans.variants_of(value("torch_variants")),
        targets=targets,
        time_to_model=of_time,
        time_to_images=value("time_to_images"),
        time_to_epochs=value("time_to_epochs"),
    )


def _record(
    plan: Plan, prepared: dict[str, Any], torch: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what benchmark.json holds before anything is measured."""
    now = datetime.datetime.now().astimezone()
    sizes = {
        part: found and {"images": found["images"]}
        for part in ("speed", "time_to")
        for found in [prepared[part]]
    }
    about = (
        *("hardware", "versions", "commit", "precision", "onednn_chosen"),
        *("data", "flop"),
    )
    return {
        "command": shlex.join(["kcnn", *sys.argv[1:]]),
        "started": now.isoformat(timespec="seconds"),
        **{key: prepared[key] for key in about},
        "torch": torch,
        "batch_size": plans.BATCH_SIZE,
        **sizes,
        "targets": list(plan.targets),
        "rounds": [],
        "runs": [],
        "failures": [],
    }


def _announce(board: Board, plan: Plan, record: dict[str, Any]) -> None:
    data, hardware, torch = record["data"], record["hardware"], record["torch"]
    board.note(
        "data",
        f"{data['dataset']}: {record['speed']['images']:,} of {data['available']:,} "
        f"training images for images/s, {data['test']:,} test images",
    )
    for text in data["notes"]:
        board.note("", text)
    device = ", ".join(hardware["gpus"]) or f"{hardware['cores']} cores"
    board.note("machine", f"{hardware['processor']}; {device}")
    precision = record["precision"]
    board.note("kcnn", f"computes in {precision['policy']} ({precision['reason']})")
    if record["onednn_chosen"]:
        board.note("", "and by oneDNN, which TensorFlow leaves off on this processor")
    if plan.stock:
        board.note("Keras", f"{record['versions']['keras']}, stock script: float32")
    if torch:
        board.note("PyTorch", f"{torch['torch']} on {torch['device']}")
    else:
        board.note(
            "PyTorch",
            "left out; --torch_python=PYTHON adds it: a Python of an environment with "
            "torch and numpy",
        )
    if plan.targets:
        board.note(
            "time to",
            f"accuracy: {plan.time_to_model}, {record['time_to']['images']:,} images, "
            f"{plan.time_to_epochs} epochs at most; the test images are read after "
            "every epoch, to compare speed only",
        )


@contextlib.contextmanager
def _shown(
    board: Board, record: dict[str, Any], output: pathlib.Path | None
) -> Iterator[None]:
    """Show what was measured when the block ends, also by a failure or a signal."""
    try:
        yield
    except (Interrupted, RunError):
        if record["runs"]:
            _conclude(board, record, output)
        raise
    _conclude(board, record, output)


def _conclude(
    board: Board, record: dict[str, Any], output: pathlib.Path | None
) -> None:
    from kcnn.benchmark import text
    from kcnn.benchmark.figures import figures

    record["figures"] = figures(record)
    board.line("")
    for line in text.tables(record["figures"], record):
        board.line(line)
    if output:
        board.note("written", ", ".join(map(str, _write(record, output))))


def _clear(output: pathlib.Path) -> None:
    """Remove what an earlier benchmark wrote there, which would stand beside this."""
    for name in (_RECORD, *_TABLES, *_PICTURES):
        (output / name).unlink(missing_ok=True)


def _write_record(record: dict[str, Any], output: pathlib.Path) -> pathlib.Path:
    from kcnn.files import write_json

    path = output / _RECORD
    write_json(path, record)
    return path


def _write(record: dict[str, Any], output: pathlib.Path) -> list[pathlib.Path]:
    """Write everything; return the files."""
    from kcnn.benchmark import plots
    from kcnn.files import write_csv

    written = [_write_record(record, output)]
    for name, part in _TABLES.items():
        if rows := record["figures"][part]:
            write_csv(output / name, rows)
            written.append(output / name)
    for name, part in _PICTURES.items():
        if rows := record["figures"][part]:
            draw = getattr(plots, pathlib.Path(name).stem)
            draw(record, rows, output / name)
            written.append(output / name)
    return written
