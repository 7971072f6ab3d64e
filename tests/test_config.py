import dataclasses
import json
import math

import pytest

from kcnn.config import KNOBS, MODELS, Config, overlay
from kcnn.errors import UsageError
from kcnn.knobs import By, parse, show


def test_defaults_are_complete_and_come_back_from_json():
    config = Config()
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert config.filters == (32, 64)
    assert config.learning_rate == 0.002


@pytest.mark.parametrize("model", MODELS)
def test_every_model_comes_back_from_json(model):
    config = Config(model=model)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3


def test_optimizers_have_sound_learning_rates_of_their_own():
    rates = {
        name: Config(optimizer=name).learning_rate
        for name in KNOBS["optimizer"].choices
    }
    assert rates["adadelta"] == 1.0  # Keras's 0.001 is a thousand times too small
    assert rates["momentum"] == 0.01
    assert None not in rates.values()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reject": []}, ["--reject", "got []"]),
        ({"reject": "softmax"}, ["--reject", "max_probability", "energy"]),
        ({"coverage": 0.9}, ["--coverage", "changes nothing", "--reject=none"]),
        ({"reject": "energy", "coverage": 1.5}, ["--coverage", "0.01 to 1"]),
        (
            {"calibrate": True, "validation_fraction": 0.0},
            ["--validation_fraction=0", "--calibrate to go by"],
        ),
        (
            {"reject": "energy", "validation_fraction": 0.0},
            ["--validation_fraction=0", "--calibrate and --reject=energy"],
        ),
        ({"optimizer": "adm"}, ["--optimizer", "'adm'", "did you mean adam?"]),
        ({"model": "lenett"}, ["--model", "did you mean lenet?"]),
        ({"epochs": 0}, ["--epochs", "got 0", "1 to 100000"]),
        ({"epochs": 1.5}, ["--epochs", "1.5", "a whole number"]),
        ({"epochs": True}, ["--epochs", "a whole number"]),
        ({"epochs": None}, ["--epochs", "a whole number"]),
        ({"learning_rate": math.nan}, ["--learning_rate", "nan"]),
        ({"learning_rate": math.inf}, ["--learning_rate", "inf"]),
        ({"learning_rate": "0.1"}, ["--learning_rate", "a number"]),
        ({"dropout": -0.1}, ["--dropout", "0 to 0.95"]),
        ({"train_size": 0}, ["--train_size", "1 or more"]),
        ({"filters": (32, 0)}, ["--filters", "32,0", "1 to 4096"]),
        ({"filters": "32,64"}, ["--filters", "whole numbers"]),
        ({"filters": (32,)}, ["--filters", "expected 2 numbers", "tutorial"]),
        ({"model": "mlp", "filters": (3,)}, ["--filters", "changes nothing", "mlp"]),
        ({"model": "convnet", "filters": ()}, ["--filters", "at least one"]),
        ({"optimizer": "adam", "momentum": 0.9}, ["--momentum", "changes nothing"]),
        ({"standardize_floor": 0.1}, ["--standardize_floor", "changes nothing"]),
        ({"warmup_epochs": 1.0}, ["--warmup_epochs", "changes nothing", "cosine"]),
        ({"image_size": (28,)}, ["--image_size", "HEIGHT,WIDTH"]),
        ({"batch_norm": 2, "model": "convnet"}, ["--batch_norm", "0 or 1"]),
        ({"batch_norm_momentum": 0.5}, ["--batch_norm_momentum", "changes nothing"]),
        ({"extra_conv_pool": False}, ["extra_conv_pool", "changes nothing"]),
        (
            {"conv_dropout": 0, "spatial_dropout": True},
            ["--spatial_dropout", "changes"],
        ),
        ({"model": "mlp", "spatial_dropout": True}, ["--spatial_dropout", "tutorial"]),
        ({"model": "bottleneck", "strides": (1,)}, ["--strides", "as many"]),
        (
            {"validation_fraction": 0, "early_stopping": 3},
            ["--validation_fraction", "--early_stopping"],
        ),
        (
            {"schedule": "cosine", "warmup_epochs": 12.0},
            ["--warmup_epochs", "less than --epochs=12"],
        ),
    ],
)
def test_refused_in_one_line_that_names_the_flag(settings, words):
    with pytest.raises(UsageError) as caught:
        Config(**settings)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_unknown_knob_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean learning_rate"):
        Config.from_dict({"lr": 0.1})
    with pytest.raises(UsageError, match="did you mean batch_size"):
        Config.from_dict({"batchsize": 3})


@pytest.mark.parametrize("name", KNOBS)
def test_declarations_are_sound(name):
    knob = KNOBS[name]
    assert knob.section and knob.help
    assert knob.kind in (int, float, str, bool, tuple)
    if knob.kind in (int, float, tuple):
        assert knob.low is not None, "a number needs bounds"
    if isinstance(knob.default, By):
        assert set(knob.default.defaults) <= set(KNOBS[knob.default.knob].choices)
        names = list(KNOBS)  # each is checked in this order, with those before it
        assert names.index(knob.default.knob) < names.index(name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("filters", "32,64", (32, 64)),
        ("dense_units", "", ()),
        ("learning_rate", "1e-3", 0.001),
        ("epochs", "7", 7),
        ("model", "lenet", "lenet"),
    ],
)
def test_parse_reads_what_show_writes(name, text, value):
    assert parse(KNOBS[name], text) == value
    assert parse(KNOBS[name], show(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("1m", 60), ("1.5h", 5400), ("45", 45), ("0", 0)],
)
def test_a_time_is_typed_with_its_unit_or_in_seconds(text, seconds):
    assert parse(KNOBS["checkpoint_every"], text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1epoch", "got '1epoch', expected a time such as 90s, 5m, 1h"),
        ("", "got '', expected a time"),
        ("m", "got 'm', expected a time"),
        ("-5s", "got -5, expected 0 to 604800"),
        ("200h", "got 720000, expected 0 to 604800"),
        ("nan", "got nan, expected 0 to 604800"),
    ],
)
def test_what_is_no_time_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse(KNOBS["checkpoint_every"], text)


def test_rejecting_calibrates_unless_told_not_to():
    assert Config(reject="energy").calibrate is True
    assert Config(reject="energy", calibrate=False).calibrate is False
    assert Config().calibrate is False
    assert Config().coverage is None
    was = Config().to_dict()
    assert Config.from_dict(overlay(was, {"reject": "energy"})).calibrate is True


def test_a_new_optimizer_brings_its_own_learning_rate():
    base = {"optimizer": "adadelta", "learning_rate": 0.001, "epochs": 3}
    assert overlay(base, {"optimizer": "adadelta"}) == base
    assert overlay(base, {"optimizer": "sgd"}) == {"optimizer": "sgd", "epochs": 3}
    given = {"optimizer": "sgd", "learning_rate": 0.5}
    assert overlay(base, given) == {**given, "epochs": 3}
    assert overlay({"learning_rate": 0.1}, {"optimizer": "adam"}) == {
        "learning_rate": 0.1,  # adam is the default that it was meant for
        "optimizer": "adam",
    }
