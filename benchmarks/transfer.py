"""Does it help to start from a trained run where there are few images?

    python benchmarks/transfer.py [--sizes=50,200] [--seeds=3]

A convnet is trained on 5,000 images of the digits 0 to 4 of MNIST. Then, for each
number of training images of the digits 5 to 9, three are trained on the same images in
as many steps, 100 or so: from fresh weights, from those of the first (--init_from), and
from those with all layers but the head frozen (--freeze). All are tested on all test
images of 5 to 9. A random seed has a first model of its own: two seeds share the test
images and nothing else.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import statistics
import tempfile
from typing import Any

import numpy as np

from kcnn import runtime
from kcnn.batches import nearest_epochs
from kcnn.config import Config
from kcnn.errors import run_program
from kcnn.run import Run
from kcnn.table import render

_STEPS = 100
_BATCH = 16
_BEFORE_HEAD = 4  # layers of convnet with weights: two convolutions, two batch norms


def write_halves(folder: pathlib.Path) -> None:
    """Write the digits 0 to 4 and 5 to 9 of MNIST as low.npz and high.npz."""
    from kcnn import datasets, pipeline

    data = datasets.load(Config(dataset="mnist", validation_fraction=0.0))
    arrays = {}
    for name, split in (("train", data.train), ("test", data.test)):
        images = pipeline.images_at(split, np.arange(len(split)))
        for half, first in (("low", 0), ("high", 5)):
            chosen = (split.labels >= first) & (split.labels < first + 5)
            own = arrays.setdefault(half, {})
            own |= {
                f"x_{name}": images[chosen],
                f"y_{name}": split.labels[chosen] - first,
            }
            own["class_names"] = np.array([str(first + i) for i in range(5)])
    for half, own in arrays.items():
        np.savez(folder / f"{half}.npz", **own)


def accuracy(folder: pathlib.Path, data: str, name: str, **settings: Any) -> float:
    """Train a run as kcnn train does and return its test accuracy."""
    from kcnn import trainer
    from kcnn.progress import Progress

    config = Config(dataset=f"npz:{folder / data}.npz", model="convnet", **settings)
    about = {"command": "", "experiment": None, "reported": None, "export_base": ""}
    with Progress(io.StringIO()) as progress:
        trained = trainer.train(config, Run(folder / name), progress, about=about)
    return trained.evaluation["test"]["accuracy"]


def starts(source: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the settings of each way to start."""
    transfer = {"init_from": str(source)}
    frozen = transfer | {"freeze": _BEFORE_HEAD}
    return {"fresh": {}, "init_from": transfer, f"freeze={_BEFORE_HEAD}": frozen}


def measure(folder: pathlib.Path, sizes: list[int], seeds: int) -> list[dict]:
    """Return a row a number of images and way to start."""
    found: dict[tuple[int, str], list[float]] = {}
    for seed in range(seeds):
        first = {"epochs": 2, "train_size": 5000, "random_seed": seed}
        accuracy(folder, "low", f"low-{seed}", **first)
        for size in sizes:
            common = {
                "train_size": size,
                "batch_size": _BATCH,
                "epochs": nearest_epochs(_STEPS, size, _BATCH),
                "validation_fraction": 0.0,
                "random_seed": seed,
            }
            for name, own in starts(folder / f"low-{seed}").items():
                run = f"{size}-{name}-{seed}"
                got = accuracy(folder, "high", run, **common, **own)
                found.setdefault((size, name), []).append(got)
    return [
        {
            "images": size,
            "start": name,
            "n": len(values),
            "accuracy": f"{statistics.mean(values):.2%}",
            "deviation": f"{statistics.stdev(values):.2%}" if values[1:] else "",
            "lowest": f"{min(values):.2%}",
            "highest": f"{max(values):.2%}",
        }
        for (size, name), values in found.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="50,200")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    runtime.start_tensorflow()
    sizes = [int(size) for size in given.sizes.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_halves(folder)
        print(render(measure(folder, sizes, given.seeds), "table"))


if __name__ == "__main__":
    run_program(main)
