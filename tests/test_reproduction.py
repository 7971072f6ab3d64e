"""Published rows: what is run for them, and when a figure is said to agree."""

import csv
import html.parser
import json
import subprocess
import sys

import numpy as np
import pytest

from kcnn import reproduction_page
from kcnn.agreement import agreement
from kcnn.config import Config
from kcnn.errors import RunError
from kcnn.experiments import EXPERIMENTS, Reason
from kcnn.reasons import CLAIMS, holds
from kcnn.reproduction import plan_rows
from kcnn.reproduction_results import (
    AGREES,
    EXPLAINED,
    NOT_JUDGED,
    NOT_RUN,
    UNEXPLAINED,
    results,
)
from kcnn.sweep_record import SweepRecord
from tests.test_comparison import write_run


def planned(*names, seeds=(0, 1, 2), given=None, instead=None, quick=False):
    return plan_rows(dict.fromkeys(names, seeds), given or {}, instead or {}, quick)


def test_rows_of_one_recipe_share_their_runs():
    rows, runs = planned("k1", "k-tutorial")
    assert [run.name for run in runs] == [
        "experiment=k1,random_seed=0",
        "experiment=k1,learning_rate=1,random_seed=0",
        "experiment=k1,random_seed=1",
        "experiment=k1,learning_rate=1,random_seed=1",
        "experiment=k1,random_seed=2",
        "experiment=k1,learning_rate=1,random_seed=2",
    ]
    assert rows[0].runs == rows[1].runs
    assert rows[0].runs["as_published"] == [run.name for run in runs[::2]]


def test_a_run_has_its_rows_settings_and_only_the_variant_others():
    _, runs = planned("head-dropout-0.05", seeds=(4,))
    expected = {**EXPERIMENTS["head-dropout-0.05"].settings, "random_seed": 4}
    assert runs[0].config == Config(**expected)
    assert runs[1].config == Config(**{**expected, "head": "logits"})


def test_a_sweep_is_run_through_with_every_seed():
    rows, runs = planned("bottleneck-lr-sweep", seeds=(0, 1))
    assert len(runs) == 2 * 19
    assert {run.config.learning_rate for run in runs} == set(
        EXPERIMENTS["bottleneck-lr-sweep"].sweep["learning_rate"]
    )
    assert set(rows[0].runs["as_published"]) == {run.name for run in runs}


def test_what_is_no_training_run_has_none():
    rows, runs = planned("own-set-best")
    assert (rows[0].runs, runs) == ({}, [])


def test_quick_lowers_and_never_raises():
    _, runs = planned("k1", "size-100", "tutorial", seeds=(0,), quick=True)
    by_name = {run.name.split(",")[0]: run.config for run in runs}
    found = {
        name: (config.train_size, config.epochs) for name, config in by_name.items()
    }
    assert found == {
        "experiment=k1": (5000, 2),
        "experiment=size-100": (100, 2),
        "experiment=tutorial": (5000, 1),
    }
    assert len(planned("bottleneck-lr-sweep", seeds=(0,), quick=True)[1]) == 3


def test_another_data_set_stands_in_for_the_published_one_only():
    _, runs = planned(
        "lenet",
        "tutorial",
        seeds=(0,),
        given={"data_dir": "tfds", "precision": "float32"},
        instead={"cifar10": "folder:images"},
    )
    by_model = {run.config.model: run.config for run in runs}
    assert by_model["lenet"].dataset == "folder:images"
    assert by_model["lenet"].data_dir == ""
    assert by_model["tutorial"].dataset == "mnist"
    assert by_model["tutorial"].data_dir == "tfds"
    assert {config.precision for config in by_model.values()} == {"float32"}


def test_agreement_by_hand():
    values = [0.98, 0.99, 1.0]  # mean 0.99, deviation 0.01
    reach = 9.92484320091807 * 0.01 * (1 + 1 / 3) ** 0.5  # t with 2 degrees, 99.5%
    low, high = 0.99 - reach - 0.00005, 0.99 + reach + 0.00005
    found = agreement(0.9, values, 4)
    assert found.interval == pytest.approx((low, high))
    assert (found.interval_of, found.agrees) == ("seeds", True)
    assert found.difference == pytest.approx(0.09)
    assert found.deviation == pytest.approx(0.01)
    assert agreement(low - 1e-6, values, 4).agrees is False
    assert agreement(low - 1e-6, values, 2).agrees is True  # printed as 0.88


