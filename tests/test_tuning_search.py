"""Searches in this process, and what real command lines leave after a kill."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest

from kcnn.config import KNOBS
from kcnn.errors import Interrupted, UsageError
from kcnn.progress import Progress
from tuning.journal import Journal, Record, ranked
from tuning.objective import OBJECTIVES
from tuning.pruning import is_hopeless
from tuning.session import Folder, Settings, open_session
from tuning.space import build_space, parse_domain

MLP = {
    "model": "mlp",
    "activation": "relu",
    "dense_units": "8;16",
    "batch_size": "16,32",
    "epochs": "2",
    "precision": "float32",
}
ACCURACY = OBJECTIVES["accuracy"]


def space_of(npz, **texts):
    given = {**MLP, "dataset": f"npz:{npz}", **texts}
    return build_space({n: parse_domain(KNOBS[n], t) for n, t in given.items()})


def session_of(npz, folder, texts=(), on_end=lambda record: None, **settings):
    settings = {"max_trials": 4, **settings}
    return open_session(
        space_of(npz, **dict(texts)),
        Settings(**settings),
        folder,
        progress=Progress(None),
        on_end=on_end,
    )


def search(*args, **kwargs):
    """Search to the end and return the records."""
    session = session_of(*args, **kwargs)
    session.tuner.search()
    return session.journal.all()


def outcome(records):
    return [(r.values, r.status, r.scores, r.attempts) for r in records]


@pytest.mark.slow
def test_two_searches_with_one_seed_are_the_same(npz, tmp_path):
    one = search(npz, tmp_path / "a")
    assert outcome(one) == outcome(search(npz, tmp_path / "b"))
    assert [r.status for r in one] == ["done"] * 4
    assert len({json.dumps(r.values) for r in one}) == 4
    other = search(npz, tmp_path / "c", {"random_seed": "1"})
    assert outcome(one) != outcome(other)


def test_precision_and_seed_hold_in_every_trial(npz, tmp_path, monkeypatch):
    """keras-tuner's own loop clears the dtype policy before each trial."""
    session = session_of(
        npz, tmp_path, {"precision": "mixed_bfloat16"}, executions=2, max_trials=3
    )
    real, seen = session.bench.loop, []

    def loop(config):
        made = real(config)
        layers = made[0].model.layers
        names = [layer.dtype_policy.name for layer in layers if layer.weights]
        seen.append((config.random_seed, *names))
        return made

    monkeypatch.setattr(session.bench, "loop", loop)
    session.tuner.search()
    assert seen == [(s, "mixed_bfloat16", "float32") for s in (0, 1)] * 3


