"""What a comparison's pictures and page show: values by hand, the page parsed."""

import base64
import hashlib
import html.parser
import json
import re

import matplotlib.colors
import numpy as np
import pytest

from kcnn import (
    comparison,
    comparison_curves,
    comparison_page,
    comparison_pictures,
    contrast,
    galleries,
    pages,
    predictions,
)
from kcnn.contrast_plots import confusion_difference, signed
from kcnn.errors import UsageError
from kcnn.recipes import collect, swept_knob
from kcnn.run import Run
from tests.test_comparison import write_recipe, write_run
from tests.test_plots import assert_text_apart_and_inside

EVIL = "</script><script>alert('x')</script>"


def run_of(seed, predicted, labels=(0, 0, 1, 1, 2, 2), accuracy=0.5, path="run"):
    predicted, labels = np.array(predicted), np.array(labels)
    return {
        "path": str(path),
        "random_seed": seed,
        "predicted": predicted,
        "labels": labels,
        "right": predicted == labels,
        "accuracy": accuracy,
        "loss": 1 - accuracy,
    }


def recipe_of(*runs):
    return {"runs": list(runs)}


def test_the_difference_of_confusion_matrices_is_the_mean_over_common_seeds():
    a = recipe_of(
        run_of(0, [0, 0, 1, 1, 2, 2]),
        run_of(1, [0, 0, 1, 1, 2, 0]),
        run_of(7, [2, 2, 2, 2, 2, 2]),  # b has no such seed
    )
    b = recipe_of(run_of(0, [0, 1, 1, 1, 2, 2]), run_of(1, [0, 1, 1, 1, 2, 2]))
    difference, seeds = contrast.confusion_difference(a, b, 3)
    assert seeds == [0, 1]
    assert difference.tolist() == [[1, -1, 0], [0, 0, 0], [0.5, 0, -0.5]]


def test_without_common_seeds_the_means_are_compared():
    a = recipe_of(run_of(0, [0, 0, 1, 1, 2, 2]), run_of(1, [0, 1, 1, 1, 2, 2]))
    b = recipe_of(run_of(2, [1, 1, 1, 1, 2, 2]))
    difference, seeds = contrast.confusion_difference(a, b, 3)
    assert seeds == []
    assert difference.tolist() == [[1.5, -1.5, 0], [0, 0, 0], [0, 0, 0]]
    assert "no common seed" in contrast.seeds_said(seeds)


def write_probabilities(folder, predicted, sure):
    folder.mkdir()
    probabilities = np.full((len(predicted), 3), 0.0)
    for row, label, p in zip(probabilities, predicted, sure, strict=True):
        row[:] = (1 - p) / 2
        row[label] = p
    n = len(predicted)
    found = predictions.Predictions(np.arange(n), np.zeros(n, int), probabilities)
    predictions.write(Run(folder).predictions, found, None)
    return run_of(0, predicted, path=folder)


def test_disagreements_are_grouped_by_who_is_right_and_ordered_by_sureness(tmp_path):
    # the labels are 0 0 1 1 2 2
    a = write_probabilities(tmp_path / "a", [0, 0, 1, 0, 0, 2], (0.9,) * 6)
    b = write_probabilities(
        tmp_path / "b", [1, 2, 1, 1, 1, 2], (0.5, 0.8, 0.9, 0.9, 0.9, 0.9)
    )
    groups = contrast.disagreements(a, b)
    assert {name: group.tolist() for name, group in groups.items()} == {
        "only_a": [1, 0],
        "only_b": [3],
        "neither": [4],
    }
    shared = contrast.fair_share(groups, 3)
    assert [group.tolist() for group in shared.values()] == [[1], [3], [4]]
    assert contrast.fair_share(groups, 9)["only_a"].tolist() == [1, 0]


def test_a_run_without_predictions_is_named():
    run = run_of(0, [0] * 6, path="runs/x") | {"predicted": None}
    with pytest.raises(UsageError, match=r"runs/x has no predictions\.npz"):
        contrast.confusion_difference(recipe_of(run), recipe_of(run), 3)
    with pytest.raises(UsageError, match=r"runs/x has no predictions\.npz"):
        contrast.disagreements(run, run)


