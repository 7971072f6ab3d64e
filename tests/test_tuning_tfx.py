"""tuner_fn as TFX's Tuner component calls it, on files as ExampleGen writes them."""

import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import striped_images

import tuning
from kcnn.config import Config
from kcnn.errors import UsageError
from tuning.search import config_of

SPACE = {
    "model": "mlp",
    "activation": "relu",
    "dense_units": [[8], [16, 8]],
    "dropout": "0..0.5",
    "batch_size": 16,
}


def write_examples(path, n, seed, image="image", label="label"):
    path.parent.mkdir(parents=True)
    images, labels = striped_images(n, seed=seed)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for one, number in zip(images, labels, strict=True):
            png = tf.io.encode_png(one).numpy()
            feature = {
                image: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                label: tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


@pytest.fixture
def fn_args(tmp_path):
    for name, n in (("train", 90), ("eval", 30)):
        write_examples(tmp_path / f"Split-{name}" / "data-00000.gz", n, seed=n)

    def make(train_steps=None, **custom):
        return types.SimpleNamespace(
            train_files=[str(tmp_path / "Split-train" / "*")],
            eval_files=[str(tmp_path / "Split-eval" / "*")],
            train_steps=train_steps,
            eval_steps=None,
            schema_path=None,
            transform_graph_path=None,
            custom_config={"space": SPACE, **custom},
            working_dir=str(tmp_path / "work"),
        )

    return make


@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_tfx_gets_a_tuner_that_searches_and_tells_its_best(fn_args, tuner):
    space = {**SPACE, "epochs": 3}
    result = tuning.tuner_fn(fn_args(space=space, tuner=tuner, max_trials=4))
    assert result._fields == ("tuner", "fit_kwargs")
    assert result.tuner.oracle.max_trials == 4  # None breaks TFX's executor
    result.tuner.search(**result.fit_kwargs)
    best = result.tuner.get_best_hyperparameters()[0].get_config()
    config = config_of(best)
    assert isinstance(config, Config)
    assert (config.model, config.batch_size) == ("mlp", 16)
    assert config.dense_units in ((8,), (16, 8))
    trials = result.tuner.oracle.get_best_trials(4)
    assert all(np.isfinite(trial.score) for trial in trials)
    result.tuner.results_summary()
    result.tuner.search_space_summary()


def test_hyperband_without_max_trials_knows_its_number(fn_args):
    space = {**SPACE, "epochs": 3}
    result = tuning.tuner_fn(fn_args(space=space, tuner="hyperband"))
    # max_epochs 3, factor 3: brackets (3 trials, then 1) and (2).
    assert result.tuner.oracle.max_trials == 3 + 1 + 2


def test_train_steps_become_epochs(fn_args):
    """90 images less 9 for validation in batches of 16 are 6 steps an epoch."""
    result = tuning.tuner_fn(fn_args(train_steps=40))
    assert result.tuner.trainer.space.baseline.epochs == 7
    result = tuning.tuner_fn(fn_args(train_steps=7, space={**SPACE, "epochs": 2}))
    assert result.tuner.trainer.space.baseline.epochs == 2


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ({"image_shape": 28}, "image_shape: got 28, expected a list"),
        ({"tuner": "best"}, "custom_config: tuner: got 'best', expected one of random"),
        ({"max_trials": 0}, "custom_config: max_trials: got 0, expected 1 to"),
        ({"space": {"dataset": "digits"}}, "dataset: train_files say it"),
        ({"spaces": {}}, "unknown key 'spaces'; did you mean space?"),
        ({"space": {"dropuot": 0.5}}, "custom_config: space: unknown knob 'dropuot'"),
    ],
)
def test_a_wrong_custom_config_is_named(fn_args, custom, words):
    with pytest.raises(UsageError) as raised:
        tuning.tuner_fn(fn_args(**custom))
    assert words in str(raised.value)


def test_the_eval_files_are_read_only_where_asked_for(fn_args):
    args = fn_args(time_budget="20m")
    data = tuning.tuner_fn(args).tuner.trainer.bench
    config = data._data.popitem()[1]
    assert (len(config.train), len(config.validation)) == (81, 9)
    args = fn_args(eval_split="validation", model="mlp", max_trials=2)
    args.working_dir += "2"
    config = tuning.tuner_fn(args).tuner.trainer.bench._data.popitem()[1]
    assert (len(config.train), len(config.validation)) == (72, 30)


def test_missing_files_are_named(fn_args):
    args = fn_args()
    args.train_files = ["nowhere/*"]
    with pytest.raises(UsageError, match="no file is named nowhere"):
        tuning.tuner_fn(args)


def test_hyperparameters_of_another_tuner_are_refused():
    hp = {"space": [], "values": {"units": 3}}
    with pytest.raises(UsageError, match="units is no knob"):
        config_of(hp)


def test_hyperparameters_of_a_tuner_of_keras_tuner_are_taken():
    values = {"dropout": 0.25, "filters": "16,32", "tuner/epochs": 3}
    config = config_of({"space": [], "values": values})
    assert (config.dropout, config.filters) == (0.25, (16, 32))
    with pytest.raises(UsageError, match="hyperparameters: dropout: got 'a'"):
        config_of({"space": [], "values": {"dropout": "a"}})
