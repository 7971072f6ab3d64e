"""Workers on this machine: mistakes in a line, and processes that are killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from kcnn import launch
from kcnn.commands import launch as command
from kcnn.errors import RunError, UsageError
from kcnn.flags import of_command, parse
from kcnn.run import Run
from tests.conftest import write_npz

TRAIN = ["train", "--dataset=npz:a.npz", "--model=mlp", "--dense_units=16"]
TRAIN += ["--batch_size=16", "--precision=float32", "--export_dir="]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "train"], "--workers: say how many"),
        (["--workers=0", "--", "train"], "--workers: got 0, expected 1 to 256"),
        (["--workers=2"], "expected -- train --flags at the end, got nothing"),
        (["--workers=2", "--", "tune"], "got tune"),
        (["--workers=2", "--", "train", "--epoch=3"], "unknown flag --epoch"),
        (["--workers=2", "--", "train", "--epochs=0"], "--epochs: got 0"),
        (["--workers=2", "--", "train", "--strategy=one"], "--strategy: got one"),
        (["--workers=2", "--", "train", "--resume"], "--resume: say which run"),
        (["--workers=2", "--max_restarts=-1", "--", "train"], "--max_restarts: got -1"),
    ],
)
def test_a_mistake_is_told_and_starts_nothing(
    arguments, said, monkeypatch, tmp_path, npz
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "Job", None)  # what would start one
    values = of_command(command)
    with pytest.raises(UsageError) as caught:
        command.main(values, parse(values, arguments))
    assert said in str(caught.value)


def test_the_ports_are_free_and_differ():
    ports = launch.free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([None, -9], "worker 1 was killed by SIGKILL"),
        ([75, None], "the workers lost each other"),
        ([75, -11], "worker 1 was killed by SIGSEGV"),
        ([2, None], None),  # a mistake of the user
        ([75, 1], None),  # an error that would come again
        ([143, 143], None),  # stopped
        ([0, 0], None),
    ],
)
def test_what_is_worth_another_start(statuses, said):
    crew = launch._Crew.__new__(launch._Crew)
    found = enumerate(statuses)
    crew._ended = {i: status for i, status in found if status is not None}
    assert crew.lost() == said


def test_what_made_the_chief_end_is_told():
    crew = launch._Crew.__new__(launch._Crew)
    crew._jobs = [None, types.SimpleNamespace(reason=lambda: "no such file")]
    crew._ended = {0: 1, 1: 2}
    assert crew.status() == 1
    crew._ended = {1: 2}
    with pytest.raises(UsageError, match="worker 1: no such file"):
        crew.status()
    crew._ended = {1: 1}
    with pytest.raises(RunError, match="worker 1: no such file"):
        crew.status()


@pytest.mark.parametrize("restarts", [0, 2])
def test_it_gives_up_after_so_many_new_starts(restarts, monkeypatch, tmp_path):
    starts = []

    class Lost:
        def __init__(self, count, arguments, logs):
            starts.append(arguments)

        def watch(self, stop):
            pass

        def end(self):
            pass

        def lost(self):
            return "worker 1 was killed"

    monkeypatch.setattr(launch, "_Crew", Lost)
    told = []
    run = Run(tmp_path)
    launcher = launch.Launcher(2, run, ["--a"], ["--b"], restarts, told.append)
    with pytest.raises(RunError, match=f"started again {restarts} times"):
        launcher.run()
    assert starts == [["--a"]] * (1 + restarts) and len(told) == restarts


def children(process):
    """Return the process ids of a launch's workers, the chief's first."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            config = (entry / "environ").read_bytes().partition(b'"index": ')[2]
        except OSError:  # it has just ended
            continue
        if int(stat[1]) == process.pid and config:
            found[int(config[: config.index(b"}")])] = int(entry.name)
    return [found[i] for i in sorted(found)]


def started(folder, *arguments):
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "kcnn", *arguments],
            cwd=folder,
            stdout=said,
            stderr=said,
        )


def weights(folder, run):
    with np.load(folder / run / "checkpoints" / "model.npz") as file:
        return [file[name] for name in file.files if name.startswith("weights")]


def wait_for(condition, process, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(number):
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


needs_proc = pytest.mark.skipif(
    not pathlib.Path("/proc/self/environ").exists(), reason="reads /proc"
)


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_changes_nothing(tmp_path):
    """Two processes against one; and one of them is killed in the middle."""
    write_npz(tmp_path / "a.npz", n_train=200)
    flags = ["--epochs=120", "--checkpoint_every=1"]
    alone = started(tmp_path, *TRAIN, *flags, "--model_dir=one", "--strategy=one")
    assert alone.wait() == 0, (tmp_path / "said").read_text()
    process = started(
        tmp_path, "launch", "--workers=2", "--", *TRAIN, *flags, "--model_dir=two"
    )
    wait_for((tmp_path / "two" / "checkpoints" / "last.npz").exists, process)
    chief, other = children(process)
    os.kill(other, signal.SIGKILL)
    said = (tmp_path / "said").read_text
    assert process.wait() == 0, said()
    assert "worker 1 was killed by SIGKILL; starting all again from its last" in said()
    assert not lives(chief)
    for a, b in zip(weights(tmp_path, "two"), weights(tmp_path, "one"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert (tmp_path / "two" / "report.html").exists()
    rows = (tmp_path / "two" / "metrics.csv").read_text()
    assert rows.count("\n") == 121


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("whom", ["launch", "worker"])
def test_a_signal_stops_all_and_keeps_the_state(tmp_path, whom):
    write_npz(tmp_path / "a.npz", n_train=200)
    flags = ["--epochs=20000", "--model_dir=run"]
    process = started(tmp_path, "launch", "--workers=2", "--", *TRAIN, *flags)
    wait_for((tmp_path / "run" / "metrics.csv").exists, process)
    crew = children(process)
    assert len(crew) == 2
    target = process.pid if whom == "launch" else crew[1]
    os.kill(target, signal.SIGTERM)
    assert process.wait() == 143
    assert not any(map(lives, crew))
    said = (tmp_path / "said").read_text()
    assert said.count("kcnn train: stopped by SIGTERM in epoch") == 1
    assert "kcnn train --resume --model_dir=run" in said and "again" not in said
    assert (tmp_path / "run" / "checkpoints" / "last.npz").exists()


@pytest.mark.slow
@needs_proc
def test_a_killed_launch_leaves_no_orphan(tmp_path):
    write_npz(tmp_path / "a.npz")
    process = started(
        tmp_path, "launch", "--workers=2", "--", *TRAIN, "--model_dir=run"
    )
    wait_for(lambda: len(children(process)) == 2, process)
    crew = children(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(lives, crew)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_mistake_of_the_training_is_a_line_and_no_new_start(tmp_path):
    arguments = ["train", "--dataset=npz:nothing.npz", "--model_dir=run"]
    done = subprocess.run(
        [sys.executable, "-m", "kcnn", "launch", "--workers=2", "--", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "kcnn train: --dataset: nothing.npz: no such file\n"
    assert "again" not in done.stdout
