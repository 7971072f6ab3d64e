"""Which operations a training step spends its time on, in kcnn or a stock script.

Usage: python benchmarks/profile_step.py [--stock] [--rows=15] [--output=FILE]
    [--without=LAYER] [--KNOB=VALUE ...]

Trains on random images of 28x28 grey pixels, or as --image_size and --color_mode say,
and adds up what TensorFlow's profiler saw: milliseconds a step by group and by
operation. Operations run beside each other, so that the sums are more than a step
takes. The time of a step is taken before, without the profiler.

Knobs are those of kcnn train; --optimizer is Adadelta with a rate of 1 if nothing is
said. --stock takes --model alone of them: the same network as a stock Keras script has
it, in float32, with Keras's own compiled step.

--without=Conv2D tells what kcnn's layers of this kind gain, and profiles nothing: two
models, one of them with Keras's own layer in their place, are trained in turns.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import numpy as np
from absl import flags

from kcnn.benchmark import measure
from kcnn.benchmark.figures import TRAINING_STEP
from kcnn.benchmark.plan import BATCH_SIZE, CLASSES, MODELS, SHAPE
from kcnn.config import Config
from kcnn.errors import UsageError, run_program
from kcnn.files import write_json
from kcnn.flags import define, define_knobs, knobs_given, parse, value_of
from kcnn.knobs import Knob
from kcnn.spec import ImageSpec, wanted_shape
from kcnn.table import render

# Those of kcnn.layers that are made like Keras's own.
LAYERS = ("Activation", "BatchNormalization", "Conv2D")

OWN = {
    "stock": Knob("benchmark", False, "", kind=bool),
    "output": Knob("benchmark", "", ""),
    "rows": Knob("benchmark", 15, "", low=0, high=1000, kind=int),
    "without": Knob("benchmark", "", "", choices=LAYERS),
}
WARM_UP, STEPS, ROUNDS = 10, 20, 5
TURNS, TURN_SECONDS = 24, 0.5
RECIPE = {"optimizer": "adadelta", "learning_rate": 1.0, "schedule": "constant"}

RIGHT = ("ms a step", "part", "times")

BATCH_NORM, OPTIMIZER = "batch normalization", "optimizer"
# What an operation's kind has in it -> its group.
GROUPS = {
    "Conv": "convolutions",
    "MatMul": "matrix products",
    "Pool": "pooling",
    "Random": "random numbers",
}
_ELEMENTWISE = re.compile(
    r"(Abs|AddN?|BiasAdd|Cast|Div(NoNan)?|RealDiv|Elu|Erfc?|Exp|Expm1|Gelu|LeakyRelu"
    r"|Log|Log1p|Maximum|Minimum|Mul|MulNoNan|Neg|Pow|Reciprocal|Relu|Rsqrt|Select"
    r"|Sigmoid|Sign|Softplus|Sqrt|Square|SquaredDifference|Sub|Swish|Tanh|(Not)?Equal"
    r"|(Greater|Less)(Equal)?|Logical\w+)(V\d)?(Grad)?"
)

_ONEDNN = re.compile(r"^_(MklNative|Mkl)?")  # its own form of an operation
_OUTSIDE = re.compile(r"^(while/(body/_\d+/)?|StatefulPartitionedCall/)+")
_NTH = re.compile(r"_\d+$")  # call of a layer, which TensorFlow counts


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A training step: `run` takes so many, and waits for the last."""

    side: str
    about: str
    model: Any
    optimizer: Any
    batch_size: int
    parts: int
    run: Callable[[int], None]


def main(argv: list[str]) -> None:
    """Print figures of a step, a row a group, and a row an operation."""
    values = flags.FlagValues()
    define_knobs(values)
    for name, declared in OWN.items():
        define(values, name, declared)
    if parse(values, argv):
        raise SystemExit("flags are given as --name=value")
    given = knobs_given(values)
    if values.without:
        for name in OWN.keys() - {"without"}:
            if values[name].value is not None:
                raise UsageError(f"--{name} changes nothing beside --without")
        print("\n".join(_gain(given, values.without)))
        return
    prepare = _of_stock if values.stock else _of_kcnn
    with tempfile.TemporaryDirectory() as folder:
        roofs = [measure.roof(pathlib.Path(folder))]
        step = prepare(given)
        seconds = _seconds(step)
        found = _profile(step, folder)
        roofs.append(measure.roof(pathlib.Path(folder)))
    roof = {dtype: max(one[dtype] for one in roofs) for dtype in roofs[0]}
    figures = _figures(step, seconds, roof, found)
    print("\n".join(_lines(step, figures)))
    print(f"\n{render(group_rows(found), 'table', right=RIGHT)}")
    rows = operation_rows(found)[: value_of(values, "rows", OWN)]
    if rows:
        print(f"\n{render(rows, 'table', right=RIGHT)}")
    if values.output:
        write_json(values.output, figures)


