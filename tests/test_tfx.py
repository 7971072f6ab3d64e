"""The functions that TFX's components call, called as TFX 1.21 calls them."""

import csv
import importlib.util
import json
import pathlib
import sys
import types

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import kcnn.tfx
from kcnn import warmup
from kcnn.errors import UsageError
from kcnn.image_feature import int_feature, serialized
from kcnn.inference import Classifier
from tests.conftest import striped_images
from tests.test_examples import FLOATS, PNG, records_of, write

RECIPE = {"model": "mlp", "dense_units": [16], "batch_size": 16, "learning_rate": 0.01}


@pytest.fixture
def fn_args(tmp_path):
    """Make what TFX's Trainer makes, field by field; num_examples does not exist."""

    def endless(patterns, options, schema):
        pytest.fail("would never end: it repeats, for the eval files too")

    def make(feature=PNG, **fields):
        for name, n, seed in (("train", 150, 0), ("eval", 30, 1)):
            path = tmp_path / "examples" / f"Split-{name}" / "data_tfrecord-00000.gz"
            write(path, records_of(n, feature, seed))
        given = {
            "working_dir": None,
            "train_files": [str(tmp_path / "examples" / "Split-train" / "*")],
            "eval_files": [str(tmp_path / "examples" / "Split-eval" / "*")],
            "train_steps": None,
            "eval_steps": None,
            "schema_path": None,
            "schema_file": None,
            "transform_graph_path": None,
            "transform_output": None,
            "data_accessor": types.SimpleNamespace(tf_dataset_factory=endless),
            "serving_model_dir": str(tmp_path / "model" / "Format-Serving"),
            "eval_model_dir": str(tmp_path / "model" / "Format-TFMA"),
            "model_run_dir": str(tmp_path / "model_run"),
            "base_model": None,
            "hyperparameters": None,
            "custom_config": RECIPE | {"epochs": 5},
        }
        return types.SimpleNamespace(**given | fields)

    return make


def epochs_in(run):
    with (pathlib.Path(run) / "metrics.csv").open() as file:
        return len(list(csv.DictReader(file)))


