"""A loop that trials share gives what a run of its own gives."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from kcnn import datasets, models, optimization, pipeline, preprocessing
from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.fitting import Fitting
from kcnn.layers import Dropout
from kcnn.loop import TrainingLoop
from kcnn.progress import Progress
from tuning.workbench import VariableDropout, VariableSchedule, Workbench


def fit(config, loop, schedule, data):
    fitting = Fitting(config, data, loop, schedule, None, Progress(None))
    return fitting.fit(), fitting.history.rows


def fresh(config, policy):
    """Train as kcnn.trainer does, with nothing of tuning."""
    data = datasets.load(config)
    keras.utils.set_random_seed(config.random_seed)
    model = models.build_model(config, data.spec, policy=policy)
    batches = pipeline.evaluation_batches(data.train, config.batch_size)
    preprocessing.measure_statistics(model, batches)
    steps = steps_per_epoch(len(data.train), config.batch_size)
    models.shorten_batch_norm(model, config, steps * config.epochs)
    schedule = optimization.build_schedule(config, steps)
    optimizer = optimization.build_optimizer(config, schedule, policy)
    loop = TrainingLoop(model, optimizer, config, jit_compile=False)
    return fit(config, loop, schedule, data)


def settings(npz, **more):
    common = {"dataset": f"npz:{npz}", "batch_size": 16, "epochs": 2}
    return Config(**{**common, **more})


VARIANTS = [
    {"dropout": 0.3, "learning_rate": 0.01, "weight_decay": 0.01},
    {"dropout": 0.6, "learning_rate": 0.001, "weight_decay": 0.1, "batch_size": 25},
    {"dropout": 0.1, "schedule": "constant", "weight_decay": 0.2, "epochs": 3},
    {"dropout": 0.3, "weight_decay": 0.01, "random_seed": 3, "schedule": "step"},
    {"dropout": 0.3, "learning_rate": 0.01, "weight_decay": 0.01},
]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_shared_loop_trains_as_a_fresh_one(npz, precision):
    """Weights and figures agree to rounding; nothing is left of the trials before."""
    bench = Workbench()
    for variant in VARIANTS:
        config = settings(
            npz,
            model="convnet",
            filters=(4,),
            standardize="pixel",
            precision=precision,
            **variant,
        )
        weights, rows = fit(config, *bench.loop(config), bench.data(config))
        expected_weights, expected_rows = fresh(config, precision)
        for a, b in zip(weights, expected_weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        for a, b in zip(rows, expected_rows, strict=True):
            for name in ("loss", "val_loss", "val_accuracy", "learning_rate"):
                assert a[name] == pytest.approx(b[name], rel=1e-5)
    # batch norm's momentum follows the number of steps, and is compiled in.
    steps = {
        (len(bench.data(config).train), v.get("batch_size", 16), v.get("epochs"))
        for v in VARIANTS
    }
    assert 1 < bench.built <= len(steps) + 1


def test_what_is_compiled_in_is_built_anew(npz):
    bench = Workbench()
    loops = []
    for more in (
        {"dropout": 0.3},
        {"dropout": 0.4, "learning_rate": 0.1, "batch_size": 8, "epochs": 9},
        {"dropout": 0.0},
        {"weight_decay": 0.1},
        {"dense_units": (8,)},
        {"label_smoothing": 0.1},
    ):
        config = settings(npz, model="mlp", **{"dropout": 0.3, **more})
        loops.append(bench.loop(config)[0])
    assert loops[0] is loops[1]
    assert len(set(map(id, loops))) == 5
    assert len(bench._stations) == 4  # the oldest are forgotten


def test_without_reuse_every_loop_is_new(npz):
    bench = Workbench(reuse=False)
    config = settings(npz, model="mlp")
    assert bench.loop(config)[0] is not bench.loop(config)[0]
    assert bench.built == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_variable_dropout_is_the_models_dropout_bit_for_bit(dtype):
    x = tf.random.normal((8, 1000), seed=1)
    layer = VariableDropout(0.9, seed=5, dtype=dtype)
    for rate in (0.3, 0.5, 0.37):
        layer.set_rate(rate)
        layer.seed_generator.state.assign([5, 0])
        expected = Dropout(rate, seed=5, dtype=dtype)(x, training=True)
        found = layer(x, training=True)
        np.testing.assert_array_equal(
            tf.cast(found, "float32"), tf.cast(expected, "float32")
        )
    np.testing.assert_array_equal(layer(x, training=False), tf.cast(x, dtype))


def test_variable_schedule_follows_any_other():
    def schedule(**more):
        config = Config(**more)
        return optimization.build_schedule(config, steps_per_epoch=7)

    course = VariableSchedule(schedule())
    for other in (
        schedule(schedule="constant", warmup_epochs=2.0),
        schedule(schedule="cosine", epochs=3),
        schedule(schedule="step", step_epochs=2),
        schedule(epochs=20, learning_rate=0.5),
    ):
        course.follow(other)
        for step in (0, 5, 20):
            assert float(course(step)) == pytest.approx(float(other(step)), rel=1e-6)


def test_data_never_holds_a_test_split(npz):
    bench = Workbench(executions=2)
    config = settings(npz, model="mlp")
    data = bench.data(config)
    assert not hasattr(data, "test")
    assert bench.data(settings(npz, model="mlp", dropout=0.9)) is data
    other = bench.data(settings(npz, model="mlp", random_seed=1))
    assert bench.data(config) is data
    assert not np.array_equal(other.validation.indices, data.validation.indices)


def test_refusal_names_the_knob(npz):
    bench = Workbench()
    config = settings(npz, model="lenet", kernel_size=31)
    assert "--kernel_size=31 does not fit" in bench.refusal(config)
    assert bench.refusal(settings(npz, model="lenet")) is None


def test_a_shared_loop_compiled_by_xla(npz):
    """Its table of learning rates may grow, and its batches."""
    bench = Workbench()
    for epochs in (1, 3):
        config = settings(
            npz, model="mlp", dense_units=(8,), jit_compile="on", epochs=epochs
        )
        _, rows = fit(config, *bench.loop(config), bench.data(config))
        assert len(rows) == epochs
    assert bench.built == 1
    larger = dataclasses.replace(config, batch_size=25)
    _, rows = fit(larger, *bench.loop(larger), bench.data(larger))
    assert len(rows) == 3 and bench.built == 1
