"""Steps, epochs and signals, in this process."""

import os
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kcnn import datasets, pipeline
from kcnn.batches import steps_per_epoch
from kcnn.config import Config
from kcnn.errors import Interrupted, RunError
from kcnn.fitting import Fitting
from kcnn.loop import TrainingLoop
from kcnn.models import build_model
from kcnn.optimization import build_optimizer, build_schedule
from kcnn.progress import Progress
from kcnn.run import Run


def fitting_of(npz, model_dir, on_epoch=None, **settings):
    base = {"dataset": f"npz:{npz}", "model": "mlp", "dense_units": (4,)}
    config = Config(**base | {"dropout": 0.2} | settings)
    data = datasets.load(config)
    keras.utils.set_random_seed(config.random_seed)
    model = build_model(config, data.spec)
    schedule = build_schedule(
        config, steps_per_epoch(len(data.train), config.batch_size)
    )
    optimizer = build_optimizer(config, schedule, "float32")
    loop = TrainingLoop(model, optimizer, config, config.jit_compile == "on")
    run = Run(model_dir)
    return Fitting(config, data, loop, schedule, run, Progress(None), on_epoch)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_softmax_before_the_loss_stays_there(npz, tmp_path, parts):
    """Keras would take what goes into the softmax, and train another network."""
    settings = {"model": "convnet", "filters": (4,), "head": "dropout_softmax"}
    settings |= {"dropout": 0.0, "batch_norm": 0}
    fitting = fitting_of(npz, tmp_path, **settings)
    config, model = fitting.config, fitting.loop.model
    optimizer = build_optimizer(config, fitting.schedule, "float32")
    loop = TrainingLoop(model, optimizer, config, jit_compile=False, parts=parts)
    batches = pipeline.training_batches(fitting.data.train, config, 3)
    images, labels = next(iter(batches))
    probabilities = np.asarray(model(images), np.float64)
    assert probabilities.sum(-1) == pytest.approx(1, rel=1e-5)
    again = np.exp(probabilities) / np.exp(probabilities).sum(-1, keepdims=True)
    loop.run(iter(batches), 1)
    expected = -np.log((again * labels.numpy()).sum(-1)).mean()
    assert loop.totals().loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_signal_in_an_epochs_last_step_loses_nothing(npz, tmp_path, keep, stop_after):
    """With one step an epoch a signal always comes in the last one."""
    settings = {"epochs": 3, "batch_size": 128, "keep": keep, "learning_rate": 0.3}
    whole = fitting_of(npz, tmp_path / "whole", **settings)
    expected = whole.fit()

    def stop(row):
        if row["epoch"] == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        fitting_of(npz, tmp_path / "cut", stop, **settings).fit()
    assert caught.value.exit_status == 143
    resumed = fitting_of(npz, tmp_path / "cut", **settings)
    resumed.resume()
    assert len(resumed.history.rows) == stop_after
    for found, weights in zip(resumed.fit(), expected, strict=True):
        np.testing.assert_array_equal(found, weights)
    keys = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    for a, b in zip(resumed.history.rows, whole.history.rows, strict=True):
        assert [a[key] for key in keys] == [b[key] for key in keys]


def test_a_kill_after_the_last_checkpoint_loses_no_row(npz, tmp_path):
    """metrics.csv is written after the checkpoint: a kill can come between them."""
    settings = {"epochs": 3, "batch_size": 128}
    fitting = fitting_of(npz, tmp_path, **settings)
    fitting.fit()
    whole = fitting.run.metrics.read_text()
    assert whole.count("\n") == 4
    fitting.run.metrics.unlink()
    resumed = fitting_of(npz, tmp_path, **settings)
    resumed.resume()
    resumed.fit()
    assert fitting.run.metrics.read_text() == whole


