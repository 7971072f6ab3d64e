"""How soon `kcnn train` takes its first step, beside what it cannot do without.

    python benchmarks/startup.py [--rounds=5] [--experiment=mnist-99]
        [--output=FILE.json]

In turn, each in a process of its own, from its start on:

    imports     TensorFlow and Keras are imported, as any script imports them
    tfds        the same, and MNIST is read as tensorflow-datasets documents it
    load        the same, and MNIST is read by kcnn.datasets
    first step  `kcnn train`, until the first step begins: its start_seconds
    command     `kcnn train`, to its end: plots, page, and an export that is proved

Prints medians and ranges, and the median of the ratios of `first step` to `load`
and to `tfds`.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from kcnn import runtime
from kcnn.errors import run_program
from kcnn.experiments import settings_of
from kcnn.files import write_json
from kcnn.run import Run
from kcnn.table import render

IMPORTS = "import os, tensorflow, keras"
END = "os._exit(0)"  # at once: a first step does not wait for its process's end either

TFDS = f"""{IMPORTS}
import numpy
import tensorflow_datasets as tfds
for split in tfds.load("DATASET", split=["train", "test"], as_supervised=True):
    images, labels = zip(*tfds.as_numpy(split))
    numpy.stack(images), numpy.array(labels)
{END}
"""

LOAD = f"""{IMPORTS}
from kcnn import datasets
from kcnn.config import Config
from kcnn.experiments import settings_of
datasets.load(Config.from_dict(settings_of("EXPERIMENT")))
{END}
"""


def seconds_of(command: list[str]) -> float:
    """Run a command and return how long it took."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began


def round_of(experiment: str, folder: pathlib.Path) -> dict[str, float]:
    """Run each once; return their seconds."""
    dataset = str(settings_of(experiment)["dataset"])
    found = {
        name: seconds_of([sys.executable, "-c", code])
        for name, code in (
            ("imports", f"{IMPORTS}\n{END}"),
            ("tfds", TFDS.replace("DATASET", dataset)),
            ("load", LOAD.replace("EXPERIMENT", experiment)),
        )
    }
    command = [sys.executable, "-m", "kcnn", "train", f"--experiment={experiment}"]
    command += [f"--model_dir={folder / 'run'}", f"--export_dir={folder / 'export'}"]
    whole = seconds_of([*command, "--overwrite"])
    timing = Run(folder / "run").read_evaluation()["timing"]
    return {**found, "first step": timing["start_seconds"], "command": whole}


def main() -> None:
    """Measure some rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--experiment", default="mnist-99")
    parser.add_argument("--output", help="JSON file for all figures")
    given = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.rounds):
            rounds.append(round_of(given.experiment, pathlib.Path(scratch)))
            shown = (f"{k} {v:.2f} s" for k, v in rounds[-1].items())
            print(f"round {number + 1}: {', '.join(shown)}", flush=True)
    print(render([row(name, rounds) for name in rounds[0]], "table"))
    for other in ("load", "tfds"):
        ratios = [one["first step"] / one[other] for one in rounds]
        print(f"first step / {other}: {statistics.median(ratios):.2f} {_range(ratios)}")
    runtime.start_tensorflow()  # not before: what it sets, children would have too
    hardware = runtime.hardware()
    print(f"{hardware['processor']}, {hardware['cores']} cores")
    if given.output:
        write_json(pathlib.Path(given.output), {"hardware": hardware, "rounds": rounds})


def row(name: str, rounds: list[dict[str, float]]) -> dict[str, str]:
    """Return a row of the table."""
    values = [one[name] for one in rounds]
    return {
        "what": name,
        "median": f"{statistics.median(values):.2f} s",
        "range": _range(values),
    }


def _range(values: list[float]) -> str:
    return f"({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    run_program(main)