def test_a_single_run_goes_by_its_images_or_by_nothing():
    found = agreement(0.5, [0.5], 2, images=1000)
    reach = 2.5758293035489004 * (2 * 0.5 * 0.5 / 1000) ** 0.5 + 0.005
    assert found.interval == pytest.approx((0.5 - reach, 0.5 + reach))
    assert (found.interval_of, found.agrees) == ("images", True)
    loss = agreement(0.1, [0.2], 4)
    assert (loss.interval, loss.interval_of, loss.agrees) == (None, None, None)
    assert loss.difference == pytest.approx(0.1)


def test_a_figure_that_was_not_published_is_not_judged():
    found = agreement(None, [0.5, 0.6], 4)
    assert (found.agrees, found.difference) == (None, None)
    assert found.mean == pytest.approx(0.55)


def test_a_variant_differs_by_its_own_knobs_alone():
    """--optimizer brings a learning rate of its own unless one is given with it."""
    names = [name for name, one in EXPERIMENTS.items() if one.variant]
    rows, runs = planned(*names, seeds=(0,))
    configs = {run.name: run.config.to_dict() for run in runs}
    for row in rows:
        published, varied = (
            configs[row.runs[recipe][0]] for recipe in ("as_published", "variant")
        )
        differing = {knob for knob in published if published[knob] != varied[knob]}
        variant = row.experiment.variant
        brought = {"momentum", "beta_1", "beta_2", "standardize_floor"}
        assert differing - brought <= variant.keys(), row.name
        assert all(varied[knob] == value for knob, value in variant.items())


def write_runs(folder, rows_and_runs, corrects):
    """Write a run of so many right images for each planned one; return the record."""
    rows, runs = rows_and_runs
    record = SweepRecord(
        folder, runs, {"command": "kcnn reproduce", "started": "now", "jobs": 1}
    )
    for outcome in record.outcomes:
        run = outcome.planned
        path = folder / run.name
        knobs = run.config.to_dict()
        seed = knobs.pop("random_seed")
        correct = corrects(run)
        if correct is None:
            outcome.status, outcome.reason = "failed", "no memory"
            continue
        write_run(path, correct, seed, experiment=run.experiment, **knobs)
        note = json.loads((path / "config.json").read_text())
        note |= {
            "hardware": {"processor": "P", "cores": 2, "memory_gib": 4, "gpus": []},
            "versions": {"kcnn": "1"},
            "commit": "abc",
            "precision": {"policy": "float32", "reason": ""},
        }
        (path / "config.json").write_text(json.dumps(note))
        evaluation = json.loads((path / "evaluation.json").read_text())
        evaluation["test"]["per_class"] = [{"support": 98}, {"support": 902}]
        evaluation["timing"]["total_seconds"] = 20
        (path / "evaluation.json").write_text(json.dumps(evaluation))
        outcome.read()
    return results(rows, record, about())


def about(quick=False):
    return {
        "command": "kcnn reproduce",
        "started": "now",
        "jobs": 1,
        "quick": quick,
        "random_seeds": [0, 1, 2],
        "data": {"mnist": "mnist"},
    }


def row_of(result, name):
    return next(row for row in result["rows"] if row["experiment"] == name)


@pytest.fixture
def reproduced(tmp_path):
    """Four rows: one as published, one off, one explained, one not to be run."""
    corrects = {"lr-0.2": 964, "width-32-64": 950, "size-100": 700, "size-60000": 990}

    def correct(run):
        name = run.experiment
        if "optimizer=" in run.name:
            return 990 + run.config.random_seed
        step = 1 if name == "size-60000" else 2
        return corrects[name] + step * run.config.random_seed

    names = ("lr-0.2", "width-32-64", "size-100", "size-60000", "own-set-best")
    return write_runs(tmp_path / "runs", planned(*names), correct)


def test_verdicts(reproduced):
    verdicts = {row["experiment"]: row["verdict"] for row in reproduced["rows"]}
    assert verdicts == {
        "lr-0.2": AGREES,  # 0.9644 published, 0.964 to 0.968 measured
        "width-32-64": UNEXPLAINED,  # 0.9904 published, 0.950 to 0.954 measured
        "size-100": EXPLAINED,
        "size-60000": AGREES,
        "own-set-best": NOT_RUN,
    }
    (reason,) = row_of(reproduced, "size-100")["reasons"]
    assert (reason["claim"], reason["holds"]) == ("weights_carried_over", True)
    off = row_of(reproduced, "width-32-64")["as_published"]["accuracy"]
    assert off["values"] == [0.95, 0.952, 0.954]
    assert off["difference"] == pytest.approx(0.952 - 0.9904)


def test_the_variant_is_tested_against_the_row(reproduced):
    shown = row_of(reproduced, "width-32-64")["variant_shows"]
    assert shown.startswith("the variant is better than the row as published by 3.90")


