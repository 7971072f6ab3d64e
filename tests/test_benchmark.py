"""kcnn benchmark: figures by hand, sides that fail, a real one on few images."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kcnn.benchmark
from kcnn.benchmark import measure, plots, prepare, processes, sides, text
from kcnn.benchmark.figures import accuracy_rows, figures, seconds_until, speed_rows
from kcnn.benchmark.plan import VARIANTS, Plan, models_of, targets_of, variants_of
from kcnn.commands import benchmark as command
from kcnn.config import Config
from kcnn.errors import RunError, UsageError
from kcnn.experiments import settings_of
from kcnn.spec import ImageSpec
from kcnn.statistics import smallest_difference
from tests.conftest import write_npz

SCRIPTS = pathlib.Path(kcnn.benchmark.__file__).parent

# Stands in for a Python that has PyTorch: it says what stock_torch.py would.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1] == "-c":
    print("a greeting")
    print(json.dumps({{"torch": "9.9", "device": "CPU"}}))
    sys.exit()
script, data, model, epochs, seed, until, variant = sys.argv[1:]
assert script.endswith("stock_torch.py") and os.path.exists(script)
assert os.path.exists(data) and model == "lenet" and int(seed) >= 0
n = int(epochs)
seconds = [5.0] + [2.0 if variant == "eager" else 1.0] * (n - 1)
curve = [0.5 + 0.1 * i for i in range(n)] if float(until) else []
print(json.dumps({{"seconds": seconds, "accuracies": curve, "accuracy": 0.75}}))
"""


def stand_in(folder, source=STAND_IN):
    path = folder / "python"
    path.write_text(source)
    path.chmod(0o755)
    return path


def plan_of(**changes):
    settings = {
        "dataset": "digits",
        "data_dir": "",
        "images": 256,
        "models": ("lenet",),
        "rounds": 1,
        "epochs": 2,
        "stock": True,
        "torch_python": "",
        "torch_variants": VARIANTS,
        "targets": (0.97, 0.99),
        "time_to_model": "lenet",
        "time_to_images": 256,
        "time_to_epochs": 4,
    }
    return Plan(**(settings | changes))


def speed_run(number, model, side, speed, accuracy, memory=100.0):
    return {
        "part": "speed",
        "round": number,
        "random_seed": number,
        "model": model,
        "side": side,
        "images": 1000,
        "epochs": 3,
        "epoch_seconds": [9.0, 1000 / speed, 1000 / speed],
        "images_per_second": speed,
        "peak_memory_mib": memory,
        "accuracy": accuracy,
        "accuracies": None,
    }


def time_run(number, side, seconds, accuracies, model="lenet"):
    return speed_run(number, model, side, 1.0, accuracies[-1]) | {
        "part": "time_to",
        "epochs": len(seconds),
        "epoch_seconds": seconds,
        "accuracies": accuracies,
    }


def made_up():
    """Two rounds of two sides, and two of the time to 97 and 99%."""
    return {
        "flop": {"lenet": 1_000_000},
        "targets": [0.97, 0.99],
        "data": {"test": 10_000},
        "time_to": {"images": 60_000},
        "rounds": [
            {"part": "speed", "round": 1, "roof": {"float32": 3e10, "bfloat16": 6e10}},
            {"part": "speed", "round": 2, "roof": {"float32": 4e10, "bfloat16": 3e10}},
            {"part": "time_to", "round": 1},
            {"part": "time_to", "round": 2},
        ],
        "runs": [
            speed_run(1, "lenet", "kcnn", 6000.0, 0.98, 300.0),
            speed_run(1, "lenet", "Keras, stock script", 2000.0, 0.97),
            speed_run(2, "lenet", "kcnn", 4000.0, 0.96, 500.0),
            speed_run(2, "lenet", "Keras, stock script", 1000.0, 0.97),
            time_run(1, "kcnn", [5.0, 1.0, 2.0], [0.9, 0.97, 0.98]),
            time_run(1, "Keras, stock script", [6.0, 4.0], [0.971, 0.99]),
            time_run(2, "kcnn", [5.0, 1.0, 2.0], [0.9, 0.96, 0.98]),
            time_run(2, "Keras, stock script", [7.0, 5.0, 3.0], [0.95, 0.97, 0.985]),
        ],
    }


