"""The SavedModel is the product: loaded by a program that imports only TensorFlow."""

import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kcnn import export as export_module
from kcnn.confidence import PLAIN, fit_rule
from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.export import CARD, check_export, versions_of
from kcnn.image_feature import ImageFeature
from kcnn.inference import Classifier, newest_version
from kcnn.models import build_model
from kcnn.spec import ImageSpec
from kcnn.trust import check_saved_model
from tests.conftest import striped_images

SPEC = ImageSpec(10, 10, 1, ("cat", "dög", "no, bird"))
CARD_TEXT = {"spec": {"class_names": SPEC.class_names}}


def export_model(model, spec, base, card, rule=PLAIN):
    """Export, checked on some stripes; return the path."""
    images, _ = striped_images(5)
    found = export_module.export_model(model, spec, base, card, images, rule)
    return pathlib.Path(found["path"])


def a_model(**settings):
    keras.utils.set_random_seed(0)
    base = {"model": "mlp", "dense_units": (8,), "translate": 0.2, "rotate": 5.0}
    return build_model(Config(**base | settings), SPEC, augment=False)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    base = tmp_path_factory.mktemp("saved_models") / "stripes"
    model = a_model()
    return export_model(model, SPEC, base, CARD_TEXT), model


CLIENT = """
import json, sys
sys.modules["keras"] = None  # importing it would fail
import tensorflow as tf

assert not [m for m in sys.modules if m == "kcnn" or m.startswith("kcnn.")]
model = tf.saved_model.load(sys.argv[1])
label = model.signatures["serving_bytes"]
files = [open(name, "rb").read() for name in sys.argv[2:]]
seven = label(contents=tf.constant((files * 7)[:7]))
assert seven["probabilities"].shape == (7, 3)
out = []
for data in files:
    one = label(contents=tf.constant([data]))
    out.append([one["labels"].numpy()[0].decode(), int(one["classes"][0])])
print(json.dumps({"labels": out, "seven": seven["classes"].numpy().tolist(),
                  "kcnn": "kcnn" in sys.modules}))
"""


def encodings(image):
    """Return one (10, 10, 1) uint8 image as files of many kinds: name -> bytes."""
    grey = Image.fromarray(image[..., 0])
    wide = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    opaque = grey.convert("RGBA")
    kinds = {
        "grey.png": (grey, {}),
        "rgb.png": (grey.convert("RGB"), {}),
        "rgba.png": (opaque, {}),
        "la.png": (grey.convert("LA"), {}),
        "16 bit.png": (wide, {}),
        "grey.jpg": (grey, {"quality": 95}),
        "rgb.jpg": (grey.convert("RGB"), {"quality": 95, "subsampling": 0}),
        "large.png": (grey.resize((70, 50), Image.Resampling.BICUBIC), {}),
        "large.jpg": (grey.resize((50, 70), Image.Resampling.BICUBIC), {}),
    }
    files = {}
    for name, (picture, options) in kinds.items():
        buffer = io.BytesIO()
        form = "JPEG" if name.endswith("jpg") else "PNG"
        picture.save(buffer, form, **options)
        files[name] = buffer.getvalue()
    return files


def test_a_program_with_only_tensorflow_labels_files_of_every_kind(tmp_path):
    # A model that has learned the stripes, so that small losses change no label.
    images, labels = striped_images(90, seed=3)
    model = a_model()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images, labels, epochs=30, verbose=0)
    path = export_model(model, SPEC, tmp_path / "m", CARD_TEXT)
    paths, expected = [], []
    for image, label in zip(images[:3], labels[:3], strict=True):
        for name, data in encodings(image).items():
            paths.append(tmp_path / f"{label} {name}")
            paths[-1].write_bytes(data)
            expected.append([SPEC.class_names[label], int(label)])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CLIENT), str(path), *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["labels"] == expected
    assert found["seven"] == [index for _, index in expected][:7]
    assert found["kcnn"] is False


