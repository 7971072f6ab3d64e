"""What kcnn's input pipeline gives by itself: images/s, and how long a batch takes.

    python benchmarks/input_pipeline.py [--output=FILE]

Random images: as many as MNIST and CIFAR-10 have, in memory, and JPEG files that are
decoded again every epoch (--cache=none). images/s are those of batches that are asked
for one after another, the median over rounds. get-next is what a training step waits
for a batch when the one before was asked for --pause milliseconds ago: time for the
pipeline to be ahead, as it is where a step takes longer than a batch.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from kcnn import runtime
from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.files import write_json
from kcnn.table import render

CLASSES = 10
BATCH_SIZES = (128, 512)
ARRAYS = {"MNIST's size": (60_000, 28, 28, 1), "CIFAR-10's size": (50_000, 32, 32, 3)}
FILES = (4_000, 32, 32, 3)


def main() -> None:
    """Print a row a source and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=100_000, help="in a round")
    parser.add_argument("--fetches", type=int, default=200, help="for get-next")
    parser.add_argument("--pause", type=float, default=20.0, help="milliseconds")
    parser.add_argument("--output", default="", help="write the figures as JSON")
    given = parser.parse_args()
    runtime.start_tensorflow()
    hardware, versions = runtime.hardware(), runtime.versions()
    print(
        f"{hardware['processor']}, {hardware['cores']} cores; "
        f"TensorFlow {versions['tensorflow']}"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"source": source, "image": list(shape), "batch_size": size}
            | _measured(split, size, given)
            for source, shape, split in _splits(pathlib.Path(folder))
            for size in BATCH_SIZES
        ]
    print(render([_shown(row) for row in rows], "table", right=_RIGHT))
    if given.output:
        about = {"hardware": hardware, "versions": versions, "pause_ms": given.pause}
        write_json(given.output, {**about, "rows": rows})


def _splits(folder: pathlib.Path):
    """Yield name, image shape and split of each source."""
    from kcnn import datasets
    from kcnn.sources import MemoryImages
    from kcnn.splits import Split

    random = np.random.default_rng(0)
    for name, shape in ARRAYS.items():
        images = random.integers(0, 256, shape, np.uint8)
        labels = random.integers(0, CLASSES, shape[0])
        yield (
            f"arrays of {name}",
            shape[1:],
            Split(MemoryImages(images), labels, np.arange(shape[0])),
        )
    for number, pixels in enumerate(random.integers(0, 256, FILES, np.uint8)):
        path = folder / "train" / str(number % CLASSES) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    config = Config(dataset=f"folder:{folder}", cache="none", validation_fraction=0.0)
    yield "JPEG files, --cache=none", FILES[1:], datasets.load(config).train


def _measured(split: Any, batch_size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return images/s, and quantiles of the microseconds of a get-next."""
    import tensorflow as tf

    from kcnn import pipeline

    @tf.function
    def take(batches, count):
        for _ in tf.range(count):
            next(batches)

    @tf.function
    def seconds_of_one(batches):
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            images, *_ = next(batches)
        with tf.control_dependencies([images]):
            return tf.timestamp() - before

    def batches():
        config = Config(batch_size=batch_size, epochs=1_000)
        return iter(pipeline.training_batches(split, config, CLASSES))

    stream = batches()
    steps = max(1, min(given.images, 4 * len(split)) // batch_size)
    images = steps * len(split) / steps_per_epoch(len(split), batch_size)
    take(stream, tf.constant(1 + steps // 4))
    speeds = []
    for _ in range(given.rounds):
        began = time.perf_counter()
        take(stream, tf.constant(steps))
        speeds.append(images / (time.perf_counter() - began))
    stream, waits = batches(), []
    for _ in range(given.fetches):
        time.sleep(given.pause / 1000)
        waits.append(1e6 * float(seconds_of_one(stream)))
    waits = waits[given.fetches // 10 :]  # the first wait for the shuffling
    return {
        "images_per_second": statistics.median(speeds),
        "images_per_second_low": min(speeds),
        "images_per_second_high": max(speeds),
        "get_next_us": statistics.median(waits),
        "get_next_us_p99": float(np.quantile(waits, 0.99)),
    }


_RIGHT = ("image", "images/s", "range", "get-next, us", "99%")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["images_per_second_low"], row["images_per_second_high"]
    return {
        "source": row["source"],
        "image": "x".join(map(str, row["image"])),
        "batch": row["batch_size"],
        "images/s": f"{row['images_per_second']:,.0f}",
        "range": f"{low:,.0f} to {high:,.0f}",
        "get-next, us": f"{row['get_next_us']:,.0f}",
        "99%": f"{row['get_next_us_p99']:,.0f}",
    }


if __name__ == "__main__":
    main()