def test_the_best_run_has_the_highest_accuracy():
    runs = [run_of(s, [0] * 6, accuracy=x) for s, x in enumerate((0.8, 0.9, 0.7))]
    assert contrast.best_run(recipe_of(*runs))["random_seed"] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "+3"),
        (-0.7, "\u22120.7"),
        (1 / 30, "+0.03"),
        (-12.34, "\u221212"),
        (0.96, "+1.0"),
    ],
)
def test_differences_are_written_with_their_sign(value, text):
    assert signed(value) == text


def settings(*several):
    return [{"settings": one} for one in several]


def test_the_swept_knob_is_the_one_number_that_differs():
    base = {"model": "mlp", "learning_rate": 0.1, "optimizer": "sgd", "strict": True}
    other = base | {"learning_rate": 0.2}
    assert swept_knob(settings(base, other)) == "learning_rate"
    assert swept_knob(settings(base, base)) is None
    assert swept_knob(settings(base, other | {"model": "lenet"})) is None
    assert swept_knob(settings(base, base | {"model": "lenet"})) is None
    assert swept_knob(settings(base, base | {"strict": False})) is None
    assert swept_knob(settings(base, base | {"learning_rate": None})) is None
    # Another optimizer brings its own learning rate: the knob is no number.
    usual = base | {"learning_rate": 0.05}
    adam = base | {"optimizer": "adam", "learning_rate": 0.002}
    assert swept_knob(settings(usual, adam)) is None


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ((0.002, 0.02), True),
        ((0.02, 0.2), True),
        ((32, 64, 128), False),
        ((0, 100), False),
        ((-1, 100), False),
        ((100, 250, 1000), True),
    ],
)
def test_an_axis_is_logarithmic_where_the_values_ask_for_it(values, log):
    assert comparison_curves.wants_log(values) is log


def history(losses, accuracies=None):
    accuracies = accuracies or [None] * len(losses)
    return [
        {"epoch": i, "loss": loss, "val_accuracy": accuracy}
        for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1)
    ]


def test_a_band_goes_as_far_as_all_runs():
    runs = [history([3, 2, 1]), history([5, 1]), history([1, 0])]
    found = comparison_curves.band(runs, "loss")
    assert [part.tolist() for part in found] == [[1, 2], [3, 1], [1, 0], [5, 2]]
    assert comparison_curves.band(runs, "val_accuracy") is None


def curves(count, validation=True, epochs=5, seeds=3):
    rng = np.random.default_rng(count)
    recipes = []
    for i in range(count):
        runs = []
        for _ in range(seeds):
            loss = 2 / np.arange(1, epochs + 1) + rng.uniform(0, 0.2, epochs)
            accuracy = (1 - loss / 3).tolist() if validation else None
            runs.append(history(loss.tolist(), accuracy))
        name = f"learning_rate=0.00{i} filters=16,32,64 dense_units=256,{i} epochs=3"
        recipes.append({"name": name, "runs": runs})
    return recipes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("epochs", [1, 60])
def test_learning_curves_keep_their_texts_apart(tmp_path, count, epochs):
    shown = curves(count, epochs=epochs)
    figure = comparison_curves.learning_curves(shown, tmp_path / "a.png")
    assert_text_apart_and_inside(figure)
    looks = {(x.get_marker(), x.get_linestyle()) for x in figure.axes[0].lines}
    assert len(looks) == count  # told apart without color


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves_say_where_there_is_no_validation(tmp_path):
    shown = [*curves(1), *curves(1, validation=False)]
    figure = comparison_curves.learning_curves(shown, tmp_path / "a.png")
    assert len(figure.axes) == 2
    assert ["no validation images" in text for text in legend(figure)[:2]] == [
        False,
        True,
    ]
    none = comparison_curves.learning_curves(shown[1:], tmp_path / "b.png")
    assert len(none.axes) == 1
    assert none.axes[0].get_title() == "no recipe set images aside for validation"


def test_too_many_learning_curves_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 9 recipes, expected 8 at most"):
        comparison_curves.learning_curves(curves(9), tmp_path / "a.png")


