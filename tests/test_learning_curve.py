"""kcnn learning-curve: what is planned, what is said of it, and real command lines."""

import csv
import json
import re

import pytest
from PIL import Image

from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.files import write_csv, write_json
from kcnn.learning_curve import (
    SIZES,
    count_training_images,
    learning_curve,
    plan,
    records,
    rows,
    sizes_of,
)
from kcnn.learning_curve_plot import accuracy_by_size
from kcnn.sweep_record import SweepRecord


def test_sizes_come_in_order():
    assert sizes_of("all,20,100", 500, asked=True) == ([20, 100, 500], "")


def test_default_sizes_leave_out_what_is_too_large():
    assert sizes_of(SIZES, 300, asked=False) == ([100, 250, 300], "500, 1,000")
    assert sizes_of(SIZES, 1000, asked=False) == ([100, 250, 500, 1000], "")


@pytest.mark.parametrize(
    "text, message",
    [
        ("100,1e3", "got '1e3', expected whole numbers from 1 up and all"),
        ("", "got ''"),
        ("0", "got '0'"),
        ("-5", "got '-5'"),
        ("100,501", "got 501; there are 500 training images"),
        ("100,100", "got 100 2 times, expected once"),
        ("500,all", r"got 500 2 times \(all is 500\)"),
    ],
)
def test_refuses_sizes(text, message):
    with pytest.raises(UsageError, match=f"--sizes: {message}"):
        sizes_of(text, 500, asked=True)


