"""What a kill, a damaged file or a full disk may not do to a training."""

import ast
import itertools
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import kcnn as package
from kcnn import checkpoint, datasets, estimate, memory
from kcnn.config import Config
from kcnn.errors import Fault, RunError
from kcnn.run import Run, read_rows
from kcnn.spec import ImageSpec
from tests.conftest import started_until
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


def test_checkpoints_come_in_time_within_an_epoch_and_by_epoch(
    npz, tmp_path, monkeypatch
):
    saved = []
    save = checkpoint.save

    def noted(path, arrays, note, keep):
        save(path, arrays, note, keep)
        saved.append(len(note["now"]["rows"]))

    monkeypatch.setattr(checkpoint, "save", noted)
    settings = {"epochs": 2, "batch_size": 16}  # six steps an epoch
    often = fitting_of(npz, tmp_path / "a", checkpoint_every=0.0, **settings)
    often.fit()
    assert saved.count(0) >= 1 and saved.count(1) >= 1 and saved[-1] == 2
    assert 0 < often.history.checkpoint_seconds < 10
    saved.clear()
    fitting_of(npz, tmp_path / "b", checkpoint_every=3600.0, **settings).fit()
    assert saved == [2]  # the last epoch's, always
    saved.clear()
    by_epoch = {"epochs": 5, "checkpoint_every": 3600.0, "checkpoint_epochs": 2}
    fitting_of(npz, tmp_path / "c", **settings | by_epoch).fit()
    assert saved == [2, 4, 5]


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


def test_a_checkpoint_that_zipfile_cannot_read_is_no_checkpoint(tmp_path):
    """Its checksum is right: somebody made it."""
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"state": [np.arange(20.0)]})
    body = bytearray(path.read_bytes()[: -checkpoint._DIGEST_BYTES])
    body[body.index(b"PK\x01\x02") + 6] = 100  # the zip version that it needs
    path.write_bytes(bytes(body) + checkpoint._digest(body))
    with pytest.raises(RunError, match="no checkpoint of kcnn: zip file version"):
        checkpoint.load(path)


def test_a_compressed_checkpoint_is_refused_whatever_its_size(tmp_path):
    path = tmp_path / "c.npz"
    np.savez_compressed(path, note=np.zeros(10**7, np.uint8), lengths=np.zeros(1))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = bytes(checkpoint._DIGEST_BYTES)
    body = path.read_bytes()[: -checkpoint._DIGEST_BYTES]
    path.write_bytes(body + checkpoint._digest(body))
    with pytest.raises(RunError, match="is compressed"):
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


@pytest.fixture
def folder(tmp_path):
    """Sixty small pictures of three classes, to be read from their files each time."""
    rng = np.random.default_rng(0)
    for i in range(60):
        place = tmp_path / "images" / "abc"[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 99, (10, 10), np.uint8)
        pixels[3 * (i % 3)] = 255
        Image.fromarray(pixels).save(place / f"{i}.png")
    return {
        "dataset": f"folder:{tmp_path}/images",
        "cache": "none",
        "epochs": 3,
        "batch_size": 16,
        "checkpoint_every": 0.0,
    }


def assert_goes_on_to(expected, resumed):
    """Resume a run that has come to a checkpoint, and compare what it ends with."""
    resumed.resume()
    assert resumed.loop.steps_done > 0
    for found, weights in zip(resumed.fit(), expected, strict=True):
        np.testing.assert_array_equal(found, weights)


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["vanishes", "is cut", "becomes another"])
def test_a_file_that_goes_or_changes_is_named_and_nothing_is_lost(
    folder, tmp_path, fate
):
    whole = fitting_of(None, tmp_path / "whole", **folder)
    expected = whole.fit()
    victim = tmp_path / "images" / "a" / "0.png"
    content = victim.read_bytes()

    def spoil(row):
        if row["epoch"] == 2 and fate == "vanishes":
            victim.unlink()
        elif row["epoch"] == 2 and fate == "is cut":
            victim.write_bytes(content[:40])
        elif row["epoch"] == 2:
            Image.new("L", (10, 10)).save(victim)

    fitting = fitting_of(None, tmp_path / "cut", spoil, **folder)
    with pytest.raises(Fault) as caught:
        fitting.fit()
    what = "vanished" if fate == "vanishes" else "changed"
    assert str(caught.value).startswith(f"{victim} {what} while the images were in use")
    victim.write_bytes(content)
    assert_goes_on_to(expected, fitting_of(None, tmp_path / "cut", **folder))


