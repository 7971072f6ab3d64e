import os
import signal

import numpy as np
import pytest

from kcnn import data_split
from kcnn.errors import Interrupted, RunError
from kcnn.inspection import inspect
from kcnn.interruption import stops_with
from tests.test_data_check import save
from tests.test_duplicates import scene


@pytest.fixture
def flat(tmp_path):
    root = tmp_path / "flat"
    for i in range(40):
        save(root / ("cat", "dog")[i % 2] / f"writer{i // 4}_{i}.png", scene(i))
    (root / "cat/copy of writer9.png").write_bytes(
        (root / "dog/writer9_39.png").read_bytes()
    )
    (root / "dog/deep er").mkdir()
    save(root / "dog/deep er/writer9_größer.png", scene(38, side=64))
    (root / "dog/bad.png").write_text("")
    return root


def tree(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_command_divides_and_keeps_together(kcnn, flat, tmp_path):
    before = tree(flat)
    done = kcnn(
        "data",
        "split",
        "flat",
        "--out=new/divided",
        "--test_fraction=0.25",
        "--validation_fraction=0.25",
        r"--group_regex=(writer\d+)",
    )
    assert done.returncode == 0 and done.stderr == ""
    assert tree(flat) == before
    assert "skipped    dog/bad.png: empty file" in done.stdout
    assert "written    new/divided" in done.stdout
    found = tree(tmp_path / "new/divided")
    assert os.listdir(tmp_path / "new") == ["divided"]
    sides = {}
    for path, content in found.items():
        assert before[path.relative_to(path.parts[0])] == content
        sides.setdefault(path.name.split("_")[0], set()).add(path.parts[0])
    assert len(found) == len(before) - 1
    assert {path.parts[0] for path in found} == {"train", "validation", "test"}
    assert all(len(side) == 1 for side in sides.values())
    assert sides["copy of writer9.png"] == sides["writer9"]
    again = kcnn("data", "split", "flat", "--out=new/divided")
    assert again.returncode == 2 and "exists; expected a new" in again.stderr
    divided = kcnn("data", "split", "new/divided", "--out=more")
    assert divided.returncode == 2 and "is divided already" in divided.stderr
    assert not (tmp_path / "more").exists()


def half(seen):
    return np.arange(len(seen.files)) % 2


def test_links_share_the_file_and_an_empty_folder_is_taken(flat, tmp_path):
    seen = inspect(str(flat))
    target = tmp_path / "linked"
    target.mkdir()
    data_split.write(seen, half(seen), ["train", "test"], target, hard_links=True)
    paths = [p for p in target.rglob("*") if p.is_file()]
    assert len(paths) == len(seen.files)
    assert all(p.stat().st_nlink == 2 for p in paths)
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_failure_leaves_nothing(flat, tmp_path):
    seen = inspect(str(flat))
    os.unlink(seen.files[-1].path)
    with pytest.raises(RunError, match=r"cannot be copied to .*: No such file"):
        data_split.write(seen, half(seen), ["train", "test"], tmp_path / "new", False)
    assert os.listdir(tmp_path) == ["flat"]


def test_a_signal_leaves_nothing(flat, tmp_path, monkeypatch):
    seen = inspect(str(flat))
    copies = []

    def copy_and_stop(source, target):
        copies.append(target)
        if len(copies) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(data_split.shutil, "copy2", copy_and_stop)
    with pytest.raises(Interrupted), stops_with(lambda: "nothing was written"):
        data_split.write(seen, half(seen), ["train", "test"], tmp_path / "new", False)
    assert os.listdir(tmp_path) == ["flat"]
