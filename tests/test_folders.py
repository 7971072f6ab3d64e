import os

import numpy as np
import pytest
from PIL import Image

from kcnn import datasets, images, pipeline
from kcnn.config import Config
from kcnn.errors import UsageError
from tests.test_images import png_header

CACHES = ["memory", "disk", "none"]


def paint(path, value=0, size=(6, 5), mode="L", **options):
    """Write an image of one color and some noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 40, (size[1], size[0]))
    pixels = (noise + 10 * value).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def load(folder, **settings):
    settings = {"validation_fraction": 0.0} | settings
    return datasets.load(Config(dataset=f"folder:{folder}", **settings))


def pixels(split):
    return np.concatenate(list(pipeline.evaluation_batches(split, 4)))


def names(split):
    return [split.names(i) for i in range(len(split))]


@pytest.fixture
def flat(tmp_path):
    for i in range(10):
        paint(tmp_path / f"cat/{i}.png", i)
        paint(tmp_path / f"dog/{i}.jpg", i + 10)
    return tmp_path


@pytest.fixture
def divided(tmp_path):
    for i, split in enumerate(["train", "validation", "test"]):
        for j in range(4):
            paint(tmp_path / split / "cat" / f"{j}.png", j + 4 * i)
            paint(tmp_path / split / "dog" / f"{j}.png", j + 4 * i + 12)
    return tmp_path


@pytest.mark.parametrize("cache", CACHES)
def test_every_image_is_read_with_its_label_and_name(flat, cache):
    data = load(flat, cache=cache)
    assert data.spec.shape == (5, 6, 1)
    assert data.spec.class_names == ("cat", "dog")
    assert len(data.test) >= 2  # by content: about 4, one of each class at least
    assert sorted(names(data.train) + names(data.test)) == sorted(
        [f"cat/{i}.png" for i in range(10)] + [f"dog/{i}.jpg" for i in range(10)]
    )
    for split in (data.train, data.test):
        for image, label, name in zip(
            pixels(split), split.labels, names(split), strict=True
        ):
            expected = images.decode((flat / name).read_bytes(), (5, 6, 1))
            np.testing.assert_array_equal(image, expected)
            assert data.spec.class_names[label] == name.split("/")[0]


def test_given_splits_are_used_as_they_are(divided):
    data = load(divided, validation_fraction=0.1)
    assert names(data.validation) == [
        *(f"validation/cat/{i}.png" for i in range(4)),
        *(f"validation/dog/{i}.png" for i in range(4)),
    ]
    assert data.validation.labels.tolist() == [0] * 4 + [1] * 4
    assert (len(data.train), len(data.test)) == (8, 8)
    assert data.notes == [
        "validation: the data set's own split; --validation_fraction is not used"
    ]
    assert load(divided, validation_fraction=0.0).validation is None


def test_val_is_validation_and_a_missing_test_is_carved(divided):
    (divided / "validation").rename(divided / "val")
    (divided / "test").rename(divided.parent / "elsewhere")
    data = load(divided, test_fraction=0.5, validation_fraction=0.1)
    assert len(data.validation) == 8 and len(data.train) + len(data.test) == 8
    assert set(data.train.labels) == set(data.test.labels) == {0, 1}
    assert data.notes[0].startswith("no test split: 50% of the images, stratified")


def test_nested_folders_spaces_and_other_alphabets(flat):
    (flat / "cat").rename(flat / "ça va 猫")
    paint(flat / "ça va 猫" / "a b" / "ñ.PNG", 3)
    data = load(flat)
    assert data.spec.class_names == ("dog", "ça va 猫")
    assert "ça va 猫/a b/ñ.PNG" in names(data.train) + names(data.test)


def test_names_that_are_not_utf8(flat):
    name = b"\xff.png"
    os.rename(flat / "cat/0.png", os.fsencode(flat / "cat") + b"/" + name)
    data = load(flat)
    assert "cat/\ufffd.png" in names(data.train) + names(data.test)
    assert len(data.train) + len(data.test) == 20


def test_hidden_files_are_ignored_and_others_noted(flat):
    (flat / "cat/.DS_Store").write_text("x")
    paint(flat / ".git/cat/0.png")
    paint(flat / "cat/.thumbnails/0.png")
    (flat / "cat/notes.txt").write_text("x")
    (flat / "dog/list.csv").write_text("x")
    data = load(flat)
    assert len(data.train) + len(data.test) == 20
    assert data.skipped == []
    assert data.notes[0] == (
        "2 paths are no image in a class folder and ignored: cat/notes.txt ..."
    )


@pytest.fixture
def damaged(flat):
    (flat / "cat/empty.png").write_bytes(b"")
    (flat / "cat/text.png").write_text("not an image")
    (flat / "cat/bomb.png").write_bytes(png_header(20000, 20000))
    noisy = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(noisy).save(flat / "cat/cut.png")
    whole = (flat / "cat/cut.png").read_bytes()
    (flat / "cat/cut.png").write_bytes(whole[: len(whole) - 40])
    Image.fromarray(noisy).save(flat / "dog/cut.jpg")
    whole = (flat / "dog/cut.jpg").read_bytes()
    (flat / "dog/cut.jpg").write_bytes(whole[: len(whole) - 40])
    Image.fromarray(noisy).save(flat / "dog/new.webp")
    return flat


@pytest.mark.parametrize("cache", CACHES)
def test_unreadable_files_are_skipped_with_the_reason(damaged, cache):
    data = load(damaged, cache=cache, color_mode="grayscale")
    assert len(data.train) + len(data.test) == 20
    found = dict(data.skipped)
    reasons = {
        "cat/bomb.png": "20000 x 20000 pixels; the limit is 50,000,000",
        "cat/empty.png": "empty file",
        "cat/text.png": "not an image",
        "dog/new.webp": "WEBP, not one of JPEG, PNG, GIF, BMP",
        "cat/cut.png": "PNG",
        "dog/cut.jpg": "JPEG",
    }
    assert sorted(found) == sorted(reasons)
    for name, reason in reasons.items():
        assert reason in found[name] and "\n" not in found[name]
    for split in (data.train, data.test):
        for image, name in zip(pixels(split), names(split), strict=True):
            expected = images.decode((damaged / name).read_bytes(), (5, 6, 1))
            np.testing.assert_array_equal(image, expected)


def test_strict_refuses_unreadable_files(damaged):
    with pytest.raises(UsageError) as caught:
        load(damaged, strict=True)
    text = str(caught.value)
    assert text.startswith(f"--strict: 6 files of folder:{damaged} cannot be read: ")
    assert text.count(": ") == 5 and text.endswith("; ...") and "\n" not in text


def test_strict_accepts_a_clean_folder(flat):
    assert load(flat, strict=True).skipped == []


def test_links_that_lead_outside_are_skipped(flat, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    paint(outside / "bird/1.png")
    (flat / "cat/inside.png").symlink_to(flat / "cat/1.png")
    (flat / "cat/file.png").symlink_to(outside / "bird/1.png")
    (flat / "cat/folder").symlink_to(outside / "bird")
    (flat / "bird").symlink_to(outside / "bird")
    (flat / "train").symlink_to(outside)
    (flat / "dog/nothing.png").symlink_to(flat / "gone.png")
    (flat / "dog/loop").symlink_to(flat)
    data = load(flat)
    assert data.spec.class_names == ("cat", "dog")
    assert "cat/inside.png" in names(data.train) + names(data.test)
    assert dict(data.skipped) == {
        "bird": "a link that leads outside the folder",
        "train": "a link that leads outside the folder",
        "cat/file.png": "a link that leads outside the folder",
        "cat/folder": "a link that leads outside the folder",
        "dog/nothing.png": "a link to nothing",
        "dog/loop": "a link to a folder that it is in",
    }


def test_links_in_a_circle_end(flat):
    (flat / "cat/x").symlink_to(flat / "dog")
    (flat / "dog/y").symlink_to(flat / "cat")
    data = load(flat)
    assert ("cat/x/y", "a link to a folder that it is in") in data.skipped


def test_the_folder_itself_may_be_a_link(flat, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "data"
    link.symlink_to(flat)
    assert names(load(link).train) == names(load(flat).train)


def test_mixed_sizes_become_64_unless_told(flat):
    paint(flat / "cat/large.png", size=(9, 9))
    data = load(flat)
    assert data.spec.shape == (64, 64, 1)
    assert "images of mixed sizes resized to 64x64 (set --image_size)" in data.notes
    data = load(flat, image_size=(7, 8))
    assert data.spec.shape == (7, 8, 1)
    assert not any("mixed" in note for note in data.notes)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 1), ("1", 1), ("RGB", 3), ("P", 3)]
)
def test_channels_follow_the_images(flat, mode, channels):
    paint(flat / "cat/more.png", mode=mode)
    assert load(flat).spec.channels == channels
    assert load(flat, color_mode="grayscale").spec.channels == 1
    assert load(flat, color_mode="rgb").spec.channels == 3


def test_refuses_a_class_without_a_readable_image(flat):
    (flat / "bird").mkdir()
    (flat / "bird/1.png").write_text("no")
    with pytest.raises(UsageError, match="the class folder 'bird' has no readable"):
        load(flat)


def test_refuses_one_class_no_class_and_no_folder(flat, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load(flat / "gone")
    with pytest.raises(UsageError, match="no such folder"):
        load(flat / "cat/1.png")
    with pytest.raises(UsageError, match="has 0 classes; expected 2 to 1,000"):
        load(flat / "cat")
    (flat / "dog").rename(tmp_path.parent / f"{tmp_path.name}-dog")
    with pytest.raises(UsageError, match="has 1 class; expected 2 to 1,000"):
        load(flat)


def test_refuses_classes_that_are_not_trained(divided):
    paint(divided / "test/bird/1.png")
    with pytest.raises(UsageError, match="test/ has a class 'bird' that train/ has no"):
        load(divided)


def test_refuses_two_validation_folders(divided):
    paint(divided / "val/cat/1.png")
    with pytest.raises(UsageError, match="both val/ and validation/ are validation"):
        load(divided)


def test_only_a_test_folder_can_be_evaluated_but_not_trained(divided):
    for split in ("train", "validation"):
        (divided / split).rename(divided.parent / f"{divided.name}-{split}")
    config = Config(dataset=f"folder:{divided}")
    spec = datasets.ImageSpec(4, 4, 3, ("cat", "dog"))
    loaded = datasets.load_split(config, "test", spec)
    split, class_names = loaded.split, loaded.class_names
    assert pixels(split).shape == (8, 4, 4, 3) and class_names == ("cat", "dog")
    with pytest.raises(UsageError, match="has no train split, only test"):
        load(divided)


def test_folders_beside_the_splits_and_loose_files_are_noted(divided):
    paint(divided / "unlabelled/some/1.png")
    paint(divided / "loose.png")
    assert "2 paths are no image in a class folder" in load(divided).notes[0]


def test_split_folders_may_be_written_large_and_valid_is_validation(divided):
    (divided / "train").rename(divided / "Train")
    (divided / "validation").rename(divided / "valid")
    assert load(divided).spec.class_names == ("cat", "dog")
    assert load(divided, validation_fraction=0.1).validation is not None


def test_a_split_that_is_a_link_outside_is_skipped(divided, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (divided / "validation").rename(outside / "validation")
    (divided / "validation").symlink_to(outside / "validation")
    data = load(divided, validation_fraction=0.1)
    assert ("validation", "a link that leads outside the folder") in data.skipped
    assert not any(name.startswith("validation") for name in names(data.validation))


def test_files_stay_in_their_split_when_others_are_added_or_moved(flat):
    def parts():
        data = load(flat, validation_fraction=0.2)
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        return {
            (flat / name).read_bytes(): split
            for split, images_ in named.items()
            for name in names(images_)
        }

    for i in range(20, 80):
        paint(flat / f"{'cat' if i % 2 else 'dog'}/{i}.png", i)
    before = parts()
    assert len(set(before.values())) == 3
    for i in range(80, 100):
        paint(flat / f"cat/0{i}.png", i)
    (flat / "cat/1.png").rename(flat / "cat/z.png")
    (flat / "dog/2.jpg").unlink()
    after = parts()
    assert len(after) > len(before)
    both = before.keys() & after.keys()
    assert len(both) == len(before) - 1
    assert {c: before[c] for c in both} == {c: after[c] for c in both}


def test_upright_size_counts_for_photographs_on_their_side(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    for i, label in enumerate(["cat", "dog"] * 4):
        paint(tmp_path / label / f"{i}.jpg", i, size=(16, 24), mode="RGB")
        paint(tmp_path / label / f"{i}t.jpg", i, size=(24, 16), mode="RGB", exif=turned)
    data = load(tmp_path)
    assert data.spec.shape == (24, 16, 3)
    assert data.skipped == []
