import csv
import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest

from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.experiments import (
    EXPERIMENTS,
    RECIPES,
    Reported,
    matching,
    settings_of,
)

PUBLISHED_RUNS = os.environ.get("KCNN_PUBLISHED_RUNS")

NAMES = [
    "k1",
    "k-tutorial",
    "k2",
    "p1",
    "p2",
    "lr-0.002",
    "lr-0.02",
    "lr-0.2",
    "width-16-32",
    "width-32-64",
    "width-48-96",
    "width-64-128",
    "head-dropout-0.02",
    "head-dropout-0.05",
    "head-dropout-0.15",
    "head-dropout-0.30",
    "own-digits",
    "bottleneck",
    "bottleneck-50",
    "bottleneck-lr-sweep",
    "bottleneck-wide",
    "bottleneck-wide-2",
    "mlp",
    "cnn-1conv",
    "cnn-2conv",
    "cnn-1conv-lr-0.001",
    "cnn-1conv-batch-64",
    "size-100",
    "size-250",
    "size-500",
    "size-1000",
    "size-60000",
    "own-set-best",
    "tutorial",
    "tutorial-bn",
    "tutorial-bn2",
    "tutorial-standardized",
    "tutorial-standardized-bn",
    "tutorial-extra-conv",
    "tutorial-extra-conv-bn2",
    "kernel-5",
    "dense-1000",
    "dense-64",
    "dense-11",
    "dense-5",
    "third-conv-128-dense-5",
    "lenet",
    "lenet-dropout",
    "lenet-dropout-bn",
]

NO_SINGLE_RUN = ("bottleneck-lr-sweep", "own-set-best")
RUNNABLE = [name for name in NAMES if name not in NO_SINGLE_RUN]

# Written out as published even where Config's default is the same.
CLEARER_WRITTEN_OUT = {"model", "optimizer", "learning_rate", "batch_size", "epochs"}

# name -> accuracy, loss, seconds, copied by hand from the publications' table.
REPORTED = {
    "k1": (0.8240, 0.7848, 1155),
    "k2": (0.7857, 1.4897, 872),
    "p1": (0.9904, None, 106),
    "lr-0.2": (0.9644, None, 286),
    "width-64-128": (0.9798, None, 816),
    "head-dropout-0.15": (0.9822, 1.4824, 54),
    "own-digits": (0.80, 1.9472, 1937),
    "bottleneck-50": (0.43, None, 638),
    "mlp": (None, None, None),
    "cnn-1conv-batch-64": (0.9655, 0.11, None),
    "size-1000": (0.9508, None, None),
    "own-set-best": (0.7333, None, None),
    "tutorial-extra-conv-bn2": (0.9855, 0.0458, 254),
    "lenet-dropout": (0.50, 1.4248, 12314),
}

# name -> the knobs that make the experiment what it is, by hand.
BY_HAND = {
    "k1": {"optimizer": "adadelta", "learning_rate": 0.001, "batch_size": 128},
    "p2": {"optimizer": "sgd", "learning_rate": 0.002, "filters": (16, 32)},
    "width-48-96": {"filters": (48, 96), "kernel_size": 5, "learning_rate": 0.02},
    "head-dropout-0.30": {"dropout": 0.3, "head": "dropout_softmax", "epochs": 6},
    "own-digits": {"extra_class": "not a digit", "dataset": "mnist"},
    "bottleneck": {
        "filters": (4, 2),
        "kernel_size": 3,
        "strides": (1, 3),
        "padding": 0,
        "pool_sizes": (2, 4),
        "epochs": 10,
    },
    "bottleneck-wide-2": {
        "filters": (32, 64),
        "kernel_size": 5,
        "strides": (1, 3),
        "padding": 1,
        "pool_sizes": (2, 4),
        "epochs": 2,
    },
    "cnn-1conv": {"filters": (32,), "dense_units": (512, 128), "momentum": 0.9},
    "cnn-2conv": {"filters": (32, 64), "dense_units": (256,), "kernel_size": 5},
    "size-250": {"train_size": 250, "batch_size": 50, "optimizer": "adam"},
    "size-60000": {"train_size": None, "batch_size": 100, "epochs": 5},
    "tutorial": {"learning_rate": 1.0, "batch_size": 128, "epochs": 1},
    "tutorial-standardized-bn": {"standardize": "pixel", "batch_norm": 1},
    "kernel-5": {"kernel_size": 5, "extra_conv": 64, "batch_norm": 2},
    "dense-11": {"dense_units": (11,), "extra_conv_pool": False, "batch_norm": 1},
    "third-conv-128-dense-5": {"extra_conv": 128, "dense_units": (5,)},
    "lenet-dropout-bn": {"dataset": "cifar10", "conv_dropout": 0.5, "batch_norm": 1},
}


