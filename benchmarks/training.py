"""Training speed side by side: kcnn, a stock Keras script, PyTorch, and the roof.

Usage:
  python benchmarks/training.py [--dataset=mnist] [--images=20000] [--rounds=3]
      [--models=tutorial,convnet] [--epochs=3] [--nostock] [--torch_python=PYTHON]
      [--output=FILE.json]

Every side is a process of its own and has the same images, batch size (128),
optimizer (Adadelta, rate 1) and number of epochs; the sides run in turn, `rounds`
times; kcnn also with `--towers=1`, each batch computed as a whole. The first epoch, in
which graphs are built, is left out of images/s.
`--torch_python` is a Python that has PyTorch; without it that side is left out. The
roof is the fastest product of two 2048 x 2048 matrices in bfloat16 on this machine.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
from absl import app, flags

from kcnn.files import write_json
from kcnn.run import Run, read_rows
from kcnn.table import render

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist", "28x28 grey images of 10 classes")
flags.DEFINE_integer("images", 20_000, "training images", lower_bound=256)
flags.DEFINE_list("models", "tutorial,convnet,lenet,shallow", "which to train")
flags.DEFINE_integer("rounds", 3, "times that every side runs", lower_bound=1)
flags.DEFINE_integer("epochs", 3, "of each run", lower_bound=2)
flags.DEFINE_list(
    "torch_variants",
    "eager,channels_last,bf16,channels_last+bf16,compile",
    "of PyTorch",
)
flags.DEFINE_bool("stock", True, "run the stock Keras script too")
flags.DEFINE_string("torch_python", "", "a Python that has PyTorch")
flags.DEFINE_string("output", "", "JSON file for all figures")

HERE = pathlib.Path(__file__).parent
BATCH_SIZE = 128

ROOF = """
import time
import tensorflow as tf
a = tf.cast(tf.random.normal((2048, 2048)), tf.bfloat16)
product = tf.function(tf.matmul)
best = 1e9
for _ in range(30):
    began = time.perf_counter()
    product(a, a).numpy()[0, 0]
    best = min(best, time.perf_counter() - began)
print(2 * 2048**3 / best)
"""


def main(argv):
    """Run all sides in turn, print a table, write the figures."""
    if argv[1:]:
        raise app.UsageError(f"{argv[1]}: unexpected; flags are given as --name=value")
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "data.npz")
        images = _write_data(data)
        rounds = []
        for number in range(FLAGS.rounds):
            flop = _roof()
            print(f"round {number + 1}: roof {flop / 1e9:,.0f} GFLOP/s", flush=True)
            rounds.append({"roof": flop, "sides": []})
            for model in FLAGS.models:
                for side, command in _sides(data, model, folder).items():
                    one = _run(side, model, command, images, folder)
                    rounds[-1]["sides"].append(one)
                    print(
                        f"  {model:<9} {side:<28} {one['images_per_second']:>8,.0f} "
                        f"images/s  {one['peak_memory_mib']:>6,.0f} MiB  "
                        f"accuracy {one['accuracy']:.2%}",
                        flush=True,
                    )
    print()
    print(render(_table(rounds), "table"))
    if FLAGS.output:
        write_json(FLAGS.output, {"hardware": _hardware(), "rounds": rounds})


def _write_data(path):
    """Write the images as every side can read them; return how many are trained."""
    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, pipeline
    from kcnn.config import Config

    config = Config(
        dataset=FLAGS.dataset, validation_fraction=0.0, train_size=FLAGS.images
    )
    loaded = datasets.load(config)
    parts = {}
    for name in ("train", "test"):
        split = getattr(loaded, name)
        images = pipeline.images_at(split, np.arange(len(split)))
        parts[f"x_{name}"] = images[..., 0]
        parts[f"y_{name}"] = split.labels
    np.savez(path, **parts)
    return len(parts["y_train"])


def _sides(data, model, folder):
    epochs = str(FLAGS.epochs)
    ours = [
        *(sys.executable, "-m", "kcnn", "train", f"--dataset=npz:{data}"),
        *(f"--model={model}", f"--epochs={epochs}", "--optimizer=adadelta"),
        *("--learning_rate=1", "--schedule=constant", "--validation_fraction=0"),
        *("--export_dir=", "--overwrite", f"--model_dir={folder}/run"),
    ]
    sides = {"kcnn": ours, "kcnn, --towers=1": [*ours, "--towers=1"]}
    if FLAGS.stock:
        script = HERE / "stock_keras.py"
        sides["Keras, stock script"] = [sys.executable, script, data, model, epochs]
    if FLAGS.torch_python:
        for variant in FLAGS.torch_variants:
            script = HERE / "stock_torch.py"
            command = [FLAGS.torch_python, script, data, model, epochs, variant]
            sides[f"PyTorch, {variant}"] = command
    return sides


def _run(side, model, command, images, folder):
    """Run one side; return images/s, peak resident memory and test accuracy."""
    errors = pathlib.Path(folder, "errors.txt")
    with errors.open("w") as file:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=file, text=True
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{side}: {command} failed:\n{errors.read_text()}")
    if side.startswith("kcnn"):
        run = Run(pathlib.Path(folder, "run"))
        seconds = [row["seconds"] for row in read_rows(run.metrics)]
        accuracy = run.read_evaluation()["test"]["accuracy"]
    else:
        told = json.loads(output.splitlines()[-1])
        seconds, accuracy = told["seconds"], told["accuracy"]
    return {
        "side": side,
        "model": model,
        "epoch_seconds": seconds,
        "images_per_second": images / statistics.median(seconds[1:]),
        "peak_memory_mib": usage.ru_maxrss / 1024,
        "accuracy": accuracy,
    }


def _roof():
    found = subprocess.run(
        [sys.executable, "-c", ROOF], check=True, capture_output=True, text=True
    )
    return float(found.stdout)


def _hardware():
    from kcnn import runtime

    return {**runtime.hardware(), "versions": runtime.versions()}


def _table(rounds):
    """Return a row a model and side: medians over rounds, ratios round by round."""
    rows = []
    sides = [(one["model"], one["side"]) for one in rounds[0]["sides"]]
    for model, side in sides:
        found = [_of(one, model, side) for one in rounds]
        ours = [_of(one, model, "kcnn") for one in rounds]
        speeds = [one["images_per_second"] for one in found]
        ratios = [
            a["images_per_second"] / b["images_per_second"]
            for a, b in zip(ours, found, strict=True)
        ]
        memory = statistics.median(one["peak_memory_mib"] for one in found)
        rows.append(
            {
                "model": model,
                "side": side,
                "images/s": f"{statistics.median(speeds):,.0f}",
                "from": f"{min(speeds):,.0f}",
                "to": f"{max(speeds):,.0f}",
                "kcnn is faster": f"{statistics.median(ratios):.2f}",
                "peak MiB": f"{memory:,.0f}",
                "accuracy": f"{statistics.mean(o['accuracy'] for o in found):.2%}",
            }
        )
    return rows


def _of(one_round, model, side):
    return next(
        one
        for one in one_round["sides"]
        if (one["model"], one["side"]) == (model, side)
    )


if __name__ == "__main__":
    app.run(main)
