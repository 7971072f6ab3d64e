"""What the recipes reach: test accuracy over fresh random seeds, and the seconds.

    python benchmarks/recipes.py [NAME ...] [--seeds=10] [--dataset=...]
        [--output=FILE.json]

Every run is a `kcnn train --experiment=NAME` in a process of its own, from import to
exported model, one after the other. `steps` are the seconds of training without the
first call, in which TensorFlow traces the graph (`tracing`); `command` is the whole
process. Medians of the seconds, with their range; the deviation of the accuracy is
that between seeds.
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
from kcnn.experiments import RECIPES
from kcnn.files import write_json
from kcnn.run import Run
from kcnn.statistics import summarize
from kcnn.table import render


def run_once(name: str, seed: int, folder: pathlib.Path, more: list[str]) -> dict:
    """Train once; return accuracy, parameters and seconds."""
    command = [sys.executable, "-m", "kcnn", "train", f"--experiment={name}", *more]
    command += [f"--random_seed={seed}", f"--model_dir={folder / 'run'}"]
    command += [f"--export_dir={folder / 'export'}", "--overwrite"]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:  # it has said why
        sys.exit(done.returncode)
    took = time.perf_counter() - began
    run = Run(folder / "run")
    result = run.read_evaluation()
    timing = result["timing"]
    return {
        "random_seed": seed,
        "accuracy": result["test"]["accuracy"],
        "parameters": run.read_config()["model"]["parameters"],
        "steps": timing["train_seconds"] - timing["first_step_seconds"],
        "tracing": timing["first_step_seconds"],
        "command": took,
    }


def main() -> None:
    """Run every recipe with every seed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--output", help="JSON file for all figures")
    given, more = parser.parse_known_args()
    unknown = sorted(set(given.names) - set(RECIPES))
    if unknown:
        parser.error(f"{unknown[0]} is no recipe; there are {', '.join(RECIPES)}")
    found: dict[str, list[dict]] = {}
    rows = []
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for name in given.names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            found[name] = [run_once(name, seed, folder, more) for seed in seeds]
        rows.append(row(name, found[name]))
        print(render(rows[-1:], "table"), flush=True)
    if rows[1:]:
        print(render(rows, "table"))
    hardware = runtime.hardware()
    print(f"{hardware['processor']}, {hardware['cores']} cores")
    if given.output:
        write_json(pathlib.Path(given.output), {"hardware": hardware, "runs": found})


def row(name: str, runs: list[dict]) -> dict[str, object]:
    """Return a recipe's row of the table."""
    accuracy = summarize([run["accuracy"] for run in runs])
    return {
        "recipe": name,
        "n": len(runs),
        "accuracy": f"{accuracy.mean:.2%}",
        "deviation": f"{accuracy.deviation or 0:.2%}",
        "lowest": f"{min(run['accuracy'] for run in runs):.2%}",
        "parameters": f"{runs[0]['parameters']:,}",
        **{key: _seconds(runs, key) for key in ("steps", "tracing", "command")},
    }


def _seconds(runs: list[dict], key: str) -> str:
    values = [run[key] for run in runs]
    return f"{statistics.median(values):.3g} s ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
