"""One command a folder, whoever was there before."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from kcnn import locks
from kcnn.errors import Interrupted, UsageError
from kcnn.interruption import StopRequest, stops_with
from kcnn.locks import FolderLock
from kcnn.run import new_model_dir


def holder(process, command="kcnn train"):
    about = {"host": locks.platform.node(), "since": "2026-01-02 03:04:05+00:00"}
    return json.dumps({"process": process, "command": command, **about})


def test_the_second_is_refused_and_the_first_is_named(tmp_path):
    with FolderLock(tmp_path, "kcnn sweep"):
        with pytest.raises(UsageError) as caught:
            FolderLock(tmp_path, "kcnn train").__enter__()
        words = f"kcnn sweep is running there already (process {os.getpid()} since 20"
        assert words in str(caught.value)
    with FolderLock(tmp_path, "kcnn train"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_that_a_dead_command_left_locks_nothing(tmp_path):
    (tmp_path / ".lock").write_text(holder(999999999))
    with FolderLock(tmp_path, "kcnn train"):
        about = json.loads((tmp_path / ".lock").read_text())
        assert about["process"] == os.getpid()


def test_children_of_a_dead_command_hold_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.2)
    with (tmp_path / ".lock").open("w") as file:
        file.write(holder(999999999))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="still going"):
            FolderLock(tmp_path, "kcnn train").__enter__()


def test_a_holder_on_another_machine_cannot_be_asked_and_lives(tmp_path):
    other = json.loads(holder(1)) | {"host": "elsewhere", "process": 999999999}
    with (tmp_path / ".lock").open("w") as file:
        file.write(json.dumps(other))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="process 999999999 since 2026"):
            FolderLock(tmp_path, "kcnn train").__enter__()


def test_folders_made_for_a_lock_go_unless_something_is_in_them(tmp_path):
    with FolderLock(tmp_path / "a" / "b", "kcnn train"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert os.listdir(tmp_path) == []
    with FolderLock(tmp_path / "a" / "b", "kcnn train"):
        (tmp_path / "a" / "kept").touch()
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["kept"]


def test_many_processes_never_hold_it_together(tmp_path):
    """Each adds one to a number in a file, slowly; none is lost."""
    code = """
import pathlib, sys, time
from kcnn.errors import UsageError
from kcnn.locks import FolderLock
folder = pathlib.Path(sys.argv[1])
number = folder / "number"
for _ in range(20):
    while True:
        try:
            with FolderLock(folder, "test"):
                found = int(number.read_text())
                time.sleep(0.001)
                number.write_text(str(found + 1))
            break
        except UsageError:
            time.sleep(0.001)
"""
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [p.wait(timeout=100) for p in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "80"


def test_a_second_command_is_refused_whatever_it_wants(kcnn, npz, tmp_path):
    with FolderLock(tmp_path / "run", "kcnn train"):
        (tmp_path / "run" / "config.json").write_text(
            json.dumps({"config": {}, "spec": {}, "data": {}, "experiment": None})
        )
        for command in (["--overwrite", f"--dataset=npz:{npz}"], ["--resume"]):
            done = kcnn("train", *command, "--model_dir=run")
            assert done.returncode == 2 and done.stdout == ""
            assert f"kcnn train is running there already (process {os.getpid()}" in (
                done.stderr
            )
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_unnamed_runs_never_share_a_folder(tmp_path):
    assert [new_model_dir(tmp_path, "a").name for _ in range(3)] == [
        "a-1",
        "a-2",
        "a-3",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_what_to_do(number):
    before = signal.getsignal(number)
    told = pytest.raises(Interrupted, match=f"{number.name}; go on")
    with told as caught, stops_with(lambda: "go on"):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_process_in_the_middle_of_anything():
    code = """
import os, signal, time
from kcnn.interruption import StopRequest
with StopRequest(then_dies=True) as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal_number == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=30)
    assert done.returncode == -signal.SIGINT
    # What runs in a shell's background is started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequest() as stop:  # a sweep has children to end first
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert stop.signal_number == signal.SIGINT
    signal.signal(signal.SIGINT, before)
