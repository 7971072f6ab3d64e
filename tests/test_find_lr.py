"""kcnn find-lr: smoothing, stop and suggestion by hand; real tests on tiny data."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from kcnn.config import KNOBS, Config, overlay
from kcnn.datasets import load, load_training_images
from kcnn.errors import RunError
from kcnn.find_lr import (
    BELOW,
    RANGES,
    Curve,
    has_exploded,
    range_test,
    result,
    rows,
    smooth,
    suggest,
)
from kcnn.find_lr_plot import loss_by_rate
from kcnn.optimization import RisingRate

RATES = [10.0**k for k in range(-8, 3)]


def curve(smoothed, seed=0):
    rates = RATES[: len(smoothed)]
    return Curve(seed, rates, list(smoothed), list(smoothed), "exploded")


def test_smoothing_by_hand():
    # (0.2 * 5) / 0.2; (0.8 * 1 + 0.2 * 2) / (1 - 0.64)
    assert smooth([5, 2]) == pytest.approx([5, 1.2 / 0.36])
    assert smooth([3] * 20) == pytest.approx([3] * 20)


@pytest.mark.parametrize(
    "smoothed, exploded",
    [
        ([2.3] * 9, False),
        ([2.3] * 6 + [9.0], False),
        ([2.3] * 6 + [9.3], True),  # four times the lowest
        ([3.0] * 5 + [0.3, 1.1], False),
        ([3.0] * 5 + [0.3, 1.3], True),
        ([2.3] * 5 + [1.7, 2.1], True),  # half of the way back
        ([2.3] * 5 + [1.7, 1.9], False),
        ([2.3] * 5 + [2.2, 2.3], False),  # has not fallen enough to call it that
        ([2.3, 1, 3, 4, 5], False),  # too few losses in the averages
        ([1, 1, 2, 2, 3, 2.9], False),
    ],
)
def test_exploded(smoothed, exploded):
    assert has_exploded(smoothed) is exploded


def test_suggests_the_median_of_the_seeds():
    falls = [[2, 0.5, 1], [2, 1, 0.7], [1, 1.1, 2]]
    found = suggest([curve([2.3] * 5 + smoothed) for smoothed in falls])
    assert found["lowest_at"] == [1e-2, 1e-1, 1e-3]
    assert found["learning_rate"] == pytest.approx(1e-2 / BELOW, rel=0.02)
    assert found["still_falling"] == 1


def test_refuses_what_never_fell():
    with pytest.raises(RunError, match=r"random seed 7: the loss never fell.* --from"):
        suggest([curve([2.3, 2.31, 2.3, 2.3, 2.3, 2.5], seed=7)])


def test_the_rate_rises_by_the_same_factor():
    course = RisingRate(1e-4, 1.0, 5)
    assert [float(course(i)) for i in range(5)] == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1, 1], rel=1e-5
    )
    assert RisingRate(**course.get_config()).get_config() == course.get_config()


def test_every_optimizer_has_a_range_about_its_default():
    for name, default in KNOBS["learning_rate"].default.defaults.items():
        first, last = RANGES[name]
        assert 100 * first < default < last / 20


@pytest.fixture
def tiny(npz):
    return Config(dataset=f"npz:{npz}", model="mlp", dense_units=(16,), batch_size=20)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_range_test_is_repeatable_and_real(tiny, optimizer):
    config = Config.from_dict(overlay(tiny.to_dict(), {"optimizer": optimizer}))
    course = RisingRate(1e-4, 100.0, 40)
    spec, train = load_training_images(config)
    found = range_test(config, spec, train, course)
    assert found == range_test(config, spec, train, course)
    assert found.losses[0] == pytest.approx(math.log(3), abs=0.6)  # it guesses
    assert found.smoothed == pytest.approx(smooth(found.losses))
    assert found.rates == pytest.approx(
        [1e-4 * 10 ** (6 * i / 39) for i in range(len(found.rates))], rel=1e-4
    )
    assert min(found.losses) < 0.8 * found.losses[0]
    assert 1e-4 < suggest([found])["learning_rate"] < 100 / BELOW


def test_nothing_but_training_images_is_read(tiny, tmp_path):
    """With other test images and labels the same comes out."""
    arrays = dict(np.load(tmp_path / "stripes.npz"))
    arrays["x_test"], arrays["y_test"] = 255 - arrays["x_test"], arrays["y_test"][::-1]
    np.savez(tmp_path / "other.npz", **arrays)
    other = Config.from_dict(
        {**tiny.to_dict(), "dataset": f"npz:{tmp_path / 'other.npz'}"}
    )
    course = RisingRate(1e-4, 1.0, 20)
    spec, train = load_training_images(tiny)
    np.testing.assert_array_equal(train.indices, load(tiny).train.indices)
    first = range_test(tiny, spec, train, course)
    assert first == range_test(other, *load_training_images(other), course)


def test_a_loss_that_is_not_finite_at_once_is_an_error(tiny):
    config = Config.from_dict(overlay(tiny.to_dict(), {"optimizer": "sgd"}))
    spec, train = load_training_images(config)
    for rate in (1e38, math.inf, math.nan):
        with pytest.raises(RunError, match=r"of step \d is \S+; lower --from"):
            range_test(config, spec, train, RisingRate(rate, rate, 20))


def test_plot_and_rows(tmp_path):
    curves = [curve([2.3] * 5 + [1, 9]), curve([2.2] * 5 + [1.5, 1, 3], seed=1)]
    about = {"command": "kcnn find-lr"}
    facts = result(curves, suggest(curves), about)
    figure = loss_by_rate(facts, tmp_path / "find_lr.png")
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_ylim()[1] < 9
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"suggested: {facts['learning_rate']:g}" in labels and len(labels) == 4
    assert Image.open(tmp_path / "find_lr.png").width > 600
    assert len(rows(curves)) == 15
    assert rows(curves)[-1] == {
        "random_seed": 1,
        "step": 8,
        "learning_rate": 1e-1,
        "loss": 3,
        "smoothed_loss": 3,
    }
    assert json.dumps(facts, allow_nan=False)


def test_prints_a_command_that_kcnn_train_takes(kcnn, npz):
    shape = ("--dataset=npz:stripes.npz", "--model=mlp", "--dense_units=16")
    knobs = (*shape, "--epochs=3", "--batch_size=20", "--random_seed=4")
    done = kcnn("find-lr", "--output=lr", "--steps=40", *knobs)
    assert done.returncode == 0, done.stderr
    found = json.loads((npz.parent / "lr" / "find_lr.json").read_text())
    last = done.stdout.splitlines()[-1]
    assert last == f"suggested  {found['suggested']}"
    words = found["suggested"].split()
    assert words[:2] == ["kcnn", "train"]
    assert words[2] == f"--learning_rate={found['learning_rate']:g}"
    assert set(knobs) == set(words[3:])
    with (npz.parent / "lr" / "find_lr.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["curves"][0]["losses"])
    assert (npz.parent / "lr" / "find_lr.png").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "--output: say where"),
        (("--output=lr", "--from=1", "--to=0.1"), "--from: got 1, expected less than"),
        (("--output=lr", "--learning_rate=1"), "unknown flag --learning_rate"),
        (("--output=lr", "--steps=3"), "--steps: got 3, expected 20 to"),
    ],
)
def test_refuses(kcnn, arguments, message):
    done = kcnn("find-lr", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
