"""What a search is worth: each of keras-tuner's ways, some seeds, the same time.

    TFDS_DATA_DIR=... python -m benchmarks.tuners --folder=FOLDER [--at_once=2]
        [--seeds=0,1,2] [--time_budget=15m] [--KNOB=DOMAIN ...]

Every search is a `kcnn tune` of the model tutorial on 5,000 training images of MNIST,
in a process of its own: its space, the shifts of --translate among it, for the given
time. Then the command that each search ends with, and that of the untuned recipe, is
run with five new random seeds, the same for all. What is printed is the paired
comparison of their test accuracies, with Holm's correction over the searches, and not
the score of the search. --at_once processes run side by side, each on its own part of
the processor's cores. The same command goes on with a benchmark that was stopped.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import queue
import shlex
import statistics
import subprocess
import sys
from typing import Any

from kcnn import runtime
from kcnn.errors import run_program
from kcnn.files import write_json
from kcnn.run import Run
from kcnn.statistics import holm, paired_test
from kcnn.table import render
from tuning.final import UNTUNED
from tuning.journal import Journal, ranked
from tuning.objective import OBJECTIVES

TUNERS = {
    "random": [],
    "bayesian": [],
    "hyperband": ["--hyperband_iterations=1000"],  # until the time is over
}
WORK = {
    "dataset": "mnist",
    "model": "tutorial",
    "train_size": "5000",
    "epochs": "8",
}
SEARCHED = {"translate": "0,0.05,0.1"}  # besides the model's own space
NEW_SEEDS = range(100, 105)

Accuracies = dict[int, float]  # by random seed


def flags_of(values: dict[str, str]) -> list[str]:
    """Return values as flags."""
    return [f"--{name}={value}" for name, value in values.items()]


class Bench:
    """Runs kcnn's commands on parts of the processor.

    Args:
        folder: where all files go; what is there already is not run again.
        at_once: commands side by side.
    """

    def __init__(self, folder: pathlib.Path, at_once: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._shares: queue.Queue[set[int]] = queue.Queue()
        self._pool = concurrent.futures.ThreadPoolExecutor(at_once)
        cores = sorted(os.sched_getaffinity(0))
        for i in range(at_once):
            self._shares.put(set(cores[i::at_once]))

    def search(self, tuner: str, seed: int, flags: list[str]) -> dict[str, Any]:
        """Search, and return what came of it."""
        own = self._folder / f"{tuner}-{seed}"
        if not (own / "result.json").exists():
            command = ["tune", *flags, *TUNERS[tuner], "--best=0"]
            self._run(own, [*command, f"--tuner={tuner}", f"--random_seed={seed}"])
        records = [record for record in Journal(own).all() if record.ended]
        best = ranked(records, OBJECTIVES["accuracy"])[0]
        return {
            "tuner": tuner,
            "random_seed": seed,
            "statuses": collections.Counter(record.status for record in records),
            "score": best.score,
            "command": json.loads((own / "result.json").read_text())["command"],
        }

    def train(self, name: str, command: list[str], seed: int) -> float:
        """Train with another seed, and return the accuracy on the test images."""
        own = self._folder / f"{name},random_seed={seed}"
        if not (own / "evaluation.json").exists():
            rest = [flag for flag in command if not flag.startswith("--random_seed=")]
            self._run(own, ["train", *rest, f"--random_seed={seed}", "--overwrite"])
        return float(Run(own).read_evaluation()["test"]["accuracy"])

    def _run(self, own: pathlib.Path, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "kcnn", *arguments, f"--model_dir={own}"]
        cores = self._shares.get()
        try:
            with own.with_name(f"{own.name}.log").open("a") as log:
                started = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=lambda: os.sched_setaffinity(0, cores),
                )
                if started.wait() != 0:
                    raise SystemExit(f"{log.name}: exit status {started.returncode}")
        finally:
            self._shares.put(cores)

    def search_all(self, seeds: list[int], flags: list[str]) -> list[dict[str, Any]]:
        """Run every tuner with every seed."""
        jobs = [
            self._pool.submit(self.search, tuner, seed, flags)
            for seed in seeds
            for tuner in TUNERS
        ]
        return [job.result() for job in jobs]

    def train_all(self, commands: dict[str, list[str]]) -> dict[str, Accuracies]:
        """Run every command with every new seed."""
        jobs = {
            (name, seed): self._pool.submit(self.train, name, command, seed)
            for seed in NEW_SEEDS
            for name, command in commands.items()
        }
        return {
            name: {seed: jobs[name, seed].result() for seed in NEW_SEEDS}
            for name in commands
        }


def judge(searches: list[dict[str, Any]], tested: dict[str, Accuracies]) -> None:
    """Add to each search the comparison of its recipe with the untuned one."""
    tests = {}
    for one in searches:
        name = f"tuned,{one['tuner']}-{one['random_seed']}"
        test = tests[name] = paired_test(tested[name], tested[UNTUNED])
        one |= {
            "tested": tested[name],
            "mean": statistics.fmean(tested[name].values()),
            "difference": test.difference,
            "interval": test.interval,
            "p": test.p,
        }
    adjusted = holm({name: test.p for name, test in tests.items()})
    for one, p in zip(searches, adjusted.values(), strict=True):
        one["holm_p"] = p


def row(one: dict[str, Any]) -> dict[str, str]:
    """Return a search's row of the table."""
    low, high = one["interval"]
    return {
        "tuner": one["tuner"],
        "seed": str(one["random_seed"]),
        "trials": f"{sum(one['statuses'].values())}",
        "best score": f"{one['score']:.2%}",
        "tested": f"{one['mean']:.2%}",
        "better by": f"{100 * one['difference']:.2f} points",
        "95% interval": f"{100 * low:.2f} to {100 * high:.2f}",
        "p (Holm)": f"{one['holm_p']:.2g}",
    }