def test_a_trial_is_what_kcnn_train_does(kcnn, npz, tmp_path):
    """The command that a trial stands for gives its figure, second seed included."""
    records = search(npz, tmp_path / "s", executions=2, max_trials=2)
    best = ranked(records, ACCURACY)[0]
    assert best.score == statistics.mean(best.scores)
    assert best.deviation == pytest.approx(statistics.stdev(best.scores))
    values = [
        f"--{n}={v[0] if n == 'dense_units' else v}" for n, v in best.values.items()
    ]
    fixed = [f"--{n}={MLP[n]}" for n in ("model", "activation", "epochs", "precision")]
    done = kcnn(
        "train",
        f"--dataset=npz:{npz}",
        *fixed,
        *values,
        "--random_seed=1",
        "--model_dir=run",
        "--export_dir=",
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(rows[-1]["val_accuracy"]) == best.scores[1]
    assert float(rows[-1]["val_loss"]) == pytest.approx(
        best.histories[1][-1]["val_loss"], rel=1e-5
    )


def test_a_trial_that_diverges_is_failed_with_its_reason(npz, tmp_path):
    texts = {"learning_rate": "0.001,100", "optimizer": "sgd", "dense_units": "64,64"}
    texts |= {"schedule": "constant", "dropout": "0", "weight_decay": "5"}
    texts |= {"epochs": "50"}  # of weights times 1 - 100 * 5 a step
    records = search(npz, tmp_path, texts, tuner="grid", pruning="none")
    by_rate = {}
    for record in records:
        by_rate.setdefault(record.values["learning_rate"], []).append(record)
    assert [r.status for r in by_rate[0.001]] == ["done", "done"]
    for record in by_rate[100.0]:
        assert record.status == "failed"
        assert record.reason.startswith("diverged: the ")
        assert record.score is None
    assert "NaN" not in (tmp_path / "oracle.json").read_text()


def test_a_kernel_larger_than_its_map_costs_no_trial(npz, tmp_path):
    """10x10 images: two kernels of 3 leave 6x6, two of 7 leave nothing."""
    texts = {"model": "tutorial", "filters": "2,2", "kernel_size": "3,7"}
    texts |= {"conv_dropout": "0.1", "dropout": "0.1", "batch_norm": "0"}
    texts |= {"learning_rate": "0.01", "dense_units": "4", "batch_size": "32"}
    session = session_of(npz, tmp_path, texts, tuner="grid", max_trials=5)
    session.tuner.search()
    assert [r.values for r in session.journal.all()] == [{"kernel_size": 3}]
    assert session.oracle.refused == 1
    assert "--kernel_size=7 does not fit" in session.oracle.last_refusal


def test_what_tensorflow_refuses_does_not_end_the_search(npz, tmp_path, monkeypatch):
    session = session_of(npz, tmp_path)
    real, calls = session.bench.loop, []

    def loop(config):
        calls.append(config)
        if len(calls) in (1, 2, 3):  # keras-tuner gives up after three in a row
            raise ValueError("no such\n  layer")
        return real(config)

    monkeypatch.setattr(session.bench, "loop", loop)
    session.tuner.search()
    records = session.journal.all()
    assert [r.status for r in records] == ["failed"] * 3 + ["done"]
    assert records[0].reason == "ValueError: no such layer"


def test_a_full_disk_ends_the_search_and_the_trial_is_run_again(
    npz, tmp_path, monkeypatch
):
    whole = search(npz, tmp_path / "whole")
    session = session_of(npz, tmp_path / "cut")
    write = Journal.write

    def full(self, record):
        if record.trial == "2" and record.ended:
            raise OSError(28, "No space left on device", "trials/2.json")
        write(self, record)

    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(OSError, match="No space left"):
        session.tuner.search()
    monkeypatch.setattr(Journal, "write", write)
    again = search(npz, tmp_path / "cut")
    assert [r.scores for r in again] == [r.scores for r in whole]


def test_a_result_that_keras_tuner_never_heard_of_is_not_computed_again(npz, tmp_path):
    """Killed between the record of a trial and the state of the oracle."""
    session = session_of(npz, tmp_path)
    real, ended = session.oracle.end_trial, []

    def die(trial):
        ended.append(trial)
        if len(ended) == 3:
            raise KeyboardInterrupt
        real(trial)

    session.oracle.end_trial = die
    with pytest.raises(KeyboardInterrupt):
        session.tuner.search()
    stamp = (tmp_path / "trials" / "2.json").stat().st_mtime_ns
    trained = []
    session = session_of(npz, tmp_path)
    run = session.tuner.trainer.run
    session.tuner.trainer.run = lambda r: (trained.append(r.number), run(r))
    session.tuner.search()
    assert trained == [4]
    assert (tmp_path / "trials" / "2.json").stat().st_mtime_ns == stamp
    assert outcome(session.journal.all()) == outcome(search(npz, tmp_path / "whole"))


def test_a_signal_puts_the_trial_back(npz, tmp_path):
    def stop(record):
        if record.number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    session = session_of(npz, tmp_path, on_end=stop)
    with pytest.raises(Interrupted, match="SIGTERM") as raised:
        session.tuner.search()
    assert raised.value.exit_status == 143
    assert outcome(search(npz, tmp_path)) == outcome(search(npz, tmp_path / "whole"))


def test_a_trial_that_kills_its_process_comes_to_an_end(npz, tmp_path):
    session = session_of(npz, tmp_path)
    trial = session.oracle.create_trial("tuner0")
    record = session.tuner._new_record(trial)
    record.attempts = 3
    session.journal.write(record)
    records = search(npz, tmp_path)
    assert records[0].status == "failed"
    assert "its process was killed 3 times" in records[0].reason
    assert [r.status for r in records[1:]] == ["done"] * 3


def test_the_budget_of_time_ends_the_search_and_a_larger_one_goes_on(npz, tmp_path):
    session = session_of(npz, tmp_path, time_budget=0.001)
    time.sleep(0.01)
    session.tuner.search()
    assert session.journal.all() == []
    one = search(npz, tmp_path, {"epochs": "5000"}, time_budget=3.0)
    assert [r.status for r in one] == ["running"]  # cut between two epochs
    assert one[0].attempts == 0


def test_only_the_best_weights_stay(npz, tmp_path):
    session = session_of(npz, tmp_path, keep=2)
    session.tuner.search()
    kept = {path.stem for path in (tmp_path / "trials").glob("*.npz")}
    best = ranked(session.journal.all(), ACCURACY)
    assert kept == {r.trial for r in best[:2]}
    model = session.tuner.get_best_models(1)[0]
    validation = session.bench.data(session.space.baseline).validation
    from kcnn.pipeline import evaluation_batches

    logits = model.predict(evaluation_batches(validation, 32), verbose=0)
    accuracy = (logits.argmax(1) == validation.labels).mean()
    assert accuracy == pytest.approx(best[0].score)


def test_hyperband_trains_each_rung_from_the_beginning(npz, tmp_path):
    texts = {"epochs": "4", "learning_rate": "log:1e-3..1e-1"}
    records = search(npz, tmp_path, texts, tuner="hyperband", factor=2, max_trials=None)
    assert {(r.bracket, r.rung, r.epochs) for r in records} >= {(2, 0, 1), (2, 2, 4)}
    for record in records:
        assert len(record.histories[0]) == record.epochs
        assert record.histories[0][0]["epoch"] == 1
    best = ranked(records, ACCURACY)[0]
    assert best.epochs == 4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_ranks_by_its_own_figure(npz, tmp_path, objective):
    records = search(npz, tmp_path, objective=objective, max_trials=3)
    best = ranked(records, OBJECTIVES[objective])[0]
    column = OBJECTIVES[objective].column
    figures = [r.histories[0][-1][column] for r in records]
    assert best.score == (min(figures) if objective == "loss" else max(figures))


def test_a_search_without_validation_images_is_refused(npz, tmp_path):
    with pytest.raises(UsageError, match="--validation_fraction: got 0"):
        session_of(npz, tmp_path, {"validation_fraction": "0"})


def record_of(values, epochs=4, status="done"):
    rows = [{"val_accuracy": v, "val_loss": 1 - v} for v in values]
    return Record("0", {}, epochs, status=status, histories=[rows])


@pytest.mark.parametrize("objective", ["accuracy", "loss"])
def test_the_median_rule_by_hand(objective):
    """Means up to epoch 2: 0.35, 0.45, 0.55, 0.65, 0.75; their median is 0.55."""
    others = [record_of([a, a + 0.1, 0.9, 0.9]) for a in (0.3, 0.4, 0.5, 0.6, 0.7)]
    goal = OBJECTIVES[objective]

    def hopeless(values, others=others, epochs=4):
        figures = values if objective == "accuracy" else [1 - v for v in values]
        return is_hopeless(figures, others, epochs, goal)

    assert hopeless([0.2, 0.54])
    assert not hopeless([0.2, 0.56])
    assert not hopeless([0.56, 0.1])  # its best counts
    assert not hopeless([0.1, 0.1], others[:4])  # too few to tell
    assert not hopeless([0.1, 0.1], epochs=5)  # others were planned shorter
    assert not hopeless([])
    assert not hopeless([0.1] * 4)  # it has come to its end anyway
    pruned = [record_of([0.3, 0.4], status="pruned") for _ in range(5)]
    assert not hopeless([0.1, 0.1], pruned)


@pytest.mark.slow
def test_hopeless_trials_are_stopped_in_a_search(npz, tmp_path):
    texts = {
        "epochs": "6",
        "schedule": "constant",
        "optimizer": "sgd",
        "learning_rate": "0.5,1e-7",
        "dense_units": "8;9;10;11;12",
        "batch_size": "16",
    }
    records = search(npz, tmp_path, texts, max_trials=10)
    pruned = [r for r in records if r.status == "pruned"]
    assert pruned
    for record in pruned:
        assert record.values["learning_rate"] == 1e-7
        assert 1 <= len(record.histories[0]) < 6
        assert "worse than the median" in record.reason
        assert record not in ranked(records, ACCURACY)
    never = search(npz, tmp_path / "none", texts, max_trials=10, pruning="none")
    assert {r.status for r in never} == {"done"}
    assert ranked(never, ACCURACY)[0].values == ranked(records, ACCURACY)[0].values


def test_another_search_in_the_folder_is_refused_by_its_first_difference(npz, tmp_path):
    folder = Folder(tmp_path)
    assert not folder.begin(space_of(npz), Settings(), "kcnn tune", False)
    assert folder.begin(space_of(npz), Settings(max_trials=99), "kcnn tune", False)
    for space, settings, words in (
        (space_of(npz, dropout="0.1,0.2"), Settings(), "--dropout=0..0.6, not 0.1,0.2"),
        (space_of(npz, epochs="9"), Settings(), "--epochs=2, not 9"),
        (space_of(npz), Settings(tuner="grid"), "--tuner=random, not grid"),
    ):
        with pytest.raises(UsageError) as raised:
            folder.begin(space, settings, "kcnn tune", False)
        assert words in str(raised.value)
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / ".0.json.abc").write_text("left by a kill")
    assert folder.begin(space_of(npz), Settings(), "kcnn tune", False)
    assert not list((tmp_path / "trials").iterdir())
    (tmp_path / "mine.txt").write_text("keep")
    assert not folder.begin(space_of(npz, epochs="9"), Settings(), "again", True)
    assert not folder.begin(space_of(npz, epochs="9"), Settings(), "again", True)
    assert (tmp_path / "mine.txt").exists()