def _of_kcnn(given: dict[str, Any]) -> Step:
    config = Config.from_dict(given if "optimizer" in given else RECIPE | given)
    from kcnn import runtime

    runtime.start_tensorflow(config)
    import keras

    from kcnn import towers
    from kcnn.loop import TrainingLoop
    from kcnn.models import build_model
    from kcnn.optimization import build_optimizer, build_schedule
    from kcnn.preprocessing import measure_statistics

    keras.utils.set_random_seed(0)
    policy = runtime.choose_precision(config.precision).policy
    shape = wanted_shape(config, SHAPE)
    spec = ImageSpec(*shape, tuple(map(str, range(CLASSES))))
    model = build_model(config, spec, policy=policy)
    images, labels = _random_batch(config.batch_size, shape)
    measure_statistics(model, [images])
    optimizer = build_optimizer(config, build_schedule(config, 100), policy)
    parts = towers.in_this_process(config).parts
    jit = runtime.choose_jit(config, model)
    loop = TrainingLoop(model, optimizer, config, jit, parts)
    batches = _repeated(images, labels)

    def run(steps: int) -> None:
        loop.run(batches, steps)
        loop.totals()

    batch = "whole batches" if parts == 1 else f"batches in {parts} parts"
    about = f"{config.optimizer}, {policy}, {batch}" + (", XLA" if jit else "")
    return Step("kcnn", about, model, optimizer, config.batch_size, parts, run)


