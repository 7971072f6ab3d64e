"""kcnn sweep: what it plans, and real sweeps on tiny data, also killed ones."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from kcnn import jobs, memory, runtime, scheduler
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.experiments import EXPERIMENTS, settings_of
from kcnn.knobs import parse_values
from kcnn.locks import FolderLock
from kcnn.sweep import plan
from kcnn.sweep_runner import SweepRunner

# As small as a run can be: nearly all of its seconds are Python's start.
TINY = ("--dataset=npz:stripes.npz", "--model=mlp", "--dense_units=16")
SHORT = (*TINY, "--epochs=2", "--batch_size=32")


@pytest.fixture
def sweep(fresh_kcnn, npz):
    """Run kcnn sweep --model_dir=sweep in a folder with stripes.npz."""

    def run(*arguments, **kwargs):
        return fresh_kcnn("sweep", "--model_dir=sweep", *arguments, **kwargs)

    return run


def started(folder, *arguments):
    """Start a sweep that is not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "kcnn", "sweep", "--model_dir=sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def results(folder):
    return {
        run["name"]: run
        for run in json.loads((folder / "sweep" / "sweep.json").read_text())["runs"]
    }


def evaluations(folder):
    """Return when evaluation.json was written, for each run that came to its end."""
    ended = (page.parent for page in (folder / "sweep").glob("*/report.html"))
    return {run.name: (run / "evaluation.json").stat().st_mtime_ns for run in ended}


def train_logs(folder):
    paths = (folder / "sweep").glob("*/train.log")
    return {path.parent.name: path.read_text() for path in paths}


def trainings_of(folder):
    """Return the processes that train in a folder, by /proc."""
    own = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline") as file:
                words = file.read().split("\0")
            if "train" in words and os.readlink(f"/proc/{process}/cwd") == str(folder):
                own.append(int(process))
        except OSError:  # it has just ended
            continue
    return own


@pytest.mark.parametrize(
    ("knob", "text", "values"),
    [
        ("learning_rate", "0.002,0.02", (0.002, 0.02)),
        ("learning_rate", "1e-3", (0.001,)),
        ("random_seed", "0..4", (0, 1, 2, 3, 4)),
        ("epochs", "3..3", (3,)),
        ("random_seed", "9,0..2", (9, 0, 1, 2)),
        ("filters", "16,32", ((16, 32),)),
        ("filters", "16,32;32,64", ((16, 32), (32, 64))),
        ("dense_units", ";64", ((), (64,))),
        ("strict", "true,false", (True, False)),
        ("dataset", "npz:a,b.npz;", ("npz:a,b.npz",)),
        ("dataset", "npz:../a.npz,mnist", ("npz:../a.npz", "mnist")),
    ],
)
def test_values_of_a_flag(knob, text, values):
    assert parse_values(KNOBS[knob], text) == values


@pytest.mark.parametrize(
    ("knob", "text", "words"),
    [
        ("random_seed", "4..0", "the lower first"),
        ("random_seed", "-1..2", "got -1"),
        ("random_seed", "0..2000000000", "at most"),
        ("random_seed", "0..3,2", "got 2 2 times"),
        ("learning_rate", "0..3", "expected a number"),
        ("learning_rate", "0.1,", "got ''"),
        ("learning_rate", "0.1,0.10", "2 times"),
        ("strict", "true,perhaps", "true or false"),
        ("model", "mlp,lenett", "did you mean lenet?"),
        ("filters", "16,32;0", "got 0"),
    ],
)
def test_values_that_are_refused(knob, text, words):
    with pytest.raises(ValueError, match="got ") as raised:
        parse_values(KNOBS[knob], text)
    assert words in str(raised.value)


def test_the_cross_product_and_its_names():
    chosen = {"filters": ((16, 32), (8,)), "random_seed": (0, 1), "model": ("convnet",)}
    runs, _ = plan(chosen, [])
    assert [run.name for run in runs] == [
        "filters=16,32,random_seed=0",
        "filters=16,32,random_seed=1",
        "filters=8,random_seed=0",
        "filters=8,random_seed=1",
    ]
    assert runs[3].config == Config(model="convnet", filters=(8,), random_seed=1)
    assert runs[3].recipe == {"filters": (8,)}


