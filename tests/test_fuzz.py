"""Thousands of bad inputs: each is a valid result or one clear error, and quickly.

The quick share is part of every test run; `-m slow` takes thousands of cases. An error
that is no UsageError or RunError would reach a user as a traceback, and fails here.
"""

import contextlib
import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kcnn import checkpoint, datasets, images
from kcnn import flags as kcnn_flags
from kcnn.commands import compare, evaluate, predict, sweep, train
from kcnn.config import KNOBS, Config
from kcnn.errors import RunError, UsageError
from kcnn.inference import Classifier
from kcnn.run import Run, config_of, spec_of
from kcnn.trust import check_saved_model
from tests.conftest import striped_images, write_npz
from tests.test_export import CARD_TEXT, SPEC, a_model, export_model


def cases(quick, many):
    """Run a test on a quick share of cases, on more where slow tests are run, and on
    all where the exhaustive ones are.
    """
    slow = pytest.param(many // 5, marks=pytest.mark.slow)
    exhaustive = pytest.param(many, marks=[pytest.mark.slow, pytest.mark.exhaustive])
    return pytest.mark.parametrize("examples", [quick, slow, exhaustive])


def check(examples, function, *strategies, seconds=10):
    """Call a function with that many generated values; the same ones each time.

    A case that takes longer than `seconds` fails.
    """
    tried = given(*strategies)(function)
    settings(
        max_examples=examples,
        deadline=1000 * seconds,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(tried)()


@contextlib.contextmanager
def clear_errors_only():
    """Let pass what a user sees as one line."""
    try:
        yield
    except (UsageError, RunError) as error:
        assert str(error).strip(), "an error without a word"


def mutated(data):
    """Return a strategy of files that are nearly this one: changed, cut, moved."""
    place = st.integers(0, len(data) - 1)
    change = st.one_of(
        st.tuples(st.just("set"), place, st.integers(0, 255)),
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("cut"), place, st.just(0)),
        st.tuples(st.just("drop"), place, st.integers(1, 40)),
        st.tuples(st.just("double"), place, st.integers(1, 40)),
        st.tuples(st.just("fill"), place, st.integers(0, 255)),
    )

    def apply(changes):
        found = bytearray(data)
        for kind, at, value in changes:
            if at >= len(found):
                continue
            if kind == "set":
                found[at] = value
            elif kind == "flip":
                found[at] ^= 1 << value
            elif kind == "cut":
                del found[at:]
            elif kind == "drop":
                del found[at : at + value]
            elif kind == "double":
                found[at:at] = found[at : at + value]
            else:
                found[at : at + 4] = bytes([value]) * 4
        return bytes(found)

    return st.lists(change, min_size=1, max_size=6).map(apply)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
PLAUSIBLE = st.one_of(
    st.sampled_from(sorted({c for k in KNOBS.values() for c in k.choices})),
    st.integers(-3, 40),
    st.floats(-1, 2),
    st.lists(st.integers(-1, 70), max_size=4),
    st.booleans(),
    st.none(),
)


@cases(400, 10_000)
def test_config_values(examples):
    def build(values):
        with clear_errors_only():
            config = Config.from_dict(values)
            again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
            assert again == config

    names = st.sampled_from(sorted(KNOBS)) | st.text(max_size=5)
    few = st.dictionaries(names, PLAUSIBLE | JSON, max_size=4)
    check(examples, build, few)


def flag_texts():
    text = st.text(
        st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)),
        max_size=12,
    )
    numbers = st.integers().map(str) | st.floats().map(str)
    values = st.sampled_from(
        ["", "1e999", "0..5", "5..0", "1,2;3", "30s", "-5m", "1_0"]
    )
    values |= text | numbers
    name = st.sampled_from([*sorted(KNOBS), "model_dir", "resume", "config", "format"])
    return st.one_of(
        st.builds("--{}={}".format, name, values),
        st.builds("--{}".format, name),
        st.builds("--no{}".format, name),
        st.builds("--{}".format, text),
        text,
    )


@cases(300, 6000)
def test_command_lines(examples):
    def parse(command, argv):
        values = absl_flags.FlagValues()
        for flag, declared in command.FLAGS.items():
            kcnn_flags.define(values, flag, declared)
        command.define_knobs(values)
        with clear_errors_only():
            kcnn_flags.parse(values, argv)
            if command is train and not (values.experiment or values.config):
                Config.from_dict(kcnn_flags.knobs_given(values))

    commands = st.sampled_from([train, sweep, evaluate, predict, compare])
    check(examples, parse, commands, st.lists(flag_texts(), max_size=4))


