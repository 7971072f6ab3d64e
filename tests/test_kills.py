"""SIGKILL at any moment of a real training, then --resume: as if nothing had been."""

import csv
import json
import random
import shutil

import numpy as np
import pytest

from tests.conftest import write_npz
from tests.forks import Forks

# Everything that has a state: order, augmentation, dropout, Adam's moments, schedule,
# averages, best weights, counters; a checkpoint after every call of the loop.
RECIPE = [
    "--dataset=npz:stripes.npz",
    "--model=mlp",
    "--dense_units=8",
    "--dropout=0.3",
]
RECIPE += ["--translate=0.1", "--ema_momentum=0.9", "--keep=best", "--epochs=4"]
RECIPE += ["--early_stopping=50", "--batch_size=16", "--checkpoint_every=0"]
RECIPE += ["--deterministic"]
TRAIN = ["train", *RECIPE, "--model_dir=run", "--export_dir=exports", "--export_name=m"]
RESUME = ["train", "--resume", "--model_dir=run"]
_HANGS = 3600  # seconds, of which a busy machine can take hundreds
TIMES = {"seconds", "images_per_second", "timing"}


class Killer:
    """Trainings in one folder, killed before an operation on files or after a time."""

    def __init__(self, folder, forks: Forks):
        self.folder = folder
        self._forks = forks
        self._log = folder / "log"
        self._log.touch()

    def run(self, *arguments, writes=None, seconds=_HANGS):
        """Return the exit status (-9: killed) and the number of operations."""
        return self._forks.ask(
            arguments,
            self.folder,
            seconds,
            stdout=self._log,
            stderr=self._log,
            count_file=self.folder / "operations",
            writes=writes,
        )

    def start_again(self):
        """Take away what earlier trainings left, but their data."""
        for name in ("run", "exports"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def log(self):
        """Return what the trainings said."""
        return self._log.read_text()


@pytest.fixture(scope="module")
def killer(tmp_path_factory, forks):
    folder = tmp_path_factory.mktemp("kills")
    write_npz(folder / "stripes.npz")
    return Killer(folder, forks)


@pytest.fixture(scope="module")
def whole(killer):
    """What the training leaves that nobody stopped, and its number of operations."""
    status, count = killer.run(*TRAIN)
    assert status == 0, killer.log()
    return result(killer.folder), count


def result(folder):
    """Return all that a run must leave the same, times apart."""
    run = folder / "run"
    with np.load(run / "checkpoints" / "model.npz") as file:
        weights = {name: file[name].tobytes() for name in file.files}
    with (run / "metrics.csv").open() as file:
        rows = [without_times(row) for row in csv.DictReader(file)]
    with np.load(run / "predictions.npz") as file:
        predictions = file["probabilities"].tobytes()
    evaluation = without_times(json.loads((run / "evaluation.json").read_text()))
    files = sorted(
        str(path.relative_to(folder))
        for place in ("run", "exports")
        for path in (folder / place).rglob("*")
    )
    return weights, rows, predictions, evaluation, files


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return value


def killed_and_resumed(killer, limits):
    """Kill a training again and again as `limits` say, then let it end."""
    killer.start_again()
    kills = 0
    for limit in [*limits, {}]:
        begun = (killer.folder / "run" / "config.json").exists()
        status, _ = killer.run(*(RESUME if begun else TRAIN), **limit)
        if status == 0:
            break
        if status == 2:  # the kill came after the last thing written
            assert "is complete" in killer.log().splitlines()[-1]
            break
        assert status == -9 and limit, killer.log()  # the last one must end well
        kills += 1
    return kills


@pytest.mark.slow
def test_killed_while_writing_in_the_middle(killer, whole):
    """Three moments: in the training, before its end, and in the export."""
    expected, count = whole
    limits = [{"writes": count // 4}, {"writes": count // 3}, {"writes": count // 4}]
    assert killed_and_resumed(killer, limits) == 3
    assert result(killer.folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [12, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
def test_killed_at_each_write(killer, whole, step):
    """With "all" a quarter of an hour."""
    expected, count = whole
    assert count > 60
    for number in range(0, count, step):
        kills = killed_and_resumed(killer, [{"writes": number}])
        assert result(killer.folder) == expected, number
        assert kills == 1 or number > count - 10, (number, kills)


@pytest.mark.slow
@pytest.mark.parametrize("most", [10, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_killed_at_random_moments(killer, whole, most):
    expected, _ = whole
    rng = random.Random(0)
    kills = 0
    while kills < most:
        limits = [{"seconds": rng.uniform(0.05, 6)} for _ in range(8)]
        kills += killed_and_resumed(killer, limits)
        assert result(killer.folder) == expected, (kills, limits)
