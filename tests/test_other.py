"""Images of no class as one more class: where they come from, and a whole run."""

import json

import numpy as np
import pytest
from PIL import Image

from kcnn import cli, datasets, evaluation, pipeline, rejection
from kcnn.confidence import Rule
from kcnn.config import Config
from kcnn.datasets import in_classes_of, load, load_split, load_training
from kcnn.errors import RunError, UsageError
from kcnn.inference import Classifier
from kcnn.recipes import collect
from kcnn.repetition import changed_data, fingerprints
from kcnn.spec import ImageSpec
from tests.conftest import striped_images, whole_run, write_npz


def noise(n, side=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), np.uint8)


def write_folder(folder, n, seed=0):
    for i, pixels in enumerate(noise(n, seed=seed)):
        path = folder / ("deep" * (i % 2)) / f"{seed}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return f"folder:{folder}"


def parts_of(config):
    data = load(config)
    return {"train": data.train, "validation": data.validation, "test": data.test}


def names_of(split, label):
    return {split.names(i) for i in np.flatnonzero(split.labels == label)}


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_folder_is_divided_by_content_and_stays_so(npz, tmp_path, cache):
    base = {"dataset": f"npz:{npz}", "validation_fraction": 0.2, "cache": cache}
    spec = write_folder(tmp_path / "signs", 60)
    config = Config(**base, other=spec)
    assert load(config).spec.class_names == ("0", "1", "2", "other")
    before = {name: names_of(part, 3) for name, part in parts_of(config).items()}
    assert set.union(*before.values()) == {
        f"{'deep/' * (i % 2)}0-{i}.png" for i in range(60)
    }
    assert sum(map(len, before.values())) == 60
    assert 5 <= len(before["test"]) <= 20 and 3 <= len(before["validation"]) <= 20
    write_folder(tmp_path / "signs", 30, seed=1)
    after = {name: names_of(part, 3) for name, part in parts_of(config).items()}
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) == 90 and before["test"] < after["test"]
    seeded = parts_of(Config(**base, other=spec, random_seed=1))
    assert names_of(seeded["test"], 3) == after["test"]
    assert names_of(seeded["validation"], 3) != after["validation"]


def test_the_images_are_those_of_the_files_and_of_the_data_set(npz, tmp_path):
    config = Config(dataset=f"npz:{npz}", other=write_folder(tmp_path / "signs", 40))
    data = load(config)
    shuffled = np.random.default_rng(0).permutation(len(data.train))
    images = pipeline.images_at(data.train, shuffled)[..., 0]
    with np.load(npz) as file:
        known = file["x_train"][..., 0]
    signs = noise(40)
    for position, image in zip(shuffled, images, strict=True):
        label, name = data.train.labels[position], data.train.names(position)
        if label == 3:
            i = int(name.split("-")[1].removesuffix(".png"))
            np.testing.assert_array_equal(image, signs[i])
        else:
            np.testing.assert_array_equal(image, known[int(name)])
    batches = pipeline.training_batches(data.train, config, 4)
    sizes, counts = zip(*((len(x), y.numpy().sum(0)) for x, y in batches), strict=True)
    assert sum(sizes) == len(data.train) * config.epochs
    np.testing.assert_array_equal(
        sum(counts), np.bincount(data.train.labels) * config.epochs
    )


def test_arrays_that_are_divided_stay_divided_and_others_are(npz, tmp_path):
    given = tmp_path / "given.npz"
    np.savez(given, x_train=noise(50), x_test=noise(20, seed=1))
    parts = parts_of(Config(dataset=f"npz:{npz}", other=f"npz:{given}"))
    counts = {name: int((part.labels == 3).sum()) for name, part in parts.items()}
    assert counts == {"train": 45, "validation": 5, "test": 20}
    test = parts["test"]
    images = pipeline.images_at(test, np.flatnonzero(test.labels == 3))
    np.testing.assert_array_equal(images[..., 0], noise(20, seed=1))
    for name in ("images", "x_test"):
        np.savez(tmp_path / "one.npz", **{name: noise(50)})
        config = Config(
            dataset=f"npz:{npz}", other=f"npz:{tmp_path / 'one.npz'}", test_fraction=0.4
        )
        parts = parts_of(config)
        counts = {name: int((part.labels == 3).sum()) for name, part in parts.items()}
        assert counts == {"train": 27, "validation": 3, "test": 20}
        assert parts["test"].names(len(parts["test"]) - 1).startswith("npz:")


def test_train_size_counts_them_and_validation_fraction_0_leaves_none(npz, tmp_path):
    spec = write_folder(tmp_path / "signs", 40)
    base = {"dataset": f"npz:{npz}", "other": spec}
    small, large = (load(Config(**base, train_size=n)).train for n in (20, 60))
    assert len(small) == 20 and set(small.indices) < set(large.indices)
    assert 3 <= (small.labels == 3).sum() <= 7
    assert load(Config(**base, validation_fraction=0.0)).validation is None
    assert not hasattr(load_training(Config(**base)), "test")


