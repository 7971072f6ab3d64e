"""Small run folders, accuracies chosen by hand: what is ranked, said, refused."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from kcnn import comparison, comparison_plots, memory
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.recipes import collect
from tests.test_plots import assert_text_apart_and_inside

IMAGES = 1000


def write_run(
    path, correct, seed=0, experiment=None, started=0, images=IMAGES, first=0, **knobs
):
    """Write a run that has images first..first+correct right, out of `images`."""
    path.mkdir(parents=True)
    config = Config(random_seed=seed, **knobs).to_dict()
    note = {
        "config": config,
        "started": f"2026-01-01T00:00:{started:02}+00:00",
        "experiment": experiment,
        "spec": {},
        "data": {},
        "model": {"parameters": 1234, "flops": 2_500_000},
    }
    (path / "config.json").write_text(json.dumps(note))
    test = {
        "n": images,
        "mistakes": images - correct,
        "accuracy": correct / images,
        "loss": 1 - correct / images,
        "expected_calibration_error": 0.01,
    }
    timing = {"train_seconds": 10 + seed, "test_seconds": 1, "images_per_second": 500}
    evaluation = {"test": test, "timing": timing}
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    labels = np.arange(images) % 2
    right = np.isin(np.arange(images), np.arange(first, first + correct))
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    np.savez(
        path / "predictions.npz",
        indices=np.arange(images),
        labels=labels,
        probabilities=probabilities,
    )
    return path


def write_recipe(folder, name, corrects, first_seed=0, **knobs):
    for seed, correct in enumerate(corrects, first_seed):
        write_run(folder / f"{name}-{seed}", correct, seed, **knobs)


def compared(*arguments):
    recipes, notes = collect([str(a) for a in arguments])
    assert notes == []
    return comparison.compare(recipes)


@pytest.fixture
def two(tmp_path):
    """The recipe of the better mean is not the first; 3 common seeds."""
    write_recipe(tmp_path, "a", (900, 910, 905), learning_rate=0.02)
    write_recipe(tmp_path, "b", (920, 931, 924), learning_rate=0.002)
    return tmp_path


def test_the_table_has_the_figures_best_first(two):
    result = compared(two / "*")
    best, other = result["recipes"]
    assert (best["rank"], best["recipe"], best["n"]) == (1, "learning_rate=0.002", 3)
    assert (other["rank"], other["recipe"]) == (2, "learning_rate=0.02")
    values = [0.92, 0.931, 0.924]
    assert best["accuracy"] == pytest.approx(0.925)
    assert best["deviation"] == pytest.approx(np.std(values, ddof=1))
    low, high = scipy.stats.t.interval(0.95, 2, 0.925, scipy.stats.sem(values))
    assert (best["interval_low"], best["interval_high"]) == pytest.approx((low, high))
    assert best["interval_of"] == "seeds"
    assert best["loss"] == pytest.approx(0.075)
    assert (best["parameters"], best["flops"]) == (1234, 2_500_000)
    assert (best["train_seconds"], best["test_seconds"]) == (11, 1)
    assert [run["random_seed"] for run in best["runs"]] == [0, 1, 2]
    assert (result["dataset"], result["images"]) == ("digits", IMAGES)


def test_common_seeds_are_paired(two):
    result = compared(two / "*")
    (one,) = result["comparisons"]
    gaps = np.array([20, 21, 19]) / IMAGES
    assert one["method"] == "paired t"
    assert one["seeds"]["p"] == pytest.approx(scipy.stats.ttest_1samp(gaps, 0).pvalue)
    half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(gaps) * 100
    assert result["conclusions"] == [
        "learning_rate=0.002 is better than learning_rate=0.02 by "
        f"2.00 ± {half:.2f} points (± is the 95% confidence interval; p < 0.001, 3 "
        "seeds each)"
    ]


def test_other_seeds_are_compared_by_welch(tmp_path):
    write_recipe(tmp_path, "a", (900, 910, 905), epochs=2)
    write_recipe(tmp_path, "b", (920, 931), first_seed=2, epochs=3)
    (one,) = compared(tmp_path / "*")["comparisons"]
    expected = scipy.stats.ttest_ind([0.92, 0.931], [0.9, 0.91, 0.905], equal_var=False)
    assert one["method"] == "Welch"
    assert one["seeds"]["p"] == pytest.approx(expected.pvalue)
    assert "2 and 3 seeds" in one["sentence"]


def test_single_runs_are_compared_as_models(tmp_path):
    write_run(tmp_path / "a", 900, epochs=2)
    write_run(tmp_path / "b", 930, epochs=3)  # right where a is, and on 30 more
    result = compared(tmp_path / "*")
    (one,) = result["comparisons"]
    assert one["method"] == "McNemar"
    assert one["models"]["p"] == pytest.approx(2 * 0.5**30)
    assert (one["models"]["only_a"], one["models"]["only_b"]) == (30, 0)
    assert one["sentence"].startswith("one run each: nothing can be concluded about")
    assert "that of epochs=3 is better by 3.00 points" in one["sentence"]
    best = result["recipes"][0]
    low, high = scipy.stats.binomtest(930, IMAGES).proportion_ci(method="wilson")
    assert (best["interval_low"], best["interval_high"]) == pytest.approx((low, high))
    assert (best["interval_of"], best["deviation"]) == ("images", None)


def test_one_run_against_several_concludes_nothing(tmp_path):
    write_run(tmp_path / "a", 900, epochs=2)
    write_recipe(tmp_path, "b", (920, 931), epochs=3)
    (one,) = compared(tmp_path / "*")["comparisons"]
    assert (one["method"], one["models"]) == (None, None)
    assert "nothing can be concluded" in one["sentence"]


def test_holm_counts_all_pairs_as_the_best_is_chosen_by_the_same_figures(tmp_path):
    write_recipe(tmp_path, "a", (900, 910, 905), epochs=2)
    write_recipe(tmp_path, "b", (920, 931, 924), epochs=3)
    write_recipe(tmp_path, "c", (925, 926, 927), epochs=4)
    result = compared(tmp_path / "*")
    sentences = result["conclusions"]
    assert len(sentences) == 2
    assert all("Holm's correction for 3 comparisons" in s for s in sentences)
    p = {one["against"]: one for one in result["comparisons"]}["epochs=2"]
    alone = scipy.stats.ttest_rel([925, 926, 927], [900, 910, 905]).pvalue
    assert p["holm_p"] == pytest.approx(2 * alone)  # b against a has the smallest p


def test_holm_holds_for_models_too(tmp_path):
    for i, correct in enumerate((900, 906, 907)):
        write_run(tmp_path / str(i), correct, epochs=2 + i)
    result = compared(tmp_path / "*")
    against = {one["against"]: one for one in result["comparisons"]}["epochs=2"]
    assert against["models"]["p"] == pytest.approx(2 * 0.5**7)
    assert against["holm_p"] == pytest.approx(3 * 2 * 0.5**7)
    assert "p = 0.047 after Holm's correction for 3 comp" in against["sentence"]


def test_equal_means_share_a_rank(tmp_path):
    for i, correct in enumerate((900, 950, 950, 800)):
        write_run(tmp_path / str(i), correct, epochs=2 + i)
    assert [r["rank"] for r in compared(tmp_path / "*")["recipes"]] == [1, 1, 3, 4]


def test_one_recipe_is_tabulated_and_concludes_nothing(tmp_path):
    write_recipe(tmp_path, "a", (900, 910))
    result = compared(tmp_path / "*")
    assert [row["recipe"] for row in result["recipes"]] == ["digits-tutorial"]
    assert result["conclusions"] == []
    assert comparison.FORMS["table"](result).count("\n") == 1


def test_an_interval_ends_at_100_percent(tmp_path):
    write_recipe(tmp_path, "a", (1000, 960))
    assert compared(tmp_path / "*")["recipes"][0]["interval_high"] == 1


def names(folder):
    recipes, _ = collect([str(folder / "*")])
    return sorted(recipe["name"] for recipe in recipes)


def test_a_recipe_is_named_by_its_experiment(tmp_path):
    write_run(tmp_path / "a", 900, experiment="tutorial-bn", batch_norm=1)
    write_run(tmp_path / "b", 900, experiment="tutorial")
    assert names(tmp_path) == ["tutorial", "tutorial-bn"]
    write_run(tmp_path / "c", 900, experiment="tutorial", epochs=5)
    assert names(tmp_path) == [
        "tutorial batch_norm=0 epochs=12",
        "tutorial batch_norm=0 epochs=5",
        "tutorial-bn",
    ]


def test_a_recipe_is_named_by_the_knobs_that_differ(tmp_path):
    write_run(tmp_path / "a", 900, epochs=2)
    write_run(tmp_path / "b", 900, seed=1, epochs=2, experiment="tutorial")
    write_run(tmp_path / "c", 900, epochs=2, train_size=100, dense_units=(64, 32))
    assert names(tmp_path) == [
        "train_size=100 dense_units=64,32",
        "train_size=default dense_units=128",
    ]


def test_knobs_that_follow_from_another_are_not_told(tmp_path):
    write_run(tmp_path / "a", 900, model="mlp")
    write_run(tmp_path / "b", 900, model="convnet")
    write_run(tmp_path / "c", 900, model="convnet", dropout=0.3)
    assert names(tmp_path) == [
        "model=convnet",
        "model=convnet dropout=0.3",
        "model=mlp",
    ]


def test_the_machine_makes_no_other_recipe(tmp_path):
    write_run(tmp_path / "a", 900, precision="float32", cache="disk", data_dir="x")
    write_run(tmp_path / "b", 910, seed=1, jit_compile="on")
    assert names(tmp_path) == ["digits-tutorial"]


def test_a_run_that_is_older_than_a_knob_has_its_default(tmp_path):
    write_run(tmp_path / "new", 950, seed=0)
    old = write_run(tmp_path / "old", 900, seed=1)
    note = json.loads((old / "config.json").read_text())
    for name in ("crop", "initializer", "spatial_dropout", "image_size"):
        del note["config"][name]
    (old / "config.json").write_text(json.dumps(note))
    recipes, notes = collect([str(tmp_path / "*")])
    assert [len(recipe["runs"]) for recipe in recipes] == [2] and not notes


def test_of_one_seed_the_newest_run_stays(tmp_path):
    write_run(tmp_path / "a", 900, started=2)
    write_run(tmp_path / "b", 950, started=1)
    recipes, notes = collect([str(tmp_path / "b"), str(tmp_path / "a")])
    assert [run["accuracy"] for run in recipes[0]["runs"]] == [0.9]
    assert len(notes) == 1
    assert notes[0].startswith(f"{tmp_path / 'b'}: left out: {tmp_path / 'a'} is the n")


def test_incomplete_and_damaged_runs_are_named_and_left_out(tmp_path):
    for name in "abcd":
        write_run(tmp_path / name, 900, seed=ord(name))
    (tmp_path / "a" / "evaluation.json").unlink()
    (tmp_path / "b" / "evaluation.json").write_text("{")
    (tmp_path / "c" / "predictions.npz").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    recipes, notes = collect([str(tmp_path / "*"), str(tmp_path / "d")])
    assert [run["path"] for run in recipes[0]["runs"]] == [str(tmp_path / "d")]
    assert [note.split(": left out: ")[0] for note in notes] == [
        str(tmp_path / name) for name in ("a", "b", "c", "empty")
    ]


def test_predictions_that_cannot_fit_are_not_read(two, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10)
    with pytest.raises(UsageError, match=r"the arrays in predictions\.npz need"):
        compared(two / "*")


def test_runs_without_predictions_are_ranked_without_mcnemar(tmp_path):
    for i in range(2):
        run = write_run(tmp_path / str(i), 900 + 50 * i, epochs=2 + i)
        (run / "predictions.npz").unlink()
    (one,) = compared(tmp_path / "*")["comparisons"]
    assert (one["method"], one["models"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "mnist"}, "another data set (digits and mnist)"),
        ({"images": 999}, "another number of test images (1000 and 999)"),
    ],
)
def test_different_test_sets_are_refused(tmp_path, change, words):
    write_run(tmp_path / "a", 900)
    write_run(tmp_path / "b", 900, **{"seed": 1} | change)
    with pytest.raises(UsageError) as caught:
        collect([str(tmp_path / "*")])
    assert words in str(caught.value)
    assert f"{tmp_path / 'a'} and {tmp_path / 'b'}" in str(caught.value)


@pytest.mark.parametrize("key", ["indices", "labels"])
def test_different_test_images_are_refused(tmp_path, key):
    write_run(tmp_path / "a", 900)
    (write_run(tmp_path / "b", 900, seed=1) / "predictions.npz").unlink()
    path = write_run(tmp_path / "c", 900, seed=2) / "predictions.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays[key] = arrays[key][::-1]
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=r"a and .*c were tested on different images"):
        collect([str(tmp_path / "*")])


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        collect([str(tmp_path / "no*")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no complete run .*no config.json"):
        collect([str(tmp_path / "empty")])


@pytest.fixture
def awkward(two):
    """The comparison of `two` under names with special characters."""
    result = compared(two / "*")
    result["recipes"][0]["recipe"] = "a|b_$5&#{~^\\"
    result["conclusions"] = ["a|b is better"]
    return result


def test_markdown_escapes_pipes(awkward):
    head, rule, first, *_, said = comparison.FORMS["markdown"](awkward).split("\n")
    assert head.startswith("| rank | recipe | n | accuracy |")
    assert rule.startswith("| ---: | --- | ---: | ---: |")
    assert first.startswith("| 1 | a\\|b_$5&#{~^\\\\ | 3 | 92.50% | 0.56% |")
    assert said == "- a\\|b is better"


def test_latex_escapes_special_characters(awkward):
    lines = comparison.FORMS["latex"](awkward).split("\n")
    assert lines[0] == r"\begin{tabular}{rlrrrrlrrrrrrr}"
    assert lines[4].startswith(
        r"1 & a|b\_\$5\&\#\{\textasciitilde{}\textasciicircum{}\textbackslash{} & 3 &"
        r" 92.50\% &"
    )
    assert lines[-1] == r"\end{tabular}"
    assert "better" not in "".join(lines)


def test_csv_and_json_hold_plain_numbers(awkward):
    rows = list(csv.DictReader(io.StringIO(comparison.FORMS["csv"](awkward))))
    assert rows[0]["recipe"] == "a|b_$5&#{~^\\"
    assert float(rows[0]["accuracy"]) == pytest.approx(0.925)
    assert "runs" not in rows[0]
    assert json.loads(comparison.FORMS["json"](awkward)) == json.loads(
        json.dumps(awkward)
    )


def test_the_command_answers_at_once_and_writes_all_forms(two, kcnn):
    (write_run(two / "unfinished", 1) / "evaluation.json").unlink()
    done = kcnn("compare", "a-*", "b-*", "unfinished", "--output=out")
    assert done.returncode == 0, done.stderr
    notes = done.stderr.split("\n")
    assert notes[0] == (
        "kcnn compare: unfinished: left out: not complete, no evaluation.json"
    )
    assert notes[1].startswith("kcnn compare: learning_curves.png: left out: ")
    lines = done.stdout.split("\n")
    assert lines[0].split()[:4] == ["rank", "recipe", "n", "accuracy"]
    assert lines[1].split()[:4] == ["1", "learning_rate=0.002", "3", "92.50%"]
    assert lines[4].startswith("learning_rate=0.002 is better than learning_rate=0.02")
    assert sorted(path.name for path in (two / "out").iterdir()) == [
        "accuracy.png",
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "comparison.tex",
        "cost.png",
        "knob.png",
    ]
    assert lines[-2] == "page       out/comparison.html"
    refused = kcnn("compare", "nowhere*")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("kcnn compare: nowhere*: no such folder")


def test_neither_tensorflow_nor_for_a_refusal_scipy_is_imported(two):
    script = (
        "import sys; from kcnn import cli\n"
        "sys.argv = ['kcnn', 'compare', *sys.argv[1:]]\n"
        "cli.main(); print(*(m for m in ('tensorflow', 'keras', 'sklearn', 'scipy') "
        "if m in sys.modules))"
    )

    def imported(*arguments):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split("\n")[-2]

    assert imported(two / "*", f"--output={two / 'out'}") == "scipy"
    assert imported("nowhere") == ""


def rows_of(count, seeds=3, spread=0.004):
    rng = np.random.default_rng(count)
    rows = []
    for i in range(count):
        mean = 0.99 - i * spread
        runs = [{"accuracy": mean + x} for x in rng.uniform(-0.004, 0.004, seeds)]
        rows.append(
            {
                "recipe": f"learning_rate=0.002 filters=16,32,64 dense_units=256,{i} "
                "standardize=pixel label_smoothing=0.1",
                "n": seeds,
                "accuracy": mean,
                "interval_low": mean - 0.01,
                "interval_high": min(1, mean + 0.01),
                "interval_of": "seeds" if seeds > 1 else "images",
                "train_seconds": 30 - (i % 4) * 5 + i * 0.1,
                "runs": runs,
            }
        )
    return rows


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("seeds", [1, 3])
def test_plots_keep_their_texts_apart(tmp_path, count, seeds):
    rows = rows_of(count, seeds)
    for draw in (comparison_plots.accuracies, comparison_plots.cost):
        assert_text_apart_and_inside(draw(rows, tmp_path / "a.png"))
    same = [row | {"accuracy": 0.9, "train_seconds": 5} for row in rows]
    assert_text_apart_and_inside(comparison_plots.cost(same, tmp_path / "b.png"))


def test_the_pareto_front():
    figures = [(10, 0.99), (5, 0.98), (7, 0.97), (5, 0.90), (1, 0.5), (1, 0.5)]
    rows = [{"train_seconds": s, "accuracy": a} for s, a in figures]
    assert comparison_plots.pareto_front(rows) == [0, 1, 4, 5]


def test_a_sweeps_folder_stands_for_its_runs(two):
    for name in ("sweep.json", "sweep.csv"):
        (two / name).write_text("{}")
    (two / "exports").mkdir()
    by_folder, _ = collect([str(two)])
    by_shell, _ = collect([str(path) for path in sorted(two.glob("[abs]*"))])
    assert [r["name"] for r in by_folder] == [r["name"] for r in by_shell]
    assert sum(len(recipe["runs"]) for recipe in by_shell) == 6
    assert sum(len(recipe["runs"]) for recipe in by_folder) == 6
