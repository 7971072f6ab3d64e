"""Run published experiments again, and set what they reported beside what comes out.

Every row is run with its own settings and several random seeds, and where a fault lies
in the settings also without it. Each run is a kcnn train in a folder of its own
under --model_dir; the same command again goes on. Without a group it runs all.
The default random seeds are 0..2; --quick has 0.
"""

from __future__ import annotations

import pathlib
import sys

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.experiments import EXPERIMENTS, matching
from kcnn.knobs import Knob
from kcnn.reproduction import Row, plan_rows
from kcnn.scheduler import Board
from kcnn.sweep_record import SweepRecord
from kcnn.sweep_runner import JOBS, SweepRunner

USAGE = "kcnn reproduce [GROUP|ID|PATTERN ...|all] [--quick] [--cifar10=folder:DIR]"

_SEEDS, _QUICK_SEEDS = (0, 1, 2), (0,)
_PUBLISHED_DATA = ("mnist", "cifar10")

FLAGS = {
    "quick": Knob(
        "reproduce",
        False,
        "at most 5,000 images and 2 epochs, one random seed: shows that all of it "
        "runs, and no more",
        kind=bool,
    ),
    **{
        name: Knob("reproduce", "", f"data set to read in place of {name}: folder:DIR")
        for name in _PUBLISHED_DATA
    },
    "one_seed_above": Knob(
        "reproduce",
        None,
        "seconds; a row that trains longer than this with the first random seed is "
        "not run with the others (default: every row is run with all)",
        low=0,
        kind=float,
    ),
    "model_dir": Knob("reproduce", "runs/reproduction", "folder of the runs"),
    "output": Knob(
        "reproduce",
        "",
        "folder for reproduction.html, .md, .csv and .json (default: --model_dir)",
    ),
    "jobs": JOBS,
}


def define_knobs(values: FlagValues) -> None:
    """Define where data lie, how the machine computes, and several random seeds."""
    flags.define_knobs(values, ["data_dir", *flags.in_sections("machine")])
    flags.define_knobs_of_many(values, ["random_seed"])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Run what is missing, and write the pages."""
    everything = arguments in ([], ["all"])
    names = list(EXPERIMENTS) if everything else matching(arguments, EXPERIMENTS)
    quick = bool(values.quick)
    given = flags.knobs_given(values)
    seeds = given.pop("random_seed", _QUICK_SEEDS if quick else _SEEDS)
    instead = {
        name: str(values[name].value)
        for name in _PUBLISHED_DATA
        if values[name].value is not None
    }
    data = _data(names, instead)
    _check_reachable(data, given.get("data_dir", ""))
    folder = pathlib.Path(flags.value_of(values, "model_dir", FLAGS))
    runner = SweepRunner(folder, "kcnn reproduce", jobs=values.jobs)
    if not any(EXPERIMENTS[name].can_be_run for name in names):
        row = EXPERIMENTS[names[0]]
        raise UsageError(f"{names[0]} is no training run but {row.stands_for}")
    about = {"quick": quick, "random_seeds": seeds, "data": data}
    board = Board(sys.stdout)

    def run(seeds: dict[str, tuple[int, ...]]) -> tuple[list[Row], SweepRecord]:
        rows, runs = plan_rows(seeds, given, instead, quick)
        return rows, runner.run(runs, about, board, {})

    if values.one_seed_above is None:
        rows, record = run(dict.fromkeys(names, seeds))
    else:
        rows, record = run(dict.fromkeys(names, seeds[:1]))
        long = _long(rows, record, values.one_seed_above)
        rows, record = run({n: seeds[:1] if n in long else seeds for n in names})

    from kcnn import reproduction_page
    from kcnn.reproduction_results import results

    result = results(rows, record, record.about)
    page = reproduction_page.write(result, pathlib.Path(values.output or folder))
    board.line("")
    board.note("result", reproduction_page.headline(result))
    board.note("page", str(page))
    board.failures(record)
    record.raise_failures()


def _data(names: list[str], instead: dict[str, str]) -> dict[str, str]:
    """Return the data set that is read for each one that was published."""
    published = dict.fromkeys(EXPERIMENTS[n].settings["dataset"] for n in names)
    for name in instead.keys() - published:
        raise UsageError(f"--{name} changes nothing: no row asked for is of {name}")
    return {name: instead.get(name, name) for name in published}


def _long(rows: list[Row], record: SweepRecord, seconds: float) -> set[str]:
    """Return the rows, each run once, that took longer to train."""
    took = {o.planned.name: o.train_seconds or 0.0 for o in record.outcomes}
    return {
        row.name
        for row in rows
        for runs in row.runs.values()
        if sum(took[name] for name in runs) > seconds
    }


def _check_reachable(data: dict[str, str], data_dir: str) -> None:
    """Raise UsageError for a data set that no run could read."""
    from kcnn.catalog import prepared_builder

    for name, read in data.items():
        kind, _, place = read.partition(":")
        if kind in ("folder", "npz"):
            if not pathlib.Path(place).exists():
                raise UsageError(f"--{name}: {place}: no such file or folder")
            continue
        if kind == "digits":
            continue
        try:
            prepared_builder(Config(dataset=read, data_dir=data_dir))
        except UsageError as error:
            raise UsageError(
                f"{error}; --{name}=folder:DIR reads a folder in its place"
            ) from None
