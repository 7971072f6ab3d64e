"""The real command, from images to a run directory and an export."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kcnn import towers
from kcnn.run import config_of
from tests.conftest import started_until, striped_images, write_npz

# The training on stripes takes a second: nearly all of a test is Python's start.
TINY = ("--model=mlp", "--dense_units=16", "--epochs=2", "--batch_size=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One finished run with an export, for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("trained")
    write_npz(folder / "stripes.npz")
    command = [sys.executable, "-m", "kcnn", "train", "--dataset=npz:stripes.npz"]
    flags = ["--model_dir=run", "--model=convnet", "--filters=8", "--epochs=6"]
    done = subprocess.run(
        [*command, *flags, "--learning_rate=0.01", "--batch_size=16"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_holds_what_it_promises(trained):
    folder, _ = trained
    run = folder / "run"
    found = sorted(p.name for p in run.iterdir())
    assert found == [
        "checkpoints",
        "config.json",
        "evaluation.json",
        "metrics.csv",
        "plots",
        "predictions.npz",
        "report.html",
    ]
    assert sorted(p.stem for p in (run / "plots").iterdir()) == [
        "architecture",
        "confusion_matrix",
        "confusion_matrix_normalized",
        "learning_curves",
        "mistakes",
        "per_class",
        "reliability",
        "training_images",
    ]


def test_the_figures_agree_with_each_other(trained):
    folder, done = trained
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())
    note = json.loads((folder / "run" / "config.json").read_text())
    assert [evaluation[s]["n"] for s in ("train", "validation", "test")] == [81, 9, 30]
    assert note["data"]["train"] == 81
    test = evaluation["test"]
    assert test["accuracy"] > 0.9  # the stripes are easy
    assert np.sum(test["confusion_matrix"]) == 30
    with np.load(folder / "run" / "predictions.npz") as file:
        probabilities, labels = file["probabilities"], file["labels"]
        assert file["indices"].tolist() == list(range(30))
    _, expected = striped_images(30, seed=1)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == labels).mean() == test["accuracy"]
    assert f"accuracy {test['accuracy']:.2%}" in done.stdout


def test_what_was_chosen_for_speed_is_recorded(trained):
    folder, _ = trained
    note = json.loads((folder / "run" / "config.json").read_text())
    assert note["towers"] == towers.choose(config_of(note))._asdict()
    assert note["towers"]["parts"] == 1  # of batches so small, on any machine
    assert note["threads"] == {"within": 0, "beside": 0}  # TensorFlow's own choice
    assert note["jit_compile"] is False
    assert note["precision"]["reason"]
    timing = json.loads((folder / "run" / "evaluation.json").read_text())["timing"]
    assert 1 <= timing["steps_a_call"] <= 100


def test_metrics_have_a_row_an_epoch_with_its_learning_rate(trained):
    folder, _ = trained
    with (folder / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    rates = [float(row["learning_rate"]) for row in rows]
    assert max(rates) == rates[1] and rates[-1] < 0.0005  # one cycle
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)
    assert all(float(row["seconds"]) > 0 for row in rows)


def test_output_is_one_line_an_epoch_and_no_noise(trained):
    _, done = trained
    assert done.stderr == ""
    assert done.stdout.count("epoch ") == 6
    assert "\r" not in done.stdout
    assert "learning rate 0.01 (one_cycle)" in done.stdout
    assert "strategy" not in done.stdout  # one device, and nobody asked


def test_evaluate_of_run_and_of_export_say_what_the_training_said(trained, kcnn):
    folder, _ = trained
    expected = json.loads((folder / "run" / "evaluation.json").read_text())["test"]
    for place in ("run", "saved_models/stripes-convnet/1"):
        done = kcnn("evaluate", place, "--format=json", cwd=folder)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["confusion_matrix"] == expected["confusion_matrix"]
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_evaluate_of_the_validation_split_is_the_one_trained_with(trained, kcnn):
    folder, _ = trained
    expected = json.loads((folder / "run" / "evaluation.json").read_text())
    done = kcnn("evaluate", "run", "--split=validation", "--format=json", cwd=folder)
    found = json.loads(done.stdout)
    assert found["n"] == 9
    assert found["loss"] == pytest.approx(expected["validation"]["loss"], abs=1e-5)


def test_evaluate_refuses_other_classes(trained, kcnn):
    folder, _ = trained
    write_npz(folder / "other.npz", classes=5)
    done = kcnn("evaluate", "run", "--dataset=npz:other.npz", cwd=folder)
    assert done.returncode == 2
    assert "classes" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_export_again_makes_the_next_version(trained, kcnn):
    folder, _ = trained
    done = kcnn("export", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "saved_models/stripes-convnet/2" in done.stdout
    other = kcnn("export", "run", "--export_dir=b", "--export_name=n", cwd=folder)
    assert other.returncode == 0, other.stderr
    assert os.listdir(folder / "b" / "n") == ["1"]


@pytest.mark.slow
def test_two_exports_at_once_are_two_versions(trained):
    folder, _ = trained
    command = [sys.executable, "-m", "kcnn", "export", "run", "--export_name=pair"]
    both = [subprocess.Popen(command, cwd=folder) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    assert sorted(os.listdir(folder / "saved_models" / "pair")) == ["1", "2"]


def test_predict_labels_files_and_names_what_is_no_image(trained, kcnn):
    import tensorflow as tf

    folder, _ = trained
    images, labels = striped_images(4, seed=1)
    place = folder / "pictures"
    place.mkdir()
    for i, image in enumerate(images):
        (place / f"{i} ö.png").write_bytes(tf.io.encode_png(image).numpy())
    (folder / "note.png").write_text("not a picture")
    done = kcnn("predict", "pictures", "note.png", "--format=json", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "note.png" in done.stderr
    rows = json.loads(done.stdout)
    assert [row["label"] for row in rows] == [str(label) for label in labels]
    top = kcnn("predict", "--top_k=3", "pictures/0 ö.png", cwd=folder)
    assert top.returncode == 0
    assert len(top.stdout.splitlines()) == 4
    data = (place / "1 ö.png").read_bytes()
    piped = kcnn("predict", "-", "--format=csv", cwd=folder, input=data, text=False)
    assert piped.returncode == 0
    assert piped.stdout.decode().splitlines()[1].startswith(f"-,{labels[1]},")


@pytest.mark.parametrize(("views", "n"), [("none", 10_000), ("mirror_shift", 1_666)])
def test_many_training_images_are_scored_by_a_sample(kcnn, tmp_path, views, n):
    write_npz(tmp_path / "many.npz", n_train=10_100)
    flags = (*TINY, "--epochs=1", "--validation_fraction=0", "--export_dir=")
    flags += ("--dataset=npz:many.npz", f"--test_views={views}")
    done = kcnn("train", *flags, "--model_dir=run")
    assert done.returncode == 0, done.stderr
    assert f"(of {n:,} images)\n" in done.stdout
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["train"]["n"] == n
    supports = [one["support"] for one in evaluation["train"]["per_class"]]
    assert sum(supports) == n and max(supports) - min(supports) <= 1


def test_a_run_is_not_overwritten_unless_told(trained, kcnn):
    folder, _ = trained
    before = (folder / "run" / "evaluation.json").read_bytes()
    done = kcnn("train", "--model_dir=run", *TINY, cwd=folder)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr and "--resume" in done.stderr
    resumed = kcnn("train", "--model_dir=run", "--resume", cwd=folder)
    assert (resumed.returncode, "complete" in resumed.stderr) == (2, True)
    wrong = kcnn(
        "train", "--model_dir=run", "--overwrite", "--dataset=npz:no.npz", cwd=folder
    )
    assert wrong.returncode == 2
    assert (folder / "run" / "evaluation.json").read_bytes() == before


def test_overwrite_replaces_the_run_and_leaves_other_files(kcnn, npz, tmp_path):
    flags = ("train", f"--dataset=npz:{npz}", *TINY, "--model_dir=run")
    assert kcnn(*flags, "--export_dir=").returncode == 0
    (tmp_path / "run" / "my notes.txt").write_text("kept")
    done = kcnn(*flags, "--epochs=1", "--overwrite", "--export_dir=")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2
    assert (tmp_path / "run" / "my notes.txt").read_text() == "kept"
    assert not (tmp_path / "saved_models").exists()


def test_config_of_a_run_repeats_it(kcnn, npz, tmp_path):
    flags = (f"--dataset=npz:{npz}", *TINY, "--export_dir=", "--random_seed=7")
    assert kcnn("train", *flags, "--model_dir=a").returncode == 0
    again = kcnn("train", "--config=a/config.json", "--model_dir=b", "--export_dir=")
    assert again.returncode == 0, again.stderr
    a, b = (
        json.loads((tmp_path / name / "evaluation.json").read_text())["test"]
        for name in "ab"
    )
    assert a["loss"] == b["loss"]


def test_divergence_stops_at_once_and_says_where(kcnn, npz, tmp_path):
    done = kcnn(
        "train",
        f"--dataset=npz:{npz}",
        *TINY,
        "--optimizer=sgd",
        "--learning_rate=100",
        "--activation=relu",
        "--epochs=50",
        "--model_dir=run",
        "--weight_decay=5",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "diverged: the loss at step" in done.stderr and "(epoch" in done.stderr
    assert "--learning_rate" in done.stderr
    assert (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "evaluation.json").exists()


EVERYTHING = ["--model=convnet", "--filters=4", "--standardize=pixel", "--keep=best"]
EVERYTHING += ["--ema_momentum=0.9", "--early_stopping=55", "--class_weight=balanced"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "more"),
    [
        (signal.SIGINT, 130, [*TINY, "--translate=0.1"]),
        (signal.SIGTERM, 143, EVERYTHING),
    ],
)
def test_a_signal_keeps_the_state_and_resume_ends_as_if_nothing_had_been(
    kcnn, npz, tmp_path, number, status, more
):
    flags = [f"--dataset=npz:{npz}", *more, "--epochs=60", "--dropout=0.3"]
    flags += ["--batch_size=8", "--export_dir="]
    kcnn("train", *flags, "--model_dir=whole")
    command = [sys.executable, "-m", "kcnn", "train", *flags, "--model_dir=cut"]
    process = started_until(command, tmp_path, "epoch  3/")
    process.send_signal(number)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert time.monotonic() - began < 10
    assert "--resume --model_dir=cut" in error and error.count("\n") == 1
    other = kcnn("train", "--resume", "--model_dir=cut", "--epochs=5")
    assert (other.returncode, "--epochs=60" in other.stderr) == (2, True)
    done = kcnn("train", "--resume", "--model_dir=cut")
    assert done.returncode == 0, done.stderr
    assert "epoch  2/" not in done.stdout
    assert not (tmp_path / "saved_models").exists()  # as the run was begun
    whole, cut = (
        json.loads((tmp_path / name / "evaluation.json").read_text())
        for name in ("whole", "cut")
    )
    assert cut["test"]["loss"] == whole["test"]["loss"]
    assert cut["train"]["loss"] == whole["train"]["loss"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--model_dir=file/run", "not a folder"),
        ("--export_dir=file", "not a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_training(
    kcnn, npz, tmp_path, flag, words
):
    (tmp_path / "file").write_text("in the way")
    done = kcnn("train", f"--dataset=npz:{npz}", *TINY, flag)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert done.stdout == ""


def test_a_full_disk_is_one_line_and_leaves_whole_files(kcnn, npz, full_disk):
    done = kcnn(
        "train",
        f"--dataset=npz:{npz}",
        "--model=mlp",
        "--dense_units=2000",  # its checkpoint is larger than the disk
        "--epochs=1",
        f"--model_dir={full_disk}/run",
        "--export_dir=",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    left = [p.name for p in (full_disk / "run").rglob("*") if p.is_file()]
    assert set(left) <= {"config.json", "metrics.csv"}
    json.loads((full_disk / "run" / "config.json").read_text())


def test_an_experiment_shows_the_published_figure(kcnn, npz, tmp_path):
    done = kcnn(
        "train",
        "--experiment=tutorial",
        f"--dataset=npz:{npz}",
        "--image_size=12,12",
        "--export_dir=",
    )
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout and "97.96%" in done.stdout
    run = tmp_path / "runs" / "tutorial-1"
    assert "97.96" in (run / "report.html").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["validation"] is None
    assert evaluation["reported"]["accuracy"] == 0.9796


def test_tensorboard_logs_every_epoch(kcnn, npz, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = (f"--dataset=npz:{npz}", *TINY, "--model_dir=run", "--export_dir=")
    done = kcnn("train", *flags, "--tensorboard")
    assert done.returncode == 0, done.stderr
    events = EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0}
    ).Reload()
    import tensorflow as tf

    logged = [tf.make_ndarray(e.tensor_proto) for e in events.Tensors("val_loss")]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx(rows, rel=1e-5)


def test_tensorboard_without_the_extra_says_how_to_get_it():
    code = (
        "import sys; sys.modules['tensorboard'] = None; "
        "sys.argv[1:] = ['train', '--tensorboard']; "
        "from kcnn.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "kcnn[tensorboard]" in done.stderr and done.stderr.count("\n") == 1


def test_a_reader_that_goes_does_not_stop_the_training(npz, tmp_path):
    command = [sys.executable, "-m", "kcnn", "train", f"--dataset=npz:{npz}", *TINY]
    with subprocess.Popen(
        [*command, "--model_dir=run", "--export_dir="],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (0, b"")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "plots/mistakes.png", "report.html"])
def test_files_of_someone_else_are_not_replaced(kcnn, npz, tmp_path, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    done = kcnn("train", f"--dataset=npz:{npz}", *TINY, "--model_dir=mine")
    assert done.returncode == 2
    assert name in done.stderr and "--overwrite" in done.stderr
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("file", "content", "command", "status"),
    [
        ("config.json", "{", "evaluate", 1),
        ("config.json", "[1]", "summary", 1),
        ("config.json", "{}", "export", 1),
        ("evaluation.json", "{", "export", 1),
        ("checkpoints/model.npz", "", "evaluate", 1),
        ("checkpoints/model.npz", None, "evaluate", 2),
    ],
)
def test_a_damaged_run_is_named_in_one_line(
    trained, kcnn, tmp_path, file, content, command, status
):
    import shutil

    folder, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    if content is None:
        (tmp_path / "run" / file).unlink()
    else:
        (tmp_path / "run" / file).write_text(content)
    done = kcnn(command, tmp_path / "run", cwd=folder)
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    "file", ["assets.extra/kcnn.json", "saved_model.pb", "variables/variables.index"]
)
def test_a_damaged_export_is_named_in_one_line(trained, kcnn, tmp_path, file):
    import shutil

    folder, _ = trained
    shutil.copytree(folder / "saved_models" / "stripes-convnet" / "1", tmp_path / "m")
    data = (tmp_path / "m" / file).read_bytes()
    (tmp_path / "m" / file).write_bytes(data[: len(data) // 2])
    done = kcnn("evaluate", tmp_path / "m", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "damaged" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_flag_brings_its_own_defaults_over_a_config(trained, kcnn):
    folder, _ = trained
    flags = ["--config=run/config.json", "--optimizer=sgd", "--model=mlp", "--epochs=1"]
    done = kcnn("train", *flags, "--export_dir=", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "sgd, learning rate 0.05" in done.stdout
    same = kcnn("train", "--config=run/config.json", "--optimizer=adam", cwd=folder)
    assert "adam, learning rate 0.01" in same.stdout  # the run's own, as before


def test_resume_refuses_data_that_has_changed(kcnn, tmp_path):
    write_npz(tmp_path / "a.npz")
    flags = ["--dataset=npz:a.npz", *TINY, "--model_dir=run", "--export_dir="]
    assert kcnn("train", *flags).returncode == 0
    (tmp_path / "run" / "report.html").unlink()  # as if it had been killed before
    write_npz(tmp_path / "a.npz", n_train=60)
    done = kcnn("train", "--resume", "--model_dir=run")
    assert done.returncode == 2
    assert "has changed" in done.stderr
    write_npz(tmp_path / "a.npz")
    again = kcnn("train", "--resume", "--model_dir=run")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_resume_takes_an_export_that_is_there_and_clears_up_beside_it(kcnn, tmp_path):
    """As after a kill between an export's getting its name and the end of the run."""
    write_npz(tmp_path / "stripes.npz")
    flags = [*TINY, "--dataset=npz:stripes.npz", "--model_dir=run"]
    kcnn("train", *flags, "--export_dir=exports", "--export_name=m")
    (tmp_path / "run" / "evaluation.json").unlink()
    (tmp_path / "exports" / "m" / ".writing-dead" / "model").mkdir(parents=True)
    kcnn("train", "--resume", "--model_dir=run")
    assert os.listdir(tmp_path / "exports" / "m") == ["1"]
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["export"]["path"].endswith("m/1")
