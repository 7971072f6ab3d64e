"""The space of a search: how it is read, what it holds, what is refused."""

import json

import pytest

from kcnn.config import KNOBS, MODELS
from kcnn.errors import UsageError
from tuning.space import (
    SPACES,
    Choices,
    Span,
    build_space,
    parse_domain,
    read_space,
)


def space_of(**texts):
    return build_space({n: parse_domain(KNOBS[n], text) for n, text in texts.items()})


@pytest.mark.parametrize(
    ("knob", "text", "domain"),
    [
        ("learning_rate", "log:1e-4..1e-1", Span(1e-4, 1e-1, log=True)),
        ("dropout", "0..0.5", Span(0.0, 0.5)),
        ("dropout", "0.1,0.2", Choices((0.1, 0.2))),
        ("kernel_size", "3,5", Choices((3, 5))),
        ("kernel_size", "3..7", Span(3, 7)),
        ("extra_conv", "log:8..64", Span(8, 64, log=True)),
        ("filters", "16,32;32,64", Choices(((16, 32), (32, 64)))),
        ("dense_units", ";64", Choices(((), (64,)))),
        ("dataset", "npz:../a.npz", Choices(("npz:../a.npz",))),
        ("extra_conv_pool", "true,false", Choices((True, False))),
    ],
)
def test_a_domain_is_read_and_written_as_it_is_typed(knob, text, domain):
    read = parse_domain(KNOBS[knob], text)
    assert read == domain
    assert parse_domain(KNOBS[knob], str(read)) == domain


@pytest.mark.parametrize(
    ("knob", "text", "words"),
    [
        ("learning_rate", "1e-1..1e-4", "the lower first"),
        ("dropout", "log:0..0.5", "begins above 0"),
        ("dropout", "0..1", "got 1, expected 0 to 0.95"),
        ("dropout", "0..x", "got 'x'"),
        ("kernel_size", "3..7.5", "got '7.5', expected a whole number"),
        ("kernel_size", "log:3", "got 'log:3'"),
    ],
)
def test_a_domain_that_is_refused(knob, text, words):
    with pytest.raises(ValueError, match="got ") as raised:
        parse_domain(KNOBS[knob], text)
    assert words in str(raised.value)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_space_of_its_own_whose_ends_can_be_configured(model):
    space = space_of(model=model)
    assert set(SPACES[model]) < set(space.domains)
    assert {"learning_rate", "batch_size"} <= set(space.domains)
    for end in (0, -1):
        values = {name: d.values[end] for name, d in space.domains.items()}
        config = space.config(values)
        assert {name: getattr(config, name) for name in values} == values
    assert space.baseline.model == model


def test_a_flag_adds_narrows_and_fixes():
    space = space_of(
        kernel_size="3,5,7", dropout="0.4", weight_decay="log:1e-5..1e-2", epochs="3"
    )
    assert space.domains["kernel_size"] == Choices((3, 5, 7))
    assert space.domains["weight_decay"] == Span(1e-5, 1e-2, log=True)
    assert "dropout" not in space.domains
    assert space.fixed == {"dropout": 0.4, "epochs": 3}
    assert space.baseline.kernel_size == 3
    assert space.config({"kernel_size": 7}).dropout == 0.4


def test_the_learning_rates_follow_a_fixed_optimizer():
    assert space_of(optimizer="adadelta").domains["learning_rate"] == Span(
        0.1, 10.0, log=True
    )
    assert "learning_rate" not in space_of(optimizer="sgd,adam").domains


def test_a_knob_that_depends_on_a_searched_one_is_conditional():
    space = space_of(optimizer="adam,momentum,nesterov", momentum="0.8..0.99")
    assert space.condition("momentum") == ("optimizer", ("momentum", "nesterov"))
    assert space.condition("optimizer") is None
    assert space.condition("weight_decay") is None
    fixed = space_of(optimizer="adam,momentum", momentum="0.8")
    assert fixed.config({"optimizer": "adam"}).momentum is None
    assert fixed.config({"optimizer": "momentum"}).momentum == 0.8
    assert fixed.baseline.optimizer == "adam"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"momentum": "0.5..0.9"}, "--momentum changes nothing for --optimizer=adam"),
        ({"model": "mlp", "kernel_size": "3,5"}, "--kernel_size changes nothing"),
        ({"random_seed": "0,1"}, "--random_seed: got 0,1, expected one value"),
        ({"validation_fraction": "0.1..0.2"}, "could not be compared"),
        (
            {
                "model": "mlp",
                "dense_units": "9",
                "dropout": "0",
                "activation": "relu",
                "batch_size": "8",
                "learning_rate": "1",
            },
            "nothing to search",
        ),
    ],
)
def test_a_space_that_is_refused(texts, words):
    with pytest.raises(UsageError) as raised:
        space_of(**texts)
    assert words in str(raised.value)


def test_size_and_grid():
    texts = {"model": "mlp", "dense_units": "8;16", "activation": "relu,gelu"}
    space = space_of(**texts, dropout="0..0.4", learning_rate="0.01", batch_size="4..5")
    assert space.size is None
    grid = list(space.grid())
    assert len(grid) == space.grid_size == 2 * 2 * 5 * 2
    assert grid[0] == {
        "dense_units": (8,),
        "dropout": 0.0,
        "activation": "relu",
        "batch_size": 4,
    }
    assert [g["dropout"] for g in grid[::4]][:5] == [0.0, 0.1, 0.2, 0.3, 0.4]
    finite = space_of(**texts, dropout="0", learning_rate="0.01", batch_size="4..9")
    assert finite.size == 2 * 2 * 6


def test_points_of_a_logarithmic_span():
    assert Span(1e-4, 1.0, log=True).values == (1e-4, 1e-3, 0.01, 0.1, 1.0)
    assert Span(1, 3).values == (1, 2, 3)
    assert Span(0.0, 1.0).rounded(0.123456) == 0.1235
    assert Span(0.0, 0.12344).rounded(0.123439) == 0.1234
    assert Span(1, 9).rounded(3.7) == 4


def test_a_file_says_what_flags_say(tmp_path):
    path = tmp_path / "space.json"
    content = {
        "learning_rate": "log:1e-4..1e-1",
        "kernel_size": [3, 5],
        "filters": [[16, 32], [32, 64]],
        "dense_units": [64],
        "dropout": 0.25,
        "extra_conv_pool": [True, False],
        "optimizer": ["adam"],
    }
    path.write_text(json.dumps(content))
    assert read_space(path) == {
        "learning_rate": Span(1e-4, 1e-1, log=True),
        "kernel_size": Choices((3, 5)),
        "filters": Choices(((16, 32), (32, 64))),
        "dense_units": Choices(((64,),)),
        "dropout": Choices((0.25,)),
        "extra_conv_pool": Choices((True, False)),
        "optimizer": Choices(("adam",)),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("{", "cannot be read"),
        ("[]", "expected an object"),
        ('{"kernelsize": 3}', "unknown knob 'kernelsize'; did you mean kernel_size?"),
        ('{"kernel_size": []}', "kernel_size: got []"),
        ('{"kernel_size": [3, 99]}', "kernel_size: got 99, expected 1 to 31"),
    ],
)
def test_a_file_that_is_refused(tmp_path, text, words):
    path = tmp_path / "space.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_space(path)
    assert words in str(raised.value)
    assert f"--space={path}" in str(raised.value)
