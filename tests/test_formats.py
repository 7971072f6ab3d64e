"""Other formats are the same model: run by their own runtimes, as users do."""

import importlib.util
import json
import os
import zipfile

import keras
import numpy as np
import pytest

from kcnn import extras, formats
from kcnn.commands import export as export_command
from kcnn.confidence import PLAIN, Rule
from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.format_check import Judge, latency
from kcnn.formats import INT8, Model, stock_model, write
from kcnn.models import build_model
from kcnn.preprocessing import measure_statistics
from kcnn.sources import keep
from kcnn.spec import ImageSpec
from kcnn.splits import Split
from tests.conftest import striped_images

SPEC = ImageSpec(10, 10, 1, ("cat", "dög", "no, bird"))
IMAGES, LABELS = striped_images(90, seed=3)

NEEDS = {"litert": "ai_edge_litert", "onnx": "tf2onnx"}


def a_network(**settings):
    keras.utils.set_random_seed(0)
    base = {"model": "convnet", "filters": (4, 4), "batch_norm": 1, "dropout": 0.5}
    base |= {"standardize": "pixel"}
    network = build_model(Config(**base | settings), SPEC, augment=False)
    measure_statistics(network, [IMAGES])
    return network


@pytest.fixture(scope="module")
def network():
    """A network that has learned the stripes."""
    network = a_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(IMAGES, LABELS, epochs=12, verbose=0)
    return network


@pytest.fixture(scope="module")
def rejecting(network):
    """Temperature 2, and every other image accepted."""
    logits = network.predict(IMAGES, verbose=0)
    scores = Rule(2.0).judge(logits).scores["energy"]
    return Rule(2.0, "energy", float(np.median(scores)))


def a_test_split():
    images = keep([IMAGES], len(IMAGES), SPEC.shape, "memory")
    return Split(images, LABELS, np.arange(len(LABELS)))


def expected_of(network, rule):
    judged = rule.judge(network.predict(IMAGES, verbose=0))
    probabilities = np.asarray(keras.ops.softmax(judged.logits))
    found = {"probabilities": probabilities, "classes": probabilities.argmax(1)}
    if rule.threshold is not None:
        found |= {"score": judged.scores[rule.score], "accepted": judged.accepted}
    return found


