import base64
import html.parser
import json
import re

import pytest

from kcnn import pages, report
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.files import write_csv, write_json

EVIL = "<script>alert('x')</script>"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def split(n, mistakes, **more):
    return {
        "n": n,
        "accuracy": 1 - mistakes / n,
        "accuracy_interval": [0.9123, 0.9876],
        "loss": 0.12345,
        "macro_f1": 0.95,
        "expected_calibration_error": 0.0123,
        "per_class": [
            {"name": EVIL, "precision": 1, "recall": 0.5, "f1": 0.6667, "support": 9},
            {"name": "b&b", "precision": 1, "recall": 1, "f1": 1, "support": 9},
        ],
        "confusion_matrix": [[5, 4], [0, 9]],
        "reliability": [],
        "seconds": 0.5,
        "images_per_second": 720.0,
    } | more


def evaluation(**more):
    return {
        "train": split(1300, 13),
        "validation": split(137, 1),
        "test": split(360, 18),
        "skipped_files": [{"file": f"{EVIL}.png", "reason": "truncated"}],
        "timing": {
            "train_seconds": 125.0,
            "median_epoch_seconds": 10.0,
            "mean_epoch_seconds": 10.4,
            "images_per_second": 1300.0,
            "first_step_seconds": 0.25,
            "checkpoint_seconds": 0.1,
            "test_seconds": 0.5,
            "total_seconds": 3900.0,
        },
        "export": {
            "path": "saved_models/it's mine/1",
            "signatures": ["serving_default", "serving_bytes"],
            "checked_images": 64,
            "largest_difference": 1.5e-7,
        },
        "reported": {
            "accuracy": 0.9917,
            "loss": None,
            "seconds": 60.0,
            "note": "MNIST",
        },
    } | more


def note(**settings):
    return {
        "config": Config(**settings).to_dict(),
        "experiment": None,
        "command": f"kcnn train --extra_class='{EVIL}'",
        "model_dir": "runs/digits-1",
        "versions": {"python": "3.11.7", "kcnn": "0.1.0"},
        "commit": None,
        "hardware": {"processor": "CPU", "cores": 2, "memory_gib": 7.5, "gpus": []},
        "precision": {"policy": "float32", "reason": "no hardware for less"},
        "jit_compile": False,
        "spec": {
            "height": 28,
            "width": 28,
            "channels": 1,
            "class_names": [EVIL, "b&b"],
        },
        "model": {
            "parameters": 1290,
            "trainable_parameters": 1280,
            "flops": 2560,
            "layers": [
                {
                    "name": "logits",
                    "kind": "Dense",
                    "detail": "10 units",
                    "output_shape": [10],
                    "parameters": 1290,
                    "flops": 2560,
                }
            ],
        },
        "data": {"train": 1300, "validation": 137, "test": 360, "notes": [EVIL]},
        "started": "2026-01-02T03:04:05+00:00",
    }


@pytest.fixture
def page_of(tmp_path):
    def render(result=None, validation=True, pictures=(), **settings):
        rows = [
            {
                "epoch": epoch,
                "loss": 1 / epoch,
                "accuracy": 0.9,
                "val_loss": 0.5 if validation else None,
                "val_accuracy": 0.91 if validation else None,
                "learning_rate": 0.001,
                "seconds": 10.0,
                "images_per_second": 1300.0,
            }
            for epoch in (1, 2)
        ]
        write_json(tmp_path / "config.json", note(**settings))
        write_json(tmp_path / "evaluation.json", result or evaluation())
        write_csv(tmp_path / "metrics.csv", rows)
        (tmp_path / "plots").mkdir()
        for name in pictures:
            (tmp_path / "plots" / f"{name}.png").write_bytes(PNG)
        path = report.write_report(tmp_path)
        assert path == tmp_path / "report.html"
        return path.read_text()

    return render


def text_of(page):
    """The page as a reader sees it, in one line."""
    body = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(body).replace("\u202f", " ").split())


def test_the_headline_is_the_test_accuracy(page_of):
    text = text_of(page_of())
    assert "95.00 % test accuracy, 95 % interval 91.23 % to 98.76 %" in text
    assert "18 mistakes on 360 test images" in text


