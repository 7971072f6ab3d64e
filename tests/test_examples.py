"""tf.Examples in TFRecord files: read as images, and written from any data set."""

import gzip
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kcnn import datasets, example_files
from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.examples import Place
from kcnn.image_feature import ImageFeature, bytes_feature, int_feature, serialized
from kcnn.pipeline import images_at
from tests.conftest import striped_images, write_npz

NAMES = ("top", "middle", "bottom")
PNG = ImageFeature()
RAW = ImageFeature("pixels", "raw", (10, 10, 1))
FLOATS = ImageFeature("pixels", "floats", (10, 10, 1))


def write(path, records, compressed=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP" if compressed else "")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def records_of(n, feature=PNG, seed=0, label=int_feature, **more):
    images, labels = striped_images(n, seed=seed)
    return [
        serialized(
            {
                feature.key: feature.feature(image),
                "label": label(number),
                **{key: value(number) for key, value in more.items()},
            }
        )
        for image, number in zip(images, labels.tolist(), strict=True)
    ]


def name_feature(number):
    return bytes_feature(NAMES[number].encode())


def pixels(split):
    return images_at(split, np.arange(len(split)))


def load(place, **settings):
    return datasets.load(Config(dataset=f"examples:{place}", **settings))


@pytest.mark.parametrize(
    ("feature", "options"),
    [
        (PNG, ""),
        (RAW, "&image=pixels&shape=10,10,1"),
        (FLOATS, "&image=pixels&shape=10,10,1"),
    ],
    ids=["png", "raw", "floats"],
)
def test_all_kinds_of_images_are_read_as_they_were(tmp_path, feature, options):
    some = records_of(60, feature, label_name=name_feature)
    write(tmp_path / "Split-train" / "data-00000-of-00002.gz", some[:40])
    write(tmp_path / "Split-train" / "data-00001-of-00002.gz", some[40:])
    write(tmp_path / "Split-eval" / "data", records_of(30, feature, 1), False)
    data = load(f"{tmp_path}{options}", validation_fraction=0.0)
    assert data.spec.shape == (10, 10, 1)
    assert data.spec.class_names == NAMES
    for split, n, seed in ((data.train, 60, 0), (data.test, 30, 1)):
        images, labels = striped_images(n, seed=seed)
        np.testing.assert_array_equal(pixels(split), images)
        np.testing.assert_array_equal(split.labels, labels)
    assert data.skipped == []


def test_labels_may_be_names_and_eval_may_be_validation(tmp_path):
    for split in ("train", "eval", "test"):
        write(tmp_path / f"Split-{split}" / "a.gz", records_of(12, label=name_feature))
    data = load(tmp_path, cache="disk")
    assert data.spec.class_names == ("bottom", "middle", "top")
    assert data.train.labels[:3].tolist() == [2, 1, 0]
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 12, 12)
    again = load(f"train={tmp_path}/Split-t*/*&classes=top,middle,bottom")
    assert len(again.train) + len(again.validation) + len(again.test) == 24
    assert again.spec.class_names == NAMES
    np.testing.assert_array_equal(np.unique(again.train.labels), [0, 1, 2])


def test_a_place_is_written_as_it_is_read():
    patterns = {"train": ("/a b/x=&y/Split-*/*",), "test": ("q?", "%20")}
    place = Place(patterns, "", "i m", "l&", (3, 4, 1), ("a,b", "c&d", "ü"))
    assert Place.parse(str(place).removeprefix("examples:")) == place


def test_images_that_cannot_be_decoded_are_named_and_left_out(tmp_path):
    good = records_of(30)
    cut = PNG.feature(striped_images(1)[0][0]).bytes_list.value[0][:60]
    bad = [b"no image", cut]
    damaged = [
        serialized({"image": bytes_feature(b), "label": int_feature(1)}) for b in bad
    ]
    write(tmp_path / "Split-train" / "a.gz", [*good[:5], *damaged, *good[5:]])
    data = load(tmp_path, validation_fraction=0.0, test_fraction=0.1)
    assert len(data.train) + len(data.test) == 30
    images, _ = striped_images(30)
    order = np.argsort(np.concatenate([data.train.indices, data.test.indices]))
    both = np.concatenate([pixels(data.train), pixels(data.test)])
    np.testing.assert_array_equal(both[order], images)
    file = tmp_path / "Split-train" / "a.gz"
    assert data.skipped == [
        (f"{file} record 5", "not an image"),
        (f"{file} record 6", "its image cannot be decoded"),
    ]
    with pytest.raises(UsageError, match="--strict: 2 files of examples:"):
        load(tmp_path, strict=True)