def knob_texts():
    """Return a strategy of flags of one knob that are nearly right, and small."""

    def flags_of(name):
        knob = KNOBS[name]
        values = st.sampled_from([*knob.choices, "", "0", "1", "2", "3,3", "true", "x"])
        values |= st.integers(-1, 40).map(str) | st.floats(-0.5, 1.5).map(str)
        return values.map(f"--{name}={{}}".format)

    names = sorted(set(KNOBS) - {"dataset", "data_dir", "epochs"})
    return st.sampled_from(names).flatmap(flags_of)


@pytest.mark.slow
@pytest.mark.parametrize(
    "examples", [15, pytest.param(100, marks=pytest.mark.exhaustive)]
)
def test_whole_trainings(examples, kcnn, tmp_path):
    """Exit status, one line, and nothing written elsewhere."""
    write_npz(tmp_path / "stripes.npz")
    base = ["train", "--dataset=npz:stripes.npz", "--model=mlp", "--epochs=1"]
    base += ["--model_dir=run", "--export_dir=exports"]

    def run(more):
        for name in ("run", "exports"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        done = kcnn(*base, *more, timeout=600)
        assert done.returncode in (0, 1, 2), (more, done)
        assert "Traceback" not in done.stderr, (more, done.stderr)
        assert done.stderr.count("\n") == (done.returncode != 0), (more, done.stderr)
        report = tmp_path / "run" / "report.html"
        assert report.exists() == (done.returncode == 0), more
        left = set(os.listdir(tmp_path))
        assert left <= {"stripes.npz", "run", "exports"}, more

    check(examples, run, st.lists(knob_texts(), max_size=3), seconds=3600)


@cases(80, 4000)
def test_npz_files(examples, tmp_path):
    plain = write_npz(tmp_path / "a.npz", n_train=12, n_test=6).read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        np.savez_compressed(tmp_path / "b.npz", **file)
    packed = (tmp_path / "b.npz").read_bytes()

    def load(data):
        (tmp_path / "c.npz").write_bytes(data)
        with clear_errors_only():
            datasets.load(Config(dataset=f"npz:{tmp_path}/c.npz"))

    check(examples, load, mutated(plain) | mutated(packed))


def npy_members():
    """Return a strategy of archives of arrays of any type and shape."""
    dtypes = st.sampled_from(
        ["u1", "i8", "f4", "f8", "U3", "S2", "O", "c8", "M8[s]", "?"]
    )
    shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)
    array = st.builds(
        lambda dtype, shape, value: np.full(shape, value).astype(dtype),
        dtypes.filter(lambda d: d not in ("O", "M8[s]")),
        shapes,
        st.integers(0, 300),
    )
    names = st.sampled_from(["x_train", "y_train", "x_test", "y_test", "class_names"])
    return st.dictionaries(names, array, min_size=3, max_size=5)


@cases(60, 2000)
def test_npz_arrays_of_any_kind(examples, tmp_path):
    def load(arrays):
        np.savez(tmp_path / "c.npz", **arrays)
        with clear_errors_only():
            datasets.load(Config(dataset=f"npz:{tmp_path}/c.npz", batch_size=2))

    check(examples, load, npy_members())


@cases(150, 5000)
def test_checkpoints(examples, tmp_path):
    path = tmp_path / "c.npz"
    arrays = {"state": [np.arange(6), np.float32([[1.5]])], "best": []}
    checkpoint.save(path, arrays, {"now": {}, "anchor": None})
    data = path.read_bytes()

    def load(content):
        body = content[: -checkpoint._DIGEST_BYTES]
        path.write_bytes(body + checkpoint._digest(body))  # as one who means harm would
        with clear_errors_only():
            found, _ = checkpoint.load(path)
            assert all(a.dtype != object for one in found.values() for a in one)

    check(examples, load, mutated(data))


@cases(200, 5000)
def test_config_files(examples, tmp_path):
    run = Run(tmp_path)
    note = {
        "config": Config().to_dict(),
        "spec": {"height": 8, "width": 8, "channels": 1, "class_names": ["a", "b"]},
        "data": {"train": 5},
        "experiment": None,
    }
    text = json.dumps(note).encode()

    def read(content):
        run.config.write_bytes(content)
        with clear_errors_only():
            found = run.read_config()
            config_of(found)
            spec_of(found)
        with clear_errors_only():
            train._read_note(run.config)

    def nested(path, value):
        changed = json.loads(text)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return json.dumps(changed).encode()

    paths = [
        ("config",),
        ("spec",),
        ("data",),
        ("spec", "class_names"),
        ("experiment",),
    ]
    paths += [("spec", key) for key in ("height", "width", "channels")]
    paths += [("config", "filters"), ("config", "epochs"), ("config", "dataset")]
    swapped = st.builds(nested, st.sampled_from(paths), JSON)
    check(
        examples, read, mutated(text) | swapped | JSON.map(json.dumps).map(str.encode)
    )