def test_load_split_reads_what_load_read(npz, tmp_path):
    spec = write_folder(tmp_path / "signs", 40)
    config = Config(dataset=f"npz:{npz}", other=spec, extra_class="more", train_size=50)
    data = load(config)
    assert data.spec.class_names == ("0", "1", "2", "other", "more")
    assert datasets.other_class(config, data.spec) == 3
    assert datasets.other_class(Config(), data.spec) is None
    for name, part in parts_of(config).items():
        found = in_classes_of(data.spec, load_split(config, name, data.spec))
        for field in ("labels", "indices"):
            np.testing.assert_array_equal(getattr(found, field), getattr(part, field))
        assert found.fingerprint == part.fingerprint
    mixed = ImageSpec(10, 10, 1, ("other", "2", "1", "0"))
    labels = in_classes_of(mixed, load_split(config, "test", mixed)).labels
    np.testing.assert_array_equal(labels == 0, data.test.labels == 3)
    with pytest.raises(UsageError, match="--other: the model has no class 'other'"):
        load_split(config, "test", ImageSpec(10, 10, 1, ("0", "1", "2")))


def test_other_images_of_no_class_are_other_data(npz, tmp_path):
    note = {"config": Config().to_dict()}
    found = []
    for seed in (0, 1):
        spec = write_folder(tmp_path / f"{seed}", 40, seed=seed)
        data = load(Config(dataset=f"npz:{npz}", other=spec))
        found.append(note | {"data": {"fingerprint": fingerprints(data)}})
    for one in found:
        one["data"] |= dict.fromkeys(("train", "validation", "test"), 1)
    assert changed_data(found[0], found[0]) == []
    assert "the data set has changed" in changed_data(*found)[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("folder:", ["--other", "folder:PATH"]),
        ("folder:nowhere", ["--other: nowhere: no such folder"]),
        ("folder:empty", ["--other: empty: there is no image in it"]),
        ("npz:wrong.npz", ["--other", "no array x_test or images", "there are: a"]),
        ("npz:none.npz", ["--other: npz:none.npz holds no image"]),
        ("npz:one.npz", ["--other: --test_fraction: got 0.2", "of 1 images"]),
        ("digits:3", ["--other", "'digits:3'"]),
    ],
)
def test_what_cannot_be_had_is_one_line(npz, tmp_path, monkeypatch, spec, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez("wrong.npz", a=noise(2))
    np.savez("none.npz", images=noise(0))
    np.savez("one.npz", images=noise(1))
    with pytest.raises(UsageError) as error:
        load(Config(dataset=f"npz:{npz}", other=spec))
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "--dataset" not in text and "\n" not in text


def test_a_class_of_that_name_is_refused(npz, tmp_path):
    with np.load(npz) as file:
        arrays = dict(file)
    np.savez(npz, **arrays, class_names=np.array(["a", "other", "c"]))
    with pytest.raises(
        UsageError, match=r"--other: npz:.* has a class 'other' already"
    ):
        load(Config(dataset=f"npz:{npz}", other="digits"))
    with pytest.raises(UsageError, match=r"--extra_class: .* class 'other' already"):
        load(Config(dataset="digits", other=f"npz:{npz}", extra_class="other"))


def test_what_is_trained_on_is_no_test_of_the_unknown():
    with pytest.raises(UsageError, match="--unknown: got folder:a, which --other"):
        Config(other="folder:a", unknown="folder:a")


def test_unreadable_files_are_named_and_strict_refuses_them(npz, tmp_path):
    spec = write_folder(tmp_path / "signs", 20)
    (tmp_path / "signs" / "bad.png").write_text("no image")
    base = {"dataset": f"npz:{npz}", "other": spec}
    data = load(Config(**base))
    assert [name for name, _ in data.skipped] == ["bad.png"]
    assert any(note.startswith("class 'other': folder:") for note in data.notes)
    with pytest.raises(UsageError, match=r"--other: --strict: 1 files.*bad\.png"):
        load(Config(**base, strict=True))


def test_known_classes_are_scored_by_themselves():
    logits = np.eye(3)[[0, 1, 2, 2, 0]] * 5
    labels = np.array([0, 1, 2, 1, 2])
    scores = evaluation.evaluate_logits(logits, labels, ["a", "b", "other"], 2)
    assert (scores["n"], scores["mistakes"]) == (5, 2)
    known = scores["known_classes"]
    assert (known["n"], known["mistakes"], known["accuracy"]) == (3, 1, 2 / 3)
    assert "known classes 66.67%" in next(evaluation.known_classes(scores))
    plain = evaluation.evaluate_logits(logits, labels, ["a", "b", "other"])
    assert list(evaluation.known_classes(plain)) == []


def test_what_is_called_other_is_not_taken_for_a_known_class():
    rule = Rule(1.0, "max_probability", np.log(0.6))
    tested = rule.judge(np.log([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8]]))
    known = tested.but(2, np.array([0, 1, 2]))
    assert len(known.logits) == len(known.accepted) == 2
    # The first is taken for a class, the second called other, the third rejected.
    strange = rule.judge(np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]]))
    found = rejection.known_against_unknown(known, strange, 2)
    assert (found["accepted"], found["taken"], found["taken_part"]) == (2, 1, 1 / 3)
    # By 1 - P(other): 0.9, 0.8 of the known against 0.9, 0.2, 0.7.
    assert found["auroc"]["not_other"]["value"] == pytest.approx((2.5 + 2) / 6)
    lines = list(rejection.lines(None, found | {"dataset": "x"}))
    assert "taken for a known class, not for other: 33.33%" in lines[1]
    plain = Rule().judge(strange.logits)
    assert rejection.known_against_unknown(known, plain, 2)["taken"] == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with such a class, in a folder with all it names."""
    folder = tmp_path_factory.mktemp("other")
    write_npz(folder / "stripes.npz", n_train=300, n_test=90)
    np.savez(folder / "noise.npz", images=noise(40, seed=9))
    return folder, *whole_run(
        folder,
        dataset=f"npz:{folder / 'stripes.npz'}",
        other=write_folder(folder / "signs", 100),
        model="mlp",
        dense_units=(16,),
        epochs=4,
        learning_rate=0.01,
        validation_fraction=0.2,
        precision="float32",
        reject="max_probability",
        unknown=f"npz:{folder / 'noise.npz'}",
    )


def command(capsys, *arguments):
    status = cli._run(arguments[0], list(map(str, arguments[1:])))
    return status, capsys.readouterr()


def test_the_run_has_the_class_everywhere(trained):
    _, run, done, said = trained
    test = run.read_evaluation()["test"]
    count = int((done.data.test.labels == 3).sum())
    assert [row["name"] for row in test["per_class"]] == ["0", "1", "2", "other"]
    assert sum(test["confusion_matrix"][3]) == count == test["n"] - 90
    assert test["known_classes"]["n"] == 90
    assert test["per_class"][3]["recall"] > 0.5
    assert "class 'other': folder:" in said
    with np.load(run.predictions) as file:
        assert file["probabilities"].shape == (90 + count, 4)
        np.testing.assert_array_equal(file["labels"], done.data.test.labels)
    figures = run.read_evaluation()["unknown"]
    assert set(figures["auroc"]) == {"max_probability", "energy", "not_other"}
    assert figures["taken"] <= figures["accepted"]
    page = run.report.read_text()
    assert "known classes" in page and "not_other" in page


def test_export_and_predict_say_other(trained, capsys):
    folder, _, done, _ = trained
    classifier = Classifier(folder / "m")
    assert classifier.class_names[3] == "other"
    outputs = classifier.outputs(noise(40, seed=9)[..., None])
    taken = outputs["accepted"] & (outputs["labels"] != b"other")
    assert taken.sum() == done.evaluation["unknown"]["taken"]
    chosen = (outputs["accepted"] & (outputs["labels"] == b"other")).argmax()
    Image.fromarray(noise(40, seed=9)[chosen]).save(folder / "one.png")
    status, said = command(
        capsys,
        "predict",
        f"--saved_model={folder / 'm'}",
        "--format=json",
        folder / "one.png",
    )
    assert status == 0, said.err
    assert json.loads(said.out)[0]["label"] == "other"


@pytest.mark.parametrize("place", ["run", "m"])
def test_evaluate_gives_the_same_and_takes_other_data(trained, capsys, place):
    folder, run, _, _ = trained
    path = folder / place
    status, said = command(capsys, "evaluate", path, "--format=json")
    assert (status, said.err) == (0, "")
    found, expected = json.loads(said.out), run.read_evaluation()
    for key in ("n", "mistakes", "confusion_matrix", "known_classes"):
        assert found[key] == expected["test"][key]
    for key in ("accepted", "taken"):
        assert found["unknown"][key] == expected["unknown"][key]
    # Another data set, with the model's classes in another order and without `other`.
    images, labels = striped_images(30, seed=3)
    arrays = {"x_train": images, "x_test": images, "class_names": ["2", "1", "0"]}
    np.savez(folder / "again.npz", **arrays, y_train=2 - labels, y_test=2 - labels)
    again = f"--dataset=npz:{folder / 'again.npz'}"
    status, said = command(capsys, "evaluate", path, again, "--format=json")
    assert status == 0, said.err
    found = json.loads(said.out)
    assert (found["n"], found["known_classes"]["n"]) == (30, 30)
    assert found["per_class"][3]["support"] == 0 and found["accuracy"] > 0.9
    np.savez(folder / "more.npz", images=noise(40, seed=11))
    more = f"--other=npz:{folder / 'more.npz'}"
    status, said = command(capsys, "evaluate", path, again, more)
    assert status == 0, said.err
    assert "known classes" in said.out and " 38 " not in said.err


def test_runs_with_other_images_of_no_class_are_not_compared(trained, tmp_path):
    _, run, _, _ = trained
    for name, other in (("a", None), ("b", "npz:x.npz")):
        (tmp_path / name).mkdir()
        for file in (run.config, run.evaluation, run.predictions):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        if other:
            note = json.loads(run.config.read_text())
            note["config"]["other"] = other
            (tmp_path / name / "config.json").write_text(json.dumps(note))
    with pytest.raises((UsageError, RunError), match="another images of no class"):
        collect([str(tmp_path / "a"), str(tmp_path / "b")])