def test_names_are_safe_short_and_apart():
    datasets = ("npz:/a/b.npz", "npz:_a_b.npz", "npz:c d.npz", "npz:" + "é" * 200)
    names = [run.name for run in plan({"dataset": datasets}, [])[0]]
    assert len(set(names)) == 4
    assert names[2] == "dataset=npz_c_d.npz"
    assert all("/" not in name and len(name.encode()) < 220 for name in names)


def test_flags_keep_every_digit():
    rate = 0.12345678901
    (run, _) = plan({"learning_rate": (rate, 0.1)}, [])[0]
    assert f"--learning_rate={rate}" in run.arguments("x")


def test_experiments_are_matched_by_id_and_group_and_flags_win():
    runs, left_out = plan({"epochs": (1,), "random_seed": (0, 1)}, ["lab8-convnet-*"])
    groups = {EXPERIMENTS[run.experiment].group for run in runs}
    expected = {"lab8-convnet-lr", "lab8-convnet-width", "lab8-convnet-dropout"}
    assert (groups, left_out) == (expected, {})
    assert runs[1].name == "experiment=lr-0.002,random_seed=1"
    changes = {"epochs": 1, "random_seed": 1}
    assert runs[1].config == Config.from_dict(settings_of("lr-0.002") | changes)
    arguments = runs[1].arguments("x")
    assert arguments[:3] == ["--experiment=lr-0.002", "--epochs=1", "--random_seed=1"]


def test_what_is_no_run_is_left_out_and_a_sweep_brings_its_values():
    runs, left_out = plan({}, ["own-set-*", "bottleneck-lr-sweep", "k1"])
    assert list(left_out) == ["own-set-best"]
    assert "kcnn evaluate" in left_out["own-set-best"]
    assert [run.name for run in runs][:2] == [
        "experiment=k1",
        "experiment=bottleneck-lr-sweep,learning_rate=0.0001",
    ]
    assert len(runs) == 1 + 19
    assert not any(a.startswith("--experiment") for a in runs[1].arguments("x"))
    assert runs[1].config.learning_rate == 0.0001
    assert len(plan({"learning_rate": (0.1,)}, ["bottleneck-lr-sweep"])[0]) == 1


def test_only_what_is_no_run_is_refused():
    with pytest.raises(UsageError, match="nothing to run: own-set-best"):
        plan({}, ["own-set-best"])


def test_default_jobs_follow_cores_and_memory(monkeypatch):
    def machine(cores, gibibytes, gpu=False):
        monkeypatch.setattr(runtime, "cores", lambda: cores)
        monkeypatch.setattr(memory, "available", lambda: gibibytes * 2**30)
        monkeypatch.setattr(jobs, "_has_gpu", lambda: gpu)
        return jobs.default_jobs()

    assert machine(1, 64) == 1
    assert machine(2, 64) == 1
    assert machine(16, 64) == 8
    assert machine(16, 7) == 3
    assert machine(16, 1) == 1
    assert machine(16, 64, gpu=True) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--random_seed=0,x"], ["--random_seed", "'x'"]),
        (["--lr=1,2"], ["did you mean --learning_rate?"]),
        ([], ["nothing to sweep"]),
        (["--random_seed=0..9999", "--epochs=1,2"], ["20,000 runs"]),
        (["--experiment=nothing*"], ["nothing*"]),
        (["--model_dir=", "--epochs=1,2"], ["--model_dir"]),
        (["--epochs=1,2", "3"], ["3: unexpected"]),
        (["--epochs=1,2", "--jobs=0"], ["--jobs", "got 0"]),
        (
            ["--model=convnet,mlp", "--filters=8;16", "--random_seed=0,1"],
            ["model=mlp,filters=8,random_seed=0: --filters changes nothing"],
        ),
        (
            ["--experiment=k1,lenet", "--warmup_epochs=0,20"],
            ["experiment=k1,warmup_epochs=20: --warmup_epochs: got 20"],
        ),
    ],
)
def test_a_wrong_sweep_is_one_line_before_anything_runs(sweep, tmp_path, flags, words):
    began = time.perf_counter()
    done = sweep(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kcnn sweep: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "sweep").exists()
    assert time.perf_counter() - began < 2, "something heavy is imported"


def test_dry_run_prints_a_command_a_run_and_writes_nothing(sweep, tmp_path):
    done = sweep(*TINY, "--learning_rate=0.1,0.2", "--strict=true,false", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"kcnn train --dataset=npz:stripes.npz --strict={strict} --model=mlp "
        f"--dense_units=16 --learning_rate={rate} "
        f"--model_dir=sweep/strict={strict},learning_rate={rate} --export_dir="
        for strict in ("true", "false")
        for rate in ("0.1", "0.2")
    ]
    assert not (tmp_path / "sweep").exists()