def summary(tuner: str, searches: list[dict[str, Any]]) -> dict[str, str]:
    """Return a tuner's row: means over its searches, and their deviation."""
    means = [one["mean"] for one in searches]
    trials = statistics.fmean(sum(one["statuses"].values()) for one in searches)
    return {
        "tuner": tuner,
        "searches": str(len(means)),
        "trials": f"{trials:.0f}",
        "tested": f"{statistics.fmean(means):.2%}",
        "deviation": f"{statistics.stdev(means):.2%}" if means[1:] else "",
        "lowest": f"{min(means):.2%}",
    }


def main() -> None:
    """Run every search and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--time_budget", default="15m")
    parser.add_argument("--at_once", type=int, default=1)
    given, more = parser.parse_known_args()
    bench = Bench(given.folder, given.at_once)
    flags = [*flags_of(WORK), *flags_of(SEARCHED), *more]
    flags.append(f"--time_budget={given.time_budget}")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    searches = bench.search_all(seeds, flags)
    commands = {UNTUNED: flags_of(WORK)} | {
        f"tuned,{one['tuner']}-{one['random_seed']}": shlex.split(one["command"])[2:]
        for one in searches
    }
    tested = bench.train_all(commands)
    judge(searches, tested)
    print(render([row(one) for one in searches], "markdown"))
    print()
    by = {t: [one for one in searches if one["tuner"] == t] for t in TUNERS}
    print(render([summary(name, own) for name, own in by.items()], "markdown"))
    found = tested[UNTUNED].values()
    print(f"\nuntuned: {statistics.fmean(found):.2%}, ", end="")
    print(f"deviation {statistics.stdev(found):.2%}, {len(found)} seeds")
    runtime.start_tensorflow()
    hardware = runtime.hardware()
    cores = hardware["cores"] / given.at_once
    print(f"{hardware['processor']}, {cores:g} cores a search")
    report = {
        "hardware": hardware,
        "versions": runtime.versions(),
        "flags": flags,
        "at_once": given.at_once,
        "untuned": tested[UNTUNED],
        "searches": searches,
    }
    write_json(given.folder / "tuners.json", report)


if __name__ == "__main__":
    run_program(main)
