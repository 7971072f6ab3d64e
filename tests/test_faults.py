"""What a kill, a damaged file or a full disk may not do to a training."""

import itertools
import os
import pathlib

import numpy as np
import pytest

from kcnn import checkpoint
from kcnn.errors import RunError
from kcnn.run import Run
from tests.test_fitting import fitting_of

# Order, dropout, augmentation, averages, best weights and counters all at once.
EVERYTHING = {
    "epochs": 3,
    "batch_size": 16,
    "checkpoint_every": 0.0,
    "translate": 0.1,
    "ema_momentum": 0.9,
    "keep": "best",
    "early_stopping": 50,
    "class_weight": "balanced",
}
TIMES = ("seconds", "images_per_second")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in kcnn catches it."""


def killing(monkeypatch, calls):
    """Let some file operations pass, and stop before the next one."""
    left = itertools.count(calls, -1)

    def stop_before(function):
        def instead(*arguments, **kwargs):
            if next(left) <= 0:
                raise Killed
            return function(*arguments, **kwargs)

        return instead

    for name in ("replace", "fsync", "chmod"):
        monkeypatch.setattr(os, name, stop_before(getattr(os, name)))


def without_times(fitting):
    return [
        {k: v for k, v in row.items() if k not in TIMES} for row in fitting.history.rows
    ]


def test_a_kill_at_any_write_loses_nothing(npz, tmp_path):
    whole = fitting_of(npz, tmp_path / "whole", **EVERYTHING)
    expected = whole.fit()
    killed = 0
    for calls in itertools.count(2, 11):
        run = tmp_path / f"cut-{calls}"
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, calls)
            try:
                fitting_of(npz, run, **EVERYTHING).fit()
                break
            except Killed:
                killed += 1
        resumed = fitting_of(npz, run, **EVERYTHING)
        resumed.resume()
        for found, weights in zip(resumed.fit(), expected, strict=True):
            np.testing.assert_array_equal(found, weights)
        assert without_times(resumed) == without_times(whole)
    assert killed >= 3


def test_checkpoints_come_in_time_and_within_an_epoch(npz, tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save

    def noted(path, arrays, note, keep):
        save(path, arrays, note, keep)
        saved.append(len(note["rows"]))

    monkeypatch.setattr(checkpoint, "save", noted)
    settings = {"epochs": 2, "batch_size": 16}  # six steps an epoch
    often = fitting_of(npz, tmp_path / "a", checkpoint_every=0.0, **settings)
    often.fit()
    assert saved.count(0) >= 1 and saved.count(1) >= 1 and saved[-1] == 2
    assert 0 < often.history.checkpoint_seconds < 10
    saved.clear()
    fitting_of(npz, tmp_path / "b", checkpoint_every=3600.0, **settings).fit()
    assert saved == [2]  # the last epoch's, always


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_the_checkpoint_before_the_last_is_used(npz, tmp_path, state):
    settings = {"epochs": 3, "batch_size": 16, "checkpoint_every": 0.0}
    whole = fitting_of(npz, tmp_path / "run", **settings)
    expected = whole.fit()
    last = whole.run.state
    if state == "missing":
        last.unlink()
    else:
        data = bytearray(last.read_bytes())
        data[len(data) // 2] ^= 1
        last.write_bytes(data)
    resumed = fitting_of(npz, tmp_path / "run", **settings)
    resumed.resume()
    assert resumed.loop.steps_done < 18
    told = resumed.progress._output._stream.getvalue()
    assert ("last.npz: the checkpoint is damaged" in told) == (state == "damaged")
    for found, weights in zip(resumed.fit(), expected, strict=True):
        np.testing.assert_array_equal(found, weights)


def test_two_damaged_checkpoints_are_both_named(npz, tmp_path):
    fitting = fitting_of(npz, tmp_path / "run", epochs=2, checkpoint_every=0.0)
    fitting.fit()
    for path in (fitting.run.state, fitting.run.previous_state):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"last\.npz.*previous\.npz"):
        fitting_of(npz, tmp_path / "run").resume()


def test_any_changed_byte_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"state": [np.arange(20.0)], "best": []}, {"epoch": 1})
    whole = path.read_bytes()
    np.load(path).close()  # an ordinary npz file all the same
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        with pytest.raises(RunError, match="checksum"):
            checkpoint.load(path)
    for i in range(0, len(whole), 9):
        path.write_bytes(whole[:i])
        with pytest.raises(RunError, match="damaged"):
            checkpoint.load(path)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    run = Run(tmp_path)
    run.state.parent.mkdir()
    left = [run.path / "checkpoints" / ".last.npz.ab1", run.path / ".config.json.x_"]
    others = [run.path / ".mine", run.path / "checkpoints" / "last.npz"]
    for path in left + others:
        path.write_bytes(b"half")
    run.remove_unfinished()
    assert [path.exists() for path in left + others] == [False, False, True, True]


def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "c.npz"
    with pytest.raises(OSError, match="No space") as caught:
        checkpoint.save(path, {})
    assert caught.value.filename == str(path)
    assert list(pathlib.Path(tmp_path).iterdir()) == []