TINY = (
    *("--dataset=npz:stripes.npz", "--model=mlp", "--activation=relu"),
    *("--dense_units=8;16;32", "--dropout=0.1,0.2", "--batch_size=8"),
    *("--learning_rate=log:1e-3..1e-1", "--best=0", "--model_dir=search"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tuner", ["random", pytest.param("bayesian", marks=pytest.mark.exhaustive)]
)
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_was_not(
    kcnn, npz, tmp_path, tuner
):
    command = ("tune", *TINY, f"--tuner={tuner}", "--epochs=30", "--max_trials=8")
    done = kcnn(*command, "--model_dir=whole", timeout=900)
    assert done.returncode == 0, done.stderr
    for wait in (1, 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "kcnn", *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for line in process.stdout:
            if line.startswith(b"trial"):
                break
        time.sleep(wait / 5)
        process.kill()
        process.communicate()
    done = kcnn(*command, timeout=900)
    assert done.returncode == 0, done.stderr
    whole, killed = (
        json.loads((tmp_path / name / "trials.json").read_text())
        for name in ("whole", "search")
    )
    for a, b in zip(whole, killed, strict=True):
        assert (a["values"], a["scores"]) == (b["values"], b["scores"])
        assert b["attempts"] <= 3
    with (tmp_path / "search" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [r["status"] for r in killed]


@pytest.mark.slow
def test_a_whole_search_from_the_command_line(kcnn, npz, tmp_path):
    command = ("tune", *TINY, "--best=1", "--final_seeds=2", "--epochs=3")
    command += ("--max_trials=3", "--time_budget=5m", "--tensorboard")
    done = kcnn(*command, timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("trial ") for line in lines) == 3
    assert any("trained on train+validation:" in line for line in lines)
    folder = tmp_path / "search"
    result = json.loads((folder / "result.json").read_text())
    assert f"           {result['command']}" in lines
    assert set(result["optimism"]["tuned"]) == {"search", "validation", "test"}
    for compared in result["compared"].values():
        assert {row["recipe"] for row in compared["recipes"]} == {"tuned", "untuned"}
        assert [row["n"] for row in compared["recipes"]] == [2, 2]
        seeds = {r["random_seed"] for row in compared["recipes"] for r in row["runs"]}
        assert seeds == {1, 2}  # the search's was 0
    assert "data:image/png" in (folder / "report.html").read_text()
    assert len(list(folder.glob("tensorboard/trial-*/events*"))) == 3
    assert len(list((folder / "trials").glob("*.npz"))) == 1
    stamp = (folder / "retrained" / "sweep.json").stat().st_mtime_ns
    again = kcnn(*command, timeout=900)
    assert again.returncode == 0
    assert "3 done already" in again.stdout
    assert (folder / "retrained" / "sweep.json").stat().st_mtime_ns > stamp
    large = kcnn("tune", *TINY[:1], "--model=tutorial", "--kernel_size=7,9")
    assert large.returncode == 2
    assert "no combination of the space can be run" in large.stderr
    refused = kcnn(*command, "--epochs=4")
    assert refused.returncode == 2
    assert "holds another search (--epochs=3, not 4)" in refused.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_command_in_one_line(kcnn, npz, full_disk):
    large = ("--dense_units=8192", "--dropout=0.1", "--learning_rate=0.01,0.02")
    large += ("--epochs=2",)  # 3.4 MB of weights
    done = kcnn(
        *("tune", *TINY, *large, f"--model_dir={full_disk / 'search'}"), timeout=900
    )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_package_only_this_command_is_missing(tmp_path):
    code = "import sys; sys.modules['tuning'] = None; sys.argv = ['kcnn', {0!r}, {1!r}]"
    code += "; from kcnn.cli import main; sys.exit(main())"

    def run(*arguments):
        command = [sys.executable, "-c", code.format(*arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run("tune", "--max_trials=3")
    assert done.returncode == 2
    assert done.stderr == (
        "kcnn tune: the package tuning, which this command needs, is not installed\n"
    )
    assert run("models", "--format=json").returncode == 0