def _gain(given: dict[str, Any], kind: str) -> list[str]:
    """Return lines on steps with and without kcnn's layers, taken in turns."""
    ours = _of_kcnn(given)
    import keras

    from kcnn import models

    with mock.patch.object(models, kind, getattr(keras.layers, kind)):
        keras_own = _of_kcnn(given)
    both = (ours, keras_own)
    took: dict[Step, list[float]] = {step: [] for step in both}
    steps = max(1, round(TURN_SECONDS / max(map(_seconds, both))))
    for turn in range(TURNS):
        for step in both[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            step.run(steps)
            took[step].append((time.perf_counter() - began) / steps)
    ratios = [a / b for a, b in zip(took[ours], took[keras_own], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return [
        _where_it_ran(),
        f"{ours.model.name}: {ours.about}; {ours.batch_size} images a step",
        *(
            f"{1000 * statistics.median(took[step]):.2f} ms a step with {whose} {kind}"
            for step, whose in zip(both, ("kcnn's", "Keras's"), strict=True)
        ),
        f"{median:.2f} of the time: median of {TURNS} turns of {steps} steps, half of "
        f"them {low:.2f} to {high:.2f}",
    ]


def _of_stock(given: dict[str, Any]) -> Step:
    name = given.pop("model", "tutorial")
    if given:
        raise SystemExit(
            f"--{next(iter(given))}: of the knobs --stock takes --model alone"
        )
    if name not in MODELS:
        raise SystemExit(
            f"--model: got {name!r}, expected one of {', '.join(MODELS)} with --stock"
        )
    from kcnn import runtime

    with runtime.standard_error_filtered():
        from kcnn.benchmark import stock_keras

    model = stock_keras.compiled_model(name)
    model.name = name
    model.make_train_function()
    images, labels = _random_batch(BATCH_SIZE, SHAPE)
    batches = _repeated(images.astype("float32") / 255, labels)

    def run(steps: int) -> None:
        for _ in range(steps):
            told = model.train_function(batches)
        float(told["loss"])  # waits

    about = "adadelta, float32"
    return Step("stock Keras", about, model, model.optimizer, BATCH_SIZE, 1, run)


def _random_batch(size: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (size, *shape), np.uint8)
    return images, np.eye(CLASSES, dtype="float32")[random.integers(0, CLASSES, size)]


def _repeated(*batch: np.ndarray):
    import tensorflow as tf

    return iter(tf.data.Dataset.from_tensors(batch).repeat())


def _seconds(step: Step) -> float:
    """Return the seconds of a step, the median over some rounds."""
    step.run(WARM_UP)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        step.run(STEPS)
        took.append(time.perf_counter() - began)
    return statistics.median(took) / STEPS


def _figures(
    step: Step, seconds: float, roof: dict[str, float], found: list[Operation]
) -> dict[str, Any]:
    """Return what a step comes to, and what benchmarks/scaling.py wants to know."""
    from kcnn import runtime, summary
    from kcnn.layers import BatchNormalization

    size = summary.model_summary(step.model)
    flop = TRAINING_STEP * size["flops"]
    dtype = max(roof, key=roof.__getitem__)
    speed = step.batch_size / seconds
    return {
        "model": step.model.name,
        "side": step.side,
        "batch_size": step.batch_size,
        "seconds": seconds,
        "images_per_second": speed,
        "flop_per_image": flop,
        "flop_per_second": speed * flop,
        "roof": roof[dtype],
        "roof_dtype": dtype,
        "roof_part": speed * flop / roof[dtype],
        "operations": launches(found, step.parts),
        "parameters": size["trainable_parameters"],
        "batch_norms": sum(
            isinstance(layer, BatchNormalization) for layer in step.model.layers
        ),
        "image_shape": list(step.model.input_shape[1:]),
        "hardware": runtime.hardware(),
        "versions": runtime.versions(),
    }


def _lines(step: Step, figures: dict[str, Any]) -> list[str]:
    shape = "x".join(map(str, figures["image_shape"]))
    return [
        _where_it_ran(),
        f"{figures['model']}, {step.side}: {step.about}; "
        f"{figures['batch_size']} images of {shape} a step",
        f"{1000 * figures['seconds']:.2f} ms a step, "
        f"{figures['images_per_second']:,.0f} images/s, "
        f"{figures['operations']:,.0f} operations of a whole batch",
        f"{figures['flop_per_image'] / 1e6:.3g} MFLOP an image: "
        f"{figures['flop_per_second'] / 1e9:,.0f} GFLOP/s, "
        f"{figures['roof_part']:.0%} of the roof of {figures['roof'] / 1e9:,.0f} "
        f"({figures['roof_dtype']} matrix product)",
    ]


def _where_it_ran() -> str:
    from kcnn import runtime

    hardware, versions = runtime.hardware(), runtime.versions()
    return (
        f"{hardware['processor']}, {hardware['cores']} cores; "
        f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']}"
    )


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a training step does in one place of one kind; time and number are a step's.

    Attributes:
        group: what it is for.
        kind: TensorFlow's name of it.
        where: the layer, or what else it belongs to.
        milliseconds: of all of them together.
        times: how often; each part of a batch counts.
    """

    group: str
    kind: str
    where: str
    milliseconds: float
    times: float


def _profile(step: Step, folder: str) -> list[Operation]:
    """Return the operations of a step, the longest first."""
    import tensorflow as tf

    tf.profiler.experimental.start(folder)
    step.run(STEPS)
    tf.profiler.experimental.stop()
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    space.ParseFromString(pathlib.Path(path).read_bytes())
    events = (
        (plane.event_metadata[event.metadata_id].name, event.duration_ps / 1e9)
        for plane in space.planes
        if plane.name == "/host:CPU"
        for line in plane.lines
        for event in line.events
    )
    return operations(events, STEPS, step.model.name, step.optimizer.name)


def operations(
    events: Iterable[tuple[str, float]], steps: int, model: str, optimizer: str
) -> list[Operation]:
    """Add up the events that are operations, by group, kind and where; longest first.

    Args:
        events: name and milliseconds of each; an operation's is PATH:KIND.
        steps: in which they were seen.
        model: its name.
        optimizer: its name.
    """
    spent: collections.Counter = collections.Counter()
    times: collections.Counter = collections.Counter()
    for name, milliseconds in events:
        path, _, kind = name.rpartition(":")
        if not kind.strip() or "/" not in path or "::" in name:
            continue  # what threads do besides
        kind = _ONEDNN.sub("", kind)
        where = _where(path, model)
        key = _group(kind, where, optimizer), kind, where
        spent[key] += milliseconds
        times[key] += 1
    return [
        Operation(*key, milliseconds / steps, times[key] / steps)
        for key, milliseconds in spent.most_common()
    ]


def _where(path: str, model: str) -> str:
    """Return the layer of an operation, or what else the first part of its path is."""
    names = _OUTSIDE.sub("", path).split("/")
    backward = names[0] == "gradient_tape"
    names = [name for name in names[backward:-1] if not _is_call_of(model, name)]
    where = _NTH.sub("", names[0]) if names else "the step"
    return f"{where}, backward" if backward else where


def _is_call_of(model: str, name: str) -> bool:
    return _NTH.sub("", name) == model


def _group(kind: str, where: str, optimizer: str) -> str:
    """Return what an operation is for."""
    if where == optimizer:
        return OPTIMIZER
    if where.startswith("batch_norm"):
        return BATCH_NORM
    for part, group in GROUPS.items():
        if part in kind:
            return group
    return "elementwise" if _ELEMENTWISE.fullmatch(kind) else "rest"


def group_rows(found: list[Operation]) -> list[dict[str, str]]:
    """Return a row a group, the longest first, and one of all together."""
    spent: collections.Counter = collections.Counter()
    for one in found:
        spent[one.group] += one.milliseconds
    total = sum(spent.values())
    return [
        {"group": group, "ms a step": f"{ms:.2f}", "part": f"{ms / total:.1%}"}
        for group, ms in [*spent.most_common(), ("all, beside each other", total)]
    ]


def operation_rows(found: list[Operation]) -> list[dict[str, str]]:
    """Return a row an operation."""
    return [
        {
            "operation": one.kind,
            "where": one.where,
            "group": one.group,
            "ms a step": f"{one.milliseconds:.3f}",
            "times": f"{one.times:.3g}",
        }
        for one in found
    ]


def launches(found: list[Operation], parts: int) -> float:
    """Return the operations of a step on a whole batch, of one in so many parts."""
    return sum(
        one.times if one.group == OPTIMIZER else one.times / parts for one in found
    )


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