def test_conclusions_are_of_the_group(reproduced):
    groups = {group["group"]: group["conclusions"] for group in reproduced["groups"]}
    assert "size-60000 is better than size-100" in groups["lab8-train-size"][0]


def test_quick_judges_nothing(tmp_path):
    rows_and_runs = planned("tutorial-standardized", seeds=(0,), quick=True)
    rows, runs = rows_and_runs
    write_runs(tmp_path, rows_and_runs, lambda run: 980)
    record = SweepRecord(tmp_path, runs, {})
    record.outcomes[0].read()
    result = results(rows, record, about(quick=True))
    assert (result["rows"][0]["verdict"], result["rows"][0]["reasons"]) == (
        NOT_JUDGED,
        [],
    )
    assert reproduction_page.headline(result).startswith("QUICK: at most train_size")


def test_a_published_nan_is_explained_by_class_0(tmp_path):
    result = write_runs(tmp_path, planned("tutorial-standardized"), lambda run: 985)
    row = row_of(result, "tutorial-standardized")
    assert row["verdict"] == EXPLAINED  # 98 of 1,000 test images are of class 0
    assert row["as_published"]["first_class_part"] == 0.098


def test_failed_runs_are_told_and_the_rest_judged(tmp_path):
    result = write_runs(
        tmp_path,
        planned("mlp", "cnn-1conv"),
        lambda run: None if run.experiment == "mlp" else 970 + run.config.random_seed,
    )
    assert row_of(result, "mlp")["verdict"] == NOT_RUN
    assert row_of(result, "cnn-1conv")["verdict"] == UNEXPLAINED  # by its loss
    reproduction_page.write(result, tmp_path)
    page = (tmp_path / "reproduction.html").read_text()
    assert "experiment=mlp,random_seed=1: no memory" in page


def test_nothing_but_failures_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no run ended well"):
        write_runs(tmp_path, planned("mlp"), lambda run: None)


def test_of_a_sweep_the_best_of_each_seed_counts(tmp_path):
    def correct(run):
        best = {0: 0.003, 1: 0.005}[run.config.random_seed]
        return 530 if run.config.learning_rate == best else 400

    result = write_runs(tmp_path, planned("bottleneck-lr-sweep", seeds=(0, 1)), correct)
    (row,) = result["rows"]
    assert row["as_published"]["accuracy"]["values"] == [0.53, 0.53]
    assert row["as_published"]["best"] == [
        {"learning_rate": 0.003},
        {"learning_rate": 0.005},
    ]
    assert row["as_published"]["train_seconds"] == 19 * 10.5
    assert row["verdict"] == AGREES


def figures(mean, interval=None, agrees=None):
    return {"mean": mean, "interval": interval, "agrees": agrees}


@pytest.mark.parametrize(
    ("published", "expected"), [(0.8, True), (0.62, False), (0.995, False)]
)
def test_weights_carried_over_lie_between_fresh_and_source(published, expected):
    rows = {
        "size-100": {
            "reported": {"accuracy": published},
            "as_published": {"accuracy": figures(0.6, [0.55, 0.65])},
        },
        "size-60000": {"as_published": {"accuracy": figures(0.99)}},
    }
    reason = Reason("accuracy", "weights_carried_over", "", "size-60000")
    assert holds(reason, rows, "size-100") is expected
    del rows["size-60000"]
    assert holds(reason, rows, "size-100") is None


@pytest.mark.parametrize(
    ("published", "mean", "expected"),
    [(0.8, 0.99, True), (0.81, 0.99, False), (0.8, 0.7, False)],
)
def test_other_images_are_a_whole_number_of_them(published, mean, expected):
    rows = {
        "own-digits": {
            "reported": {"accuracy": published},
            "as_published": {"accuracy": figures(mean), "loss": figures(0.1)},
        }
    }
    reason = Reason("loss", "other_images", "", 60)
    assert holds(reason, rows, "own-digits") is expected


@pytest.mark.parametrize("agrees", [True, False, None])
def test_a_variant_explains_what_it_agrees_with(agrees):
    rows = {
        "lr-0.2": {
            "as_published": {"accuracy": figures(0.9)},
            "variant": {"accuracy": figures(0.96, agrees=agrees)},
        }
    }
    reason = Reason("accuracy", "variant_agrees", "")
    assert holds(reason, rows, "lr-0.2") is (agrees is True)
    rows["lr-0.2"]["variant"] = None
    assert holds(reason, rows, "lr-0.2") is None


