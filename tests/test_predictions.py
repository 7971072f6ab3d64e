import numpy as np
import pytest

from kcnn import predictions
from kcnn.errors import RunError

ARRAYS = {
    "indices": np.array([4, 0]),
    "labels": np.array([1, 2]),
    "probabilities": np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32),
}


@pytest.mark.parametrize("accepted", [None, np.array([True, False])])
def test_reads_what_was_written(tmp_path, accepted):
    path = tmp_path / "predictions.npz"
    predictions.write(path, predictions.Predictions(**ARRAYS), accepted)
    found = predictions.read(path)
    assert {name: value.tolist() for name, value in found._asdict().items()} == {
        name: value.tolist() for name, value in ARRAYS.items()
    }
    with np.load(path) as file:
        assert ("accepted" in file.files) == (accepted is not None)


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        predictions.read(tmp_path / "predictions.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": None},
        {"labels": np.array([1, 2, 3])},
        {"labels": np.array(1)},
        {"indices": np.array([1])},
        {"probabilities": np.array([object(), object()])},
    ],
)
def test_wrong_arrays_are_damage(tmp_path, change):
    path = tmp_path / "predictions.npz"
    arrays = {n: a for n, a in (ARRAYS | change).items() if a is not None}
    np.savez_compressed(path, **arrays)
    with pytest.raises(RunError, match=r"predictions.npz: damaged: "):
        predictions.read(path)


def test_every_cut_and_a_changed_byte_is_damage(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez_compressed(path, **ARRAYS)
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(RunError, match="damaged"):
            predictions.read(path)
    at = data.index(b"\x93NUMPY") if b"\x93NUMPY" in data else len(data) // 3
    path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    with pytest.raises(RunError, match="damaged"):
        predictions.read(path)


def test_an_encrypted_archive_is_damage(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"damaged: .*encrypted"):
        predictions.read(path)
