import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kcnn import checkpoint
from kcnn.errors import RunError
from kcnn.files import replacing, write_csv, write_json
from kcnn.run import read_rows


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_csv_comes_back(tmp_path):
    rows = [{"epoch": 1, "val_loss": None, "loss": 0.1}]
    write_csv(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text() == "epoch,val_loss,loss\n1,,0.1\n"
    assert read_rows(tmp_path / "m.csv") == rows


ARRAYS = {"state": [np.arange(6, dtype=np.int64), np.float32([[1.5]])], "best": []}


def test_checkpoint_comes_back_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path / "c.npz", ARRAYS, {"epoch": 3})
    arrays, note = checkpoint.load(tmp_path / "c.npz")
    assert note == {"epoch": 3}
    assert arrays["best"] == []
    for found, expected in zip(arrays["state"], ARRAYS["state"], strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"state": [np.arange(1000)]}, None)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 3] ^= 0xFF  # inside the array: the checksum tells
    elif damage == "empty":
        data = bytearray()
    elif damage == "text":
        data = bytearray(b"no archive")
    path.write_bytes(data)
    if damage == "missing":
        path.unlink()
    with pytest.raises(RunError, match=r"c\.npz"):
        checkpoint.load(path)


def test_a_pickled_object_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, lengths=np.array([object()], dtype=object))
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(path)


_WRITER = """
import sys, pathlib, numpy as np
from kcnn import checkpoint
path = pathlib.Path(sys.argv[1])
i = 0
while True:
    checkpoint.save(path, {"state": [np.full(300_000, i)]}, i)
    print(i, flush=True)
    i += 1
"""


def test_killed_while_writing_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "c.npz"
    for wait in (0.0, 0.003, 0.006, 0.01, 0.015):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        arrays, note = checkpoint.load(pathlib.Path(path))
        assert (arrays["state"][0] == note).all()
