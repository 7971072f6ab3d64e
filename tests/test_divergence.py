"""A loss that explodes or is no number: stopped with its cause, or rolled back."""

import itertools
import json

import numpy as np
import pytest

from kcnn.errors import RunError
from kcnn.fitting import Fitting
from kcnn.progress import Progress
from tests.test_faults import Killed, killing, without_times
from tests.test_fitting import fitting_of
from tuning.workbench import Workbench

# Each step multiplies every weight by 1 - 5 times the learning rate: by -4 at first,
# by -1.5 after one rollback, and by -0.25 after two.
EXPLODING = {
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "weight_decay": 5.0,
    "schedule": "constant",
    "batch_size": 16,
    "epochs": 5,
    "precision": "float32",
}
ROLLBACK = EXPLODING | {"on_divergence": "rollback", "checkpoint_every": 0.0}


def test_an_exploding_loss_is_stopped_before_it_is_no_number(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", **EXPLODING)
    with pytest.raises(RunError) as caught:
        fitting.fit()
    text = str(caught.value)
    assert "over 10,000 times that of guessing" in text and "learning rate 1;" in text
    assert "--learning_rate=1 or" in text and "--on_divergence=rollback" in text


def test_a_rollback_halves_the_learning_rate_until_it_holds(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", **ROLLBACK)
    weights = fitting.fit()
    assert all(np.isfinite(w).all() for w in weights)
    assert [row["epoch"] for row in fitting.history.rows] == [1, 2, 3, 4, 5]
    assert fitting.history.rows[-1]["learning_rate"] == 0.25
    rollbacks = fitting.history.rollbacks
    assert len(rollbacks) == 2 and rollbacks[0]["epoch"] == 1
    assert rollbacks[0]["loss"] > 1e4 and 0 < rollbacks[0]["step"] < 6
    json.dumps(rollbacks, allow_nan=False)
    told = fitting.progress._output._stream.getvalue()
    assert "back to the start of epoch 1 with half the learning rate (1 of 3" in told


def test_rollbacks_come_to_an_end(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", **ROLLBACK, max_rollbacks=1)
    with pytest.raises(RunError, match="1 rollbacks did not help; lower"):
        fitting.fit()


def test_a_trial_of_a_search_rolls_back_as_a_training_does(npz, tmp_path):
    training = fitting_of(npz, tmp_path / "run", **ROLLBACK)
    expected = training.fit()
    bench = Workbench()
    for _ in range(2):  # the second time by a loop that has been rolled back
        config, data = training.config, bench.data(training.config)
        trial = Fitting(config, data, *bench.loop(config), None, Progress(None))
        for a, b in zip(trial.fit(), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        rates = [row["learning_rate"] for row in trial.history.rows]
        assert rates == [row["learning_rate"] for row in training.history.rows]
        assert len(trial.history.rollbacks) == 2
    assert bench.built == 1


@pytest.mark.slow
def test_a_kill_among_rollbacks_loses_nothing(npz, tmp_path):
    whole = fitting_of(npz, tmp_path / "whole", **ROLLBACK)
    expected = whole.fit()
    killed = 0
    for calls in itertools.count(5, 23):
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, calls)
            try:
                fitting_of(npz, tmp_path / f"{calls}", **ROLLBACK).fit()
                break
            except Killed:
                killed += 1
        resumed = fitting_of(npz, tmp_path / f"{calls}", **ROLLBACK)
        resumed.resume()
        for found, weights in zip(resumed.fit(), expected, strict=True):
            np.testing.assert_array_equal(found, weights)
        assert without_times(resumed) == without_times(whole)
        assert resumed.history.rollbacks == whole.history.rollbacks
    assert killed >= 2


def test_weights_that_a_last_step_spoils_are_found(npz, tmp_path, monkeypatch):
    """Its loss was computed before, and without validation nothing else tells."""
    fitting = fitting_of(npz, tmp_path / "run", epochs=1, validation_fraction=0.0)
    run = fitting.loop.run

    def spoiling(batches, count):
        run(batches, count)
        kernel = fitting.loop.model.get_layer("logits").kernel
        kernel.assign(np.full(kernel.shape, np.inf, np.float32))

    monkeypatch.setattr(fitting.loop, "run", spoiling)
    with pytest.raises(RunError, match="weights after step 0 is not a finite number"):
        fitting.fit()
    assert not fitting.run.state.exists()