def test_no_tensorflow_in_the_parent():
    code = (
        "import sys; import kcnn.commands.sweep; "
        "print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_failed_run_is_recorded_and_the_rest_go_on_two_at_a_time(sweep, tmp_path):
    flags = (*TINY, "--epochs=20", "--batch_size=16", "--export_dir=exports")
    flags += ("--optimizer=sgd", "--weight_decay=5", "--jobs=2")
    rates = "--learning_rate=100,0.01,0.02"  # the first diverges
    done = sweep(*flags, rates)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "1 of 3 runs failed" in done.stderr and "diverged" in done.stderr
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert sum(line.startswith("done ") for line in done.stdout.splitlines()) == 2
    runs = results(tmp_path)
    assert list(runs)[-1] == "learning_rate=100"
    bad = runs["learning_rate=100"]
    assert bad["status"] == "failed" and bad["accuracy"] is None
    assert bad["reason"].startswith("diverged: the ")
    for name in ("learning_rate=0.01", "learning_rate=0.02"):
        result = json.loads((tmp_path / "sweep" / name / "evaluation.json").read_text())
        assert runs[name]["status"] == "done"
        assert runs[name]["values"] == {"learning_rate": float(name.split("=")[1])}
        assert runs[name]["accuracy"] == result["test"]["accuracy"]
        assert runs[name]["loss"] == result["test"]["loss"]
        assert (tmp_path / "exports" / name / "1" / "saved_model.pb").exists()
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(runs)
    assert rows[-1]["status"] == "failed" and rows[-1]["learning_rate"] == "100"

    # Again, with one good run fewer: only the failed one is tried once more.
    before = evaluations(tmp_path)
    again = sweep(*flags, "--learning_rate=100,0.01")
    assert again.returncode == 1
    assert "1 done already" in again.stdout
    assert evaluations(tmp_path) == before

    # Other knobs under the same names are refused.
    other = sweep(*flags, rates, "--epochs=3")
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "--epochs=20, not 3" in other.stderr and "--overwrite" in other.stderr
    assert evaluations(tmp_path) == before
    shown = sweep(*flags, rates, "--epochs=3", "--overwrite", "--dry_run")
    assert all("--overwrite" in line for line in shown.stdout.splitlines())
    shown = sweep(*flags, rates, "--dry_run").stdout.splitlines()
    assert shown[0].startswith(
        "kcnn train --resume --model_dir=sweep/learning_rate=100"
    )
    assert all(line.startswith("# done: kcnn train ") for line in shown[1:])


@pytest.mark.slow
def test_the_best_mean_comes_first(sweep, tmp_path):
    flags = (*TINY, "--epochs=15", "--batch_size=16", "--random_seed=0,1")
    done = sweep(*flags, "--learning_rate=0.000001,0.02", "--jobs=2")
    assert done.returncode == 0, done.stderr
    note = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    good, bad = note["recipes"]
    assert good["values"] == {"learning_rate": 0.02}
    assert good["done"] == good["runs"] == 2
    figures = [run["accuracy"] for run in note["runs"]]
    assert good["accuracy"] == pytest.approx(sum(figures[:2]) / 2)
    half = abs(figures[2] - figures[3]) / 2
    assert bad["accuracy_deviation"] == pytest.approx(half * 2**0.5)  # n - 1
    table = done.stdout.splitlines()
    (head,) = (i for i, text in enumerate(table) if text.startswith("learning_rate "))
    assert table[head + 1].startswith("0.02 ") and "2 of 2" in table[head + 1]
    assert table[head + 2].startswith("1e-06 ")


def killed_and_started_again(folder, flags, total):
    """Kill a sweep in its midst and start it again; check that each run ran once."""
    process = started(folder, *flags)
    wait_for(lambda: evaluations(folder))  # one is done
    wait_for(  # and a later one has begun to train
        lambda: len(list((folder / "sweep").glob("*/metrics.csv"))) > 1
    )
    process.kill()
    process.communicate()
    wait_for(lambda: not trainings_of(folder), seconds=4)  # no orphans
    complete, logs = evaluations(folder), train_logs(folder)
    assert 1 <= len(complete) < total
    process = started(folder, *flags)
    output, error = process.communicate(timeout=1800)
    assert process.returncode == 0, error
    assert f"{len(complete)} done already" in output
    after = evaluations(folder)
    assert len(after) == total
    assert {name: after[name] for name in complete} == complete
    ends = re.findall(r"^done +\d+/\d+ +(\S+)", output, re.M)
    assert sorted([*ends, *complete]) == sorted(after)
    assert {run["status"] for run in results(folder).values()} == {"done"}
    for name, log in train_logs(folder).items():
        if name in complete:  # perhaps killed before it told its result
            assert log == logs[name]
        else:  # tested once, resumed or not
            assert log.count("\ntest  ") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphans")
def test_a_sweep_of_twelve_killed_and_started_again(npz, tmp_path):
    flags = (*TINY, "--epochs=100", "--batch_size=4", "--random_seed=0..3")
    rates = "--learning_rate=0.001,0.002,0.004"
    killed_and_started_again(tmp_path, (*flags, rates, "--jobs=2"), 12)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_the_runs_and_the_same_command_goes_on(
    npz, tmp_path, number, status
):
    flags = (*TINY, "--epochs=100000", "--batch_size=4", "--random_seed=0,1")
    process = started(tmp_path, *flags, "--jobs=1")
    wait_for(lambda: list((tmp_path / "sweep").glob("*/metrics.csv")))
    second = started(tmp_path, *flags)  # beside the first, it is refused
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2 and error.count("\n") == 1
    assert f"kcnn sweep is running there already (process {process.pid} " in error
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert error.count("\n") == 1
    assert "0 of 2 runs are done, 1 stopped" in error
    assert f"kcnn sweep --model_dir=sweep {' '.join(flags)} --jobs=1" in error
    assert not trainings_of(tmp_path)
    states = {name: run["status"] for name, run in results(tmp_path).items()}
    assert states == {"random_seed=0": "stopped", "random_seed=1": "waiting"}
    assert (tmp_path / "sweep/random_seed=0/checkpoints/last.npz").exists()
    shown = started(tmp_path, *flags, "--dry_run").communicate(timeout=60)[0]
    assert [line.split()[2] for line in shown.splitlines()] == [
        "--resume",
        "--dataset=npz:stripes.npz",
    ]


def test_the_lock_names_the_command_that_runs_the_sweep(tmp_path):
    held = []

    class Board(scheduler.Board):
        def note(self, topic, text):
            held.append(json.loads((tmp_path / ".lock").read_text())["command"])

    runner = SweepRunner(tmp_path, "kcnn reproduce", jobs=1)
    runner.run([], {}, Board(io.StringIO()), {})
    assert set(held) == {"kcnn reproduce"}


def test_a_run_that_is_killed_is_named_with_its_signal(tmp_path):
    with FolderLock(tmp_path, "kcnn sweep") as lock:
        job = jobs.Job(["--model_dir=run"], tmp_path / "run" / "train.log", lock)
        job.kill()
    assert job.status == -signal.SIGKILL
    assert job.reason().startswith("killed by SIGKILL, perhaps for want of memory")


@pytest.mark.slow
def test_a_run_killed_before_its_page_gets_it(sweep, tmp_path):
    flags = (*SHORT, "--random_seed=0,1", "--jobs=2")
    assert sweep(*flags).returncode == 0
    before = evaluations(tmp_path)
    page = tmp_path / "sweep" / "random_seed=1" / "report.html"
    metrics = (tmp_path / "sweep" / "random_seed=1" / "metrics.csv").read_text()
    page.unlink()
    done = sweep(*flags)
    assert done.returncode == 0, done.stderr
    assert page.exists()
    assert page.with_name("metrics.csv").read_text() == metrics
    assert evaluations(tmp_path)["random_seed=0"] == before["random_seed=0"]


@pytest.mark.slow
def test_a_terminal_sees_a_live_table_and_no_leftovers(npz, tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kcnn", "sweep", "--model_dir=sweep", *SHORT]
    process = subprocess.Popen(
        [*command, "--random_seed=0,1", "--jobs=1"], cwd=tmp_path, stdout=theirs
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    text = seen.decode()
    assert "random_seed=0  starting" in text
    assert "0 done, 0 failed, 1 running, 1 waiting" in text
    assert "\x1b[2F\x1b[J" in text
    assert text.count("done    ") >= 2