def test_places_are_moved_apart_in_their_order():
    assert comparison_curves.spread([5, 5, 1], 2, 0, 10) == [4, 6, 1]
    assert comparison_curves.spread([9.5, 10, 10], 2, 0, 10) == [6, 8, 10]


@pytest.mark.filterwarnings("error")
def test_accuracy_against_a_knob(tmp_path):
    rows = [
        {
            "accuracy": mean,
            "interval_low": mean - 0.02,
            "interval_high": min(1, mean + 0.02),
            "interval_of": of,
            "runs": [{"accuracy": mean - 0.01}, {"accuracy": mean + 0.01}],
        }
        for mean, of in ((0.9, "seeds"), (0.99, "seeds"), (0.5, "images"))
    ]
    figure = comparison_curves.against_knob(
        "learning_rate", [0.02, 0.002, 0.2], rows, tmp_path / "a.png"
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning_rate (log scale)"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.002", "0.02", "0.2"]
    x, y = axes.lines[0].get_data()  # the line through the means, by the knob's value
    assert (x.tolist(), y.tolist()) == ([0.002, 0.02, 0.2], [99, 90, 50])
    (dots,) = (line for line in axes.lines if line.get_label() == "one seed")
    assert dots.get_ydata() == pytest.approx([98, 100, 89, 91])
    assert_text_apart_and_inside(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 10, 60])
def test_the_confusion_differences_colors_are_symmetric(tmp_path, classes):
    values = np.zeros((classes, classes))
    values[0, 1], values[1, 1] = 3, -1.5
    names = ["<b>$5&", "W" * 60, *map(str, range(classes - 2))]
    figure = confusion_difference(
        values, names, ("a" * 90, "b c " * 60), tmp_path / "a.png"
    )
    assert_text_apart_and_inside(figure)
    (image,) = figure.axes[0].images
    assert (image.norm.vmin, image.norm.vmax) == (-3, 3)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == (["+3", "\u22121.5"] if classes <= 20 else [])
    middle = matplotlib.colors.to_rgb(image.cmap(0.5))
    assert min(middle) > 0.95  # no difference is white


def test_equal_confusion_matrices_are_said_to_be_equal(tmp_path):
    figure = confusion_difference(
        np.zeros((3, 3)), list("abc"), ("A", "B"), tmp_path / "a.png"
    )
    assert figure.axes[0].get_title() == "no difference in any cell"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 7])
def test_the_gallery_of_disagreements_says_who_is_right(tmp_path, count):
    item = {
        "image": np.zeros((8, 8, 1), np.uint8),
        "true": "cat",
        "a": "cat",
        "b": "dog" * 30,
        "probability_a": 0.9,
        "probability_b": 0.6,
        "name": EVIL,
    }
    counts = {"only_a": 1234, "only_b": 0, "neither": 0}
    path = tmp_path / "a.png"
    figure = galleries.disagreements([item] * count, path, ("a" * 90, "b"), counts)
    assert_text_apart_and_inside(figure)
    title, *captions = [text.get_text() for text in figure.axes[0].texts]
    assert len(captions) == count
    lines = captions[0].split("\n")
    assert lines[:2] == ["is cat", "A \u2713 cat (90 %)"]
    assert lines[2].startswith("B \u2717 d") and lines[2].endswith("(60 %)")
    assert "only A right: 1,234" in title


