"""A run's directory: which files it holds, and a model rebuilt from them."""

from __future__ import annotations

import csv
import itertools
import json
import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import Any

from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.files import remove_unfinished, write_csv, write_json
from kcnn.spec import ImageSpec

EXPORT_DIR = "saved_models"

# Help of the flag, for every command that loads a SavedModel.
TRUST = "load a SavedModel that could do more than compute; see SECURITY.md"

# The pictures in plots/, each a PNG.
PLOTS = (
    "learning_curves",
    "confusion_matrix",
    "confusion_matrix_normalized",
    "mistakes",
    "reliability",
    "risk_coverage",
    "scores",
    "per_class",
    "training_images",
    "architecture",
)


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
        self.previous_state = self.path / "checkpoints" / "previous.npz"
        self.weights = self.path / "checkpoints" / "model.npz"  # what was evaluated

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config.exists()

    @property
    def complete(self) -> bool:
        """Whether the run was trained, evaluated and pictured, the page last."""
        return self.evaluation.exists() and self.report.exists()

    @property
    def how_to_go_on(self) -> str:
        """What to tell the user of a run that was stopped."""
        if not self.exists:
            return "nothing was begun"
        return (
            f"to go on: kcnn train --resume --model_dir={shlex.quote(str(self.path))}"
        )

    def begin(self, note: Mapping[str, Any]) -> None:
        """Make the directory with its config.json, in place of an earlier run."""
        self.clear()
        self.plots.mkdir(parents=True, exist_ok=True)
        write_json(self.config, note)

    def _names(self) -> list[pathlib.Path]:
        names = [self.config, self.metrics, self.evaluation, self.predictions]
        names += [self.report, self.state, self.previous_state, self.weights]
        return names + [self.plots / f"{name}.png" for name in PLOTS]

    def remove_unfinished(self) -> None:
        """Remove the halves of files that a killed process was writing."""
        for path in self._names():
            remove_unfinished(path)

    def files(self) -> list[pathlib.Path]:
        """Return what a run writes here and is there, without empty folders."""
        named = self._names()
        named += self.tensorboard.glob("events.out.tfevents.*")
        return [path for path in named if path.exists()]

    def clear(self) -> None:
        """Remove what a run writes, and nothing else that lies in the directory."""
        for path in self.files():
            path.unlink()

    def read_config(self) -> dict[str, Any]:
        """Return config.json; raises UsageError if this is no run of kcnn."""
        if not self.config.exists():
            raise UsageError(
                f"{self.path}: no run here; expected a folder with config.json, as "
                "kcnn train writes it"
            )
        return _read_json(self.config, ("config", "spec", "data", "experiment"))

    def read_evaluation(self) -> dict[str, Any]:
        """Return evaluation.json of a complete run."""
        return _read_json(self.evaluation, ("test", "timing"))

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write metrics.csv, a row an epoch."""
        write_csv(self.metrics, rows)


def _read_json(path: pathlib.Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object with some keys; raises RunError if it is damaged."""
    try:
        value = json.loads(path.read_text())
        missing = [key for key in keys if key not in value]
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    if missing or not isinstance(value, dict):
        raise RunError(f"{path}: damaged: it has no {', '.join(missing)}")
    return value


def config_of(note: Mapping[str, Any]) -> Config:
    """Return the Config of a config.json."""
    if not isinstance(note["config"], dict):
        raise RunError("config.json: damaged: config is no object")
    return Config.from_dict(note["config"])


def spec_of(note: Mapping[str, Any]) -> ImageSpec:
    """Return the ImageSpec of a config.json."""
    spec = note["spec"]
    try:
        names = tuple(spec["class_names"])
        shape = spec["height"], spec["width"], spec["channels"]
        return ImageSpec(*shape, names, spec.get("normalize_input", "none"))
    except (KeyError, TypeError) as error:
        raise RunError(f"config.json: damaged: spec has no {error}") from None


def load_model(run: Run):
    """Rebuild a run's model, as evaluated: float32, without augmentation.

    Raises RunError if the run has no trained weights, or they do not fit.
    """
    from kcnn import checkpoint, models

    note = run.read_config()
    if not run.weights.exists():
        raise UsageError(f"{run.path}: the run is not complete; {run.how_to_go_on}")
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


def export_base(folder: str | None, name: str) -> pathlib.Path | None:
    """Return the folder of an export's versions; None where `folder` is empty.

    Raises UsageError for a name that is no plain name of a folder.
    """
    if not re.fullmatch(r"\w[\w.,=+-]*", name):
        raise UsageError(
            f"--export_name: got {name!r}, expected letters, digits and . , = + - _"
        )
    folder = EXPORT_DIR if folder is None else folder
    return pathlib.Path(folder) / name if folder else None


def new_model_dir(root: pathlib.Path, name: str) -> pathlib.Path:
    """Make root/NAME-N for the first N from 1 that does not exist yet, and return it.

    Two commands that ask at the same time get two folders.
    """
    for number in itertools.count(1):
        folder = root / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError  # there is always another number