def test_all_published_runs_are_there_in_their_order():
    assert list(EXPERIMENTS) == NAMES
    assert len(NAMES) == 49


@pytest.mark.parametrize("name", RUNNABLE)
def test_builds_a_config(name):
    config = Config.from_dict(settings_of(name))
    assert config.dataset in ("mnist", "cifar10")
    assert config.validation_fraction == 0
    assert config.schedule == "constant"
    assert config.keep == "last"


@pytest.mark.parametrize("name", BY_HAND)
def test_is_the_published_recipe(name):
    config = Config.from_dict(settings_of(name)).to_dict()
    assert {knob: config[knob] for knob in BY_HAND[name]} == BY_HAND[name]


def test_no_two_configs_are_equal():
    seen = {}
    for name in RUNNABLE:
        config = Config.from_dict(settings_of(name))
        assert config not in seen, f"{name} repeats {seen.get(config)}"
        seen[config] = name


@pytest.mark.parametrize(
    ("again", "first"),
    [("k-tutorial", "k1"), ("lr-0.002", "p2"), ("width-16-32", "lr-0.02")],
)
def test_a_recipe_run_again_differs_by_its_seed_alone(again, first):
    settings = settings_of(again)
    assert settings.pop("random_seed") == 1
    assert settings == settings_of(first)
    assert "another random_seed" in EXPERIMENTS[again].about


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_changes_the_config(name):
    settings = dict(EXPERIMENTS[name].settings)
    config = Config.from_dict(settings)
    for knob in settings.keys() - CLEARER_WRITTEN_OUT:
        rest = {k: v for k, v in settings.items() if k != knob}
        try:
            without = Config.from_dict(rest)
        except UsageError:  # another setting is refused without this one
            continue
        assert getattr(without, knob) != getattr(config, knob), knob


@pytest.mark.parametrize("name", NAMES)
def test_reported_figures_are_possible(name):
    reported = EXPERIMENTS[name].reported
    assert reported.accuracy is None or 0 <= reported.accuracy <= 1
    assert reported.loss is None or reported.loss > 0
    assert reported.train_seconds is None or reported.train_seconds > 0
    assert not (reported.loss_was_nan and reported.loss is not None)


@pytest.mark.parametrize("name", REPORTED)
def test_reported_figures(name):
    expected = dataclasses.replace(EXPERIMENTS[name].reported, digits=4)
    assert expected == Reported(*REPORTED[name])


def test_accuracies_were_printed_to_as_many_digits_as_said():
    for name, (accuracy, *_) in REPORTED.items():
        digits = EXPERIMENTS[name].reported.digits
        assert accuracy is None or round(accuracy, digits) == accuracy


def test_losses_published_as_nan():
    nan = [name for name in NAMES if EXPERIMENTS[name].reported.loss_was_nan]
    assert nan == ["tutorial-standardized", "tutorial-standardized-bn"]
    assert EXPERIMENTS[nan[0]].reported.accuracy == 0.0980
    assert EXPERIMENTS[nan[0]].reported.train_seconds == 167


@pytest.mark.parametrize("name", NAMES)
def test_about_is_one_short_line_and_all_of_it_is_json(name):
    experiment = EXPERIMENTS[name]
    assert 0 < len(experiment.about) <= 80
    assert "\n" not in experiment.about
    json.dumps(dataclasses.asdict(experiment), allow_nan=False)


def test_settings_are_a_copy():
    settings_of("k1")["epochs"] = 1
    assert settings_of("k1")["epochs"] == 12