def test_every_split_has_a_row_and_a_missing_one_is_said(page_of):
    text = text_of(page_of(evaluation(validation=None), validation=False))
    assert "train 1,300 99.00 % 91.23 % – 98.76 % 0.1235 95.00 % 1.23 %" in text  # noqa: RUF001
    assert "validation 137" not in text
    assert "No images were set aside for validation" in text
    assert "2 0.5000 90.00 % – –" in text  # noqa: RUF001


def test_top_5_is_shown_where_it_was_measured(page_of):
    more = {"top_5_accuracy": 0.9987}
    splits = {name: split(100, 1, **more) for name in ("train", "validation", "test")}
    assert text_of(page_of(evaluation(**splits))).count("99.87 %") == 3


def test_published_figures_stand_beside_the_measured(page_of):
    text = text_of(page_of())
    assert "test accuracy 99.17 % 95.00 % (91.23 % to 98.76 %)" in text
    assert "training time 1 min 0 s 2 min 5 s" in text
    assert "test loss" not in text  # none was published
    assert "One run concludes little" in text


def test_nothing_published_nothing_compared(page_of):
    page = page_of(evaluation(reported=None))
    assert "Published and measured" not in page


class Tags(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_are_escaped(page_of):
    page = page_of()
    assert not any(tag == "script" for tag, _ in Tags(page).found)
    text = text_of(page)
    assert f"{EVIL} 100.00 % 50.00 % 66.67 % 9" in text
    assert f"{EVIL}.png : truncated" in text
    assert "b&b 100.00 %" in text


def test_the_page_fetches_nothing(page_of):
    pictures = ("learning_curves", "architecture", "something_new")
    page = page_of(pictures=pictures)
    links = [
        value
        for _, attributes in Tags(page).found
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data", "action")
    ]
    assert len(links) == 4  # three pictures and the empty icon
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in page
    assert "@import" not in page
    encoded = base64.b64encode(PNG).decode()
    assert page.count(encoded) == 3


def test_pictures_come_in_order_and_unknown_ones_last(page_of):
    page = page_of(pictures=("another_one", "mistakes", "learning_curves"))
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == ["Learning curves", "Mistakes", "another one"]


def test_only_what_was_set_is_listed_as_changed(page_of):
    page = page_of(model="convnet", epochs=3)
    changed = text_of(page.split("What differs")[1].split("<details>")[0])
    assert "model convnet tutorial" in changed
    assert "epochs 3 12" in changed
    assert "filters" not in changed  # (16, 32) is convnet's own default
    folded = text_of(page.split("all settings")[1])
    assert "filters 16,32" in folded
    assert "extra_conv" not in folded  # convnet has no such knob


def test_defaults_are_said_to_be_defaults(page_of):
    assert "All at their defaults" in page_of()


def test_the_snippet_is_python(page_of):
    page = html.unescape(page_of())
    snippet = page.split("<h2>Use it</h2>")[1].split("<pre>")[1].split("</pre>")[0]
    compile(snippet, "snippet", "exec")
    assert """tf.saved_model.load("saved_models/it's mine/1")""" in snippet
    assert 'signatures["serving_bytes"](contents=contents)' in snippet


def test_without_an_export_the_page_says_how_to_get_one(page_of):
    page = page_of(evaluation(export=None))
    assert "kcnn export" in page
    assert "tf.saved_model.load" not in page


def test_a_run_that_did_not_finish_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        report.write_report(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(note()))
    with pytest.raises(UsageError, match="not finished"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_durations_read_as_people_say_them():
    spoken = [pages.duration(s) for s in (0.0042, 3.14, 59.99, 125, 3599.7, 7500)]
    assert spoken == [
        "4.2 ms",
        "3.1 s",
        "59.9 s",
        "2 min 5 s",
        "1 h 0 min",
        "2 h 5 min",
    ]


@pytest.mark.parametrize(
    "start", [{}, {"start_seconds": None}, {"start_seconds": 61.0}]
)
def test_page_says_how_long_the_start_took_where_that_is_known(page_of, start):
    result = evaluation()
    result["timing"] |= start  # runs of an older version have none
    assert ("first training step" in page_of(result)) == bool(
        start.get("start_seconds")
    )