def test_speed_by_hand():
    ours, stock = speed_rows(made_up())
    assert (ours["images_per_second"], ours["images_per_second_low"]) == (5000, 4000)
    assert ours["kcnn_is_faster_by"] is None
    assert ours["peak_memory_mib"] == 400
    # 3 x 1 MFLOP x images/s over the faster product: 18/60 and 12/40 GFLOP/s.
    assert ours["roof_part"] == pytest.approx(0.3)
    assert stock["roof_part_low"] == pytest.approx(3 / 40)
    assert stock["roof_part_high"] == pytest.approx(6 / 60)
    # 6000/2000 and 4000/1000, round by round; not 5000/1500.
    assert stock["kcnn_is_faster_by"] == pytest.approx(3.5)
    assert (stock["kcnn_is_faster_by_low"], stock["kcnn_is_faster_by_high"]) == (3, 4)
    assert ours["accuracy"] == pytest.approx(0.97)
    assert ours["accuracy_deviation"] == pytest.approx(0.02 / 2**0.5)


def test_a_round_that_was_stopped_has_its_figures_too():
    record = made_up()
    record["runs"] = record["runs"][:3]
    ours, stock = speed_rows(record)
    # Of the second round one side is missing: the other's run is left out too.
    assert (ours["rounds"], stock["rounds"]) == (1, 1)
    assert (ours["images_per_second"], stock["kcnn_is_faster_by"]) == (6000, 3)
    assert accuracy_rows(record)[0]["p"] is None
    assert figures(record)["time_to"] == []
    record["runs"] = record["runs"][:1]
    assert [row["side"] for row in speed_rows(record)] == ["kcnn"]


def test_a_round_in_which_a_side_failed_is_whole():
    record = made_up()
    record["failures"] = [record["runs"].pop(3)]  # the script's, in the second round
    ours, stock = speed_rows(record)
    assert (ours["rounds"], stock["rounds"]) == (2, 1)


def test_a_round_of_another_model_is_whole_by_itself():
    record = made_up()
    record["flop"]["tutorial"] = 1
    record["runs"].insert(2, speed_run(1, "tutorial", "kcnn", 9.0, 0.5))
    record["runs"].pop()  # of the second time_to
    rows = figures(record)
    assert [row["rounds"] for row in rows["speed"]] == [2, 2, 1]
    assert {row["rounds"] for row in rows["time_to"]} == {1}


def test_another_side_begins_in_every_round(monkeypatch):
    ran = []

    def run(side, *_):
        if side.name == "PyTorch, compile":
            raise RunError("no compiler")
        ran.append(side.name)
        return {"side": side.name, "model": "lenet", "epoch_seconds": [2.0, 1.0]}

    monkeypatch.setattr(measure, "_run", run)
    monkeypatch.setattr(measure, "roof", lambda folder: {})
    files = {"npz": "", "dataset": ""}
    prepared = {
        "speed": files,
        "precision": {"policy": "mixed_bfloat16"},
        "onednn_chosen": False,
    }
    plan = plan_of(
        rounds=2, torch_python="py", torch_variants=("eager", "compile"), targets=()
    )
    found = list(measure.measure(plan, prepared, pathlib.Path()))
    names = [
        *("kcnn", "kcnn, --towers=1", "Keras, stock script", "Keras, mixed_bfloat16"),
        "PyTorch, eager",
    ]
    assert ran == [*names, *names[1:], names[0]]
    failed = [one for kind, one in found if kind == "failure"]
    assert [(one["round"], one["side"]) for one in failed] == [
        (1, "PyTorch, compile"),
        (2, "PyTorch, compile"),
    ]
    assert failed[0]["reason"] == "no compiler"


