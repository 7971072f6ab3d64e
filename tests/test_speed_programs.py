"""The programs that docs/speed.md and README paste: what needs no long run."""

import json
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import pytest

from benchmarks import paste, profile_step, recipes, scaling
from kcnn import layers, models
from kcnn.errors import RunError, UsageError, run_program

STEP = "while/body/_1/while/StatefulPartitionedCall"
BACK = f"{STEP}/gradient_tape"


def found(*names, steps=1, model="convnet", optimizer="adadelta"):
    events = [(name, 2.0) for name in names]
    return profile_step.operations(events, steps, model, optimizer)


@pytest.mark.parametrize(
    ("name", "group", "kind", "where"),
    [
        (
            f"{BACK}/convnet_3/conv_2_1/convolution/Conv2DBackpropFilter"
            ":_MklNativeConv2DBackpropFilter",
            "convolutions",
            "Conv2DBackpropFilter",
            "conv_2, backward",
        ),
        (
            f"{STEP}/convnet_1/logits_1/BiasAdd:_MklNativeFusedMatMul",
            "matrix products",
            "FusedMatMul",
            "logits",
        ),
        (
            f"{STEP}/convnet_1/pool_1_1/MaxPool2d:_MklNativeMaxPool",
            "pooling",
            "MaxPool",
            "pool_1",
        ),
        (
            f"{STEP}/convnet_1/dropout_1/random:StatelessRandomUniformFullIntV2",
            "random numbers",
            "StatelessRandomUniformFullIntV2",
            "dropout",
        ),
        (
            "StatefulPartitionedCall/convnet_1/batch_normalization_1_2/moments/mean"
            ":Mean",
            "batch normalization",
            "Mean",
            "batch_normalization_1",
        ),
        (
            f"{STEP}/adadelta/ResourceApplyAdadelta_4:ResourceApplyAdadelta",
            "optimizer",
            "ResourceApplyAdadelta",
            "adadelta",
        ),
        (
            "StatefulPartitionedCall/adadelta/Mul_3:Mul",
            "optimizer",
            "Mul",
            "adadelta",
        ),
        (
            f"{BACK}/convnet_1/activation_1_1/ReluGrad:ReluGrad",
            "elementwise",
            "ReluGrad",
            "activation_1, backward",
        ),
        (f"{STEP}/convnet_1/Cast:Cast", "elementwise", "Cast", "the step"),
        (f"{STEP}/SelectV2_1:SelectV2", "elementwise", "SelectV2", "the step"),
        (
            f"{STEP}/convnet_1/logits_1/Softmax:_MklSoftmax",
            "rest",
            "Softmax",
            "logits",
        ),
    ],
)
def test_an_operation_is_told_by_what_it_is_for(name, group, kind, where):
    (one,) = found(name)
    assert (one.group, one.kind, one.where) == (group, kind, where)


def test_parts_of_a_batch_are_one_row_and_all_steps_are_shared():
    name = "convnet_{}/conv_1_1/convolution:Conv2D"
    (one,) = found(
        *(f"{STEP}/{name.format(part)}" for part in (1, 3) * 3),
        "EagerExecute:",
        "ThreadpoolListener::Record:Region/a",
        steps=3,
    )
    assert one.times == 2
    assert one.milliseconds == pytest.approx(4)


def test_groups_add_up_and_the_longest_is_first():
    rows = profile_step.group_rows(
        found(
            f"{STEP}/convnet_1/conv_1_1/convolution:Conv2D",
            f"{STEP}/convnet_1/pool_1_1/MaxPool2d:MaxPool",
            f"{STEP}/convnet_3/conv_1_1/convolution:Conv2D",
        )
    )
    assert rows == [
        {"group": "convolutions", "ms a step": "4.00", "part": "66.7%"},
        {"group": "pooling", "ms a step": "2.00", "part": "33.3%"},
        {"group": "all, beside each other", "ms a step": "6.00", "part": "100.0%"},
    ]


def test_a_whole_batch_has_the_operations_of_a_part_and_one_optimizer():
    some = found(
        f"{STEP}/convnet_1/conv_1_1/convolution:Conv2D",
        f"{STEP}/convnet_3/conv_1_1/convolution:Conv2D",
        f"{STEP}/adadelta/ResourceApplyAdadelta:ResourceApplyAdadelta",
    )
    assert profile_step.launches(some, 2) == 2


