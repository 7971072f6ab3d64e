"""How fast a trained model answers: Keras in memory, and what kcnn exports of it.

    python benchmarks/inference.py RUN [RUN ...] [--rounds=3] [--output=FILE.json]

RUN is the folder of a finished run; it is exported anew, in all formats, to a temporary
folder, with the same weights. The sides run in turn, `rounds` times, on test images:

    keras predict   model.predict of the float32 model that the run evaluated
    keras function  the same model in a tf.function, as fast as TensorFlow has it
    saved_model     serving_default: the same images
    serving_bytes   the same images as PNG files, which are decoded as well
      one thread    the same in a process in which TensorFlow has one thread
    keras, tflite, int8.tflite, onnx    the files of those formats

Those of TensorFlow compute by oneDNN where kcnn prefers it; elsewhere
TF_ENABLE_ONEDNN_OPTS=1 has a server do so.

images/s are of batches of 256, p50 and p99 the milliseconds of one image at a time,
each the median over the rounds with its range; difference is the largest one of a
probability from the SavedModel. Below it `kcnn predict FOLDER` on 2,000 PNG files: the
whole command, its imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kcnn.errors import run_program
from kcnn.files import write_json
from kcnn.run import Run, config_of, load_model, spec_of
from kcnn.table import render

BATCH = 256
FILES = 2000
SECONDS = 2.0  # that a measurement takes at least
SINGLE = 300  # images, one at a time
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

Call = Callable[[Any], np.ndarray]  # a batch -> probabilities


def measure(call: Call, batch: Any) -> dict[str, float]:
    """Return images_per_second of a batch, and p50_ms and p99_ms of its images."""
    for _ in range(3):
        call(batch)
        call(batch[:1])
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        call(batch)
        done += len(batch)
    speed = done / (time.perf_counter() - began)
    single = []
    for i in range(SINGLE):
        one = batch[i % len(batch) :][:1]
        began = time.perf_counter()
        call(one)
        single.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(single, [50, 99])
    return {"images_per_second": speed, "p50_ms": float(p50), "p99_ms": float(p99)}


def bytes_of(model: pathlib.Path) -> Call:
    """Return what serving_bytes of a SavedModel does; plain TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    signature = loaded.signatures["serving_bytes"]

    def call(contents: list[bytes]) -> np.ndarray:
        # Named, so that it lives as long as what is called.
        assert loaded is not None
        return signature(contents=tf.constant(contents))["probabilities"].numpy()

    return call


