"""A run that starts from the weights of another one."""

import dataclasses
import io
import os
import signal

import keras
import numpy as np
import pytest

from kcnn import cli, datasets, models, optimization, trainer
from kcnn.batches import steps_per_epoch
from kcnn.checkpoint import load as load_checkpoint
from kcnn.config import Config
from kcnn.errors import Interrupted, UsageError
from kcnn.fitting import Fitting
from kcnn.fresh import FreshModel
from kcnn.progress import Progress
from kcnn.repetition import changed_source
from kcnn.run import Run
from kcnn.spec import ImageSpec
from kcnn.transfer import Source
from tests.conftest import write_npz

NETWORK = {
    "model": "convnet",
    "filters": (4, 6),
    "kernel_size": 3,
    "standardize": "pixel",
    "precision": "float32",
}
ABOUT = {"command": "", "experiment": None, "reported": None, "export_base": ""}
LAYERS = ["conv_1", "batch_norm_1", "conv_2", "batch_norm_2"]


def train(config, folder):
    run, said = Run(folder), io.StringIO()
    with Progress(said) as progress:
        trained = trainer.train(config, run, progress, about=ABOUT)
    return run, trained, said.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, and two data sets: with its classes, and with others."""
    folder = tmp_path_factory.mktemp("transfer")
    write_npz(folder / "stripes.npz")
    with np.load(folder / "stripes.npz") as file:
        arrays = dict(file)
    brighter = {x: arrays[x] // 2 + 100 for x in ("x_train", "x_test")}
    np.savez(folder / "same.npz", **arrays | brighter)
    names = np.array(["0", "2", "1"])
    np.savez(folder / "reordered.npz", **arrays | brighter, class_names=names)
    config = Config(dataset=f"npz:{folder / 'stripes.npz'}", epochs=2, **NETWORK)
    train(config, folder / "run")
    return folder


def settings(place, data, **more):
    base = {"dataset": f"npz:{place / data}.npz", "init_from": str(place / "run")}
    return Config(**{**base, **NETWORK, "epochs": 2, "batch_size": 16, **more})


def built(config, data):
    steps = steps_per_epoch(len(data.train), config.batch_size)
    return FreshModel.build(config, data.spec, data.train, steps * config.epochs), steps


def fitting_of(config, folder, on_epoch=None):
    data = datasets.load(config)
    fresh, steps = built(config, data)
    schedule = optimization.build_schedule(config, steps)
    loop = fresh.loop(config, schedule)
    run = Run(folder)
    return Fitting(config, data, loop, schedule, run, Progress(None), on_epoch)


def weights_of(model):
    return {v.name: v.get_weights() for v in model.layers if v.weights}


def source_weights(place):
    return Source.read(str(place / "run")).weights


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_layer_begins_as_it_was_left_statistics_too(place):
    config = settings(place, "same")
    found = weights_of(built(config, datasets.load(config))[0].model)
    expected = source_weights(place)
    assert found.keys() == expected.keys()
    assert all(equal(found[name], expected[name]) for name in found)
    stored = load_checkpoint(Run(place / "run").weights)[0]["weights"]
    assert equal([a for own in expected.values() for a in own], stored)


def test_the_head_is_fresh_where_the_classes_are_others_or_in_another_order(place):
    config = settings(place, "reordered", random_seed=3)
    found = weights_of(built(config, datasets.load(config))[0].model)
    expected = source_weights(place)
    assert [n for n in found if not equal(found[n], expected[n])] == ["logits"]
    fresh = dataclasses.replace(config, init_from="")
    own = built(fresh, datasets.load(fresh))[0].model
    assert equal(found["logits"], own.get_layer("logits").get_weights())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filters": (4, 8)}, "layer conv_2 has weights of 3x3x4x6 there and weights"),
        ({"batch_norm": 0}, "layer conv_1 has weights of 3x3x1x4 there"),
        ({"filters": (4, 6, 8)}, "layer conv_3 has no weights there and weights of"),
        ({"filters": (4,)}, "layer conv_2 has weights of 3x3x4x6 there and no weights"),
        ({"standardize": "none"}, "layer standardization has weights of 10x10x1, "),
        (
            {"model": "mlp", "filters": None, "kernel_size": None},
            "layer dense_1 has no",
        ),
        ({"color_mode": "rgb", "standardize": "global"}, "layer standardization"),
        ({"image_size": (12, 12), "standardize": "pixel"}, "layer standardization"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(place, change, words):
    config = settings(place, "reordered", **change)
    with pytest.raises(UsageError) as error:
        built(config, datasets.load(config))
    text = str(error.value)
    assert f"--init_from={place / 'run'}: another architecture: " in text
    assert words in text and "\n" not in text
    assert "--model=convnet --filters=4,6 --kernel_size=3 --standardize=pixel" in text


def test_a_head_of_the_same_classes_must_fit_too():
    source = Source(
        "run",
        Config(),
        ImageSpec(8, 8, 1, ("a", "b")),
        {"logits": [np.zeros((3, 2)), np.zeros(2)]},
        "",
    )
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name="logits")])
    source.start(model, ImageSpec(8, 8, 1, ("b", "a")))
    with pytest.raises(UsageError, match="layer logits has weights of 3x2, 2 there"):
        source.start(model, ImageSpec(8, 8, 1, ("a", "b")))


def test_other_knobs_than_the_runs_are_said(place):
    config = settings(place, "same", activation="tanh", freeze=2)
    data = datasets.load(config)
    lines = list(built(config, data)[0].source.lines(config, data.spec))
    assert lines == [
        f"{place / 'run'}, with its head; frozen layers: 2",
        "--activation: relu there, tanh here",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "--init_from: nowhere: no run here"),
        ("begun", "--init_from: begun: the run is not complete"),
    ],
)
def test_no_finished_run_is_one_line(place, tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "begun").mkdir()
    config = (place / "run" / "config.json").read_bytes()
    (tmp_path / "begun" / "config.json").write_bytes(config)
    with pytest.raises(UsageError) as error:
        Source.read(path)
    assert words in str(error.value)


def test_freeze_needs_a_run_and_leaves_the_head_to_learn(place):
    with pytest.raises(UsageError, match="--freeze: got 1, but without --init_from"):
        Config(freeze=1)
    config = settings(place, "same", freeze=5)
    with pytest.raises(UsageError, match=r"got 5, expected at most 4: .*conv_1, batch"):
        models.build_model(config, datasets.load(config).spec)
    mlp = Config(model="mlp", dense_units=(), init_from="x", freeze=1)
    with pytest.raises(UsageError, match=r"at most 0: .* are none"):
        models.build_model(mlp, ImageSpec(8, 8, 1, ("a", "b")))


@pytest.mark.parametrize("ema_momentum", [0.0, 0.9])
@pytest.mark.parametrize("freeze", [1, 3, 4])
def test_frozen_layers_keep_every_bit_and_the_others_learn(
    place, tmp_path, freeze, ema_momentum
):
    more = {"freeze": freeze, "ema_momentum": ema_momentum, "weight_decay": 0.1}
    fitting = fitting_of(settings(place, "reordered", **more), tmp_path / "run")
    model, optimizer = fitting.loop.model, fitting.loop.optimizer
    begun = weights_of(model)
    assert len(optimizer._momentums) == len(model.trainable_variables)
    model.set_weights(fitting.fit())
    ended, source = weights_of(model), source_weights(place)
    still = ["standardization", *LAYERS[:freeze]]
    assert all(equal(ended[name], source[name]) for name in still)
    moved = [name for name in ended if not equal(ended[name], begun[name])]
    assert moved == [*LAYERS[freeze:], "logits"]


def test_a_stopped_run_ends_with_the_same_bits(place, tmp_path):
    config = settings(place, "reordered", freeze=2, epochs=3, batch_size=32)
    expected = fitting_of(config, tmp_path / "whole").fit()

    def stop(row):
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fitting_of(config, tmp_path / "cut", stop).fit()
    resumed = fitting_of(config, tmp_path / "cut")
    resumed.resume()
    assert equal(resumed.fit(), expected)


def test_config_json_knows_the_run_and_a_change_of_it_is_noticed(
    place, tmp_path, capsys
):
    run, _, said = train(settings(place, "same", freeze=1, epochs=1), tmp_path / "a")
    assert "with its head; frozen layers: 1" in said
    note = run.read_config()
    source = Source.read(str(place / "run"))
    assert note["init_from"] == {"path": str(place / "run"), "digest": source.digest}
    assert note["model"]["trainable_parameters"] < note["model"]["parameters"]
    changed = {"init_from": {"path": str(place / "run"), "digest": "x"}}
    assert changed_source(note, note) == [] == changed_source({}, note)
    assert "has other weights" in changed_source(note, changed)[0]
    status = cli._run(
        "train",
        [
            f"--config={run.config}",
            f"--model_dir={place / 'run'}",
            "--overwrite",
            "--export_dir=",
        ],
    )
    assert status == 2
    assert "is the run to be written" in capsys.readouterr().err