@pytest.mark.parametrize("layer", profile_step.LAYERS)
def test_the_other_model_has_kerass_own_layer(layer, monkeypatch, capsys):
    seen = []

    def step(given):
        seen.append(getattr(models, layer))
        run = [lambda steps: time.sleep(1e-3), lambda steps: time.sleep(4e-3)]
        model = SimpleNamespace(name="convnet")
        return profile_step.Step("kcnn", "", model, None, 8, 1, run[len(seen) - 1])

    monkeypatch.setattr(profile_step, "_of_kcnn", step)
    profile_step.main([f"--without={layer}"])
    assert seen == [getattr(layers, layer), getattr(keras.layers, layer)]
    ratio = capsys.readouterr().out.splitlines()[-1]
    assert 0.1 < float(ratio.split()[0]) < 0.8  # of 1 ms to 4 ms


@pytest.mark.parametrize("more", ["--stock", "--rows=3", "--output=a.json"])
def test_what_a_layer_gains_has_no_profile(more):
    with pytest.raises(UsageError, match=f"{more.split('=')[0]} changes nothing"):
        profile_step.main(["--without=Conv2D", more])


@pytest.mark.slow
@pytest.mark.parametrize("layer", profile_step.LAYERS)
def test_what_a_layer_gains_is_told(layer, tmp_path):
    command = [sys.executable, profile_step.__file__, "--model=convnet"]
    command += [f"--without={layer}", "--batch_size=8", "--filters=8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _, about, ours, keras_own, ratio = done.stdout.splitlines()
    assert about.startswith("convnet: adadelta") and "8 images a step" in about
    assert ours.endswith(f"ms a step with kcnn's {layer}")
    assert keras_own.endswith(f"ms a step with Keras's {layer}")
    found = float(ours.split()[0]) / float(keras_own.split()[0])
    assert float(ratio.split()[0]) == pytest.approx(found, rel=0.5)


WORK = scaling.Work(
    "some", flop=1e8, operations=100, parameters=1_000_000, batch_norms=2,
    image_bytes=1_000, measured=1_000.0,
)  # fmt: skip
GPU = scaling.Gpu(flop_per_second=1e14, launch=1e-5, copy=1e10)
NVLINK = scaling.Link("NVLink", 4e11, 5e-6)
ETHERNET = scaling.Link("8 Gbit/s", 1e9, 1e-4)


def test_one_adds_up_nothing():
    assert scaling.ring(1, 1e9, 5, None) == 0


def test_a_ring_sends_nearly_twice_the_vector():
    # 2 * 3 rounds, each of a quarter of 8 MB at 1 GB/s, and 2 messages of 0.1 ms.
    assert scaling.ring(4, 8e6, 2, ETHERNET) == pytest.approx(6 * 2e-3 + 2 * 6 * 1e-4)


def test_the_parts_of_a_step():
    alone = scaling.step_seconds(WORK, 1_000, GPU, scaling.System(1, 1), NVLINK)
    assert alone == pytest.approx((1e-3, 1e-3, 1e-4, 0))
    system = scaling.System(2, 8, ETHERNET)
    many = scaling.step_seconds(WORK, 1_000, GPU, system, NVLINK)
    assert many[:3] == alone[:3]
    # 4 MB and five messages: 14 rounds of NVLink, 2 of the network.
    inside = 14 / 8 * 4e6 / 4e11 + 5 * 14 * 5e-6
    between = 2 / 2 * 4e6 / 1e9 + 5 * 2 * 1e-4
    assert many.gradients == pytest.approx(inside + between)


def test_the_longest_part_is_the_limit_or_the_input():
    seconds = scaling.Seconds(compute=1e-3, launch=2e-3, copy=0, gradients=1e-3)
    system = scaling.System(2, 4, ETHERNET)
    assert scaling.limited(seconds, 100, system, 1e9) == (200_000, "launch")
    assert scaling.limited(seconds, 100, system, 50_000) == (100_000, "input")


def test_cores_for_input_are_those_of_a_machine_that_is_not_held_up():
    gpus = (GPU, scaling.Gpu(5e13, 1e-5, 1e10))
    shown = scaling.row(
        WORK, 1_000, gpus, scaling.System(1, 1), NVLINK, 100_000, cores_per_gpu=4
    )
    assert shown["cores for input"] == "5"  # 1,000 images in 2.1 ms
    assert shown["images/s"] == "323 to 400 k"
    assert shown["limit"] == "compute, input"
    assert shown["compute"] == "1 to 2"


def test_input_goes_by_size_or_else_by_bytes():
    figures = {
        "hardware": {"cores": 2},
        "rows": [
            {"source": "arrays", "image": [28, 28, 1], "images_per_second": 600.0},
            {"source": "arrays", "image": [28, 28, 1], "images_per_second": 800.0},
            {"source": "JPEG files", "image": [7, 7, 1], "images_per_second": 9.0},
        ],
    }
    assert scaling.input_speed(figures, 784) == 400
    assert scaling.input_speed(figures, 2 * 784) == 200


def test_output_is_pasted_under_its_command_and_nothing_else_changes():
    page = (
        "a\n\n<!-- measured: python b.py -->\n\nc `d`\n"
        "\n<!-- measured: x y -->\n\n```\n$ x y\nold\n```\n\ne\n"
    )
    told = {"python b.py": "1  2", "x y": "new"}
    once = paste.paste(page, told.get)
    assert once == (
        "a\n\n<!-- measured: python b.py -->\n\n```\n$ python b.py\n1  2\n```\n"
        "\nc `d`\n\n<!-- measured: x y -->\n\n```\n$ x y\nnew\n```\n\ne\n"
    )
    assert paste.paste(once, told.get) == once
    assert paste.paste(once, lambda command: None) == once


@pytest.mark.slow
def test_recipes_train_several_seeds_in_one_process(tmp_path):
    program = pathlib.Path(recipes.__file__)
    command = [sys.executable, program, "mnist-99", "--one_process", "--seeds=2"]
    command += ["--first_seed=7", f"--output={tmp_path / 'found.json'}"]
    command += ["--dataset=digits", "--crop=0", "--epochs=6"]
    command += ["--validation_fraction=0.1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]["mnist-99"]
    assert [run["random_seed"] for run in runs] == [7, 8]
    for run in runs:
        assert run["accuracy"] > 0.5 and run["validation_accuracy"] > 0.5
        assert 0 < run["steps"] + run["tracing"] < run["command"]
    assert done.stdout.startswith("recipe")


def test_a_recipes_row():
    run = {"accuracy": 0.9411, "parameters": 4338, "tracing": 1.0234}
    run |= {"steps": 1659.6, "command": 1790.0}
    row = recipes.row("cifar-94", [run])
    assert (row["n"], row["accuracy"], row["deviation"]) == (1, "94.11%", "-")
    assert (row["steps"], row["tracing"]) == ("1,660 s", "1.02 s")
    more = [run | {"accuracy": 0.9, "steps": 2.0}, run | {"accuracy": 0.96, "steps": 1}]
    row = recipes.row("cifar-94", [run, *more])
    assert (row["accuracy"], row["deviation"]) == ("93.37%", "3.07%")  # by hand
    assert (row["lowest"], row["steps"]) == ("90.00%", "2 s (1 to 1,660)")


def test_a_recipe_that_cannot_run_ends_the_program_with_its_status(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        recipes.run_once("mnist-99", 0, tmp_path, ["--epochs=no"], one_process=True)
    assert end.value.code == 2
    assert "--epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("--a: got 1,\n expected 2"), 2),
        (RunError("--a: got 1, expected 2"), 1),
    ],
)
def test_a_program_says_what_is_wrong_in_a_line(error, status, capsys, monkeypatch):
    def main(given):
        assert given == "x"
        raise error

    monkeypatch.setattr(sys, "argv", ["benchmarks/some.py"])
    with pytest.raises(SystemExit) as end:
        run_program(main, "x")
    assert end.value.code == status
    assert capsys.readouterr().err == "some.py: --a: got 1, expected 2\n"


def test_a_program_hides_no_fault_of_its_own():
    def main():
        raise KeyError("a")

    with pytest.raises(KeyError):
        run_program(main)
