"""The same bits again, and a data set that is another one."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kcnn import datasets, fingerprint, repetition
from kcnn.config import Config
from tests.conftest import write_npz

NOTE = {
    "config": Config(deterministic=True).to_dict(),
    "data": {
        "train": 90,
        "validation": 10,
        "test": 20,
        "fingerprint": {"train": "aa", "validation": "aa", "test": "bb"},
    },
    "hardware": {"processor": "P", "cores": 2, "gpus": [], "onednn": True},
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
}


def changed(*path, to):
    """Return NOTE with something else in one place."""
    note = json.loads(json.dumps(NOTE))
    place = note
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return note


def test_nothing_has_changed():
    assert repetition.changed_data(NOTE, NOTE) == []
    assert repetition.changed_machine(NOTE, NOTE) == []


def test_another_number_of_images_is_told_where_it_should_be_the_same():
    now = changed("data", "train", to=45)
    assert "45 train images, 90 when" in repetition.changed_data(NOTE, now)[0]
    asked = changed("data", "train", to=45)
    asked["config"]["train_size"] = 45
    assert repetition.changed_data(NOTE, asked) == []


def test_other_images_are_told_and_old_files_have_none_to_compare():
    now = changed("data", "fingerprint", "test", to="cc")
    assert "other test images" in repetition.changed_data(NOTE, now)[0]
    old = json.loads(json.dumps(NOTE))
    del old["data"]["fingerprint"]
    assert repetition.changed_data(old, now) == []
    none = changed("data", "fingerprint", "validation", to=None)
    assert repetition.changed_data(NOTE, none) == []


def test_another_machine_is_told_where_bits_matter():
    now = changed("hardware", "cores", to=4)
    assert repetition.changed_machine(NOTE, now) == [
        "cores was 2, is 4: the bits may differ"
    ]
    other = changed("versions", "keras", to="4.0")
    assert "keras was 3.15.1, is 4.0" in repetition.changed_machine(NOTE, other)[0]
    unknown = changed("hardware", "onednn", to=None)
    assert repetition.changed_machine(NOTE, unknown) == []
    assert repetition.changed_machine(unknown, NOTE) == []
    off = changed("hardware", "onednn", to=False)
    assert "onednn was True, is False" in repetition.changed_machine(NOTE, off)[0]
    now["config"]["deterministic"] = False
    assert repetition.changed_machine(NOTE, now) == []


def train_fingerprint(dataset, **settings):
    return datasets.load(Config(dataset=dataset, **settings)).train.fingerprint


def test_the_fingerprint_of_an_npz_file_is_that_of_its_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    before = train_fingerprint(f"npz:{path}")
    with np.load(path) as file:
        arrays = dict(file)
    again = {"more": np.arange(3), **arrays}
    np.savez(tmp_path / "b.npz", **again)
    assert train_fingerprint(f"npz:{tmp_path}/b.npz", cache="disk") == before
    assert train_fingerprint(f"npz:{tmp_path}/b.npz", train_size=9) == before
    arrays["x_train"][5, 0, 0] ^= 1
    np.savez(path, **arrays)
    assert train_fingerprint(f"npz:{path}") != before
    arrays["x_train"][5, 0, 0] ^= 1
    arrays["y_train"][[0, 1]] = arrays["y_train"][[1, 0]]
    np.savez(path, **arrays)
    assert train_fingerprint(f"npz:{path}") != before


def test_the_fingerprint_of_a_folder_is_that_of_names_and_contents(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        place = tmp_path / "d" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (6, 6), np.uint8)).save(place / f"{i}.png")
    name = f"folder:{tmp_path}/d"
    before = train_fingerprint(name)
    assert train_fingerprint(name, cache="none", image_size=(4, 4)) == before
    (tmp_path / "d" / "a" / "0.png").rename(tmp_path / "d" / "b" / "0.png")
    assert train_fingerprint(name) != before
    (tmp_path / "d" / "b" / "0.png").rename(tmp_path / "d" / "a" / "0.png")
    assert train_fingerprint(name) == before
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "d" / "a" / "0.png")
    assert train_fingerprint(name) != before


def test_arrays_of_other_types_and_shapes_are_others():
    a = np.arange(6, dtype=np.int32)
    prints = {
        fingerprint.of_arrays(array)
        for array in (
            a,
            a[::-1],
            a.reshape(2, 3),
            a.view(np.uint32),
            a.view(np.float32),
        )
    }
    assert len(prints) == 5
    assert fingerprint.of_arrays(a) == fingerprint.of_arrays(a.copy())


@pytest.mark.slow
def test_changed_data_is_refused_noticed_and_told(kcnn, tmp_path):
    """By --resume, by --config and by evaluate; two trainings of a moment."""
    flags = ["--model=mlp", "--dense_units=4", "--epochs=1", "--export_dir="]
    write_npz(tmp_path / "a.npz")
    done = kcnn("train", "--dataset=npz:a.npz", *flags, "--model_dir=run")
    assert done.returncode == 0, done.stderr
    (tmp_path / "run" / "report.html").unlink()  # as if it had been killed before
    write_npz(tmp_path / "a.npz", classes=3, side=10, channels=1)
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    arrays["x_train"][0], arrays["x_test"][0] = 7, 7
    np.savez(tmp_path / "a.npz", **arrays)
    resumed = kcnn("train", "--resume", "--model_dir=run")
    assert resumed.returncode == 2 and resumed.stderr.count("\n") == 1
    assert "other train images" in resumed.stderr
    again = kcnn("train", "--config=run/config.json", "--export_dir=", "--model_dir=b")
    assert again.returncode == 0, again.stderr
    assert "the data set has changed: other train images" in again.stdout
    tested = kcnn("evaluate", "run")
    assert tested.returncode == 0
    assert "npz:a.npz has changed" in tested.stderr and tested.stderr.count("\n") == 1


# A stateful random operation in a parallel map, and a sum whose order is not fixed,
# are what op determinism is for; files read in parallel and augmentation are ours.
TRAIN = """
import sys
from kcnn.cli import main
sys.argv[1:] = ["train", *sys.argv[1:]]
status = main()
import numpy as np, hashlib
with np.load("{run}/checkpoints/model.npz") as file:
    print(hashlib.sha256(b"".join(file[n].tobytes() for n in file.files)).hexdigest())
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_two_processes_end_with_the_same_bits(tmp_path, plain):
    """Augmented, with dropout, from files decoded in parallel.

    On processors runs without --deterministic end with the same bits too: what is
    random is a stateless function of the seed, and oneDNN's sums keep their order.
    """
    rng = np.random.default_rng(0)
    for i in range(300):
        place = tmp_path / "d" / "abc"[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (20, 20, 3), np.uint8)
        pixels[i % 3] = 255
        Image.fromarray(pixels).save(place / f"{i}.png")
    flags = ["--dataset=folder:d", "--cache=none", "--epochs=2", "--batch_size=32"]
    flags += ["--rotate=10", "--translate=0.1", "--zoom=0.1", "--cutout=0.3"]
    flags += [
        "--flip=horizontal",
        "--model=tutorial",
        "--batch_norm=1",
        "--export_dir=",
    ]
    flags += [] if plain else ["--deterministic"]
    found = []
    for run in "ab":
        code = TRAIN.replace("{run}", run)
        done = subprocess.run(
            [sys.executable, "-c", code, *flags, f"--model_dir={run}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / run / "metrics.csv").read_text().splitlines()
        rows = [",".join(line.split(",")[:6]) for line in lines]
        found.append((done.stdout.splitlines()[-1], rows))
    assert found[0] == found[1]