@pytest.mark.slow
def test_a_real_training_names_a_file_that_vanishes_and_goes_on(kcnn, folder, tmp_path):
    flags = [f"--dataset={folder['dataset']}", "--cache=none", "--model=mlp"]
    flags += ["--epochs=60", "--batch_size=16", "--export_dir="]
    whole = kcnn("train", *flags, "--model_dir=whole", timeout=1200)
    assert whole.returncode == 0, whole.stderr
    victim = tmp_path / "images" / "a" / "0.png"
    content, times = victim.read_bytes(), victim.stat()
    command = [sys.executable, "-m", "kcnn", "train", *flags, "--model_dir=cut"]
    command += ["--checkpoint_epochs=1"]
    process = started_until(command, tmp_path, "epoch  3/60")
    victim.unlink()
    _, error = process.communicate(timeout=1200)
    assert process.returncode == 1 and error.count("\n") == 1, error
    assert f"{victim} vanished while the images were in use" in error
    assert "to go on: kcnn train --resume --model_dir=cut" in error
    victim.write_bytes(content)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    resumed = kcnn("train", "--resume", "--model_dir=cut", timeout=1200)
    assert resumed.returncode == 0, resumed.stderr
    whole, cut = (
        json.loads((tmp_path / name / "evaluation.json").read_text())
        for name in ("whole", "cut")
    )
    assert cut["test"]["loss"] == whole["test"]["loss"]


def test_a_disk_that_fills_up_is_named_and_nothing_is_lost(npz, tmp_path):
    whole = fitting_of(npz, tmp_path / "whole", **EVERYTHING)
    expected = whole.fit()

    def full(*_):
        raise OSError(28, "No space left on device")

    def fill(row):
        if row["epoch"] == 2:
            patch.setattr(os, "fsync", full)

    told = pytest.raises(OSError, match="No space left")
    with pytest.MonkeyPatch.context() as patch, told as caught:
        fitting_of(npz, tmp_path / "cut", fill, **EVERYTHING).fit()
    assert caught.value.filename == str(tmp_path / "cut" / "checkpoints" / "last.npz")
    assert_goes_on_to(expected, fitting_of(npz, tmp_path / "cut", **EVERYTHING))


def test_images_that_cannot_fit_are_refused_before_they_are_read(npz, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 8000)
    with pytest.raises(RunError, match=r"90 images of 10x10x1 need .* --cache=disk"):
        datasets.load(Config(dataset=f"npz:{npz}"))


def test_the_memory_of_a_training_is_known_before_it_is_taken():
    """By hand: 4 bytes a number, Adam's state three times the weights, three copies."""
    spec = ImageSpec(28, 28, 1, tuple("0123456789"))
    config = Config(model="mlp", dense_units=(100,), batch_size=50)
    weights = 784 * 100 + 100 + 100 * 10 + 10
    size = estimate.training_bytes(config, spec, "float32", on_gpu=False)
    assert size == 3 * 3 * weights * 4 + 50 * (100 + 10) * 4
    plain = Config(model="mlp", dense_units=(100,), optimizer="sgd", ema_momentum=0.9)
    assert estimate.training_bytes(plain, spec, "float32", True) == 2 * 2 * weights * 4
    huge = Config(model="mlp", dense_units=(65536, 65536), batch_size=65536)
    with pytest.raises(RunError, match=r"need 1\d\d\.. GiB at least.*--batch_size"):
        estimate.check_memory(huge, spec, "float32", on_gpu=False)


def test_no_duration_is_taken_from_a_clock_that_can_go_back():
    """time.time() and subtracted dates follow the wall clock; others do not."""
    for path in pathlib.Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            assert name not in ("time.time", "time.time_ns"), path
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
                assert "datetime" not in ast.unparse(node), path


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(fresh_kcnn, npz, tmp_path):
    """Every look at the wall clock finds it an hour earlier."""
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "start, hours = time.time(), itertools.count()\n"
        "time.time = lambda: start - 3600 * next(hours)\n"
    )
    place = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    flags = [f"--dataset=npz:{npz}", "--model=mlp", "--epochs=2", "--export_dir="]
    flags += ["--checkpoint_every=0", "--model_dir=run"]
    done = fresh_kcnn("train", *flags, env=os.environ | {"PYTHONPATH": place})
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert all(0 < row["seconds"] < 240 for row in rows)


def test_a_model_larger_than_any_memory_is_refused_in_one_line(kcnn, npz):
    flags = ["--model=mlp", "--dense_units=65536,65536", "--batch_size=65536"]
    done = kcnn("train", f"--dataset=npz:{npz}", *flags, "--model_dir=run")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "out of memory before it began: --model=mlp" in done.stderr
    assert "GiB are available; lower --batch_size" in done.stderr


def test_a_read_only_place_is_refused_before_training(kcnn, npz, full_disk):
    remount = ["mount", "-o", "remount,ro", str(full_disk)]
    subprocess.run(remount, check=True)
    done = kcnn("train", f"--dataset=npz:{npz}", f"--model_dir={full_disk}/run")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no permission" in done.stderr


def test_a_full_disk_says_how_to_go_on_and_going_on_ends_well(kcnn, npz, full_disk):
    """Room for some checkpoints, not for two of them and what comes after."""
    flags = [f"--dataset=npz:{npz}", "--model=mlp", "--dense_units=300", "--epochs=3"]
    flags += ["--checkpoint_every=0", f"--model_dir={full_disk}/run", "--export_dir="]
    done = kcnn("train", *flags)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "No space left on device; to go on: kcnn train --resume" in done.stderr
    subprocess.run(["mount", "-o", "remount,size=50m", str(full_disk)], check=True)
    again = kcnn("train", "--resume", f"--model_dir={full_disk}/run")
    assert again.returncode == 0, again.stderr
    assert (full_disk / "run" / "report.html").exists()