def test_run_fn_leaves_what_tfx_wants(fn_args, tmp_path, capsys):
    args = fn_args(eval_steps=5)
    assert kcnn.tfx.run_fn(args) is None
    serving = pathlib.Path(args.serving_model_dir)
    assert (serving / "saved_model.pb").exists()
    signatures = tf.saved_model.load(str(serving)).signatures
    takes = signatures["serving_default"].structured_input_signature[1]
    assert takes == {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    images, labels = striped_images(30, seed=1)
    examples = tf.constant(records_of(30, seed=1))
    found = signatures["serving_default"](examples=examples)
    assert found["probabilities"].shape == (30, 3)
    # The first of the names that TFMA looks for.
    names = ("scores", "outputs", "predictions", "logistic", "probabilities", "logits")
    assert next(name for name in names if name in found) == "probabilities"
    accuracy = np.mean(found["classes"].numpy() == labels)
    run = pathlib.Path(args.model_run_dir)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["test"]["n"] == 30
    assert evaluation["test"]["accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert evaluation["export"]["path"] == str(serving)
    assert (run / "report.html").exists()
    assert epochs_in(run) == 5
    note = json.loads((run / "config.json").read_text())
    assert note["data"]["train"] == 135  # 15 of the train files are for validation
    # What kcnn itself does with an export works with this one.
    classifier = Classifier(serving)
    np.testing.assert_array_equal(
        classifier.outputs(images)["classes"], found["classes"]
    )
    # Images are not what serving_default takes, so none is sent there to warm up.
    warm = tf.data.TFRecordDataset(str(serving / "assets.extra" / warmup.FILE))
    sent = b" ".join(record.numpy() for record in warm)
    assert b"serving_images" in sent and b"serving_default" not in sent
    card = json.loads((serving / "assets.extra" / "model_card.json").read_text())
    assert card["license"] is None
    assert "eval_steps is not used" in capsys.readouterr().out
    assert not [m for m in sys.modules if m.split(".")[0] in ("tfx", "tfx_bsl")]
    assert "tensorflow_transform" not in sys.modules


SCHEMA = """
feature {
  name: "pixels" type: FLOAT presence { min_fraction: 1.0 min_count: 1 }
  shape { dim { size: 10 } dim { size: 10 } }
}
feature { name: "label" type: INT shape { dim { size: 1 } } }
"""


def transform_graph(path, image_spec, transform):
    """Write what Transform writes: one function of a dictionary, and a schema."""
    module = tf.Module()
    specs = {
        "label": tf.SparseTensorSpec([None, None], tf.int64),
        "picture": image_spec,
    }

    @tf.function(input_signature=[specs])
    def transform_fn(inputs):
        label = tf.sparse.to_dense(inputs["label"])
        return {"pixels": transform(inputs["picture"]), "label": label[:, 0]}

    module.transform_fn = transform_fn
    tf.saved_model.save(module, f"{path}/transform_fn", signatures={})
    (pathlib.Path(path) / "transformed_metadata").mkdir()
    place = pathlib.Path(path) / "transformed_metadata" / "schema.pbtxt"
    place.write_text(SCHEMA)
    return str(path)


def decoded(pictures):
    """Decode PNGs in negative to floats, as somebody's preprocessing_fn may."""

    def one(picture):
        image = tf.io.decode_png(picture, channels=1)
        return tf.ensure_shape(1 - tf.cast(image, tf.float32) / 255, (10, 10, 1))

    return tf.map_fn(one, pictures, fn_output_signature=tf.float32)


def negative(feature=FLOATS):
    """Return records as that preprocessing_fn would have written them."""
    images, labels = striped_images(150)
    return [
        serialized({"pixels": feature.feature(255 - i), "label": int_feature(n)})
        for i, n in zip(images, labels.tolist(), strict=True)
    ]


def test_run_fn_serves_raw_examples_through_a_transform_graph(fn_args, tmp_path):
    """With hyperparameters, train_steps, and folders that are of no disk."""
    graph = transform_graph(
        tmp_path / "graph", tf.TensorSpec([None], tf.string), decoded
    )
    hp = keras_tuner.HyperParameters()
    hp.Fixed("dense_units", "24")
    hp.Fixed("dataset", "digits")  # where the Tuner's images were is no affair
    args = fn_args(
        FLOATS,
        transform_graph_path=graph,
        custom_config=RECIPE | {"image_key": "pixels"},
        hyperparameters=json.loads(json.dumps(hp.get_config())),
        train_steps=50,
        model_run_dir="ram://tfx/run",
        serving_model_dir="ram://tfx/model/Format-Serving",
    )
    for split in ("train", "eval"):
        path = tmp_path / "examples" / f"Split-{split}" / "data_tfrecord-00000.gz"
        write(path, negative())
    kcnn.tfx.run_fn(args)
    model = tf.saved_model.load(args.serving_model_dir)
    images, labels = striped_images(30, seed=1)
    raw = [serialized({"picture": PNG.feature(i)}) for i in images]  # has no label
    found = model.signatures["serving_default"](examples=tf.constant(raw))
    assert np.mean(found["classes"].numpy() == labels) > 0.9
    again = model.signatures["serving_images"](images=tf.constant(255 - images))
    np.testing.assert_allclose(
        found["probabilities"], again["probabilities"], atol=1e-5
    )
    with tf.io.gfile.GFile("ram://tfx/run/config.json") as file:
        config = json.load(file)["config"]
    assert config["dense_units"] == [24]
    assert config["epochs"] == 6  # 135 images are 9 steps; 50 / 9 = 5.6
    assert config["dataset"].startswith("examples:train=")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "sparse",
        pytest.param("ragged", marks=pytest.mark.exhaustive),
        pytest.param("column", marks=pytest.mark.exhaustive),
    ],
)
def test_raw_features_of_every_form_are_served(fn_args, tmp_path, kind):
    spec = {
        "sparse": tf.SparseTensorSpec([None, None], tf.string),
        "ragged": tf.RaggedTensorSpec([None, None], tf.string),
        "column": tf.TensorSpec([None, 1], tf.string),
    }[kind]
    dense = {
        "sparse": lambda v: tf.sparse.to_dense(v)[:, 0],
        "ragged": lambda v: v.to_tensor()[:, 0],
        "column": lambda v: v[:, 0],
    }[kind]
    graph = transform_graph(tmp_path / "g", spec, lambda v: decoded(dense(v)))
    keys = {"image_key": "pixels", "eval_split": "validation"}
    args = fn_args(
        FLOATS, transform_graph_path=graph, custom_config=RECIPE | keys | {"epochs": 5}
    )
    write(tmp_path / "examples" / "Split-train" / "data_tfrecord-00000.gz", negative())
    kcnn.tfx.run_fn(args)
    serve = tf.saved_model.load(args.serving_model_dir).signatures["serving_default"]
    images, labels = striped_images(30, seed=1)
    raw = [serialized({"picture": PNG.feature(i)}) for i in images]
    found = serve(examples=tf.constant(raw))
    assert np.mean(found["classes"].numpy() == labels) > 0.9