def test_lossless_files_give_the_same_probabilities_as_the_array(export):
    path, model = export
    images, _ = striped_images(5, seed=9)
    signatures = tf.saved_model.load(str(path)).signatures
    expected = keras.ops.softmax(model(images, training=False))
    for name in ("grey.png", "rgb.png", "rgba.png", "la.png", "16 bit.png"):
        contents = tf.constant([encodings(image)[name] for image in images])
        found = signatures["serving_bytes"](contents=contents)["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def test_signatures_dtypes_and_any_batch_size(export):
    path, _ = export
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {
        "serving_default",
        "serving_bytes",
        "serving_examples",
        "classify",
        "preprocess",
    }
    for n in (1, 7):
        images, _ = striped_images(n)
        found = signatures["serving_default"](images=tf.constant(images))
        assert found["probabilities"].dtype == tf.float32
        assert found["classes"].dtype == tf.int64
        assert found["probabilities"].shape == (n, 3)
        names = [name.decode() for name in found["labels"].numpy()]
        assert names == [SPEC.class_names[i] for i in found["classes"].numpy()]


def test_nothing_random_is_left_in_the_export(export):
    from tensorflow.core.protobuf import saved_model_pb2

    path, _ = export
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    functions = [node for f in graph.library.function for node in f.node_def]
    operations = {node.op for node in (*graph.node, *functions)}
    assert "MatMul" in operations
    assert [op for op in operations if "Random" in op or "Projective" in op] == []


def test_versions_count_up_and_nothing_else_is_left(tmp_path):
    model = a_model()
    for version in (1, 2):
        path = export_model(model, SPEC, tmp_path, CARD_TEXT)
        assert path == tmp_path / str(version)
        assert (path / CARD).exists()
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    assert versions_of(tmp_path) == [1, 2]
    assert newest_version(tmp_path) == tmp_path / "2"


def test_exporters_at_once_get_a_version_each(tmp_path):
    """All that differs is when they are done: the last step alone, many at a time."""
    count = 16
    start = threading.Barrier(count)

    def move(number):
        source = tmp_path / f".writing-{number}"
        source.mkdir()
        (source / "content").write_text(str(number))
        start.wait()
        return export_module.move_to_next_version(source, tmp_path)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        paths = list(pool.map(move, range(count)))
    assert versions_of(tmp_path) == list(range(1, count + 1))
    assert [(path / "content").read_text() for path in paths] == [
        str(number) for number in range(count)
    ]


def test_an_export_to_a_full_disk_is_named_and_leaves_nothing(full_disk):
    model = a_model(dense_units=(4000,))
    with pytest.raises(RunError, match=f"{full_disk}.*could not be written"):
        export_model(model, SPEC, full_disk / "m", CARD_TEXT)
    assert os.listdir(full_disk / "m") == []


def test_an_export_that_does_not_agree_is_found(export):
    path, _ = export
    keras.utils.set_random_seed(1)
    other = build_model(Config(model="mlp", dense_units=(8,)), SPEC)
    images, _ = striped_images(4)
    with pytest.raises(RunError, match="differs from the model"):
        check_export(path, other, SPEC, images)


def test_an_export_that_does_not_agree_never_gets_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)  # nothing is good enough
    with pytest.raises(RunError, match="was not kept"):
        export_model(a_model(), SPEC, tmp_path, CARD_TEXT)
    assert os.listdir(tmp_path) == []


def test_check_reports_what_it_checked(export):
    path, model = export
    images, _ = striped_images(6)
    found = check_export(path, model, SPEC, images)
    assert found["checked_images"] == 6
    assert found["largest_difference"] < 1e-5
    assert len(found["signatures"]) == 5


def test_classifier_names_the_bad_file_and_scores_the_others(export):
    path, _ = export
    images, _ = striped_images(2)
    good = [encodings(image)["grey.png"] for image in images]
    found = Classifier(path).outputs_of_files([good[0], b"no image", good[1]])
    assert isinstance(found[1], str) and "\n" not in found[1]
    alone = Classifier(path).outputs_of_files(good)
    for one, other in zip([found[0], found[2]], alone, strict=True):
        np.testing.assert_allclose(
            one["probabilities"], other["probabilities"], atol=1e-6
        )


