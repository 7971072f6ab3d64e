"""A SavedModel is a program: what could do more than compute is not loaded."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kcnn.config import MODELS
from kcnn.errors import UsageError
from kcnn.export import CARD, export_of
from kcnn.inference import Classifier
from kcnn.trust import check_saved_model
from tests.test_export import CARD_TEXT, SPEC, a_model, export_model

# With everything that can be in a graph that is exported.
FULL = {
    "tutorial": {
        "batch_norm": 2,
        "extra_conv": 4,
        "extra_conv_pool": False,
        "activation": "gelu",
    },
    "convnet": {"activation": "leaky_relu", "standardize": "image"},
    "lenet": {"batch_norm": 1, "activation": "tanh"},
    "shallow": {"activation": "silu", "standardize": "pixel"},
    "bottleneck": {"padding": 1, "activation": "elu", "pool_sizes": (2, 2)},
    "mlp": {"activation": "sigmoid", "standardize": "channel"},
    "airbench": {"activation": "gelu", "whiten": 2, "test_views": "mirror_shift"},
}


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    base = tmp_path_factory.mktemp("genuine")
    return export_model(a_model(), SPEC, base / "m", CARD_TEXT)


def test_the_table_covers_every_model():
    assert FULL.keys() == MODELS.keys()


@pytest.mark.parametrize(
    "name",
    ["mlp"] + [pytest.param(n, marks=pytest.mark.slow) for n in FULL if n != "mlp"],
)
def test_our_own_exports_are_trusted(name, tmp_path):
    base = {"translate": 0.0, "rotate": 0.0, "model": name}
    if name != "mlp":
        base["dense_units"] = None
    model = a_model(**base | FULL[name])
    check_saved_model(export_model(model, SPEC, tmp_path / "m", CARD_TEXT))


def write_file(images):
    tf.io.write_file("stolen.txt", "mine")
    return tf.cast(images, tf.float32)


def read_file(images):
    return tf.cast(images, tf.float32) + tf.strings.to_number(tf.io.read_file("/x"))


def run_python(images):
    return tf.py_function(lambda x: x, [images], tf.float32)


def within_a_branch(images):
    return tf.cond(images[0] > 0, lambda: write_file(images), lambda: images)


def in_a_map(images):
    return tf.map_fn(write_file, images)


def save_weights(images):
    tf.raw_ops.SaveV2(
        prefix="stolen", tensor_names=["a"], shape_and_slices=[""], tensors=[images]
    )
    return images


def read_weights(images):
    found = tf.raw_ops.RestoreV2(
        prefix="/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return images + found[0]


def print_to_a_file(images):
    tf.print(images, output_stream="file:///stolen.txt")
    return images


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (write_file, "WriteFile"),
        (read_file, "ReadFile"),
        (run_python, "EagerPyFunc"),
        (within_a_branch, "WriteFile"),
        (in_a_map, "WriteFile"),
        (save_weights, "SaveV2"),
        (read_weights, "RestoreV2"),
        (print_to_a_file, "StringFormat"),
    ],
)
def test_operations_that_touch_the_machine_are_refused(tmp_path, function, operation):
    module = tf.Module()
    signature = [tf.TensorSpec([None], tf.float32)]
    module.serve = tf.function(function, input_signature=signature)
    signatures = {"serving_default": module.serve.get_concrete_function()}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    with pytest.raises(UsageError, match=f"'{operation}'.*--trust"):
        check_saved_model(tmp_path / "m")


def test_tables_and_files_of_its_own_are_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    module = tf.Module()
    module.names = tf.saved_model.Asset(str(tmp_path / "names.txt"))
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(UsageError, match="--trust"):
        check_saved_model(tmp_path / "m")


@pytest.mark.parametrize("what", ["link", "chunked", "graphs", "object", "restore"])
def test_what_hides_is_refused(genuine, tmp_path, what):
    path = tmp_path / "m"
    shutil.copytree(genuine, path)
    model = SavedModel()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    objects = model.meta_graphs[0].object_graph_def
    if what == "link":
        (path / "assets.extra" / "more").symlink_to("/etc")
    elif what == "chunked":
        (path / "saved_model.cpb").write_bytes(b"")
    elif what == "graphs":
        model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
    elif what == "object":
        objects.nodes.add().user_object.identifier = "_tf_keras_layer"
    else:
        name = next(iter(objects.concrete_functions))
        assert name
        objects.nodes[1].saveable_objects["x"].save_function = 0
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"not loaded: .*--trust"):
        check_saved_model(path)


def test_the_classifier_asks_unless_told_to_trust(genuine, tmp_path):
    path = tmp_path / "m"
    shutil.copytree(genuine, path)
    model = SavedModel()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    evil = model.meta_graphs[0].graph_def.library.function[0].node_def.add()
    evil.name, evil.op = "evil", "Timestamp"
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="'Timestamp'"):
        Classifier(path)
    trusted = Classifier(path, trust=True)
    images = np.zeros((2, 10, 10, 1), np.uint8)
    assert trusted.outputs(images)["probabilities"].shape == (2, 3)


def test_what_a_killed_exporter_left_is_removed_and_a_living_one_is_not(tmp_path):
    import fcntl

    base = tmp_path / "m"
    for name in (".writing-dead", ".writing-alive"):
        (base / name / "model").mkdir(parents=True)
    handle = os.open(base / ".writing-alive", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    path = export_model(a_model(), SPEC, base, CARD_TEXT | {"run_id": "abc"})
    os.close(handle)
    assert sorted(os.listdir(base)) == [".writing-alive", "1"]
    assert export_of(base, "abc") == path
    assert export_of(base, "abd") is None
    (path / CARD).write_text("no JSON")
    assert export_of(base, "abc") is None
