"""The model card: what it says of a run, and that names cannot break it."""

import json

import numpy as np
import pytest

from kcnn import model_card
from kcnn.confidence import PLAIN, Rule
from kcnn.evaluation import evaluate_logits
from tests import test_report

NAMES = ["<b>cat</b>", "dog|wolf", "`fox`"]


def scores(names=NAMES):
    """Ten images: two of the second class are taken for the third, one for the 1st."""
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    predicted = np.array([0, 0, 0, 1, 2, 2, 0, 2, 2, 2])
    logits = 5.0 * np.eye(len(names))[predicted]
    return {"test": evaluate_logits(logits, labels, names)}


def card_of(names=NAMES, rule=PLAIN, license=None, more=None, **settings):
    note = test_report.note(**settings)
    note["spec"]["class_names"] = names
    found = scores(names) | (more or {})
    return model_card.model_card("pets", note, found, rule, license)


def page_of(card):
    return model_card.files(card)["README.md"].decode()


def test_the_card_has_the_runs_own_figures():
    card = card_of(license="Apache-2.0")
    assert json.loads(model_card.files(card)["model_card.json"]) == card
    assert card["license"] == "Apache-2.0"
    assert card["test"]["accuracy"] == 0.7
    assert card["test"]["confusion_matrix"] == [[3, 0, 0], [1, 1, 2], [0, 0, 3]]
    assert card["confused"] == [
        {"true": "dog|wolf", "predicted": "`fox`", "images": 2},
        {"true": "dog|wolf", "predicted": "<b>cat</b>", "images": 1},
    ]
    page = page_of(card)
    for text in (
        "**70.00%** of 10 test images right (95% interval 39.68% to 89.22%)",
        "| License | Apache-2.0 |",
        "1,300 images to train on, 137 to validate, 360 to test",
        "with python 3.11.7, kcnn 0.1.0; commit unknown",
        r"| dog\|wolf | 1 | 1 | 2 |",
        r"classes dog\|wolf is recognized least: 25.00% of its 4 test images.",
        "## Intended use",
        "\n    kcnn train --extra_class=",
    ):
        assert text in page, text


def test_names_are_shown_and_not_run():
    page = page_of(card_of())
    assert "<b>" not in page.replace(r"\<b\>", "")
    assert r"\<b\>cat\</b\>" in page
    assert r"\`fox\`" in page
    before, _, command = page.partition("## Make it again")
    assert "<script>" not in before.replace(r"\<script\>", "")
    # In a block of code nothing is: every line of it is indented.
    assert all(line[:4] == "    " for line in command.split("\n") if line)


def test_a_license_that_nobody_has_stated_is_said_to_be_so():
    card = card_of()
    assert card["license"] is None
    assert "| License | not stated: ask who gave you the model |" in page_of(card)


@pytest.mark.parametrize("count, shown", [(20, True), (21, False)])
def test_a_large_matrix_is_left_to_the_json(count, shown):
    page = page_of(card_of([f"class {i}" for i in range(count)]))
    assert ("Rows are true classes" in page) == shown
    assert ("| class 1 | class 2 | 2 |" in page) != shown


def test_the_limits_follow_the_rule():
    says = "names one of its classes for every image"
    assert any(says in text for text in card_of()["limits"])
    rejection = {
        "coverage": 0.9,
        "coverage_interval": [0.8, 0.95],
        "accepted": 9,
        "accuracy": 0.7,
        "accuracy_interval": [0.4, 0.9],
        "mistakes": 3,
        "aurc": 0.1,
    }
    card = card_of(
        rule=Rule(2.0, "energy", 1.5), more={"rejection": {"test": rejection}}
    )
    limits = "\n".join(card["limits"])
    assert says not in limits
    assert "not calibrated" not in limits
    assert "no class it accepts has not been tested" in limits
    page = page_of(card)
    assert "- temperature 2; accepted from energy 1.5 on\n" in page
    assert "- accepted 90.00% (95% interval 80.00% to 95.00%) of the images\n" in page


def test_normalized_input_is_named():
    note = test_report.note()
    note["spec"] |= {"class_names": NAMES, "normalize_input": "mnist"}
    card = model_card.model_card("pets", note, scores(), PLAIN, None)
    assert card["input"]["normalize_input"] == "mnist"
    assert any("as MNIST's digits were made" in text for text in card["limits"])
    assert "normalized as mnist" in page_of(card)