class Page(html.parser.HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.heads, self.scripts = [], [], [], []
        self._inside = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", dict(attributes)])
        if tag == "script":
            self.scripts.append([dict(attributes), ""])

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        inside = self._inside[-1:] or [""]
        if inside[0] in ("td", "th"):
            self.rows[-1][-1][0] += data
        if inside[0] == "script":
            self.scripts[-1][1] += data


@pytest.fixture
def three(tmp_path):
    """Recipes of 3, 3 and 1 runs, with metrics, reports and a nasty place."""
    place = tmp_path / EVIL.replace("/", "") / "runs"
    write_recipe(place, "a", (900, 910, 905), learning_rate=0.02)
    write_recipe(place, "b", (920, 931, 924), learning_rate=0.002)
    write_run(place / "c", 800, learning_rate=0.2)
    for path in place.iterdir():
        Run(path).report.write_text(f"<!DOCTYPE html><p>{path.name} {EVIL} \u2713")
        lines = ["epoch,loss,val_accuracy", "1,0.5,0.8", "2,0.25,"]
        Run(path).metrics.write_text("\n".join(lines))
    return place


def written(place, **changes):
    recipes, notes = collect([str(place / "*")])
    assert notes == []
    result = comparison.compare(recipes) | changes
    page, notes = comparison_page.write(result, recipes, place.parent / "out")
    return page, notes, Page(page.read_text(encoding="utf-8"))


def test_the_page_is_a_sortable_table_with_the_figures(three):
    _, _, page = written(three)
    head, first, *_, last = page.rows
    columns = [text for text, _ in head]
    assert columns[:4] == ["recipe", "rank", "n", "accuracy"]
    assert [a.get("aria-sort") for _, a in head].count("ascending") == 1
    assert head[1][1]["aria-sort"] == "ascending"
    assert head[3][1]["data-first"] == "descending"
    assert first[0] == ["learning_rate=0.002", {"scope": "row"}]
    cells = dict(zip(columns, first, strict=True))
    assert cells["accuracy"][0] == "92.50%"
    assert float(cells["accuracy"][1]["data-value"]) == pytest.approx(0.925)
    assert "data-value" not in cells["interval of"][1]
    alone = dict(zip(columns, last, strict=True))
    assert alone["deviation"] == ["\u2013", {"data-value": ""}]


def test_only_the_pages_own_script_may_run(three):
    path, _, page = written(three)
    data, (attributes, script) = page.scripts
    assert data[0] == {"type": "application/json", "id": "reports"}
    assert attributes == {}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [a["content"] for t, a in page.tags if a.get("http-equiv")]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    ]
    assert not [a for _, a in page.tags if any(k.startswith("on") for k in a)]
    assert not re.search(r'(?:src|href)="(?!data:)', path.read_text())
    (frame,) = (a for t, a in page.tags if t == "iframe")
    assert frame["sandbox"] is None  # the attribute without any permission


def test_a_click_finds_the_runs_own_reports(three):
    _, _, page = written(three)
    recipes = json.loads(page.scripts[0][1])
    assert [r["name"].split("=")[1] for r in recipes] == ["0.002", "0.02", "0.2"]
    best = recipes[0]
    assert [run["seed"] for run in best["runs"]] == [0, 1, 2]
    assert best["best"] == 1
    assert best["runs"][1]["page"] == f"<!DOCTYPE html><p>b-1 {EVIL} \u2713"
    assert best["runs"][1]["accuracy"] == pages.percent(0.931)


def test_reports_that_find_no_room_are_linked_the_best_runs_come_first(
    three, monkeypatch
):
    size = (three / "b-0" / "report.html").stat().st_size
    monkeypatch.setattr(comparison_page, "MOST_EMBEDDED", 4 * size)
    (three / "a-0" / "report.html").unlink()
    _, _, page = written(three)
    recipes = json.loads(page.scripts[0][1])
    inside = [[run["page"] is not None for run in r["runs"]] for r in recipes]
    assert inside == [[True, True, False], [False, True, False], [True]]
    left_out, missing = recipes[0]["runs"][2], recipes[1]["runs"][0]
    assert "To keep this page small" in left_out["reason"]
    assert left_out["link"] == "../runs/b-2/report.html"
    assert missing["reason"] == "This run has no report.html:"


def test_what_cannot_be_drawn_is_said_and_not_left_from_before(three):
    out = three.parent / "out"
    out.mkdir()
    (out / "disagreements.png").touch()
    (three / "b-1" / "metrics.csv").unlink()
    _, notes, page = written(three)
    assert notes == [
        f"learning_curves.png: left out: {three / 'b-1'} has no metrics.csv",
        "confusion_difference.png: left out: config.json: damaged: spec has no "
        "'class_names'",
        "disagreements.png: left out: config.json: damaged: spec has no 'class_names'",
    ]
    assert sorted(path.name for path in out.glob("*.png")) == [
        "accuracy.png",
        "cost.png",
        "knob.png",
    ]
    assert len([1 for tag, _ in page.tags if tag == "img"]) == 3


