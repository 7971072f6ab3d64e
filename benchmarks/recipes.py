"""What the recipes reach: test accuracy over fresh random seeds, and the seconds.

    python benchmarks/recipes.py [NAME ...] [--seeds=10] [--first_seed=0]
        [--one_process] [--output=FILE.json] [--dataset=... and other knobs]

Every run is a `kcnn train --experiment=NAME` in a process of its own, from import to
exported model, one after the other. `steps` are the seconds of training without the
first call, in which TensorFlow traces the graph (`tracing`); `command` is the whole
process. Medians of the seconds, with their range; the deviation of the accuracy is
that between seeds.

With --one_process all run in this one: on a GPU XLA then tries its kernels out once.
`command` is what each run adds. With --validation_fraction=0.1 the accuracy on
validation images stands in the JSON file too, for choosing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from kcnn import cli, runtime
from kcnn.experiments import RECIPES
from kcnn.files import write_json
from kcnn.run import Run
from kcnn.statistics import summarize
from kcnn.table import render


def run_once(
    name: str, seed: int, folder: pathlib.Path, more: list[str], one_process: bool
) -> dict:
    """Train once; return accuracy, parameters and seconds."""
    arguments = ["train", f"--experiment={name}", *more]
    arguments += [f"--random_seed={seed}", f"--model_dir={folder / 'run'}"]
    arguments += [f"--export_dir={folder / 'export'}", "--overwrite"]
    began = time.perf_counter()
    if one_process:
        status = _run_here(arguments)
    else:
        command = [sys.executable, "-m", "kcnn", *arguments]
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status:  # it has said why
        sys.exit(status)
    took = time.perf_counter() - began
    run = Run(folder / "run")
    result = run.read_evaluation()
    timing = result["timing"]
    return {
        "random_seed": seed,
        "accuracy": result["test"]["accuracy"],
        "validation_accuracy": (result["validation"] or {}).get("accuracy"),
        "parameters": run.read_config()["model"]["parameters"],
        "steps": timing["train_seconds"] - timing["first_step_seconds"],
        "tracing": timing["first_step_seconds"],
        "command": took,
    }


def _run_here(arguments: list[str]) -> int:
    """Run a kcnn command in this process, unheard; return its exit status."""
    own, sys.argv = sys.argv, ["kcnn", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return cli.main()
    finally:
        sys.argv = own


def main() -> None:
    """Run every recipe with every seed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--one_process", action="store_true")
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
            found[name] = [
                run_once(name, seed, folder, more, given.one_process) for seed in seeds
            ]
        rows.append(row(name, found[name]))
        print(render(rows[-1:], "table"), flush=True)
    if rows[1:]:
        print(render(rows, "table"))
    runtime.start_tensorflow()
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
        "deviation": "-" if accuracy.deviation is None else f"{accuracy.deviation:.2%}",
        "lowest": f"{min(run['accuracy'] for run in runs):.2%}",
        "parameters": f"{runs[0]['parameters']:,}",
        **{key: _seconds(runs, key) for key in ("steps", "tracing", "command")},
    }


def _seconds(runs: list[dict], key: str) -> str:
    values = [run[key] for run in runs]
    middle, low, high = map(
        _three_digits, (statistics.median(values), min(values), max(values))
    )
    return f"{middle} s" if len(runs) == 1 else f"{middle} s ({low} to {high})"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