def in_one_thread(model: pathlib.Path, files: pathlib.Path) -> dict[str, float]:
    """Measure serving_bytes in a process whose TensorFlow has one thread."""
    command = [sys.executable, __file__, "--bytes_of", str(model), str(files)]
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def exported(run: Run, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Export a run in all formats; return the file of each."""
    command = [sys.executable, "-m", "kcnn", "export", str(run.path)]
    command += ["--format=saved_model,keras,litert,onnx"]
    command += [f"--export_dir={folder}", "--export_name=m"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {
        "saved_model": folder / "m" / "1",
        "keras": folder / "m" / "keras" / "1" / "model.keras",
        "tflite": folder / "m" / "litert" / "1" / "model.tflite",
        "int8.tflite": folder / "m" / "litert" / "1" / "model-int8.tflite",
        "onnx": folder / "m" / "onnx" / "1" / "model.onnx",
    }


def sides_of(run: Run, paths: Mapping[str, pathlib.Path]) -> dict[str, Call]:
    """Return what computes probabilities of uint8 images, by its name."""
    import keras
    import tensorflow as tf

    from kcnn.formats import FORMATS
    from kcnn.inference import Classifier

    model = load_model(run)
    model.jit_compile = False

    taken = tf.TensorSpec(model.input_shape, tf.uint8)

    @tf.function(autograph=False, input_signature=[taken])
    def function(images):
        return tf.nn.softmax(model(images, training=False))

    def predict(images: np.ndarray) -> np.ndarray:
        logits = model.predict(images, batch_size=BATCH, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    def of(runner: Callable[[np.ndarray], Mapping[str, np.ndarray]]) -> Call:
        return lambda images: runner(images)["probabilities"]

    found = {
        "keras predict": predict,
        "keras function": lambda images: function(tf.constant(images)).numpy(),
        "saved_model": of(Classifier(paths["saved_model"]).outputs),
    }
    for name, form in (
        ("keras", "keras"),
        ("tflite", "litert"),
        ("int8.tflite", "litert"),
        ("onnx", "onnx"),
    ):
        _, load = FORMATS[form]
        found[name] = of(load(paths[name]))
    return found


def test_images(run: Run) -> np.ndarray:
    """Return a run's first test images, as many as there are PNG files to be."""
    from kcnn import datasets
    from kcnn.trainer import first_images

    note = run.read_config()
    split = datasets.load_split(config_of(note), "test", spec_of(note)).split
    return first_images(split, FILES)


def seconds_of_predict(model: pathlib.Path, folder: pathlib.Path) -> float:
    """Run `kcnn predict FOLDER`; return how long the whole command took."""
    command = [sys.executable, "-m", "kcnn", "predict", f"--saved_model={model}"]
    began = time.perf_counter()
    subprocess.run([*command, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure_run(run: Run, rounds: int) -> dict[str, Any]:
    """Return all figures of one run: name -> measures of each round."""
    import tensorflow as tf

    found: dict[str, list[dict[str, float]]] = {}
    commands = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        paths = exported(run, folder)
        images = test_images(run)
        files = folder / "files"
        files.mkdir()
        contents = [tf.io.encode_png(image).numpy() for image in images]
        for i, content in enumerate(contents):
            (files / f"{i:04}.png").write_bytes(content)
        sides: dict[str, tuple[Call, Any]] = {
            name: (call, images[:BATCH]) for name, call in sides_of(run, paths).items()
        }
        sides["serving_bytes"] = bytes_of(paths["saved_model"]), contents[:BATCH]
        call, batch = sides["saved_model"]
        expected = call(batch)
        differences = {
            name: float(np.abs(call(batch) - expected).max())
            for name, (call, batch) in sides.items()
        }
        for number in range(rounds):
            for name, (call, batch) in sides.items():
                found.setdefault(name, []).append(measure(call, batch))
            alone = in_one_thread(paths["saved_model"], files)
            found.setdefault("  one thread", []).append(alone)
            commands.append(
                len(images) / seconds_of_predict(paths["saved_model"], files)
            )
            print(f"{run.path}: round {number + 1} of {rounds}", flush=True)
    return {"sides": found, "differences": differences, "predict": commands}


def row(name: str, measured: list[dict[str, float]], difference: Any) -> dict[str, Any]:
    """Return a row of the table."""

    def shown(key: str, form: str) -> str:
        values = [one[key] for one in measured]
        middle, low, high = statistics.median(values), min(values), max(values)
        return f"{middle:{form}} ({low:{form}} to {high:{form}})"

    return {
        "side": name,
        f"images/s, batch {BATCH}": shown("images_per_second", ",.0f"),
        "p50 ms": shown("p50_ms", ".2f"),
        "p99 ms": shown("p99_ms", ".2f"),
        "difference": "" if difference is None else f"{difference:.1g}",
    }


def main() -> None:
    """Measure each run and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", help="JSON file for all figures")
    parser.add_argument("--bytes_of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bytes_of:
        model, files = map(pathlib.Path, given.bytes_of)
        contents = [path.read_bytes() for path in sorted(files.iterdir())[:BATCH]]
        print(json.dumps(measure(bytes_of(model), contents)))
        return
    if not given.runs:
        parser.error("name the folder of a run, or several")

    from kcnn import runtime

    runtime.start_tensorflow()
    hardware, figures = runtime.hardware(), {}
    for place in given.runs:
        found = figures[place] = measure_run(Run(place), given.rounds)
        rows = [
            row(name, measured, found["differences"].get(name))
            for name, measured in found["sides"].items()
        ]
        print(render(rows, "table"))
        speeds = found["predict"]
        print(
            f"kcnn predict of {FILES:,} files: {statistics.median(speeds):,.0f} "
            f"images/s ({min(speeds):,.0f} to {max(speeds):,.0f})"
        )
    print(f"{hardware['processor']}, {hardware['cores']} cores")
    if given.output:
        write_json(pathlib.Path(given.output), {"hardware": hardware, "runs": figures})


if __name__ == "__main__":
    run_program(main)
