"""A run's directory: which files it holds, and a model rebuilt from them."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.files import write_csv, write_json
from kcnn.spec import ImageSpec


class Run:
    """The files of one training run under its `model_dir`."""

    def __init__(self, model_dir: str | pathlib.Path):
        self.path = pathlib.Path(model_dir)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.evaluation = self.path / "evaluation.json"
        self.predictions = self.path / "predictions.npz"
        self.plots = self.path / "plots"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report.html"
        self.state = self.path / "checkpoints" / "last.npz"  # to go on from
        self.weights = self.path / "checkpoints" / "model.npz"  # what was evaluated

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config.exists()

    @property
    def complete(self) -> bool:
        """Whether the run was trained and evaluated."""
        return self.evaluation.exists()

    def begin(self, note: Mapping[str, Any]) -> None:
        """Make the directory with its config.json, in place of an earlier run."""
        self.clear()
        self.plots.mkdir(parents=True, exist_ok=True)
        write_json(self.config, note)

    def clear(self) -> None:
        """Remove what a run writes, and nothing else that lies in the directory."""
        for path in (self.config, self.metrics, self.evaluation, self.predictions):
            path.unlink(missing_ok=True)
        self.report.unlink(missing_ok=True)
        for folder in (self.plots, self.state.parent, self.tensorboard):
            if folder.exists():
                shutil.rmtree(folder)

    def read_config(self) -> dict[str, Any]:
        """Return config.json; raises UsageError if this is no run of kcnn."""
        try:
            return json.loads(self.config.read_text())
        except FileNotFoundError:
            raise UsageError(
                f"{self.path}: no run here; expected a folder with config.json, as "
                "kcnn train writes it"
            ) from None
        except ValueError as error:
            raise RunError(f"{self.config}: damaged: {error}") from None

    def read_evaluation(self) -> dict[str, Any]:
        """Return evaluation.json of a complete run."""
        return json.loads(self.evaluation.read_text())

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write metrics.csv, a row an epoch."""
        write_csv(self.metrics, rows)


def config_of(note: Mapping[str, Any]) -> Config:
    """Return the Config of a config.json."""
    return Config.from_dict(note["config"])


def spec_of(note: Mapping[str, Any]) -> ImageSpec:
    """Return the ImageSpec of a config.json."""
    spec = note["spec"]
    names = tuple(spec["class_names"])
    return ImageSpec(spec["height"], spec["width"], spec["channels"], names)


def load_model(run: Run):
    """Rebuild a run's model, as evaluated: float32, without augmentation.

    Raises RunError if the run has no trained weights, or they do not fit.
    """
    from kcnn import checkpoint, models

    note = run.read_config()
    model = models.build_model(config_of(note), spec_of(note), augment=False)
    arrays, _ = checkpoint.load(run.weights)
    try:
        model.set_weights(arrays["weights"])
    except (ValueError, KeyError) as error:
        raise RunError(f"{run.weights}: not this model's weights: {error}") from None
    return model


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read metrics.csv back: numbers as floats, empty fields as None."""
    with path.open(newline="") as file:
        return [
            {key: float(text) if text else None for key, text in row.items()}
            for row in csv.DictReader(file)
        ]


def new_model_dir(root: pathlib.Path, name: str) -> pathlib.Path:
    """Return root/NAME-N for the first N from 1 that does not exist yet."""
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"
