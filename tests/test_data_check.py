import json
import re
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from kcnn import check_page, check_text, contact_sheet, datasets, disputes
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.findings import findings
from kcnn.inspection import inspect
from kcnn.run import Run
from tests.test_duplicates import scene
from tests.test_images import png_header


def save(path, pixels, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def one_color_png(path, side):
    """Write a PNG of side x side white pixels, one bit each."""
    compress = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    data = b"".join(compress.compress(row * 100) for _ in range(side // 100))
    data += compress.flush()
    header = png_header(side, side)
    chunk = b"IDAT" + data
    before = header[: header.index(b"IDAT") - 4].replace(b"\x08\0\0\0\0", b"\1\0\0\0\0")
    packed = len(data).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    start = before.index(b"IHDR")
    checksum = zlib.crc32(before[start : start + 17]).to_bytes(4, "big")
    before = before[: start + 17] + checksum
    path.write_bytes(before + packed + header[-12:])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder as people have it: with everything that goes wrong."""
    root = tmp_path_factory.mktemp("planted")
    for i in range(30):
        label, split = ("cat", "dog")[i % 2], "test" if i % 5 == 0 else "train"
        save(root / split / label / f"{i}.png", scene(i))
    train, test = root / "train", root / "test"
    (test / "cat/käse & brot.png").write_bytes((train / "cat/2.png").read_bytes())
    save(test / "dog/larger.png", scene(3, side=70))
    (train / "dog/as dog.png").write_bytes((train / "cat/4.png").read_bytes())
    (train / "dog/again.png").write_bytes((train / "dog/1.png").read_bytes())
    save(train / "cat/whole.jpg", scene(50))
    whole = (train / "cat/whole.jpg").read_bytes()
    (train / "cat/cut.jpg").write_bytes(whole[:-40])
    (train / "cat/empty.png").write_bytes(b"")
    (train / "cat/text.png").write_text("no picture")
    one_color_png(train / "cat/huge.png", 30_000)
    save(train / "cat/new.webp", scene(51))
    save(train / "cat/moving.gif", scene(52))
    save(train / "cat/printed.jpg", scene(53), "CMYK")
    deep = np.random.default_rng(0).integers(0, 65536, (32, 32), np.uint16)
    Image.fromarray(deep).save(train / "dog/deep.png")
    (train / "dog/deeper").mkdir()
    save(train / "dog/deeper/ein Hund.png", scene(54))
    (train / "notes.txt").write_text("x")
    (train / "cat/list.csv").write_text("x")
    (train / "bird").mkdir()
    return root


@pytest.fixture(scope="module")
def seen(planted):
    return inspect(str(planted))


@pytest.fixture(scope="module")
def result(seen, planted):
    return findings(seen, 4) | {
        "folder": "planted",
        "command": "kcnn data check planted",
        "checked": "2026-01-02T03:04:05+0000",
        "disputed": None,
    }


SKIPPED = {
    "train/cat/cut.jpg": "JPEG",
    "train/cat/empty.png": "empty file",
    "train/cat/huge.png": "30000 x 30000 pixels; the limit is 50,000,000",
    "train/cat/new.webp": "WEBP, not one of JPEG, PNG, GIF, BMP",
    "train/cat/text.png": "not an image",
}


def test_a_bomb_is_small_on_disk_and_whole(planted, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert (planted / "train/cat/huge.png").stat().st_size < 200_000
    with Image.open(planted / "train/cat/huge.png") as image:
        assert image.size == (30_000, 30_000)


def test_everything_that_cannot_be_read_is_named_with_its_reason(result):
    found = {one["file"]: one["reason"] for one in result["skipped"]}
    assert found.keys() == SKIPPED.keys()
    assert all(reason in found[name] for name, reason in SKIPPED.items())
    assert sorted(result["ignored"]) == ["train/cat/list.csv"]
    assert {one["file"]: one["how"].split(",")[0] for one in result["converted"]} == {
        "train/cat/moving.gif": "GIF",
        "train/cat/printed.jpg": "CMYK",
        "train/dog/deep.png": "16 bits a pixel",
    }


def test_training_skips_what_is_named_and_reads_the_rest(planted, seen):
    (planted / "train/bird").rmdir()
    try:
        config = Config(dataset=f"folder:{planted}", validation_fraction=0.0)
        data = datasets.load(config)
    finally:
        (planted / "train/bird").mkdir()
    assert dict(data.skipped).keys() == SKIPPED.keys()
    names = [s.names(i) for s in (data.train, data.test) for i in range(len(s))]
    assert names == seen.names()
    for split, number in ((data.train, 0), (data.test, 1)):
        assert disputes._mark(seen, number) == split.fingerprint


def test_counts(result):
    # 30 scenes; 5 more in test would be 6, of which 2 are planted; 8 more in train.
    assert result["splits"] == {"train": 31, "test": 8}
    assert result["classes"] == [
        {"name": "bird", "counts": {"train": 0, "test": 0}},
        {"name": "cat", "counts": {"train": 15, "test": 4}},
        {"name": "dog", "counts": {"train": 16, "test": 4}},
    ]
    assert result["sizes"] == {"32x32": 38, "70x70": 1}
    assert result["formats"] == {"PNG": 36, "JPEG": 2, "GIF": 1}
    assert result["balance"]["imbalanced"]
    assert {"split": "train", "class": "bird"} in result["balance"]["empty"]


def test_duplicates_across_splits_and_classes_and_within(result):
    def files(kind):
        return [(g["files"], g["equal"]) for g in result["duplicates"][kind]]

    assert files("across_splits") == [
        (["train/cat/2.png", "test/cat/käse & brot.png"], True),
        (["train/dog/3.png", "test/dog/larger.png"], False),
    ]
    assert files("across_classes") == [
        (["train/cat/4.png", "train/dog/as dog.png"], True)
    ]
    assert files("within") == [(["train/dog/1.png", "train/dog/again.png"], True)]
    assert result["duplicates"]["leaked"] == {"test": 2}
    assert result["duplicates"]["superfluous"] == 4


def test_text_says_the_gravest_first(result):
    lines = check_text.text(result).splitlines()
    labels = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    expected = ["result", "LEAK", "LABELS", "duplicates", "imbalance", "unreadable"]
    found = list(dict.fromkeys(labels))
    assert [label for label in found if label in expected] == expected
    assert "result     2 of 8 test images are in train as well" in lines
    assert " " * 11 + "train/cat/2.png = test/cat/käse & brot.png" in lines
    assert all(any(name in line for line in lines) for name in SKIPPED)


def test_nothing_is_changed_and_names_with_line_breaks_stay_in_their_line(tmp_path):
    for i in range(4):
        save(tmp_path / "a" / f"{i}\n.png", scene(i))
    (tmp_path / "a/new\nline.png").write_text("")
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    shown = findings(inspect(str(tmp_path)), 4) | {"folder": "x", "disputed": None}
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
    assert "           a/new\\nline.png: empty file" in check_text.text(shown).split(
        "\n"
    )


def test_splits_that_do_not_match(tmp_path):
    for i in range(60):
        save(tmp_path / "train/a" / f"{i}.png", scene(i) // 2)
        save(tmp_path / "test/a" / f"{i}.png", scene(100 + i, shift=40, side=48))
    shown = findings(inspect(str(tmp_path)), 4)
    differing = [one for one in shown["mismatches"] if one["differs"]]
    assert {"brightness", "size"} <= {one["figure"] for one in differing}
    by_name = {one["figure"]: one for one in shown["mismatches"]}
    assert by_name["size"]["superiority"] == 1.0
    assert by_name["size"]["medians"] == [32 * 32, 48 * 48]
    assert not by_name["aspect ratio"]["differs"]
    assert check_text.mismatch(by_name["size"]) == (
        "size: median 2,304 in test, 1,024 in train (pixels); more in test in 100% of "
        "pairs"
    )


def test_page_and_contact_sheet(seen, result, tmp_path):
    page = check_page.write(result, seen, tmp_path).read_text()
    assert page.count("data:image/png;base64") == 1 + 8  # the sheet, 4 groups of 2
    assert "k\u00e4se &amp; brot.png" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 200
    json.dumps(result, allow_nan=False)


def test_contact_sheet_shows_images_of_all_shapes_whole(tmp_path):
    shapes = [(96, 20), (20, 96), (1, 96), (96, 96), (8, 8)]
    images = [np.full((*s, 3), 40 * i, np.uint8) for i, s in enumerate(shapes)]
    path = tmp_path / "sheet.png"
    contact_sheet.contact_sheet([("all\n5", images), ("none\n0", [])], path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for i, (height, width) in enumerate(shapes):
        scale = 96 // max(height, width)
        found = (pixels[:102, :, 0] == 40 * i).sum()
        assert found >= 0.95 * height * width * scale**2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no readable image in a folder of a class"),
        (lambda root: (root / "a").mkdir(), "no readable image in a folder of a class"),
        (
            lambda root: [(root / "a").mkdir(), (root / "a/x.png").write_text("x")],
            "no readable image in a folder of a class; a/x.png: not an image",
        ),
        (
            lambda root: [
                (root / s / "a").mkdir(parents=True) for s in ("val", "valid")
            ],
            "both val/ and valid/ are validation folders",
        ),
    ],
)
def test_refuses_folders_without_images(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UsageError, match=message):
        inspect(str(tmp_path))


def write_run(path, seen, number):
    """Write what is read of a run: it says cat of every image but the first."""
    run = Run(path)
    path.mkdir()
    places = np.flatnonzero(seen.split == number)
    labels = seen.label[places]
    probabilities = np.full((len(places), 3), 0.05)
    probabilities[np.arange(len(places)), labels] = 0.9
    probabilities[3] = [0.02, 0.97, 0.01]
    mark = disputes._mark(seen, number)
    note = {
        "config": {},
        "experiment": None,
        "data": {"fingerprint": {"test": mark}},
        "spec": dict(height=8, width=8, channels=3, class_names=["bird", "cat", "dog"]),
    }
    run.config.write_text(json.dumps(note))
    # As training keeps them: in an order of its own.
    order = np.random.default_rng(0).permutation(len(places))
    np.savez(
        run.predictions,
        indices=order,
        labels=labels[order],
        probabilities=probabilities[order],
    )
    return labels


def test_labels_that_a_run_contradicts(seen, tmp_path):
    labels = write_run(tmp_path / "run", seen, 1)
    found = disputes.disputed(str(tmp_path / "run"), seen)
    assert (found["split"], found["images"]) == ("test", 8)
    place = np.flatnonzero(seen.split == 1)[3]
    expected = [] if labels[3] == 1 else [seen.files[place].name]
    assert [one["file"] for one in found["suspicious"]] == expected
    right = 8 - len(expected)
    assert found["accuracy"] == right / 8
    shown = check_text.text(findings(seen, 4) | {"folder": "x", "disputed": found})
    assert f"contradicted, by a run that is right on {right / 8:.1%}" in shown


def test_a_run_on_other_images_is_refused(seen, tmp_path):
    write_run(tmp_path / "run", seen, 1)
    save(tmp_path / "other/a/1.png", scene(0))
    with pytest.raises(UsageError, match="was not tested on the images of this folder"):
        disputes.disputed(str(tmp_path / "run"), inspect(str(tmp_path / "other")))
    Run(tmp_path / "run").predictions.unlink()
    with pytest.raises(UsageError, match="has no predictions"):
        disputes.disputed(str(tmp_path / "run"), seen)


def test_command_writes_nothing_without_output_and_all_with_it(kcnn, planted, tmp_path):
    done = kcnn("data", "check", planted, "--output=found")
    assert done.returncode == 0 and done.stderr == ""
    assert "LEAK       2 images in more than one split" in done.stdout
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == [
        "check.html",
        "check.json",
        "contact_sheet.png",
    ]
    shown = json.loads((tmp_path / "found/check.json").read_text())
    assert shown["duplicates"]["leaked"] == {"test": 2}
    inside = kcnn("data", "check", planted, f"--output={planted}/train")
    assert inside.returncode == 2 and "which is not changed" in inside.stderr


@pytest.mark.slow
def test_training_names_and_counts_what_it_skips(kcnn, planted, tmp_path):
    folder = shutil.copytree(planted, tmp_path / "ä folder")
    (folder / "train/bird").rmdir()
    knobs = ["--model=mlp", "--epochs=1", "--validation_fraction=0", "--export_dir="]
    done = kcnn("train", f"--dataset=folder:{folder}", *knobs, "--model_dir=run")
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"skipped    {name}: " in done.stdout for name in SKIPPED)
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert {one["file"] for one in found["skipped_files"]} == SKIPPED.keys()
    assert found["test"]["n"] == 8
    again = kcnn("train", f"--dataset=folder:{folder}", "--strict", *knobs)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    assert "--strict: 5 files" in again.stderr