def encoded(format_name, mode):
    pixels = np.arange(9 * 7 * 4, dtype=np.uint8).reshape(9, 7, 4)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, format_name)
    return file.getvalue()


FILES = [encoded("PNG", m) for m in ("L", "LA", "RGB", "RGBA", "P", "1")]
FILES += [encoded("JPEG", m) for m in ("L", "RGB")]
FILES += [encoded("GIF", "P"), encoded("BMP", "RGB"), encoded("BMP", "L")]


@cases(250, 10_000)
def test_image_files(examples):
    decode = tf.function(
        lambda contents: images.decode(contents, (5, 6, 3)),
        input_signature=[tf.TensorSpec([], tf.string)],
    )

    def read(data):
        try:
            header = images.check_header(data)
        except ValueError as error:
            assert str(error)
            return
        assert header.width * header.height <= images.MAX_PIXELS
        try:
            found = decode(tf.constant(data))
        except tf.errors.OpError as error:
            assert images.reason(error)
            return
        assert found.shape == (5, 6, 3) and found.dtype == tf.uint8

    check(examples, read, st.one_of(*map(mutated, FILES)) | st.binary(max_size=60))


NAMES = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)),
    min_size=1,
    max_size=6,
).filter(lambda name: name not in (".", ".."))
GOOD = [encoded("PNG", "L"), encoded("JPEG", "RGB"), b"", b"no image"]


@cases(25, 1000)
def test_folder_trees(examples, tmp_path):
    entries = st.lists(
        st.tuples(
            st.sampled_from(["", "train/", "test/", "val/", "Train/", "validation/"]),
            NAMES | st.sampled_from(["a", "b"]),
            NAMES | st.sampled_from(["1.png", "2.jpg", "..", "x/y.png"]),
            st.sampled_from(["file", "folder", "link out", "link up", "link nowhere"]),
            st.sampled_from(GOOD),
        ),
        max_size=12,
    )

    def load(tree):
        root = tmp_path / "tree"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for place, folder, name, kind, content in tree:
            path = root / f"{place}{folder}"
            with contextlib.suppress(OSError):  # a name taken by another kind
                path.mkdir(parents=True, exist_ok=True)
                _make(path / name, kind, content, root)
        with clear_errors_only():
            data = datasets.load(Config(dataset=f"folder:{root}", image_size=(4, 4)))
            assert len(data.train) > 0

    check(examples, load, entries)


def _make(path, kind, content, root):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_bytes(content)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {
            "link out": "/etc",
            "link up": root,
            "link nowhere": root / "nowhere",
        }
        path.symlink_to(targets[kind])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    base = tmp_path_factory.mktemp("fuzz")
    card = CARD_TEXT | {"config": Config().to_dict(), "data": {}}
    return export_model(a_model(rotate=0.0, translate=0.0), SPEC, base / "m", card)


@cases(120, 4000)
def test_graphs_of_saved_models(examples, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "m")
    graph = tmp_path / "m" / "saved_model.pb"
    data = graph.read_bytes()

    def scan(content):
        graph.write_bytes(content)
        with clear_errors_only():
            check_saved_model(tmp_path / "m")

    check(examples, scan, mutated(data))


@cases(6, 300)
def test_saved_models_with_a_damaged_part(examples, exported, tmp_path):
    """Loading takes most of a second, so the quick share is small."""
    shutil.copytree(exported, tmp_path / "m")
    parts = [p for p in (tmp_path / "m").rglob("*") if p.is_file()]
    whole = {path: path.read_bytes() for path in parts}
    pixels, _ = striped_images(2)

    def load(change):
        path, content = change
        for name, data in whole.items():
            name.write_bytes(content if name == path else data)
        with clear_errors_only():
            classifier = Classifier(tmp_path / "m")
            spec_of(classifier.card)
            assert classifier.outputs(pixels)["probabilities"].shape == (2, 3)

    change = st.sampled_from(sorted(whole)).flatmap(
        lambda path: st.tuples(st.just(path), mutated(whole[path]))
    )
    check(examples, load, change)


def test_archives_whose_members_lead_outside_write_nothing(tmp_path):
    """An npz file is read member by member, and never unpacked."""
    path = tmp_path / "data" / "a.npz"
    path.parent.mkdir()
    write_npz(path, n_train=9, n_test=3)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../stolen.npy", b"x")
    datasets.load(Config(dataset=f"npz:{path}"))
    assert not list(tmp_path.rglob("stolen*"))
