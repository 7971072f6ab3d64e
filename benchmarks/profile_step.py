"""Which operations a training step spends its time on.

Usage: python benchmarks/profile_step.py [--model=tutorial] [--KNOB=VALUE ...]

Trains on random images of 28x28 grey pixels, and adds up what TensorFlow's profiler
saw: milliseconds a step by operation. Operations run beside each other, so that the sum
is more than a step takes.
"""

import collections
import glob
import sys
import tempfile
import time

import numpy as np
from absl import flags

from kcnn.flags import define_knobs, knobs_given, parse
from kcnn.table import render

WARM_UP, STEPS, MOST_ROWS = 10, 30, 25


def main(argv):
    """Print a row an operation, the longest first."""
    values = flags.FlagValues()
    define_knobs(values)
    if parse(values, argv):
        raise SystemExit("flags are given as --name=value")
    from kcnn.config import Config

    config = Config.from_dict(knobs_given(values))
    loop, batches = _prepare(config)
    import tensorflow as tf

    loop.run(batches, WARM_UP)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        loop.run(batches, STEPS)
        loop.totals()
        seconds = time.perf_counter() - began
        tf.profiler.experimental.start(folder)
        loop.run(batches, STEPS)
        loop.totals()
        tf.profiler.experimental.stop()
        rows = _rows(folder)
    print(
        f"{config.model}, {config.optimizer}: {1000 * seconds / STEPS:.2f} ms a step, "
        f"{STEPS * config.batch_size / seconds:,.0f} images/s"
    )
    print(render(rows[:MOST_ROWS], "table"))


def _prepare(config):
    from kcnn import runtime

    runtime.start_tensorflow(config)
    import keras
    import tensorflow as tf

    from kcnn import towers
    from kcnn.loop import TrainingLoop
    from kcnn.models import build_model
    from kcnn.optimization import build_optimizer, build_schedule
    from kcnn.spec import ImageSpec

    keras.utils.set_random_seed(0)
    policy = runtime.choose_precision(config.precision).policy
    spec = ImageSpec(28, 28, 1, tuple("0123456789"))
    model = build_model(config, spec, policy=policy)
    optimizer = build_optimizer(config, build_schedule(config, 100), policy)
    parts = towers.in_this_process(config).parts
    loop = TrainingLoop(model, optimizer, config, False, parts)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (config.batch_size, 28, 28, 1), np.uint8)
    labels = np.eye(10, dtype="float32")[random.integers(0, 10, config.batch_size)]
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return loop, iter(data)


def _rows(folder):
    """Return operation, milliseconds and number a step from a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    with open(path, "rb") as file:
        space.ParseFromString(file.read())
    spent, times = collections.Counter(), collections.Counter()
    for plane in space.planes:
        if plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            for event in line.events:
                # OPERATION_NAME:OPERATION_TYPE, among what threads do besides.
                name = plane.event_metadata[event.metadata_id].name
                path, _, kind = name.rpartition(":")
                if kind.strip() and "/" in path and "::" not in name:
                    where = path.replace("/StatefulPartitionedCall", "").split("/")
                    spent[kind, "/".join(where[-2:])] += event.duration_ps / 1e9
                    times[kind, "/".join(where[-2:])] += 1
    return [
        {
            "operation": kind,
            "where": where,
            "ms a step": round(total / STEPS, 3),
            "times": round(times[kind, where] / STEPS, 1),
        }
        for (kind, where), total in spent.most_common()
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