def steps(one):
    n, config = one.swept["train_size"], one.config
    return config.epochs * -(-n // config.batch_size)


def test_equal_steps():
    runs = plan({"epochs": 12, "batch_size": 100}, [100, 250, 1000], [0, 1], "steps")
    assert [run.swept for run in runs] == [
        {"train_size": n, "random_seed": seed}
        for n in (100, 250, 1000)
        for seed in (0, 1)
    ]
    # 1,000 images are 10 steps an epoch, 120 in all; 250 are 3 with the partial one.
    assert [run.config.epochs for run in runs[::2]] == [120, 40, 12]
    assert [steps(run) for run in runs[::2]] == [120, 120, 120]
    assert [run.config.train_size for run in runs[::2]] == [100, 250, 1000]


def test_equal_steps_are_rounded_to_whole_epochs():
    run, _ = plan({"epochs": 1, "batch_size": 100}, [300, 1000], [0], "steps")
    assert (run.config.epochs, steps(run)) == (3, 9)  # of the 10 that were wished for


def test_equal_epochs():
    runs = plan({"epochs": 5}, [10, 1000], [0], "epochs")
    assert [run.config.epochs for run in runs] == [5, 5]


def test_a_schedule_keeps_its_shape():
    given = {"epochs": 10, "batch_size": 100, "schedule": "step", "warmup_epochs": 0.5}
    small, _ = plan(given, [100, 1000], [0], "steps")
    assert small.config.epochs == 100
    assert (small.config.step_epochs, small.config.warmup_epochs) == (50, 5.0)


def test_refuses_early_stopping_with_equal_steps():
    with pytest.raises(UsageError, match="--equal=epochs"):
        plan({"early_stopping": 2}, [10, 20], [0], "steps")
    assert plan({"early_stopping": 2}, [10, 20], [0], "epochs")


def test_a_name_does_not_depend_on_the_other_sizes():
    one, many = plan({}, [50], [3], "epochs"), plan({}, [50, 60], [0, 3], "epochs")
    assert one[0].name == "train_size=50,random_seed=3"
    assert one[0].name in [run.name for run in many]


@pytest.mark.slow
def test_counts_what_train_size_can_take():
    assert count_training_images(Config(validation_fraction=0.0)) == 1437
    with pytest.raises(UsageError, match="no such"):
        count_training_images(Config(dataset="folder:nowhere"))


def finished(folder, accuracies, left_out=()):
    """Return the record of runs that ended with given test accuracies."""
    seeds = range(len(next(iter(accuracies.values()))))
    planned = plan({"epochs": 4, "batch_size": 50}, list(accuracies), seeds, "epochs")
    record = SweepRecord(folder, planned, {"command": "kcnn <b>", "started": "2026"})
    for outcome in record.outcomes:
        size = outcome.planned.swept["train_size"]
        if size in left_out:
            outcome.status, outcome.reason = "failed", "diverged"
            continue
        test = accuracies[size][outcome.planned.swept["random_seed"]]
        scores = {"test": {"accuracy": test, "loss": 0.1}, "train": {"accuracy": 1.0}}
        timing = {"train_seconds": 2.0, "total_seconds": 3.0}
        write_json(outcome.run.evaluation, scores | {"timing": timing})
        write_csv(outcome.run.metrics, [{"epoch": i} for i in range(4)])
        outcome.read()
    return record


CURVE = {n: [1 - 2 * n**-0.5 * f for f in (0.9, 1.1)] for n in (100, 200, 400, 1600)}


def test_figures_and_prediction(tmp_path):
    result = learning_curve(finished(tmp_path, CURVE), "epochs")
    first = result["sizes"][0]
    assert first["test_accuracy"] == pytest.approx(0.8)
    assert first["test_deviation"] == pytest.approx(0.02 * 2**0.5)
    # Student's 97.5% point with one degree of freedom is 12.706.
    assert first["test_interval"][1] == pytest.approx(0.8 + 12.706 * 0.02, abs=1e-4)
    assert (first["train_accuracy"], first["train_deviation"]) == (1.0, 0.0)
    assert (first["epochs"], first["steps"]) == (4, 8)
    assert result["power_law"]["exponent"] == pytest.approx(0.5, abs=0.02)
    said = r"3,200 training images, .* predicts 96\.4\d% .*\(95% interval .* 95.00% was"
    assert re.search(said, result["sentence"])
    assert rows(result)[0] == {
        "size": "100",
        "n": 2,
        "train accuracy": "100.00% ± 0.00",
        "test accuracy": "80.00%",
        "deviation": "2.83%",
        "95% interval": "54.59% to 105.41%",
        "epochs": "4",
        "steps": "8",
    }
    assert records(result)[0]["test_interval_low"] == first["test_interval"][0]


def test_one_seed_has_a_prediction_without_an_interval(tmp_path):
    alone = {n: values[:1] for n, values in CURVE.items()}
    result = learning_curve(finished(tmp_path, alone), "epochs")
    assert "no interval: no size has two runs" in result["sentence"]
    assert rows(result)[0]["95% interval"] == rows(result)[0]["deviation"] == ""
    assert accuracy_by_size(result, tmp_path / "one.png")


def test_three_sizes_have_no_prediction(tmp_path):
    few = {n: CURVE[n] for n in (100, 200, 400)}
    result = learning_curve(finished(tmp_path, few), "epochs")
    assert result["power_law"] is None
    assert "4 or more sizes, and there are runs with 3 sizes" in result["sentence"]


def test_without_the_largest_size_there_is_no_prediction(tmp_path):
    record = finished(tmp_path, {**CURVE, 3200: [0.9, 0.9]}, left_out=[3200])
    result = learning_curve(record, "epochs")
    assert "no run with 3,200 images is done" in result["sentence"]
    with pytest.raises(RunError, match=r"2 of 10 runs failed, .*3200.*diverged"):
        record.raise_failures()


def test_nothing_done_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no run is done"):
        learning_curve(finished(tmp_path, CURVE, left_out=CURVE), "epochs")


def test_plot(tmp_path):
    result = learning_curve(finished(tmp_path, CURVE), "epochs")
    figure = accuracy_by_size(result, tmp_path / "curve.png")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert "(%)" in axes.get_ylabel()
    assert {100, 1600, 3200} <= set(axes.get_xticks())
    assert axes.get_ylim()[1] <= 100.5
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("twice the data" in label for label in labels)
    assert Image.open(tmp_path / "curve.png").width > 600


@pytest.mark.slow
def test_a_whole_curve(kcnn, npz):
    shape = ("--dataset=npz:stripes.npz", "--model=mlp", "--dense_units=16")
    arguments = ("--sizes=9,18,36,all", "--random_seed=0,1", "--batch_size=30")
    command = ("learning-curve", "--model_dir=curve", "--epochs=2", *shape, *arguments)
    done = kcnn(*command)
    assert done.returncode == 0, done.stderr
    folder = npz.parent / "curve"
    result = json.loads((folder / "learning_curve.json").read_text())
    assert [row["train_size"] for row in result["sizes"]] == [9, 18, 36, 90]
    assert [row["steps"] for row in result["sizes"]] == [6, 6, 6, 6]
    assert [row["epochs"] for row in result["sizes"]] == [6, 6, 3, 2]
    assert all(len(row["runs"]) == 2 for row in result["sizes"])
    assert result["sentence"] in done.stdout
    with (folder / "learning_curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    page = (folder / "learning_curve.html").read_text()
    assert result["sentence"] in page and "data:image/png;base64," in page
    assert not re.search(r"<script|https?://", page)

    ran = {p: p.stat().st_mtime_ns for p in folder.glob("*/evaluation.json")}
    again = kcnn(*command)
    assert "8 done already" in again.stdout
    assert ran == {p: p.stat().st_mtime_ns for p in folder.glob("*/evaluation.json")}

    other = kcnn(*command, "--equal=epochs")
    assert other.returncode == 2
    assert "holds another run (--epochs=6, not 2)" in other.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--sizes=10",), "--model_dir: say where"),
        (("--model_dir=curve", "--train_size=5"), "did you mean --sizes?"),
    ],
)
def test_refuses(kcnn, arguments, message):
    done = kcnn("learning-curve", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
