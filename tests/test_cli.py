import subprocess
import sys
import time

import pytest

from kcnn.config import KNOBS
from tests.conftest import striped_images, write_npz  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["kcnn trian", "did you mean train?"]),
        (["train", "--lr=1"], ["--lr", "did you mean --learning_rate?"]),
        (["train", "--bach_size=1"], ["did you mean --batch_size?"]),
        (["train", "--epochs=many"], ["--epochs", "'many'", "whole number"]),
        (["train", "--epochs=0"], ["--epochs", "got 0", "1 to"]),
        (["train", "--optimizer=adm"], ["--optimizer", "did you mean adam?"]),
        (["train", "--strict=perhaps"], ["--strict=perhaps", "true or false"]),
        (["train", "--epochs"], ["--epochs"]),
        (["train", "digits"], ["digits", "--name=value"]),
        (["train", "--experiment=tutorial-nb"], ["did you mean tutorial-bn?"]),
        (["train", "--experiment=own-set-best"], ["kcnn evaluate"]),
        (["train", "--resume"], ["--model_dir"]),
        (["train", "--resume", "--model_dir=nowhere"], ["nowhere", "no run here"]),
        (["train", "--config=no.json"], ["no.json", "no such file"]),
        (["train", "--model=mlp", "--filters=3"], ["--filters", "changes nothing"]),
        (["evaluate"], ["expected one folder"]),
        (["evaluate", "nowhere"], ["nowhere", "no such folder"]),
        (["compare"], ["expected folders of runs"]),
        (["compare", "nowhere*"], ["nowhere*", "no such folder"]),
        (["compare", ".", "--format=xml"], ["--format", "markdown, latex"]),
        (["tune", "--tuner=gird"], ["--tuner", "did you mean grid?"]),
        (["tune", "--factor=2"], ["--factor changes nothing for --tuner=random"]),
        (["tune", "--time_budget=soon"], ["--time_budget", "'soon'", "20m"]),
        (["tune", "--random_seed=0,1"], ["--random_seed", "expected one value"]),
        (["tune", "--dropout=0..2"], ["--dropout", "got 2, expected 0 to 0.95"]),
        (["tune", "--space=no.json"], ["no.json", "no such file"]),
        (["benchmark", "--rouds=3"], ["did you mean --rounds?"]),
        (["benchmark", "--models=tutoral"], ["--models", "did you mean tutorial?"]),
        (["benchmark", "--time_to=97"], ["--time_to", "'97'", "0.97,0.98"]),
        (["benchmark", "--time_to=", "--time_to_epochs=3"], ["changes nothing"]),
        (["benchmark", "--torch_variants=bf16"], ["without --torch_python"]),
        (["benchmark", "--torch_python=nowhere"], ["nowhere: No such file"]),
        (["predict"], ["no image given"]),
        (["predict", "nothing.png"], ["nothing.png", "no such file"]),
        (["experiments", "nothing*"], ["no experiment"]),
        (["data"], ["kcnn data", "expected kcnn data check or kcnn data split"]),
        (["data", "chekc", "."], ["expected kcnn data check"]),
        (["data check"], ["kcnn data check: expected one folder"]),
        (["data", "check", "nowhere"], ["nowhere: no such folder"]),
        (["data", "check", ".", "--out=x"], ["--out", "did you mean --output?"]),
        (["data", "split", "."], ["--out: say where"]),
        (["data", "split", ".", "--out=x/y"], ["--out: x/y is in ."]),
        (["models", "--format=xml"], ["--format", "table, json, csv"]),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2_at_once(fresh_kcnn, arguments, words):
    fresh_kcnn("--version")  # the first start reads Python's files from disk
    began = time.perf_counter()
    done = fresh_kcnn(*arguments)
    seconds = time.perf_counter() - began
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("kcnn ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert seconds < 1.0, "something heavy is imported"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"]])
def test_help_is_quick_and_status_0(fresh_kcnn, arguments):
    fresh_kcnn("--version")
    began = time.perf_counter()
    done = fresh_kcnn(*arguments)
    seconds = time.perf_counter() - began
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: kcnn" in done.stdout
    assert seconds < 1.0, "something heavy is imported"


def test_train_help_shows_every_knob(fresh_kcnn):
    text = fresh_kcnn("train", "--help").stdout
    missing = [n for n in KNOBS if f"--{n}" not in text and f"--[no]{n}" not in text]
    assert missing == []
    assert max(map(len, text.splitlines())) <= 88
    words = " ".join(text.split())
    assert "--batch_size images in a step [1 to 65536] (default: 128)" in words
    assert "of the schedule [1e-08 to 100] (default by --optimizer:" in words


def test_nothing_heavy_is_imported_for_help():
    import subprocess
    import sys

    code = (
        "import sys; import kcnn.commands.train, kcnn.flags, kcnn.cli; "
        "print([m for m in sys.modules if m in "
        "('numpy', 'tensorflow', 'keras', 'matplotlib', 'sklearn')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_training_imports_nothing_that_it_does_not_use(tmp_path):
    """Keras brings the first two where they are installed, the plots the third."""
    write_npz(tmp_path / "stripes.npz")
    heavy = ["sklearn", "matplotlib.pyplot", "matplotlib", "tensorflow_datasets"]
    heavy += ["scipy.stats", "scipy.optimize", "keras_tuner", "tensorboard"]
    flags = ["--dataset=npz:stripes.npz", "--model=mlp", "--epochs=1"]
    code = (
        "import sys; from kcnn import cli\n"
        f"sys.argv[1:] = {['train', *flags, '--model_dir=run', '--export_dir=e']}\n"
        "assert cli.main() == 0\n"
        f"print([m for m in {heavy} if m in sys.modules])\n"
        "import sklearn, matplotlib.pyplot"  # they can still be had
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "run" / "plots" / "architecture.png").exists()


def test_experiments_lists_the_published_figures(fresh_kcnn):
    done = fresh_kcnn("experiments", "lab8-convnet-lr")
    assert done.returncode == 0
    assert "lr-0.2" in done.stdout and "0.9644" in done.stdout
    assert "lenet" not in done.stdout


def test_a_folder_named_kcnn_is_not_taken_for_the_package(tmp_path):
    """Such as the clone itself, where a command runs beside it."""
    (tmp_path / "kcnn").mkdir()
    command = [sys.executable, "-m", "kcnn", "--version"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.startswith("kcnn ") and found.returncode == 0
