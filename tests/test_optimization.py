import math

import keras
import numpy as np
import pytest

from kcnn.config import KNOBS, Config
from kcnn.optimization import build_optimizer, build_schedule


def rates(steps, **settings):
    schedule = build_schedule(Config(optimizer="sgd", **settings), steps_per_epoch=10)
    return [float(schedule(step)) for step in steps]


def test_constant():
    assert rates([0, 50, 119], schedule="constant", learning_rate=0.5) == [0.5] * 3


def test_cosine_by_hand():
    found = rates([0, 60, 119], schedule="cosine", learning_rate=1.0)
    expected = [1.0, 0.5, (1 + math.cos(math.pi * 119 / 120)) / 2]
    assert found == pytest.approx(expected, abs=1e-6)


def test_warm_up_rises_linearly_then_cosine_falls_to_nothing():
    found = rates(
        [0, 4, 9, 20, 119], schedule="cosine", warmup_epochs=2.0, learning_rate=1.0
    )
    assert found[:3] == pytest.approx([1 / 20, 5 / 20, 10 / 20])
    assert found[3] == pytest.approx(1.0)
    assert found[4] < 0.001


def test_step_drops_every_so_many_epochs():
    found = rates(
        [0, 29, 30, 59, 60],
        schedule="step",
        step_epochs=3,
        step_factor=0.5,
        learning_rate=0.8,
    )
    assert found == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])


def test_one_cycle_peaks_after_three_tenths():
    found = rates([0, 18, 36, 78, 119], schedule="one_cycle", learning_rate=1.0)
    middle = (1 / 25 + 1) / 2
    assert found[:4] == pytest.approx([1 / 25, middle, 1.0, 0.5], abs=1e-5)
    assert found[4] < 0.001


def test_the_triangle_has_straight_sides():
    settings = {"schedule": "triangle", "learning_rate": 2.0, "epochs": 100}
    found = rates([0, 115, 230, 615, 1000, 2000], **settings)
    expected = [2 * 0.2, 2 * 0.6, 2.0, 2 * (1 + 0.07) / 2, 2 * 0.07, 2 * 0.07]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", KNOBS["optimizer"].choices)
def test_every_optimizer_takes_a_step_downhill(name):
    config = Config(optimizer=name, schedule="constant")
    optimizer = build_optimizer(config, build_schedule(config, 10), "float32")
    weight = keras.Variable(np.array([2.0, -3.0], np.float32))
    optimizer.build([weight])
    assert float(optimizer.learning_rate) == pytest.approx(config.learning_rate)
    optimizer.apply([weight.value * 2.0])  # the gradient of the square
    assert np.abs(weight.numpy()).sum() < 5.0


@pytest.mark.parametrize("name", KNOBS["optimizer"].choices)
def test_weight_decay_shrinks_kernels_and_nothing_else(name):
    rate = 0.1
    config = Config(
        optimizer=name, schedule="constant", learning_rate=rate, weight_decay=0.5
    )
    optimizer = build_optimizer(config, build_schedule(config, 10), "float32")
    names = ("kernel", "bias", "gamma", "beta")
    variables = [keras.Variable(np.ones(2, np.float32), name=n) for n in names]
    optimizer.build(variables)
    optimizer.apply([np.zeros(2, np.float32)] * 4)
    kernel, *others = (float(v.numpy()[0]) for v in variables)
    assert kernel == pytest.approx(1 - rate * 0.5)
    assert others == [1.0, 1.0, 1.0]


def test_clipping_is_by_the_global_norm():
    config = Config(
        optimizer="sgd", schedule="constant", learning_rate=1.0, clip_norm=1.0
    )
    optimizer = build_optimizer(config, build_schedule(config, 10), "float32")
    weights = [keras.Variable(np.zeros(1, np.float32)) for _ in range(2)]
    optimizer.build(weights)
    optimizer.apply([np.array([30.0], np.float32), np.array([40.0], np.float32)])
    assert [float(w.numpy()[0]) for w in weights] == pytest.approx([-0.6, -0.8])


def test_float16_gets_loss_scaling():
    config = Config()
    optimizer = build_optimizer(config, build_schedule(config, 10), "mixed_float16")
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adams_betas_are_those_asked_for(name):
    config = Config(model="mlp", optimizer=name, beta_1=0.7, beta_2=0.95)
    optimizer = build_optimizer(config, build_schedule(config, 10), "float32")
    assert (optimizer.beta_1, optimizer.beta_2) == (0.7, 0.95)
