"""Searches in several processes, with workers and commands killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

TINY = (
    *("--dataset=npz:stripes.npz", "--model=mlp", "--activation=relu"),
    *("--dense_units=8;16;32", "--dropout=0.1,0.2", "--batch_size=8"),
    *("--learning_rate=log:1e-3..1e-1", "--epochs=40", "--pruning=none"),
    *("--best=0", "--model_dir=search", "--max_trials=8"),
)


def start(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "kcnn", "tune", *TINY, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def processes(folder, word):
    """Return the processes in a folder whose environment holds a word, by /proc."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ") as file:
                environment = file.read()
            here = os.readlink(f"/proc/{process}/cwd") == str(folder)
        except OSError:  # it has just ended, or is another user's
            continue
        if here and word in environment:
            found.append(int(process))
    return found


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def trials(folder):
    return json.loads((folder / "search" / "trials.json").read_text())


def ended(folder):
    records = (folder / "search" / "trials").glob("*.json")
    return [r for r in map(_read, records) if r["status"] != "running"]


def _read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_only_its_trial(npz, tmp_path):
    process = start(tmp_path, "--workers=2")
    wait_for(lambda: ended(tmp_path))
    first = processes(tmp_path, "KERASTUNER_TUNER_ID=worker-1")
    os.kill(first[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    records = trials(tmp_path)
    assert [r["status"] for r in records] == ["done"] * 8
    assert len({json.dumps(r["values"]) for r in records}) == 8
    assert {r["worker"] for r in records} <= {"worker-1", "worker-2"}
    assert sum(line.startswith("trial ") for line in said.splitlines()) == 8
    assert not processes(tmp_path, "KERASTUNER_TUNER_ID")


@pytest.mark.slow
def test_the_command_is_killed_with_its_workers_and_goes_on(npz, tmp_path):
    process = start(tmp_path, "--workers=2")
    before = wait_for(lambda: ended(tmp_path))
    process.kill()
    process.communicate()
    wait_for(lambda: not processes(tmp_path, "KERASTUNER_TUNER_ID"))
    process = start(tmp_path, "--workers=2")
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    records = {r["trial"]: r for r in trials(tmp_path)}
    assert len(records) == 8
    for record in before:
        assert records[record["trial"]]["elapsed"] == record["elapsed"]


@pytest.mark.slow
def test_a_signal_stops_the_workers_and_puts_their_trials_back(npz, tmp_path):
    process = start(tmp_path, "--workers=2")
    wait_for(lambda: ended(tmp_path))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 143, said
    assert "the same command goes on" in said
    assert not processes(tmp_path, "KERASTUNER_TUNER_ID")


@pytest.mark.slow
def test_a_chief_and_a_worker_by_hand(npz, tmp_path):
    """As on two machines that share the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    chief = start(tmp_path, KERASTUNER_TUNER_ID="chief", **common)
    wait_for(lambda: (tmp_path / "search" / "search.json").exists())
    worker = start(tmp_path, KERASTUNER_TUNER_ID="me", **common)
    assert worker.wait(timeout=400) == 0, worker.stdout.read()
    said, _ = chief.communicate(timeout=100)
    assert chief.returncode == 0, said
    assert {r["worker"] for r in trials(tmp_path)} == {"me"}


@pytest.mark.slow
def test_workers_that_always_die_end_the_search_with_a_reason(npz, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os\nif 'KERASTUNER_TUNER_ID' in os.environ: os._exit(3)\n"
    )
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    process = start(tmp_path, "--workers=2", PYTHONPATH=path)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 1, said
    assert "every worker died again and again: worker-" in said


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"KERASTUNER_ORACLE_IP": "127.0.0.1"},
            "KERASTUNER_ORACLE_PORT, KERASTUNER_TUNER_ID: not set",
        )
    ],
)
def test_variables_that_are_not_all_set_are_named(npz, tmp_path, environment, words):
    process = start(tmp_path, **environment)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert words in said