def test_accuracies_that_differ_by_noise_and_by_more():
    record = made_up()
    record["flop"]["tutorial"] = 1
    for seed, ours, stock in ((1, 0.990, 0.950), (2, 0.991, 0.951), (3, 0.989, 0.949)):
        record["runs"] += [
            speed_run(seed, "tutorial", "kcnn", 1.0, ours),
            speed_run(seed, "tutorial", "Keras, stock script", 1.0, stock),
        ]
    noise, more = accuracy_rows(record)
    assert "cannot be told from noise" in noise["sentence"]
    # Of 98 and 96%, and of 97% twice: variances of 2e-4 and 0, 1e-4 in the mean.
    least = smallest_difference(0.01, 2, paired=False)
    assert f"so many runs show {100 * least:.2g} points or more." in noise["sentence"]
    assert noise["difference"] == pytest.approx(0)
    assert "+4.00 points" in more["sentence"]
    assert "is more than noise" in more["sentence"]
    assert "adjusted for 2 models" in more["sentence"]
    # t = 0.04 / sqrt(2 x 0.001**2 / 3) = 48.99 with 4 degrees of freedom, times 2.
    assert more["p"] == pytest.approx(2 * 1.04e-6, rel=0.01)
    alone = accuracy_rows({"runs": record["runs"][:2]})[0]
    assert "nothing can be concluded" in alone["sentence"] and alone["p"] is None


def test_time_to_by_hand():
    rows = figures(made_up())["time_to"]
    found = {(r["target"], r["side"]): r for r in rows}
    ours = found[0.97, "kcnn"]
    assert (ours["seconds"], ours["seconds_low"], ours["seconds_high"]) == (7, 6, 8)
    stock = found[0.97, "Keras, stock script"]
    assert (stock["seconds"], stock["seconds_low"]) == (9, 6)
    never = found[0.99, "kcnn"]
    assert never["reached"] == 0 and never["seconds"] is never["seconds_low"] is None
    once = found[0.99, "Keras, stock script"]
    assert (once["reached"], once["seconds"], once["seconds_low"]) == (1, None, 10)
    assert text.seconds_text(ours) == "7 s (6 to 8)"
    assert text.seconds_text(never) == "not reached in 3 epochs"
    assert text.seconds_text(once) == "10 s at best, 1 of 2 rounds"
    most = {"rounds": 3, "reached": 2, "epochs": 3, "seconds": 8.0}
    most |= {"seconds_low": 6.0, "seconds_high": None}
    assert text.seconds_text(most) == "8 s (6 to -), 2 of 3 rounds"


def test_an_accuracy_in_float32_reaches_what_it_equals():
    accuracy = float(np.float32(0.992))
    assert accuracy < 0.992
    assert seconds_until(time_run(1, "kcnn", [2.0], [accuracy]), 0.992) == 2.0
    assert seconds_until(time_run(1, "kcnn", [2.0], [0.9919]), 0.992) is None


def test_tables():
    record = made_up()
    lines = "\n".join(text.tables(figures(record), record)).splitlines()
    assert lines[1].split("  ")[0] == "lenet"
    assert "5,000 (4,000 to 6,000)" in lines[1] and "30.0%" in lines[1]
    assert "3.50 (3.00 to 4.00)" in lines[2] and "97.00% ± 0.00" in lines[2]
    head = next(line for line in lines if "97%" in line and "side" in line)
    assert head.split() == ["model", "side", "97%", "99%"]
    assert any("nothing may be chosen" in line for line in lines)


def test_plots(tmp_path):
    record = made_up()
    rows = figures(record)
    for name, part in command._PICTURES.items():
        path = tmp_path / name
        figure = getattr(plots, path.stem)(record, rows[part], path)
        axes = figure.axes[-1]
        assert "images/s" in axes.get_xlabel() or "(" in axes.get_xlabel()
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == ["kcnn", "Keras, stock script"]
        assert Image.open(path).width > 600
    assert [a.get_title(loc="left") for a in figure.axes] == [
        "97% test accuracy",
        "99% test accuracy",
    ]
    hatches = [bar.get_hatch() for bar in plots_of_speed(record, rows, tmp_path)]
    assert len(set(hatches)) == 2  # told apart in black and white too


def plots_of_speed(record, rows, folder):
    return plots.speed(record, rows["speed"], folder / "again.png").axes[0].patches