def test_steps_that_loss_scaling_leaves_out_are_counted(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", epochs=2, batch_size=16)
    inner = build_optimizer(fitting.config, fitting.schedule, "float32")
    scaled = keras.optimizers.LossScaleOptimizer(inner)
    fitting.loop = TrainingLoop(
        fitting.loop.model, scaled, fitting.config, jit_compile=False
    )
    scaled.dynamic_scale.assign(np.inf)  # every gradient overflows
    fitting.fit()
    assert fitting.loop.steps_done == 2 * fitting.steps == 12
    assert scaled.iterations.numpy() == 0, "no step overflowed: nothing was tested"
    assert len(fitting.history.rows) == 2


def test_the_first_bad_step_is_named(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", epochs=4, batch_size=16)
    spoil = fitting.loop.model.get_layer("logits").kernel

    def at_the_end_of(row):
        if row["epoch"] == 2:
            spoil.assign(np.full(spoil.shape, np.nan, np.float32))

    fitting.on_epoch = at_the_end_of
    with pytest.raises(RunError) as caught:
        fitting.fit()
    assert f"loss at step {2 * fitting.steps} is not" in str(caught.value)
    assert "epoch 3" in str(caught.value) and "2 epochs before" in str(caught.value)


def test_averaged_weights_follow_the_formula():
    config = Config(model="mlp", dense_units=(), ema_momentum=0.5)
    weight = keras.Variable(np.zeros(1, np.float32))

    model = types.SimpleNamespace(
        weights=[weight],
        variables=[weight],
        trainable_variables=[weight],
        layers=[],
        predict=lambda batches, verbose: None,
    )
    schedule = build_schedule(config, 1)
    optimizer = build_optimizer(config, schedule, "float32")
    loop = TrainingLoop(model, optimizer, config, jit_compile=False)
    expected = 0.0
    for step, value in enumerate([1.0, 4.0, 2.0]):
        weight.assign([value])
        loop._average_weights(tf.constant(step, tf.int64))
        momentum = min(0.5, (1 + step) / (10 + step))
        expected = momentum * expected + (1 - momentum) * value
    assert loop.weights()[0][0] == pytest.approx(expected)


def test_the_time_left_goes_by_the_epochs_mean_and_not_by_its_last_call(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", epochs=3, batch_size=16)
    assert fitting.steps == 6
    history = fitting.history
    history.first_step_seconds = history.epoch_seconds = 20.0  # graphs are built
    assert fitting._seconds_left(1) is None
    history.epoch_seconds += 10.0
    fitting._seconds_a_step = 0.001  # of the last, small batch
    assert fitting._seconds_left(6) == pytest.approx(12 * 10 / 5)
    history.epoch_seconds = 3.0
    assert fitting._seconds_left(9) == pytest.approx(9 * 3 / 3)
    history.epoch_seconds = 12.0
    assert fitting._seconds_left(12) == pytest.approx(6 * 12 / 6)


@pytest.mark.parametrize(("jit", "sizes"), [("on", {6}), ("off", {5, 6})])
def test_xla_is_given_batches_of_one_size(npz, tmp_path, jit, sizes):
    """It would compile for another one again."""
    fitting = fitting_of(
        npz, tmp_path, model="mlp", dense_units=(3,), batch_size=6, jit_compile=jit
    )
    assert len(fitting.data.train) % 6
    seen = tf.Variable(tf.zeros(7, tf.int32))  # by the size of the batch
    step = fitting.loop._step

    def counted(*batch):
        seen.scatter_nd_add([[tf.shape(batch[0])[0]]], [1])
        step(*batch)

    fitting.loop._step = counted
    fitting.fit()
    assert set(np.flatnonzero(seen.numpy())) == sizes
    assert seen.numpy().sum() == fitting.config.epochs * fitting.steps


def test_xla_trains_the_same(npz, tmp_path):
    found = []
    for jit in ("on", "off"):
        settings = {"dropout": 0.0, "batch_size": 128, "epochs": 3}  # a batch an epoch
        fitting = fitting_of(npz, tmp_path / jit, **settings, jit_compile=jit)
        assert fitting.steps == 1
        found.append(fitting.fit())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_when_the_first_step_began_is_known(npz, tmp_path):
    before = time.perf_counter()
    fitting = fitting_of(npz, tmp_path / "run", epochs=2)
    assert fitting.first_step_began is None
    fitting.fit()
    took = fitting.history.rows[0]["seconds"] + fitting.history.rows[1]["seconds"]
    assert before < fitting.first_step_began < time.perf_counter() - took + 0.01


def test_when_this_process_began_is_known():
    before = time.perf_counter()
    code = (
        "import time; from kcnn import runtime; time.sleep(0.5);"
        "print(time.perf_counter() - runtime.process_began())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 0.5 <= float(done.stdout) <= time.perf_counter() - before + 0.02