def test_nasty_names_do_nothing(three):
    path, _, page = written(three, conclusions=[f"{EVIL} is better & <b>"])
    text = path.read_text()
    assert "alert('x')</script>" not in text
    assert "&lt;/script&gt;&lt;script&gt;" in text
    assert len(page.scripts) == 2


def test_a_data_set_that_is_not_prepared_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    for name, correct in (("a", 900), ("b", 910)):
        path = write_run(tmp_path / name, correct, dataset="mnist", epochs=correct)
        note = json.loads((path / "config.json").read_text())
        names = [EVIL, "b"]
        note["spec"] = {"height": 8, "width": 8, "channels": 1, "class_names": names}
        (path / "config.json").write_text(json.dumps(note))
        Run(path).metrics.write_text("epoch,loss,val_accuracy\n1,0.5,\n")
    recipes, _ = collect([str(tmp_path / "*")])
    drawn, notes = comparison_pictures.draw(
        comparison.compare(recipes), recipes, tmp_path / "out"
    )
    assert notes == [
        f"disagreements.png: left out: --dataset: mnist is not prepared in "
        f"{tmp_path / 'empty'}, so its images cannot be shown; TFDS_DATA_DIR tells "
        "where it is"
    ]
    assert [picture.path.stem for picture in drawn] == [
        "accuracy",
        "knob",
        "learning_curves",
        "cost",
        "confusion_difference",
    ]


def digits_run(path, wrong, seed, split, **knobs):
    """Write a run on the real digits that has the test images `wrong` wrong."""
    write_run(path, len(split) - len(wrong), seed, images=len(split), **knobs)
    note = json.loads((path / "config.json").read_text())
    names = list(map(str, range(10)))
    note["spec"] = {"height": 28, "width": 28, "channels": 1, "class_names": names}
    (path / "config.json").write_text(json.dumps(note))
    said = split.labels.copy()
    said[wrong] = (said[wrong] + 1) % 10
    np.savez(
        path / "predictions.npz",
        indices=split.indices,
        labels=split.labels,
        probabilities=np.eye(10)[said],
    )
    Run(path).metrics.write_text("epoch,loss,val_accuracy\n1,0.5,0.9\n")


def test_the_gallery_shows_the_images_the_runs_were_tested_on(tmp_path, monkeypatch):
    from kcnn import pipeline
    from kcnn.config import Config
    from kcnn.datasets import load

    split = load(Config(dataset="digits")).test
    digits_run(tmp_path / "a", [3], 0, split, epochs=2)
    digits_run(tmp_path / "b", [3, 5], 0, split, epochs=3)
    shown = []

    def keep(items, path, names, counts):
        shown.append((items, names, counts))
        path.touch()

    monkeypatch.setattr(galleries, "disagreements", keep)
    recipes, _ = collect([str(tmp_path / "*")])
    _, notes = comparison_pictures.draw(
        comparison.compare(recipes), recipes, tmp_path / "out"
    )
    assert notes == []
    ((items, names, counts),) = shown
    assert counts == {"only_a": 1, "only_b": 0, "neither": 0}
    assert names == ("epochs=2, random seed 0", "epochs=3, random seed 0")
    (item,) = items
    assert np.array_equal(item["image"], pipeline.images_at(split, np.array([5]))[0])
    assert item["true"] == item["a"] == str(split.labels[5])
    assert item["b"] == str((split.labels[5] + 1) % 10)
    assert item["name"] == split.names(5)


def test_the_headline_says_no_more_than_the_tests(three):
    recipes, _ = collect([str(three / "*")])
    result = comparison.compare(recipes)
    said = comparison_page.headline(result)
    assert said.startswith("mean test accuracy of 3 seeds of learning_rate=0.002 (95% ")
    assert said.endswith("It is shown to be better than 1 of the 2 others.")
    singles = [one | {"method": "McNemar"} for one in result["comparisons"]]
    said = comparison_page.headline(result | {"comparisons": singles})
    assert said.endswith("cannot be told from these runs.")
    alone = comparison_page.headline(result | {"comparisons": []})
    assert alone.endswith("%).")