def test_a_target_that_nobody_reached_is_drawn_too(tmp_path):
    record = made_up() | {"targets": [0.999]}
    rows = figures(record)["time_to"]
    axes = plots.time_to(record, rows, tmp_path / "never.png").axes[0]
    said = [note.get_text() for note in axes.texts]
    assert said == ["not reached in 3 epochs"] * 2


def test_pytorchs_fastest_variant_has_to_reach_the_accuracies():
    runs = [
        speed_run(1, "lenet", "PyTorch, eager", 5.0, 0.5),
        speed_run(1, "lenet", "PyTorch, bf16", 7.0, 0.5),
        speed_run(1, "tutorial", "PyTorch, compile", 99.0, 0.5),
    ]
    assert measure.fastest_variant(plan_of(), runs) == "bf16"
    assert measure.fastest_variant(plan_of(), []) == "eager"
    plan = plan_of(torch_python="python", dataset="mnist")
    names = [side.name for side in sides.time_to_sides(plan, "bf16")]
    assert names[2:] == ["PyTorch, bf16", "kcnn, --experiment=mnist-99"]
    assert sides.RECIPE not in str(sides.time_to_sides(plan_of(), "bf16"))


def test_all_sides_are_given_the_same():
    task = sides.Task("speed", "lenet", "data.npz", "npz:data.npz", 3, 42)
    ours = sides.command_of(sides.KCNN, task, "", pathlib.Path("run"))
    flags = ("--model=lenet", "--epochs=3", "--random_seed=42", "--batch_size=128")
    assert set(flags) < set(ours) and "--validation_fraction=0" in ours
    stock = sides.command_of(sides.STOCK, task, "", pathlib.Path("run"))
    assert stock[2:] == ["data.npz", "lenet", "3", "42", "0.0", "float32"]
    assert pathlib.Path(stock[1]).exists()
    other = sides.command_of(sides.torch_side("bf16"), task, "py", pathlib.Path("r"))
    assert other[0] == "py" and other[2:] == [*stock[2:-1], "bf16"]
    names = [side.name for side in sides.speed_sides(plan_of(), "float32")]
    assert names == ["kcnn", "kcnn, --towers=1", "Keras, stock script"]
    more = sides.speed_sides(plan_of(), "float32", onednn=True)
    assert [side.name for side in more] == [*names, "Keras, oneDNN"]
    assert sides.command_of(more[-1], task, "", pathlib.Path("run")) == stock
    assert not sides.speed_sides(plan_of(stock=False), "float32", onednn=True)[2:]


def test_the_recipe_is_a_recipe():
    assert Config.from_dict(settings_of(sides.RECIPE)).dataset == sides.RECIPE_DATASET


def test_scripts_do_not_hide_a_module_of_python():
    """They run as files: their folder is where they import from first."""
    assert not {path.stem for path in SCRIPTS.glob("*.py")} & sys.stdlib_module_names
    for script in SCRIPTS.glob("stock_*.py"):
        assert "import kcnn" not in script.read_text()
        assert "from kcnn" not in script.read_text()


@pytest.mark.parametrize(
    "read, given, message",
    [
        (models_of, "lenet,mlp", "--models: got 'mlp', expected some of tutorial"),
        (models_of, "lenet,lenet", "--models: got lenet more than once"),
        (variants_of, "bf61", "did you mean bf16"),
        (targets_of, "0.9,0.90", "--time_to: got 0.9 more than once"),
        (targets_of, "0", "--time_to: got '0'"),
        (targets_of, "nan", "--time_to: got 'nan'"),
    ],
)
def test_refuses(read, given, message):
    with pytest.raises(UsageError, match=message):
        read(given)
    assert targets_of("0.99,0.97") == (0.97, 0.99)
    assert targets_of("") == ()


def test_images_that_the_scripts_models_do_not_take_are_refused():
    class Data:
        spec = ImageSpec(32, 32, 3, tuple("abc"))

    with pytest.raises(UsageError, match=r"32x32x3 images of 3 classes.*npz:FILE"):
        prepare._check("photos", Data)


