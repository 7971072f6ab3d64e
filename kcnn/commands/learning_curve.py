"""Train with ever more images; say what twice the data would bring.

For every size and random seed a kcnn train in a process of its own, with fresh weights
and a stratified subset that lies in that seed's larger ones. The same command again
goes on. No images are set aside for validation, as nothing is decided by them, unless
--validation_fraction or a knob that needs them (--early_stopping, --keep=best,
--calibrate, --reject) asks for it; sizes are counted after that.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl.flags import FlagValues

from kcnn import flags, learning_curve
from kcnn.batches import steps_per_epoch
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.scheduler import Board
from kcnn.sweep import PlannedRun
from kcnn.sweep_record import SweepRecord
from kcnn.sweep_runner import JOBS, OVERWRITE, SweepRunner
from kcnn.table import render

USAGE = "kcnn learning-curve --model_dir=DIR [--sizes=100,1000,all] [--KNOB=VALUE ...]"

FLAGS = {
    "model_dir": Knob("curve", "", "folder of the result, with one folder a run"),
    "sizes": Knob(
        "curve",
        learning_curve.SIZES,
        "numbers of training images, all for as many as there are; the default leaves "
        "out what is larger than that",
    ),
    "equal": Knob(
        "curve",
        "steps",
        "what all sizes have in common: steps, those of the largest in --epochs, to "
        "whole epochs (warmup_epochs and step_epochs follow), so that only the data "
        "differ, but each size costs as much as the largest; or epochs, which is "
        "cheap, but the few steps of small sets leave them under-trained",
        choices=("steps", "epochs"),
    ),
    "jobs": JOBS,
    "overwrite": OVERWRITE,
}

_SEEDS = (0, 1, 2)


def define_knobs(values: FlagValues) -> None:
    """Define all knobs but train_size; random_seed takes several values."""
    own = ("train_size", "random_seed")
    flags.define_knobs(values, [name for name in KNOBS if name not in own])
    flags.define_knobs_of_many(values, ["random_seed"])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Run every size with every seed, and write what came of it."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    if not values.model_dir:
        raise UsageError("--model_dir: say where the runs go: --model_dir=runs/NAME")
    given = flags.knobs_given(values)
    seeds = given.pop("random_seed", _SEEDS)
    equal = flags.value_of(values, "equal", FLAGS)
    if not Config.from_dict(given).needs_validation:
        given.setdefault("validation_fraction", 0.0)
    available = learning_curve.count_training_images(Config.from_dict(given))
    sizes, left_out = learning_curve.sizes_of(
        values.sizes or learning_curve.SIZES, available, asked=bool(values.sizes)
    )
    planned = learning_curve.plan(given, sizes, seeds, equal)
    runner = SweepRunner(
        pathlib.Path(values.model_dir),
        "kcnn learning-curve",
        overwrite=bool(values.overwrite),
        jobs=values.jobs,
    )
    board = Board(sys.stdout)
    notes = {
        "sizes": f"{', '.join(f'{n:,}' for n in sizes)} of {available:,} images",
    }
    if left_out:
        notes["left out"] = f"{left_out}: more than there are"
    notes["training"] = _training(planned)
    record = runner.run(planned, {"given": given}, board, notes)
    _conclude(board, record, equal)


def _training(planned: Sequence[PlannedRun]) -> str:
    """Say what the smallest and the largest size are trained for."""
    parts = []
    for one in (planned[0], planned[-1]):
        n, config = one.swept["train_size"], one.config
        steps = config.epochs * steps_per_epoch(n, config.batch_size)
        parts.append(f"{n:,} images {config.epochs:,} epochs, {steps:,} steps")
    return "; ".join(dict.fromkeys(parts))


def _conclude(board: Board, record: SweepRecord, equal: str) -> None:
    result = learning_curve.learning_curve(record, equal)
    page = _write(record, result)
    table = render(learning_curve.rows(result), "table", right=_RIGHT)
    board.line("")
    for line in (*table.splitlines(), "", result["sentence"]):
        board.line(line)
    board.note("page", str(page))
    board.failures(record)
    record.raise_failures()


_RIGHT = ("size", "train accuracy", "test accuracy", "deviation", "epochs", "steps")


def _write(record: SweepRecord, result: Mapping[str, Any]) -> pathlib.Path:
    """Write the result in all its forms; return the page."""
    from kcnn import learning_curve_plot, pages
    from kcnn.files import write_csv, write_json, write_text

    folder = record.folder
    write_json(folder / "learning_curve.json", result)
    write_csv(folder / "learning_curve.csv", learning_curve.records(result))
    plot = folder / "learning_curve.png"
    learning_curve_plot.accuracy_by_size(result, plot)
    law = result["power_law"]
    page = folder / "learning_curve.html"
    note = next(o for o in record.outcomes if o.status == "done").run.read_config()
    facts = {
        "curve": result,
        "law": law,
        "formula": law and learning_curve.law_text(law),
        "runs": record.count("done"),
        "failed": record.failed,
        "plot": pages.embedded(plot),
        "facts": _facts(note),
    }
    write_text(page, pages.render("learning_curve.html", facts))
    return page


def _facts(note: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader needs to repeat it, from a run's config.json."""
    hardware, precision = note["hardware"], note["precision"]
    gpus = ", ".join(hardware["gpus"])
    return [
        ("test images", f"{note['data']['test']:,}"),
        ("processor", f"{hardware['processor']}, {hardware['cores']} cores"),
        ("GPU", gpus or "none"),
        ("precision", f"{precision['policy']}: {precision['reason']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in note["versions"].items())),
        ("commit", note["commit"] or "unknown"),
    ]
