"""The trained model that is kept in saved_models/."""

import json
import pathlib

import numpy as np
import pytest

from kcnn.config import Config
from kcnn.datasets import load_split
from kcnn.experiments import settings_of
from kcnn.export import CARD
from kcnn.inference import Classifier
from kcnn.pipeline import images_at
from kcnn.spec import ImageSpec
from tests.conftest import bar_and_ring

MODEL = pathlib.Path(__file__).parents[1] / "saved_models" / "mnist-tiny"
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def card():
    return json.loads((MODEL / "1" / CARD).read_text())


def test_it_is_small():
    assert [path.name for path in MODEL.iterdir()] == ["1"]
    sizes = [path.stat().st_size for path in MODEL.rglob("*") if path.is_file()]
    assert 10_000 < sum(sizes) < MOST_BYTES


def test_its_card_tells_what_it_reached_and_how_it_is_made_again(card):
    assert card["test"]["n"] == 10_000
    assert card["test"]["accuracy"] >= 0.99
    assert card["command"] == "kcnn train --experiment=mnist-tiny"
    # Knobs that are younger than the card are at their defaults.
    made = Config.from_dict(card["config"])
    assert made == Config.from_dict(settings_of("mnist-tiny"))


def test_it_knows_a_bar_and_a_ring():
    """Drawn here, so that it is tried where there is no MNIST."""
    images = bar_and_ring()[..., None]
    found = Classifier(MODEL).outputs(images)
    assert [label.decode() for label in found["labels"]] == ["1", "0"]
    assert found["probabilities"].max(1).min() > 0.9


def test_it_labels_all_of_mnists_test_images_as_its_card_says(card, mnist_dir):
    spec = ImageSpec(28, 28, 1, tuple(map(str, range(10))))
    split = load_split(Config(dataset="mnist", data_dir=mnist_dir), "test", spec).split
    images = images_at(split, np.arange(len(split)))
    found = Classifier(MODEL).outputs(images)["classes"]
    right = (found == split.labels).mean()
    assert right == pytest.approx(card["test"]["accuracy"], abs=0.0003)