def test_pytorchs_variant_is_chosen_by_a_model_that_is_measured(kcnn):
    flags = ("--torch_python=python", "--models=lenet,shallow")
    done = kcnn("benchmark", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--time_to_model: got tutorial, expected one of --models=len" in done.stderr


def test_a_python_without_pytorch_is_one_line_and_status_2(kcnn):
    done = kcnn("benchmark", f"--torch_python={shutil.which('false')}")
    assert done.returncode == 2
    assert "no word; expected a Python that has PyTorch" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_last_lines_of_what_failed_are_told(tmp_path):
    code = "print('a'); raise RuntimeError('out of luck')"
    with pytest.raises(RunError, match=r"PyTorch failed: .* / RuntimeError: out of"):
        processes.run([sys.executable, "-c", code], "PyTorch", tmp_path)
    with pytest.raises(RunError, match="killed by SIGTERM"):
        kill = f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"
        processes.run([sys.executable, "-c", kill], "it", tmp_path)
    with pytest.raises(RunError, match="exit status 3, no word"):
        processes.run([sys.executable, "-c", "raise SystemExit(3)"], "it", tmp_path)


def test_a_process_has_variables_of_its_own(tmp_path):
    code = "import os; print(os.environ.get('KCNN_TEST'), 'PATH' in os.environ)"
    command = [sys.executable, "-c", code]
    found = processes.run(command, "it", tmp_path, {"KCNN_TEST": "1"})
    assert found.output.split() == ["1", "True"]
    assert processes.run(command, "it", tmp_path).output.split() == ["None", "True"]


def test_a_side_has_the_variables_that_it_names(monkeypatch):
    told = []

    def run(command, name, folder, environment):
        told.append(environment)
        raise RunError("told")

    monkeypatch.setattr(processes, "run", run)
    task = sides.Task("speed", "lenet", "data.npz", "npz:data.npz", 3, 42)
    prepared = {"speed": {"images": 10}}
    for side in (sides.STOCK, sides.STOCK_ONEDNN):
        with pytest.raises(RunError, match="told"):
            measure._run(side, task, plan_of(), prepared, pathlib.Path())
    assert told == [{}, {"TF_ENABLE_ONEDNN_OPTS": "1"}]


def test_memory_is_that_of_the_process(tmp_path):
    """In a process that has not imported TensorFlow, such as the command's."""
    code = """
import pathlib, sys
from kcnn.benchmark.processes import run
code = "x = bytearray({} << 20); x[::4096] = b'1' * len(x[::4096])"
for size in (200, 300):
    command = [sys.executable, "-c", code.format(size)]
    print(run(command, "it", pathlib.Path(sys.argv[1])).peak_memory_mib)
print("tensorflow" in sys.modules)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *sizes, imported = done.stdout.split()
    assert float(sizes[1]) - float(sizes[0]) == pytest.approx(100, abs=15)
    assert float(sizes[0]) == pytest.approx(220, abs=30)
    assert imported == "False"


def test_a_failure_leaves_what_was_measured(tmp_path, capsys):
    board, record = command.Board(sys.stdout), made_up()
    with pytest.raises(RunError), command._shown(board, record, tmp_path):
        raise RunError("it failed")
    kept = json.loads((tmp_path / "benchmark.json").read_text())
    assert kept["runs"] == record["runs"]
    assert kept["figures"]["speed"][1]["kcnn_is_faster_by"] == 3.5
    assert "5,000 (4,000 to 6,000)" in capsys.readouterr().out
    assert (tmp_path / "time_to.png").exists()


@pytest.fixture
def digits_like(tmp_path):
    return write_npz(tmp_path / "data.npz", 300, 100, classes=10, side=28)


def without_channels(path):
    """Return the arrays as the scripts read them, in another file."""
    with np.load(path) as file:
        arrays = {k: file[k][..., 0] if k[0] == "x" else file[k] for k in file}
    other = path.with_name("plain.npz")
    np.savez(other, **arrays)
    return other


@pytest.mark.slow
def test_the_stock_script_stops_at_an_accuracy(digits_like):
    script, data = SCRIPTS / "stock_keras.py", without_channels(digits_like)
    words = [sys.executable, script, data, "lenet", 30, 7, 0.2, "mixed_bfloat16"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["accuracies"][-1] >= 0.2 > max(told["accuracies"][:-1], default=0)
    assert len(told["seconds"]) == len(told["accuracies"]) < 30
    assert told["accuracy"] == pytest.approx(told["accuracies"][-1])


@pytest.mark.slow
def test_a_benchmark_of_few_images(kcnn, digits_like, tmp_path):
    torch = stand_in(tmp_path)
    done = kcnn(
        *("benchmark", "--dataset=npz:data.npz", "--images=200", "--models=lenet"),
        *("--rounds=1", "--epochs=2", "--nostock", f"--torch_python={torch}"),
        *("--torch_variants=eager,bf16", "--time_to=0.05,0.6", "--time_to_epochs=2"),
        *("--time_to_model=lenet", "--output=out"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert found["speed"] == {"images": 200} and found["time_to"] == {"images": 300}
    assert found["data"]["available"] == 300 and found["data"]["test"] == 100
    assert found["torch"] == {"torch": "9.9", "device": "CPU"}
    assert found["hardware"]["cores"] and found["versions"]["tensorflow"]
    speed = [run for run in found["runs"] if run["part"] == "speed"]
    assert [run["side"] for run in speed] == [
        *("kcnn", "kcnn, --towers=1", "PyTorch, eager", "PyTorch, bf16"),
    ]
    assert [run["images_per_second"] for run in speed[2:]] == [100, 200]
    assert all(len(run["epoch_seconds"]) == 2 for run in speed)
    assert all(run["peak_memory_mib"] > 5 for run in speed)
    assert speed[0]["accuracies"] is None
    ours, torch_run = (run for run in found["runs"] if run["part"] == "time_to")
    assert torch_run["side"] == "PyTorch, bf16"  # the faster one
    assert len(ours["accuracies"]) == len(ours["epoch_seconds"]) == 2
    # The test images were the validation split: the curve ends where the test does.
    assert ours["accuracies"][-1] == pytest.approx(ours["accuracy"], abs=0.021)
    rows = found["figures"]["time_to"]
    assert [r["seconds"] for r in rows if r["side"] == "PyTorch, bf16"] == [5, 6]
    seeds = [one["random_seed"] for one in found["rounds"]]
    assert len(set(seeds)) == 2 and found["rounds"][0]["roof"]["bfloat16"] > 1e9
    assert done.stdout.count("random seed") == 2 and "images/s" in done.stdout
    with (tmp_path / "out" / "benchmark.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"benchmark.json", *command._TABLES, *command._PICTURES}


@pytest.mark.slow
def test_a_variant_that_fails_is_told_and_the_rest_goes_on(kcnn, digits_like, tmp_path):
    failing = STAND_IN.replace("n = int(epochs)", "raise RuntimeError('no luck')")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "time_to.csv").write_text("of an earlier one")
    done = kcnn(
        *("benchmark", "--dataset=npz:data.npz", "--models=lenet", "--rounds=1"),
        *("--epochs=2", f"--torch_python={stand_in(tmp_path, failing)}", "--time_to="),
        *("--torch_variants=eager,compile", "--output=out"),
    )
    assert done.returncode == 1
    assert "kcnn benchmark: PyTorch, eager, lenet, random seed" in done.stderr
    assert "RuntimeError: no luck, and 1 more times; all else was" in done.stderr
    assert done.stderr.count("\n") == 1
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    names = ["kcnn", "kcnn, --towers=1", "Keras, stock script"]
    assert [run["side"] for run in found["runs"]][:3] == names
    assert [one["side"] for one in found["failures"]] == [
        "PyTorch, eager",
        "PyTorch, compile",
    ]
    assert "nothing can be concluded" in " ".join(done.stdout.split())
    assert not (tmp_path / "out" / "time_to.csv").exists()


@pytest.mark.slow
def test_a_signal_leaves_what_was_measured(digits_like, tmp_path):
    words = [sys.executable, "-m", "kcnn", "benchmark", "--dataset=npz:data.npz"]
    words += ["--models=lenet", "--rounds=50", "--epochs=2", "--output=out"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "accuracy" in line and "images/s" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("kcnn benchmark: stopped by SIGINT; what was measured is")
    assert "of the roof" in rest
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(found["runs"]) >= 1