def test_a_schema_gives_the_shape_of_floats(fn_args, tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(SCHEMA)
    args = fn_args(FLOATS, schema_path=str(path))
    keys, _, _ = kcnn.tfx.divided({"image_key": "pixels"})
    place = kcnn.tfx.place_of(args, keys)
    assert place.shape == (10, 10, 1)
    assert place.patterns["test"] == tuple(args.eval_files)
    own = {"ai_platform_training_args": {"project": "p"}}  # of TFX's executors
    keys, knobs, _ = kcnn.tfx.divided({"eval_split": "validation", **own})
    assert knobs == {}
    with pytest.raises(UsageError, match="expected one of the schema's label, pixels"):
        kcnn.tfx.place_of(args, keys)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"custom_config": {"lr": 0.1}},
            "unknown key 'lr'; did you mean learning_rate",
        ),
        ({"custom_config": {"image_kye": "a"}}, "did you mean image_key?"),
        (
            {"custom_config": {"dataset": "mnist"}},
            "dataset: train_files and eval_files",
        ),
        ({"custom_config": {"dropout": 2.0}}, "--dropout: got 2, expected 0 to 0.95"),
        ({"custom_config": {"eval_split": "eval"}}, "eval_split: got 'eval', expected"),
        ({"custom_config": {"image_shape": "28"}}, "image_shape: got '28', expected a"),
        (
            {"custom_config": {"class_names": [1]}},
            "class_names: got [1], expected a li",
        ),
        (
            {"custom_config": {"image_key": "png"}},
            "no feature 'png'; there are: image,",
        ),
        ({"custom_config": {"image_shape": [28, 28]}}, "got shape=28,28"),
        ({"base_model": "there"}, "base_model: got there; kcnn trains fresh weights"),
        ({"eval_files": []}, "there are no test files"),
        ({"train_files": ["nowhere/*"]}, "no file is named nowhere/*"),
        (
            {"hyperparameters": {"space": [], "values": {"units": 3}}},
            "units is no knob",
        ),
        ({"transform_graph_path": "nowhere"}, "transform_graph_path: nowhere: "),
    ],
)
def test_what_is_wrong_is_one_line(fn_args, fields, words):
    with pytest.raises(UsageError) as raised:
        kcnn.tfx.run_fn(fn_args(**fields))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_transform_graph_must_give_the_image(fn_args, tmp_path):
    spec = tf.TensorSpec([None], tf.string)
    graph = transform_graph(tmp_path / "graph", spec, decoded)
    place = pathlib.Path(graph) / "transformed_metadata" / "schema.pbtxt"
    place.write_text(SCHEMA.replace('"pixels"', '"image"'))
    with pytest.raises(
        UsageError, match="gives no feature 'image'; it gives label, pi"
    ):
        kcnn.tfx.run_fn(fn_args(transform_graph_path=graph))


def sparse(values):
    places = [[i, 0] for i, value in enumerate(values) if value is not None]
    there = [value for value in values if value is not None]
    return tf.SparseTensor(places, tf.constant(there, tf.int64), (len(values), 1))


def test_preprocessing_fn_passes_on_image_and_label():
    inputs = {
        "image": tf.constant([["a"], ["b"]]),
        "label": sparse([7, None]),
        "label_name": tf.ragged.constant([["x"], ["y"]]),
        "other": tf.constant([1.0, 2.0]),
    }
    found = kcnn.tfx.preprocessing_fn(inputs)
    assert sorted(found) == ["image", "label", "label_name"]
    assert found["image"].numpy().tolist() == [b"a", b"b"]
    assert found["label"].numpy().tolist() == [7, -1]  # missing, and not class 0
    assert found["label_name"].numpy().tolist() == [b"x", b"y"]
    inputs = {"x": tf.zeros((2, 3, 3, 1)), "y": tf.constant([1, 2], tf.int64)}
    config = {"image_key": "x", "label_key": "y", "model": "mlp"}
    found = kcnn.tfx.preprocessing_fn(inputs, custom_config=config)
    assert (found["x"].shape, found["x"].dtype) == ((2, 3, 3, 1), tf.float32)
    assert found["y"].dtype == tf.int64
    with pytest.raises(UsageError, match="no feature 'image'; there are: x, y"):
        kcnn.tfx.preprocessing_fn(inputs, {})


MODULE = """
from kcnn.tfx import preprocessing_fn, run_fn, tuner_fn
"""


def test_by_dotted_name_and_by_module_file(tmp_path):
    """As tfx.components.util.udf_utils finds them."""
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("user_module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("run_fn", "tuner_fn", "preprocessing_fn"):
        *parts, attribute = f"kcnn.tfx.{name}".split(".")
        found = getattr(importlib.import_module(".".join(parts)), attribute)
        assert callable(found)
        assert getattr(module, name) is found


def test_the_tuner_hands_its_best_to_the_trainer(fn_args, tmp_path):
    space = {"dense_units": [[8], [16]], "learning_rate": "log:0.001..0.1"}
    args = fn_args(
        custom_config={
            "model": "mlp",
            "activation": "relu",
            "dropout": 0.0,
            "batch_size": 16,
            "epochs": 2,
            "space": space,
            "max_trials": 2,
        },
        working_dir=str(tmp_path / "work"),
        serving_model_dir=None,
        model_run_dir=None,
    )
    result = kcnn.tfx.tuner_fn(args)
    result.tuner.search(**result.fit_kwargs)
    best = json.loads(
        json.dumps(result.tuner.get_best_hyperparameters()[0].get_config())
    )
    assert result.tuner.oracle.max_trials == 2
    settings = kcnn.tfx._found(best)
    assert settings["model"] == "mlp"
    assert settings["epochs"] == 2
    assert "dataset" not in settings