@pytest.mark.parametrize("what", ["missing", "empty", "foreign"])
def test_a_folder_that_is_no_export_is_refused(tmp_path, what):
    place = tmp_path / "m"
    if what != "missing":
        place.mkdir()
    if what == "foreign":
        tf.saved_model.save(tf.Module(), str(place / "1"))
    with pytest.raises(UsageError, match=r"SavedModel"):
        Classifier(place)


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory):
    """A model, images, a rule fitted to them, and the export that follows it."""
    model = a_model()
    images, labels = striped_images(60, seed=4)
    config = Config(reject="max_probability", coverage=0.7)
    rule = fit_rule(config, model.predict(images, verbose=0), labels)
    base = tmp_path_factory.mktemp("saved_models")
    return model, images, rule, export_model(model, SPEC, base, CARD_TEXT, rule)


def test_classify_gives_the_top_classes_by_name(tmp_path):
    """As TensorFlow Serving's Classify wants it: inputs -> classes and scores only."""
    names = tuple(f"kind {i}" for i in range(7))
    spec = ImageSpec(10, 10, 1, names)
    keras.utils.set_random_seed(0)
    model = build_model(Config(model="mlp", dense_units=(8,)), spec, augment=False)
    path = export_model(model, spec, tmp_path / "m", CARD_TEXT)
    images, _ = striped_images(4)
    classify = tf.saved_model.load(str(path)).signatures["classify"]
    assert set(classify.structured_input_signature[1]) == {"inputs"}
    found = classify(inputs=tf.constant([ImageFeature().example(i) for i in images]))
    assert set(found) == {"classes", "scores"}
    probabilities = keras.ops.softmax(model(images, training=False)).numpy()
    order = np.argsort(-probabilities)[:, :5]
    assert found["classes"].numpy().tolist() == [
        [names[i].encode() for i in row] for row in order
    ]
    expected = np.take_along_axis(probabilities, order, 1)
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)
    check_saved_model(path)


def test_every_signature_accepts_what_the_evaluation_accepts(rejecting):
    model, images, rule, path = rejecting
    check_saved_model(path)
    logits = model.predict(images, verbose=0)
    judged = rule.judge(logits)
    assert rule.temperature != 1
    assert judged.accepted.sum() == 42
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    examples = [ImageFeature().example(one) for one in images]
    signatures = tf.saved_model.load(str(path)).signatures
    for name, fed in {
        "serving_default": {"images": tf.constant(images)},
        "serving_bytes": {"contents": tf.constant(encoded)},
        "serving_examples": {"examples": tf.constant(examples)},
    }.items():
        found = signatures[name](**fed)
        assert found["accepted"].dtype == tf.bool
        assert found["score"].dtype == tf.float32
        np.testing.assert_array_equal(found["accepted"], judged.accepted, name)
        scores = judged.scores["max_probability"]
        np.testing.assert_allclose(found["score"], scores, rtol=1e-4)
        expected = keras.ops.softmax(logits / rule.temperature)
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
        np.testing.assert_array_equal(found["classes"], logits.argmax(1))


def test_an_export_that_accepts_other_images_is_found(rejecting):
    model, images, rule, path = rejecting
    check_export(path, model, SPEC, images, rule)
    everybody = dataclasses.replace(rule, threshold=-9.0)
    with pytest.raises(RunError, match="accepts or rejects 18 of 60 images"):
        check_export(path, model, SPEC, images, everybody)


def test_the_graphs_score_tells_apart_probabilities_that_round_to_one():
    logits = tf.constant([[50.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    found = export_module._log_max_probability(logits, 1.0).numpy()
    expected = PLAIN.judge(logits.numpy()).scores["max_probability"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] < found[1] < 0


def test_an_export_without_a_rule_has_the_outputs_it_always_had(export):
    signatures = tf.saved_model.load(str(export[0])).signatures
    images, _ = striped_images(2)
    found = signatures["serving_default"](images=tf.constant(images))
    assert set(found) == {"probabilities", "classes", "labels"}