def test_images_of_mixed_sizes_and_colors(tmp_path):
    def colored(number):
        buffer = io.BytesIO()
        Image.new("RGB", (8 + number, 9), (255, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    some = [
        serialized({"image": bytes_feature(colored(i)), "label": int_feature(i % 2)})
        for i in range(20)
    ]
    write(tmp_path / "Split-train" / "a.gz", some)
    assert load(tmp_path).spec.shape == (64, 64, 3)
    assert load(tmp_path, image_size=(12, 14)).spec.shape == (12, 14, 3)


def int_image(n):
    record = serialized({"image": int_feature(1), "label": int_feature(0)})
    return [record] * n


@pytest.mark.parametrize(
    ("records", "options", "words"),
    [
        (
            records_of(9),
            "&image=picture",
            "no feature 'picture'; there are: image, lab",
        ),
        (records_of(9), "&label=class", "no feature 'class'"),
        (
            records_of(9),
            "&shapes=1,2,3",
            "got 'shapes=1,2,3' in examples:..., expected",
        ),
        (
            records_of(9),
            "&shape=28,28",
            "got shape=28,28 in examples:..., expected HEI",
        ),
        (records_of(9), "&classes=a,b", "the label 'label' is 2; there are 2 classes"),
        (records_of(9, FLOATS), "&image=pixels", "is 100 floats; say of what shape"),
        (int_image(9), "", "holds whole numbers"),
        ([b"\xff\xff"], "", "are no tf.Examples"),
        ([], "", "there is no record in it"),
        (records_of(9, label=lambda i: int_feature(i - 1)), "", "is -1 in record 0"),
        ([*records_of(9), serialized({})], "", "cannot be read: "),
        (
            records_of(9, label_name=lambda i: bytes_feature(b"one")),
            "",
            "two labels have one name",
        ),
        (
            [*records_of(9), *records_of(9, label_name=name_feature)][::-1],
            "",
            "has two names: '' and ",
        ),
    ],
)
def test_what_is_wrong_with_the_records_is_one_line(tmp_path, records, options, words):
    write(tmp_path / "Split-train" / "a.gz", records)
    with pytest.raises(UsageError) as raised:
        load(f"{tmp_path}{options}")
    assert words in str(raised.value)
    assert str(raised.value).startswith("--dataset: ")
    assert "\n" not in str(raised.value)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "Split-train" / "a.gz"
    write(path, records_of(900))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    path.write_bytes(gzip.compress(b"no records at all"))
    with pytest.raises(UsageError, match="no TFRecords"):
        load(tmp_path)
    for place, words in (
        (tmp_path / "Split-train", "no folder Split-train in it"),
        (tmp_path / "nowhere", "no such folder"),
        (f"train={tmp_path}/*.gz", r"no file is named .*\*.gz"),
        ("", "expected examples:PATH"),
    ):
        with pytest.raises(UsageError, match=words):
            load(place)
    with pytest.raises(UsageError, match="--cache=none: gzipped records"):
        load(tmp_path, cache="none")


def test_floats_beyond_1_are_refused(tmp_path):
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[255.0] * 100))
    record = serialized({"image": feature, "label": int_feature(0)})
    write(tmp_path / "Split-train" / "a.gz", [record])
    with pytest.raises(UsageError, match="floats from 255 to 255; expected 0 to 1"):
        load(f"{tmp_path}&shape=10,10,1")


def test_what_was_written_is_read_again_bit_for_bit(tmp_path):
    written = datasets.load(Config(train_size=300))
    splits = {
        "train": written.train,
        "validation": written.validation,
        "test": written.test,
    }
    example_files.write(splits, written.spec, tmp_path / "examples", shards=3)
    read = load(tmp_path / "examples")
    assert read.spec == written.spec
    for name, split in splits.items():
        found = getattr(read, name)
        np.testing.assert_array_equal(pixels(found), pixels(split), name)
        np.testing.assert_array_equal(found.labels, split.labels, name)
    # By other readers: gzip, TensorFlow's own records, Pillow.
    files = sorted((tmp_path / "examples" / "Split-train").iterdir())
    assert [file.name for file in files] == [
        f"data_tfrecord-0000{i}-of-00003.gz" for i in range(3)
    ]
    records = tf.data.TFRecordDataset(list(map(str, files)), "GZIP")
    first = next(iter(records.as_numpy_iterator()))
    features = tf.train.Example.FromString(first).features.feature
    assert sorted(features) == ["image", "label", "label_name"]
    label = written.train.labels[0]
    assert features["label"].int64_list.value == [label]
    assert features["label_name"].bytes_list.value == [str(label).encode()]
    png = Image.open(io.BytesIO(features["image"].bytes_list.value[0]))
    assert png.format == "PNG"
    np.testing.assert_array_equal(np.asarray(png), pixels(written.train)[0, ..., 0])


def test_nothing_is_left_of_a_writing_that_failed(tmp_path, monkeypatch):
    data = datasets.load(Config(dataset=f"npz:{write_npz(tmp_path / 'a.npz')}"))
    examples = example_files._examples

    def failing(split, *arguments):
        if split is data.test:
            raise tf.errors.ResourceExhaustedError(None, None, "disk full")
        return examples(split, *arguments)

    monkeypatch.setattr(example_files, "_examples", failing)
    splits = {"train": data.train, "test": data.test}
    with pytest.raises(RunError, match="could not be written: disk full"):
        example_files.write(splits, data.spec, tmp_path / "out", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_the_command_writes_and_other_commands_read(kcnn, npz, tmp_path):
    done = kcnn("data", "export-examples", f"--dataset=npz:{npz}", "--out=out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "images     81 train, 9 validation, 30 test; 10x10x1, 3 classes",
        "written    out",
    ]
    again = kcnn("data", "export-examples", f"--dataset=npz:{npz}", "--out=out")
    assert again.returncode == 2
    assert "--out: out exists; expected a new or an empty folder" in again.stderr
    assert len(load(tmp_path / "out").test) == 30