@pytest.mark.parametrize(("gap", "expected"), [(-0.008, True), (-0.004, False)])
def test_a_published_gap_that_no_seed_shows_is_not_by_the_knob(gap, expected):
    """Gaps of 0, 0.001 and -0.002: -0.0003 +- 4.303 * 0.00153 / sqrt(3) = 0.0038."""

    def row(published, values):
        measured = {"random_seeds": [0, 1, 2], "accuracy": {"values": values}}
        return {"reported": {"accuracy": published}, "as_published": measured}

    rows = {
        "a": row(0.98 + gap, [0.990, 0.991, 0.989]),
        "b": row(0.98, [0.990, 0.990, 0.991]),
    }
    reason = Reason("accuracy", "not_by_the_knob", "", "b")
    assert holds(reason, rows, "a") is expected
    rows["b"] |= {"as_published": None}
    assert holds(reason, rows, "a") is None


@pytest.mark.parametrize(
    ("difference", "of", "expected"),
    [(-0.099, "seeds", True), (-0.11, "seeds", False), (-0.099, "images", None)],
)
def test_a_row_of_one_seed_may_be_as_far_off_as_those_of_many(difference, of, expected):
    rows = {
        "sweep": {"as_published": {"accuracy": {"difference": difference}}},
        "net": {
            "as_published": {"accuracy": {"interval": [0.3, 0.5], "interval_of": of}}
        },
    }
    reason = Reason("accuracy", "within_seeds_of", "", "net")
    assert holds(reason, rows, "sweep") is expected


def test_every_reason_names_a_claim_and_a_figure_that_was_published():
    for name, experiment in EXPERIMENTS.items():
        for reason in experiment.reasons:
            assert reason.claim in CLAIMS, name
            assert reason.text and reason.figure in ("accuracy", "loss"), name
            if reason.claim == "variant_agrees":
                assert experiment.variant, name


class Cells(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.heads, self.rows, self._into = [], [], None

    def handle_starttag(self, tag, attributes):
        if tag in ("th", "td"):
            self._into = ""
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self._into is not None:
            self._into += data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.rows[-1].append(self._into)
            self._into = None


def test_the_files_say_the_same(reproduced, tmp_path):
    page = reproduction_page.write(reproduced, tmp_path)
    assert json.loads((tmp_path / "reproduction.json").read_text()) == json.loads(
        json.dumps(reproduced)
    )
    with (tmp_path / "reproduction.csv").open() as file:
        lines = {(r["experiment"], r["recipe"]): r for r in csv.DictReader(file)}
    assert float(lines["width-32-64", "variant"]["accuracy_mean"]) == pytest.approx(
        np.mean([0.99, 0.991, 0.992])
    )
    assert ("size-100", "variant") not in lines
    markdown = (tmp_path / "reproduction.md").read_text()
    cells = Cells()
    cells.feed(page.read_text())
    told = ["width-32-64", "differs, unexplained", "3", "99.04", "95.20 ± 0.20"]
    assert any(row[:5] == told for row in cells.rows)
    assert f"| {' | '.join(told)} |" in markdown
    assert (
        "5 published rows: 2 as published, 1 different for a reason that holds, 1 "
        "different for no reason given, 1 not run." in markdown
    )
    assert "not run: it is an evaluation" in markdown


@pytest.mark.slow
def test_a_row_of_digits_goes_through_the_command(tmp_path):
    npz = tmp_path / "data.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (120, 28, 28), np.uint8)
    labels = np.arange(120) % 10
    np.savez(npz, x_train=images, y_train=labels, x_test=images, y_test=labels)
    command = [sys.executable, "-m", "kcnn", "reproduce", "size-100", "--mnist"]
    command += [f"npz:{npz}", "--random_seed=0,1", "--one_seed_above=0", "--quick"]
    ran = subprocess.run(
        [*command, f"--model_dir={tmp_path / 'runs'}", "--precision=float32"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "QUICK" in ran.stdout
    result = json.loads((tmp_path / "runs" / "reproduction.json").read_text())
    assert result["rows"][0]["as_published"]["random_seeds"] == [0]
    assert result["data"] == {"mnist": f"npz:{npz}"}
    assert result["precision"] == ["float32"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no experiment is named like nosuch"),
        (["mlp", "--mnist=folder:nowhere"], "--mnist: nowhere: no such file or folder"),
        (["mlp", "--cifar10=folder:."], "--cifar10 changes nothing"),
        (["own-set-best", "--mnist=digits"], "own-set-best is no training run"),
    ],
)
def test_refuses(arguments, said, tmp_path):
    command = [sys.executable, "-m", "kcnn", "reproduce", *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr and ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
