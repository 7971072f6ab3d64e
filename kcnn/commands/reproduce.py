"""Run published experiments again, and set what they reported beside what comes out.

Every row is run with its own settings and several random seeds, and where a fault lies
in the settings also without it. Each run is a kcnn train in a folder of its own
under --model_dir; the same command again goes on. Without a group it runs all.
"""

from __future__ import annotations

import pathlib
import sys

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import KNOBS, Config
from kcnn.errors import RunError, UsageError
from kcnn.experiments import EXPERIMENTS, matching
from kcnn.knobs import Knob, parse_values
from kcnn.reproduction import Row, plan_rows
from kcnn.scheduler import Board
from kcnn.sweep_record import SweepRecord
from kcnn.sweep_runner import SweepRunner

USAGE = "kcnn reproduce [GROUP|ID|PATTERN ...|all] [--quick] [--cifar10=folder:DIR]"

_SEEDS = "0..2"
_PUBLISHED_DATA = ("mnist", "cifar10")

FLAGS = {
    "quick": Knob(
        "reproduce",
        False,
        "at most 5,000 images, 2 epochs and one random seed: shows that all of it "
        "runs, and no more",
        kind=bool,
    ),
    **{
        name: Knob("reproduce", "", f"data set to read in place of {name}: folder:DIR")
        for name in _PUBLISHED_DATA
    },
    "random_seed": Knob(
        "reproduce", "", f"random seeds of every row (default: {_SEEDS}; quick: 0)"
    ),
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
    "jobs": Knob(
        "reproduce",
        None,
        "runs at a time (default: one for every two cores and 2 GiB of available "
        "memory; one where there is a GPU)",
        low=1,
        high=1024,
        kind=int,
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define the knobs that say where data lie and how the machine computes."""
    names = flags.in_sections("machine")
    flags.define_knobs(values, ["data_dir", *names])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Run what is missing, and write the pages."""
    everything = arguments in ([], ["all"])
    names = list(EXPERIMENTS) if everything else matching(arguments)
    quick = bool(values.quick)
    seeds = _seeds(values.random_seed or ("0" if quick else _SEEDS))
    given = flags.knobs_given(values)
    given.pop("random_seed", None)
    instead = {
        name: str(values[name].value)
        for name in _PUBLISHED_DATA
        if values[name].value is not None
    }
    data = _data(names, instead)
    _check_reachable(data, given.get("data_dir", ""))
    folder = pathlib.Path(values.model_dir or FLAGS["model_dir"].default)
    runner = SweepRunner(folder, jobs=values.jobs)
    about = {"quick": quick, "random_seeds": seeds, "data": data}
    board = Board(sys.stdout)

    def run(seeds: dict[str, list[int]]) -> tuple[list[Row], SweepRecord]:
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
    failed = [outcome for outcome in record.outcomes if outcome.status == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(record.outcomes)} runs failed, the first of them "
            f"{failed[0].planned.name}: {failed[0].reason}"
        )


def _seeds(text: str) -> list[int]:
    try:
        return list(parse_values(KNOBS["random_seed"], text))
    except ValueError as error:
        raise UsageError(f"--random_seed: {error}") from None


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