def test_the_sweep_holds_its_values():
    experiment = EXPERIMENTS["bottleneck-lr-sweep"]
    assert list(experiment.sweep) == ["learning_rate"]
    rates = experiment.sweep["learning_rate"]
    assert rates == (
        *(0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0007, 0.0008, 0.0009),
        *(0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01),
    )
    for rate in rates:
        assert "learning_rate" not in experiment.settings
        config = Config(**experiment.settings, learning_rate=rate)
        by_hand = settings_of("bottleneck") | {"epochs": 5, "learning_rate": rate}
        assert config == Config.from_dict(by_hand)


def test_only_the_sweep_sweeps():
    assert [n for n in NAMES if EXPERIMENTS[n].sweep] == ["bottleneck-lr-sweep"]
    assert tuple(n for n in NAMES if EXPERIMENTS[n].stands_for) == NO_SINGLE_RUN


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        (
            "bottleneck-lr-sweep",
            "kcnn train --experiment=bottleneck --epochs=5 --learning_rate=RATE",
        ),
        ("own-set-best", "kcnn evaluate RUN --dataset=folder:DIR"),
    ],
)
def test_what_is_no_single_run_says_what_to_run(name, instead):
    with pytest.raises(UsageError) as raised:
        settings_of(name)
    message = str(raised.value)
    assert message.startswith(f"--experiment={name} is no single training run")
    assert instead in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("typo", "near"),
    [("lenet-droput", "lenet-dropout"), ("K1", "k1"), ("size_1000", "size-1000")],
)
def test_unknown_name_with_a_near_match(typo, near):
    with pytest.raises(UsageError) as raised:
        settings_of(typo)
    assert str(raised.value) == (
        f"--experiment: got {typo!r}, which is not an experiment; did you mean {near}?"
    )


def test_unknown_name_like_no_other_lists_them_all():
    with pytest.raises(UsageError) as raised:
        settings_of("zzzzzzzz")
    names = ", ".join([*NAMES, *RECIPES])
    assert str(raised.value).endswith("; expected one of " + names)


def test_settings_name_knobs_only():
    for name, experiment in EXPERIMENTS.items():
        assert experiment.settings.keys() <= KNOBS.keys(), name
        assert experiment.sweep.keys() <= KNOBS.keys(), name


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_settings_of_config_alone_and_train_on_all_images(name):
    assert name not in EXPERIMENTS
    config = Config.from_dict(settings_of(name))
    assert config.validation_fraction == 0 and not config.train_size
    assert RECIPES[name].reported == Reported()


def test_published_runs_and_recipes_are_found_apart():
    assert matching(["mnist-*", "cifar-*"]) == matching(["recipes"]) == list(RECIPES)
    with pytest.raises(UsageError, match="no experiment is named like recipes"):
        matching(["recipes"], EXPERIMENTS)


def test_imports_no_tensorflow():
    code = "import sys, kcnn.experiments; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(
    not PUBLISHED_RUNS,
    reason="KCNN_PUBLISHED_RUNS names no copy of the published runs' table",
)
def test_agrees_with_the_published_table():
    with open(str(PUBLISHED_RUNS), newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["id"] for row in rows] == list(EXPERIMENTS)
    for row in rows:
        experiment = EXPERIMENTS[row["id"]]
        loss = _figure(row["reported_test_loss"])
        is_nan = loss is not None and math.isnan(loss)
        assert experiment.group == row["group"], row["id"]
        assert experiment.reported == Reported(
            _figure(row["reported_test_accuracy"]),
            None if is_nan else loss,
            _figure(row["reported_train_seconds"]),
            loss_was_nan=is_nan,
        ), row["id"]
        config = Config.from_dict(experiment.settings)
        optimizer = row["optimizer"].removeprefix("sgd-")
        assert config.optimizer == optimizer, row["id"]
        assert config.model == row["model"], row["id"]
        assert config.batch_size == int(row["batch_size"]), row["id"]
        assert config.epochs == int(row["epochs"]), row["id"]
        if row["learning_rate"] != "sweep":
            assert config.learning_rate == float(row["learning_rate"]), row["id"]


def _figure(text: str) -> float | None:
    return float(text) if text else None
