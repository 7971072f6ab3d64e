"""Does training on image files keep up with training on arrays in memory?

    python benchmarks/folder.py DIR [--model=lenet] [--epochs=4] [--rounds=3]

DIR holds train/ and test/ with a folder for each class. The same pixels are written as
an npz file; `kcnn train` runs on the folder and on the arrays in turn, `rounds` times,
in processes of their own. Images/s are the median of the epochs after the first, in
which graphs are built.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from kcnn import runtime
from kcnn.config import Config
from kcnn.errors import run_program
from kcnn.run import Run, read_rows
from kcnn.table import render


def write_arrays(folder: str, path: pathlib.Path) -> int:
    """Write the pixels of a folder as npz; return how many images are trained."""
    runtime.start_tensorflow()
    from kcnn import datasets, pipeline

    data = datasets.load(Config(dataset=f"folder:{folder}", validation_fraction=0.0))
    arrays = {}
    for name, split in (("train", data.train), ("test", data.test)):
        arrays[f"x_{name}"] = pipeline.images_at(split, np.arange(len(split)))
        arrays[f"y_{name}"] = split.labels
    np.savez(path, **arrays)
    return len(data.train)


def seconds_of(
    dataset: str, place: pathlib.Path, model: str, epochs: int
) -> list[float]:
    """Train once; return the seconds of each epoch."""
    command = [sys.executable, "-m", "kcnn", "train", f"--dataset={dataset}"]
    command += [f"--model={model}", f"--epochs={epochs}", "--validation_fraction=0"]
    command += ["--export_dir=", "--overwrite", f"--model_dir={place}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [row["seconds"] for row in read_rows(Run(place).metrics)]


def main() -> None:
    """Run both sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        arrays = pathlib.Path(scratch, "arrays.npz")
        images = write_arrays(given.folder, arrays)
        sides = {"folder": f"folder:{given.folder}", "arrays": f"npz:{arrays}"}
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(given.rounds):
            for side, dataset in sides.items():
                place = pathlib.Path(scratch, "run")
                took = seconds_of(dataset, place, given.model, given.epochs)
                speeds[side].append(images / statistics.median(took[1:]))
    rows = [
        {
            "side": side,
            "images/s, median": f"{statistics.median(found):,.0f}",
            "range": f"{min(found):,.0f} to {max(found):,.0f}",
        }
        for side, found in speeds.items()
    ]
    ratios = [a / b for a, b in zip(speeds["folder"], speeds["arrays"], strict=True)]
    print(f"{given.model}, {images:,} images, {given.epochs} epochs a run")
    print(render(rows, "table"))
    print(
        f"folder over arrays, by round: median {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    run_program(main)
