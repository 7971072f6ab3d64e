"""Images of no class: where they come from, and a whole run that rejects some."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kcnn import cli, pipeline
from kcnn.config import Config
from kcnn.datasets import load_unknown
from kcnn.errors import UsageError
from kcnn.inference import Classifier
from kcnn.spec import ImageSpec
from tests.conftest import striped_images, whole_run, write_npz

SPEC = ImageSpec(10, 10, 1, ("a", "b", "c"))


def noise(n, side=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), np.uint8)


def images_of(spec, **settings):
    found = load_unknown(Config(unknown=spec, **settings), SPEC)
    split = found.split
    return found, pipeline.images_at(split, np.arange(len(split)))


def test_none_are_loaded_where_none_are_named():
    assert load_unknown(Config(), SPEC) is None


def test_a_folder_gives_all_its_images_however_nested(tmp_path):
    pixels = noise(3, side=20)
    for name, image in zip(
        ("z.png", "deep/er/a.png", "test/b.png"), pixels, strict=True
    ):
        path = tmp_path / "signs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "signs" / "bad.png").write_text("no image")
    (tmp_path / "signs" / "notes.txt").write_text("ignored")
    found, images = images_of(f"folder:{tmp_path / 'signs'}")
    assert images.shape == (3, 10, 10, 1)
    assert [name for name, _ in found.skipped] == ["bad.png"]
    with pytest.raises(UsageError, match=r"--strict: 1 files.*bad\.png"):
        images_of(f"folder:{tmp_path / 'signs'}", strict=True)


@pytest.mark.parametrize(
    "names", [("images",), ("x_test", "y_test"), ("x_test", "images")]
)
def test_an_npz_file_gives_its_test_images_or_those_named_so(tmp_path, names):
    pixels = noise(4)
    arrays = dict.fromkeys(names, noise(4, seed=1)) | {names[0]: pixels}
    np.savez(tmp_path / "a.npz", **arrays)
    _, images = images_of(f"npz:{tmp_path / 'a.npz'}", cache="none")
    np.testing.assert_array_equal(images[..., 0], pixels)


def test_a_data_set_without_a_test_split_gives_all():
    found, images = images_of("digits")
    assert len(found.split) == 1797
    assert images.shape[1:] == SPEC.shape


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("folder:", ["--unknown", "folder:PATH"]),
        ("folder:nowhere", ["--unknown: nowhere: no such folder"]),
        ("folder:empty", ["--unknown: empty: there is no image in it"]),
        ("npz:nowhere.npz", ["--unknown: nowhere.npz: no such file"]),
        ("npz:wrong.npz", ["--unknown", "no array x_test or images", "there are: a"]),
        ("npz:none.npz", ["--unknown", "holds no image"]),
        ("npz:floats.npz", ["--unknown", "from 0 to 9"]),
        ("digits:3", ["--unknown", "'digits:3'"]),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, monkeypatch, spec, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez("wrong.npz", a=noise(2))
    np.savez("none.npz", images=noise(0))
    np.savez("floats.npz", images=np.full((2, 5, 5), 9.0) * [[0], [1], [1], [1], [1]])
    with pytest.raises(UsageError) as error:
        images_of(spec)
    assert all(word in str(error.value) for word in words), error.value
    assert "--dataset" not in str(error.value)


def test_flags_that_change_nothing_are_refused_and_others_not(tmp_path, monkeypatch):
    from kcnn.datasets import load

    monkeypatch.chdir(tmp_path)
    base = {"dataset": f"npz:{write_npz(tmp_path / 'stripes.npz')}"}
    with pytest.raises(UsageError, match="--strict changes nothing"):
        load(Config(**base, unknown="npz:noise.npz", strict=True))
    load(Config(**base, unknown="folder:signs", strict=True))
    with pytest.raises(UsageError, match="--data_dir changes nothing"):
        load(Config(**base, unknown="folder:signs", data_dir="x"))
    load(Config(**base, unknown="mnist", data_dir="x"))


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory):
    """A run that rejects, trained in this process, in a folder with all it names."""
    folder = tmp_path_factory.mktemp("rejecting")
    write_npz(folder / "stripes.npz", n_train=300, n_test=90)
    np.savez(folder / "noise.npz", images=noise(40))
    return folder, *whole_run(
        folder,
        dataset=f"npz:{folder / 'stripes.npz'}",
        model="mlp",
        dense_units=(16,),
        epochs=3,
        learning_rate=0.01,
        validation_fraction=0.2,
        precision="float32",
        reject="energy",
        coverage=0.9,
        unknown=f"npz:{folder / 'noise.npz'}",
    )


def test_the_run_says_what_it_fitted(rejecting):
    _, run, _, said = rejecting
    result = run.read_evaluation()
    calibration, rejected = result["calibration"], result["rejection"]
    assert calibration["temperature"] != 1
    assert (
        calibration["validation"]["after"]["loss"]
        <= (calibration["validation"]["before"]["loss"])
    )
    # All figures of a split are those after.
    assert result["test"]["loss"] == calibration["test"]["after"]["loss"]
    assert rejected["validation"]["n"] == 60
    assert rejected["validation"]["accepted"] == 54
    assert result["unknown"]["n"] == 40
    assert set(result["unknown"]["auroc"]) == {"max_probability", "energy"}
    assert "npz" in said and "40 images" in said


def test_predictions_and_export_accept_the_same(rejecting):
    folder, run, trained, _ = rejecting
    images, _ = striped_images(90, seed=1)
    found = Classifier(folder / "m").outputs(images)
    with np.load(run.predictions) as file:
        np.testing.assert_array_equal(file["accepted"], found["accepted"])
        np.testing.assert_allclose(
            file["probabilities"], found["probabilities"], atol=1e-6
        )
        accepted = int(file["accepted"].sum())
    assert accepted == trained.evaluation["rejection"]["test"]["accepted"]
    strange = Classifier(folder / "m").outputs(noise(40)[..., None])
    count = trained.evaluation["unknown"]["accepted"]
    assert int(strange["accepted"].sum()) == count


def command(capsys, *arguments):
    """Run a command in this process; return its status and what it said."""
    status = cli._run(arguments[0], list(map(str, arguments[1:])))
    return status, capsys.readouterr()


@pytest.mark.parametrize("place", ["run", "m"])
def test_evaluate_says_of_run_and_export_what_the_training_said(
    rejecting, capsys, place
):
    folder, run, _, _ = rejecting
    status, said = command(capsys, "evaluate", folder / place, "--format=json")
    assert status == 0, said.err
    found, expected = json.loads(said.out), run.read_evaluation()
    assert found["loss"] == pytest.approx(expected["test"]["loss"], abs=1e-5)
    for key in ("accepted", "coverage", "accuracy", "mistakes"):
        assert found["rejection"][key] == expected["rejection"]["test"][key]
    area = found["unknown"]["auroc"]["energy"]["value"]
    assert area == pytest.approx(expected["unknown"]["auroc"]["energy"]["value"])
    assert found["unknown"]["accepted"] == expected["unknown"]["accepted"]
    assert found["rule"]["temperature"] == expected["calibration"]["temperature"]


def test_evaluate_takes_other_unknown_images_and_says_so(rejecting, capsys):
    folder, *_ = rejecting
    status, said = command(capsys, "evaluate", folder / "run", "--unknown=digits")
    assert status == 0, said.err
    assert "1,797 unknown images of digits: " in said.out
    assert re.search(r"AUROC .*, energy: [01]\.\d{4} \(95% interval", said.out)
    plots = folder / "drawn" / "here"
    status, said = command(
        capsys, "evaluate", folder / "m", "--unknown=digits", f"--plots={plots}"
    )
    assert status == 0, said.err
    found = sorted(path.name for path in plots.iterdir())
    assert found == ["risk_coverage.png", "scores.png"]
    status, said = command(capsys, "evaluate", folder / "run", "--unknown=folder:no")
    assert status == 2
    assert said.err == "kcnn evaluate: --unknown: no: no such folder\n"


def test_predict_says_unknown_and_still_gives_the_probability(
    rejecting, capsys, tmp_path
):
    folder, *_ = rejecting
    stripe, strange = striped_images(90, seed=1)[0][..., 0], noise(40)
    accepted = Classifier(folder / "m").outputs(stripe[..., None])["accepted"]
    found = Classifier(folder / "m").outputs(strange[..., None])
    # Of those rejected the least certain: another may be given 1.0.
    certainty = np.where(found["accepted"], np.inf, found["probabilities"].max(-1))
    Image.fromarray(stripe[accepted.argmax()]).save(tmp_path / "a.png")
    Image.fromarray(strange[certainty.argmin()]).save(tmp_path / "b.png")
    status, said = command(
        capsys, "predict", f"--saved_model={folder / 'm'}", "--format=json", tmp_path
    )
    assert status == 0, said.err
    first, second = json.loads(said.out)
    assert first["label"] == first["nearest"] in ("0", "1", "2")
    assert second["label"] == "unknown"
    assert second["nearest"] in ("0", "1", "2")
    assert 0 < second["probability"] < 1
    _, said = command(
        capsys, "predict", f"--saved_model={folder / 'm'}", "--top_k=2", tmp_path
    )
    labels = [line.split()[-3] for line in said.out.splitlines()[1:]]
    assert labels[2:] == ["unknown"] * 2  # both rows of the second image
    assert "unknown" not in labels[:2]


def test_export_again_keeps_the_rule(rejecting, capsys):
    folder, run, _, _ = rejecting
    status, said = command(capsys, "export", folder / "run", f"--export_dir={folder}")
    assert status == 0, said.err
    images, _ = striped_images(90, seed=1)
    for version in ("1", "2"):
        signatures = tf.saved_model.load(str(folder / "m" / version)).signatures
        found = signatures["serving_default"](images=tf.constant(images))
        with np.load(run.predictions) as file:
            np.testing.assert_array_equal(file["accepted"], found["accepted"])


def test_page_and_pictures_show_it(rejecting):
    _, run, _, _ = rejecting
    page = run.report.read_text()
    assert "How sure it is" in page
    assert "The threshold on energy accepts" in page
    assert "Risk and coverage" in page and "Scores of known and unknown" in page
    assert (run.plots / "risk_coverage.png").exists()
    assert (run.plots / "scores.png").exists()
    assert run.plots / "scores.png" in run.files()


def test_a_run_without_its_evaluation_is_not_complete(rejecting, capsys):
    folder, run, _, _ = rejecting
    aside = folder / "aside.json"
    run.evaluation.rename(aside)
    try:
        status, said = command(capsys, "evaluate", folder / "run")
    finally:
        aside.rename(run.evaluation)
    assert status == 2
    assert "not complete" in said.err and said.err.count("\n") == 1