def converted(name, network, rule, folder):
    """Write a format, and return the folder and what runs its files."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"kcnn[{name}] is not installed")
    runners = {}

    def check(found):
        runners.update((path.name, run) for path, run in found.items())
        return ["checked"]

    model = Model(network, SPEC, rule, IMAGES[:30])
    path, result = write(name, model, folder / name, {"labels.txt": b"x"}, check)
    assert result == ["checked"]
    assert path == folder / name / "1"
    assert sorted(os.listdir(path)) == sorted([*runners, "check.json", "labels.txt"])
    assert json.loads((path / formats.CHECK).read_text()) == ["checked"]
    return path, runners


def assert_agree(run, expected, tolerance=1e-5):
    for n in (1, 7, 90):  # any number of images
        found = run(IMAGES[:n])
        assert found["probabilities"].dtype == np.float32
        np.testing.assert_allclose(
            found["probabilities"], expected["probabilities"][:n], atol=tolerance
        )
        np.testing.assert_array_equal(found["classes"], expected["classes"][:n])
        if "accepted" in found:
            assert found["accepted"].dtype == bool
            near = abs(found["score"] - expected["score"][:n])
            assert near.max() < 1e3 * tolerance
    return found


def test_a_keras_archive_is_of_kerass_own_layers(network, rejecting, tmp_path):
    path, runners = converted("keras", network, rejecting, tmp_path)
    assert_agree(runners["model.keras"], expected_of(network, rejecting))
    with zipfile.ZipFile(path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert '"module": "keras.layers"' in config
    assert '"module": "kcnn' not in config and "kcnn>" not in config


@pytest.mark.parametrize("standardize", ["none", "global", "channel", "image"])
def test_stock_layers_compute_the_same(standardize):
    network = a_network(model="mlp", standardize=standardize, **MLP)
    stock = stock_model(network)
    kinds = {type(layer).__module__.split(".")[0] for layer in stock.layers}
    assert kinds == {"keras"}
    np.testing.assert_allclose(
        stock.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("views", ["none", "mirror", "mirror_shift", "shift"])
def test_stock_layers_whiten_and_average_the_same(views, tmp_path):
    settings = {"model": "airbench", "filters": (8,), "whiten": 2, "dropout": None}
    network = a_network(**settings, test_views=views)
    stock_model(network).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert "kcnn>" not in archive.read("config.json").decode()
    stock = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        stock.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("whole", [False, True])
def test_dropped_channels_stay_channels(whole):
    settings = {"conv_dropout": 0.5, "spatial_dropout": whole, "batch_norm": 0}
    network = a_network(model="tutorial", **settings)
    kind = keras.layers.SpatialDropout2D if whole else keras.layers.Dropout
    dropout = stock_model(network).get_layer("conv_dropout")
    assert (type(dropout), dropout.rate) == (kind, 0.5)


MLP = {"filters": None, "batch_norm": None, "dense_units": (8,)}


def test_litert_float_and_int8(network, rejecting, tmp_path):
    _, runners = converted("litert", network, rejecting, tmp_path)
    expected = expected_of(network, rejecting)
    found = assert_agree(runners["model.tflite"], expected)
    np.testing.assert_array_equal(found["accepted"], expected["accepted"])
    int8 = runners[INT8](IMAGES)
    assert int8["probabilities"].dtype == np.float32
    np.testing.assert_array_equal(int8["classes"], expected["classes"])
    assert abs(int8["probabilities"] - expected["probabilities"]).max() < 0.05
    assert set(int8) == {"probabilities", "classes"}


def test_onnx_has_the_class_names(network, rejecting, tmp_path):
    path, runners = converted("onnx", network, rejecting, tmp_path)
    expected = expected_of(network, rejecting)
    found = assert_agree(runners["model.onnx"], expected)
    np.testing.assert_array_equal(found["accepted"], expected["accepted"])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path / "model.onnx"))
    names = session.get_modelmeta().custom_metadata_map["class_names"]
    assert json.loads(names) == list(SPEC.class_names)


def test_a_model_that_is_refused_leaves_nothing(network, tmp_path):
    def refuse(runners):
        raise RunError("no")

    model = Model(network, SPEC, PLAIN, IMAGES[:9])
    with pytest.raises(RunError, match="no"):
        write("keras", model, tmp_path / "keras", {}, refuse)
    assert os.listdir(tmp_path / "keras") == []


@pytest.fixture
def judge():
    """A judge of a model that is right about 80 of 90 images, all accepted but 9."""
    classes = LABELS.copy()
    classes[:10] = (classes[:10] + 1) % 3
    probabilities = np.full((90, 3), 0.1, np.float32)
    probabilities[np.arange(90), classes] = 0.8
    score = np.where(np.arange(90) < 81, 1.0, -1.0)
    expected = {"probabilities": probabilities, "classes": classes}
    expected |= {"score": score, "accepted": score >= 0}
    return Judge(a_test_split(), Rule(1.0, "energy", 0.0), expected)


def runs(judge, **changed):
    """Return what runs as the SavedModel does, but for some outputs."""
    outputs = {k: v.copy() for k, v in judge.expected.items()} | changed
    lookup = {image.tobytes(): i for i, image in enumerate(IMAGES)}

    def run(images):
        at = [lookup[image.tobytes()] for image in images]
        return {name: value[at] for name, value in outputs.items()}

    return run


def test_a_row_has_the_figures(judge):
    classes = judge.expected["classes"].copy()
    classes[:1] = LABELS[:1]  # one right that was wrong
    classes[20:21] = (LABELS[20:21] + 1) % 3  # one wrong that was right
    classes[21:22] = (LABELS[21:22] + 1) % 3  # and another
    row = judge.row(INT8, runs(judge, classes=classes), 1234)
    assert row.pop("p50_ms") <= row.pop("p99_ms")
    assert row == {
        "file": INT8,
        "accuracy": pytest.approx(100 * 79 / 90),
        "difference": pytest.approx(-100 / 90),
        "other": 3,
        "largest_difference": 0.0,
        "bytes": 1234,
        "accepted": 90.0,
    }


def test_an_int8_model_may_lose_a_little_and_no_more(judge):
    classes = judge.expected["classes"].copy()
    classes[20:22] = (LABELS[20:22] + 1) % 3
    with pytest.raises(RunError, match=r"wrong about 2 more of the 90 .*0\.3%"):
        judge.row(INT8, runs(judge, classes=classes), 1)


def test_another_format_must_agree_on_every_image(judge):
    probabilities = judge.expected["probabilities"].copy()
    probabilities[80] += np.float32([0.001, -0.001, 0])
    with pytest.raises(RunError, match=r"model\.onnx.* by 0\.001 in a probability"):
        judge.row("model.onnx", runs(judge, probabilities=probabilities), 1)
    accepted = ~judge.expected["accepted"]
    with pytest.raises(RunError, match="accepts or rejects 90 images otherwise"):
        judge.row("model.onnx", runs(judge, accepted=accepted), 1)
    half = judge.expected["probabilities"].astype(np.float16)
    with pytest.raises(RunError, match="no float32"):
        judge.row("model.onnx", runs(judge, probabilities=half), 1)


def test_latency_is_of_many_runs():
    count = []
    p50, p99 = latency(count.append, IMAGES[:1])
    assert len(count) == 320
    assert 0 < p50 <= p99


def test_a_missing_extra_names_the_command_that_brings_it(monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "tf2onnx" else known(n)
    )
    with pytest.raises(UsageError, match=r"tf2onnx.*pip install 'kcnn\[onnx\]'"):
        extras.check_installed("--format=onnx", "onnx", "json", "tf2onnx")
    with pytest.raises(UsageError, match=r"--format: got 'tflite', expected saved_mo"):
        export_command._formats("keras,tflite")
    assert export_command._formats("keras,saved_model,keras") == [
        "keras",
        "saved_model",
    ]


@pytest.mark.slow
def test_the_command_writes_each_format_beside_the_saved_model(kcnn, npz, tmp_path):
    for module in NEEDS.values():
        pytest.importorskip(module)
    train = f"--dataset=npz:{npz}", "--model=convnet", "--epochs=20", "--model_dir=r"
    assert kcnn("train", *train, "--export_name=m").returncode == 0
    done = kcnn("export", "r", "--format=keras,litert,onnx", "--license=MIT")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    base = tmp_path / "saved_models" / "m"
    assert sorted(os.listdir(base)) == ["1", "keras", "litert", "onnx"]
    for name, model in (("keras", "model.keras"), ("litert", INT8)):
        folder = base / name / "1"
        assert (folder / model).stat().st_size > 0
        assert (folder / "labels.txt").read_text() == "0\n1\n2\n"
        assert json.loads((folder / "model_card.json").read_text())["license"] == "MIT"
        assert "saved_model" in done.stdout and model in done.stdout
