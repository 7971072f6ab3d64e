import subprocess
import sys
import zipfile

import numpy as np
import pytest

from kcnn import datasets, memory, npz, pipeline
from kcnn.config import Config
from kcnn.errors import RunError, UsageError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (700, 4, 6, 1), np.uint8)  # more than one chunk
Y = np.arange(700) % 3


def write(path, **changes):
    arrays = {"x_train": X, "y_train": Y, "x_test": X[:50], "y_test": Y[:50]}
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez_compressed(path, **arrays)
    return path


def load(path, **settings):
    settings = {"validation_fraction": 0.0} | settings
    return datasets.load(Config(dataset=f"npz:{path}", **settings))


def pixels(split):
    return np.concatenate(list(pipeline.evaluation_batches(split, 64)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_images_and_labels_are_those_in_the_file(path, cache):
    data = load(write(path), cache=cache)
    np.testing.assert_array_equal(pixels(data.train), X)
    np.testing.assert_array_equal(pixels(data.test), X[:50])
    np.testing.assert_array_equal(data.train.labels, Y)
    assert data.spec.shape == (4, 6, 1)
    assert data.spec.class_names == ("0", "1", "2")
    assert data.notes == [] and data.skipped == []
    assert data.test.names(7) == "7"


@pytest.mark.parametrize(
    "x",
    [
        X[..., 0],
        X.astype(np.int64),
        X.astype(">u2"),
        np.asfortranarray(X),
        X.astype(np.float32) / 255,
        X / 255.0,
    ],
)
def test_other_layouts_of_the_same_images(path, x):
    data = load(write(path, x_train=x, y_train=Y[:, None].astype(np.uint8)))
    np.testing.assert_array_equal(pixels(data.train), X)
    np.testing.assert_array_equal(data.train.labels, Y)
    is_float = x.dtype.kind == "f"
    assert data.notes == ["x_train: floats from 0 to 1, times 255"] * is_float


def test_color_and_size(path):
    color = np.repeat(X, 3, axis=-1)
    write(path, x_train=color, x_test=color[:50])
    assert load(path).spec.shape == (4, 6, 3)
    data = load(path, color_mode="grayscale")
    np.testing.assert_array_equal(pixels(data.train), X)
    data = load(path, image_size=(8, 9))
    assert pixels(data.test).shape == (50, 8, 9, 3)


def test_test_images_of_another_size_get_the_size_of_train(path):
    data = load(write(path, x_test=np.full((50, 9, 9), 7, np.uint8)))
    assert (pixels(data.test) == np.full((50, 4, 6, 1), 7)).all()


def test_class_names(path):
    write(path, class_names=np.array(["ant", "bee", "çat", "dog"]))
    data = load(path)
    assert data.spec.class_names == ("ant", "bee", "çat", "dog")
    assert data.notes == ["no training image of 1 of the classes: dog"]


def test_classes_are_counted_in_train_and_test(path):
    y_test = Y[:50].copy()
    y_test[3] = 5
    assert load(write(path, y_test=y_test)).spec.num_classes == 6


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "no array x_test .there are: .*; expected x_train, y_train"),
        ({"y_train": None}, "no array y_train"),
        ({"y_train": Y[:-1]}, "x_train has 700 images, y_train has 699 labels"),
        ({"y_train": changed(Y, 4, -1)}, r"y_train\[4\] is -1; expected 0 to 999"),
        ({"y_test": changed(Y[:50], 2, 1000)}, r"y_test\[2\] is 1000; expected"),
        ({"y_train": Y.astype(float)}, "y_train is float64 of shape .700,.; expected"),
        ({"y_train": np.eye(3)[Y].astype(int)}, r"y_train is int64 of shape \(700, 3"),
        ({"y_train": Y.astype(object)}, "y_train holds Python objects"),
        ({"x_train": X.astype(object)}, "x_train holds Python objects"),
        ({"class_names": np.array(["a", "b"])}, r"y_train\[2\] is 2; class_names has"),
        ({"class_names": np.arange(3)}, "class_names is int64 .*; expected strings"),
        ({"x_train": X.reshape(700, 24)}, r"x_train is uint8 of shape \(700, 24\)"),
        ({"x_train": np.repeat(X, 2, -1)}, r"shape \(700, 4, 6, 2\); expected"),
        ({"x_train": X.astype(bool)}, "x_train is bool"),
        ({"x_train": X.astype(float)}, "x_train is float64 from 0 to 255; expected"),
        ({"x_train": X.astype(int) + 1}, "x_train is int64 from 1 to 256; expected"),
        ({"x_train": X.astype(np.int16) - 1}, "from -1 to 254; expected whole numbers"),
        ({"x_test": changed(X[:50] / 255.0, 0, np.nan)}, "x_test has pixels .*NaN"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "y_train is empty"),
        ({"y_train": Y * 0, "y_test": Y[:50] * 0}, "has 1 class; expected 2 to 1,000"),
    ],
)
def test_refuses(path, changes, message):
    write(path, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_refuses_what_is_no_npz_file(path, tmp_path):
    with pytest.raises(UsageError, match=r"data.npz: no such file"):
        load(path)
    path.write_text("text")
    with pytest.raises(UsageError, match="no npz file"):
        load(path)
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(UsageError, match="expected npz:PATH"):
        load("")


def test_refuses_damaged_data(path):
    write(path)
    contents = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("x_train.npy").header_offset + 5000
    contents[middle : middle + 50] = bytes(50)
    path.write_bytes(contents)
    with pytest.raises(UsageError, match=r"data\.npz: ") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_refuses_an_array_cut_short(path):
    write(path, x_train=None)
    whole = path.with_name("x_train.npy")
    np.save(whole, X)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", whole.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"x_train holds .* cut short"):
        load(path)


def test_refuses_to_decode_again_every_epoch(path):
    with pytest.raises(UsageError, match=r"--cache=none: .* --cache=memory and"):
        load(write(path), cache="none")


_MEASURE = """
import resource, sys
from kcnn import datasets, memory, npz, pipeline
from kcnn.config import Config

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

datasets.load(Config())
before = peak()
data = datasets.load(Config(dataset="npz:" + sys.argv[1], cache="disk"))
print(len(data.train), peak() - before)
"""


@pytest.mark.slow
def test_disk_cache_needs_little_memory(path):
    x = np.zeros((20_000, 160, 160), np.uint8)  # 512 MB
    write(path, x_train=x, y_train=np.arange(20_000) % 10)
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, path], capture_output=True, check=True
    )
    count, megabytes = result.stdout.split()
    assert int(count) == 18_000
    assert float(megabytes) < 200


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (6, 40, "zip file version"),  # version needed
        (8, 1, "encrypted"),  # flags
        (8, 32, "compressed patched data"),
        (8, 64, "strong encryption"),
        (10, 1, "compression"),  # method
    ],
)
def test_archives_that_zipfile_cannot_read_are_named(tmp_path, offset, value, words):
    path = write(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last member's, in the directory
    data[entry + offset] = value + 60 * (offset == 6)
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        load(path)


def crafted(path, name, dtype, shape, size, fortran_order=False):
    """Replace an array by a header, true or not, and zeros: a thousand to a byte."""
    write(path, **{name: None})
    header = {"descr": dtype, "fortran_order": fortran_order, "shape": shape}
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
    return path


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "size", "words"),
    [
        ("y_train", "|i1", (2**26,), 2**26, "700 images, y_train has 67108864 labels"),
        ("y_train", "<i8", (10**15,), 0, "0 bytes, which are no int64 of shape"),
        ("y_train", "<i8", (-1,), 2**20, "1,048,576 bytes, which are no"),
        ("x_train", "|u1", (700, 4, 6), 2**26, "67,108,864 bytes, which are no"),
        ("x_train", "|u1", (1, 8192, 8192), 2**26, "8192 x 8192 pixels; the limit"),
        ("class_names", "<U1024", (2**14,), 2**26, "expected 1,000 names of 256"),
        ("class_names", "<U1", (2**24,), 2**26, "16,777,216 names of up to 1 char"),
    ],
)
def test_refuses_a_small_file_with_large_arrays_before_it_reads_them(
    path, monkeypatch, name, dtype, shape, size, words
):
    crafted(path, name, dtype, shape, size)
    if size:
        assert path.stat().st_size < size / 10

    read = npz._read_exactly

    def read_little(file, size, name):
        assert size < 10_000, name
        return read(file, size, name)

    monkeypatch.setattr(npz, "_read_exactly", read_little)
    with pytest.raises(UsageError, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_labels_and_images_that_must_be_read_at_once_have_to_fit(path, monkeypatch):
    write(path, x_train=np.asfortranarray(X))
    monkeypatch.setattr(memory, "available", lambda: 700 * 8 - 1)
    with pytest.raises(RunError, match="700 labels of y_train need"):
        load(path)
    monkeypatch.setattr(memory, "available", lambda: 700 * 4 * 6 - 1)
    with pytest.raises(RunError, match="700 images of x_train in Fortran order need"):
        load(path, cache="disk")
