"""Memory and cores that are not all the machine's."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kcnn import memory, runtime

_SIDE, _COUNT = 640, 800  # decoded: 1 GB; as files: a few MB

_PEAK = """
import resource, sys
from kcnn.cli import main
status = main()
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(status)
"""


@pytest.fixture
def large_folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(_COUNT):
        place = tmp_path / "images" / ("even", "odd")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((_SIDE, _SIDE, 3), np.uint8)
        pixels[rng.integers(_SIDE) :, :, i % 2] = 200
        Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "images"


def peak(tmp_path, folder, cache):
    command = [sys.executable, "-c", _PEAK, "train", f"--dataset=folder:{folder}"]
    flags = ["--model=bottleneck", "--strides=8,8", "--epochs=1", "--batch_size=16"]
    flags += ["--pool_sizes=2,2", f"--cache={cache}", "--export_dir="]
    done = subprocess.run(
        [*command, *flags, f"--model_dir=run-{cache}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_ARENA_MAX": "2"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("peak ", 1)[1])


@pytest.mark.slow
def test_memory_stays_bounded_without_the_memory_cache(tmp_path, large_folder):
    decoded = _SIDE * _SIDE * 3 * _COUNT
    peaks = {c: peak(tmp_path, large_folder, c) for c in ("memory", "disk", "none")}
    assert peaks["memory"] - peaks["disk"] > 0.5 * decoded, peaks
    assert peaks["memory"] - peaks["none"] > 0.5 * decoded, peaks


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("150000 100000", 1), ("300000 100000", 3), ("5000 100000", 1)],
)
def test_cores_are_those_of_the_container(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(memory, "cgroup", lambda name: quota)
    assert runtime.cores() == cores
