"""Shared by all tests: quiet TensorFlow, small data sets, real command lines."""

import functools
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from kcnn.runtime import prefer_onednn
from tests.forks import Forks

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
prefer_onednn()  # here as in the processes that tests start: the same sums


@pytest.fixture(scope="session")
def forks():
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def kcnn(tmp_path, forks):
    """Run the command line in tmp_path, in a fork that need not import TensorFlow."""
    return functools.partial(forks.run, cwd=tmp_path)


@pytest.fixture
def fresh_kcnn(tmp_path):
    """Run the command line in tmp_path, in a process of its own."""

    def run(*arguments, cwd=tmp_path, **kwargs):
        return subprocess.run(
            [sys.executable, "-m", "kcnn", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=900,
            **kwargs,
        )

    return run


def started_until(command, cwd, start):
    """Start a command; return it when it has printed a line that starts so."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return process
    raise AssertionError(f"it ended without {start!r}")


def whole_run(folder, **settings):
    """Train in this process with all that kcnn train leaves in FOLDER/run, FOLDER/m.

    Returns the run, what training returned and what it said.
    """
    from kcnn import pictures, report, trainer
    from kcnn.config import Config
    from kcnn.progress import Progress
    from kcnn.run import Run

    config, run, said = Config(**settings), Run(folder / "run"), io.StringIO()
    about = {"command": "", "experiment": None, "reported": None}
    about["export_base"] = str(folder / "m")
    with Progress(said) as progress:
        trained = trainer.train(config, run, progress, about=about)
    pictures.draw(run, config, trained)
    report.write_report(run.path)
    return run, trained, said.getvalue()


def striped_images(n, classes=3, side=10, channels=1, seed=0):
    """Return easy images: class i has a bright row at i, on noise; and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 60, (n, side, side, channels), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * (side // classes)] = 250
    return images, labels


def bar_and_ring():
    """Return a one and a zero as MNIST has them, (2, 28, 28) uint8."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    bar = (np.abs(rows) < 9) & (np.abs(columns) < 1.6)
    ring = np.abs(np.hypot(rows / 9, columns / 6.5) - 0.8) < 0.18
    return np.stack([bar, ring]).astype(np.uint8) * 255


def write_npz(path, n_train=90, n_test=30, **kwargs):
    """Write an npz data set of `striped_images`."""
    x_train, y_train = striped_images(n_train, **kwargs)
    x_test, y_test = striped_images(n_test, **kwargs, seed=1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def npz(tmp_path):
    return write_npz(tmp_path / "stripes.npz")


@pytest.fixture(scope="session")
def mnist_dir():
    """Where tensorflow-datasets has MNIST prepared; skips where it is not."""
    place = os.environ.get("TFDS_DATA_DIR")
    if not place or not (pathlib.Path(place) / "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR does not point at a prepared MNIST")
    return str(pathlib.Path(place).resolve())


@pytest.fixture
def full_disk(tmp_path):
    """A file system of one megabyte; skips where none can be mounted."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
