"""The programs that are set side by side, and the command line of each."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

from kcnn.benchmark.plan import BATCH_SIZE, RECIPE, RECIPE_DATASET, Plan
from kcnn.config import KNOBS
from kcnn.errors import UsageError
from kcnn.runtime import ONEDNN

_HERE = pathlib.Path(__file__).parent
_REACHED = 1e-6  # accuracies come as float32

_ABOUT_TORCH = """
import json, platform
import numpy, torch
has_gpu = torch.cuda.is_available()
device = torch.cuda.get_device_name() if has_gpu else "CPU"
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
    "numpy": numpy.__version__, "device": device, "threads": torch.get_num_threads()}))
"""


@dataclasses.dataclass(frozen=True)
class Side:
    """One program.

    Attributes:
        name: as tables have it.
        program: kcnn, keras or torch.
        flags: of kcnn train, after those that all sides have in common.
        variant: of the PyTorch script; of the Keras script its dtype policy.
        experiment: of kcnn, in place of the common recipe.
        environment: variables of its process beside this one's, as pairs.
    """

    name: str
    program: str
    flags: tuple[str, ...] = ()
    variant: str = ""
    experiment: str = ""
    environment: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """One training that a side is given.

    Attributes:
        part: speed, or time_to: test accuracy after every epoch.
        model: which is trained.
        npz: file with the images, for scripts.
        dataset: the same images, as kcnn train names them; in time_to the test images
            are its validation split too.
        epochs: at most.
        random_seed: of weights, order and dropout.
        last_target: in time_to, the test accuracy that ends a script's training.
    """

    part: str
    model: str
    npz: str
    dataset: str
    epochs: int
    random_seed: int
    last_target: float = 0.0


KCNN = Side("kcnn", "kcnn")
WHOLE_BATCHES = Side("kcnn, --towers=1", "kcnn", ("--towers=1",))
STOCK = Side("Keras, stock script", "keras", variant="float32")
STOCK_ONEDNN = Side(
    "Keras, oneDNN", "keras", variant="float32", environment=((ONEDNN, "1"),)
)
OWN_RECIPE = Side(f"kcnn, --experiment={RECIPE}", "kcnn", experiment=RECIPE)


def torch_side(variant: str) -> Side:
    """Return a variant of PyTorch."""
    return Side(f"PyTorch, {variant}", "torch", variant=variant)


def speed_sides(plan: Plan, policy: str, onednn: bool = False) -> list[Side]:
    """Return who runs for images/s, in this order.

    Where kcnn computes by another policy than float32, so does the stock script, once
    more: that is one line in it. So is oneDNN, where it is kcnn's choice and not
    TensorFlow's.
    """
    variants = plan.torch_variants if plan.torch_python else ()
    stock = [STOCK] if plan.stock else []
    if plan.stock and policy != STOCK.variant:
        stock.append(Side(f"Keras, {policy}", "keras", variant=policy))
    if plan.stock and onednn:
        stock.append(STOCK_ONEDNN)
    return [KCNN, WHOLE_BATCHES, *stock, *map(torch_side, variants)]


def time_to_sides(plan: Plan, torch_variant: str) -> list[Side]:
    """Return who runs for the time to an accuracy; of PyTorch one variant."""
    sides = [KCNN, *([STOCK] if plan.stock else [])]
    if plan.torch_python:
        sides.append(torch_side(torch_variant))
    if plan.dataset == RECIPE_DATASET:
        sides.append(OWN_RECIPE)
    return sides


def command_of(side: Side, task: Task, torch_python: str, run: pathlib.Path):
    """Return a side's command line; kcnn leaves its run in `run`."""
    if side.program == "kcnn":
        return [sys.executable, "-m", "kcnn", "train", *_flags(side, task, run)]
    until = task.last_target - _REACHED if task.last_target else 0.0
    script = _HERE / f"stock_{side.program}.py"
    words = [script, task.npz, task.model, task.epochs, task.random_seed, until]
    python = sys.executable if side.program == "keras" else torch_python
    return list(map(str, [python, *words, side.variant]))


def _flags(side: Side, task: Task, run: pathlib.Path) -> list[str]:
    """Return the flags of kcnn train."""
    if side.experiment:
        recipe = [f"--experiment={side.experiment}"]
    else:
        recipe = [f"--model={task.model}", f"--epochs={task.epochs}"]
        recipe += [f"--batch_size={BATCH_SIZE}", "--optimizer=adadelta"]
        recipe += ["--learning_rate=1", "--schedule=constant"]
    # Above 0: a validation split of the data set's own is read.
    part = 0 if task.part == "speed" else KNOBS["validation_fraction"].default
    return [
        *(f"--dataset={task.dataset}", f"--validation_fraction={part}"),
        *recipe,
        *(f"--random_seed={task.random_seed}", *side.flags),
        *(f"--model_dir={run}", "--export_dir=", "--overwrite"),
    ]


def has_reached(accuracy: float, target: float) -> bool:
    """Tell whether a test accuracy is the target or above."""
    return accuracy >= target - _REACHED


def about_torch(python: str) -> dict[str, object]:
    """Return versions and device of a Python's PyTorch.

    Raises UsageError if there is no such Python, or it has no PyTorch.
    """
    try:
        done = subprocess.run(
            [python, "-c", _ABOUT_TORCH], capture_output=True, text=True
        )
    except OSError as error:
        raise UsageError(
            f"--torch_python: {python}: {error.strerror}; expected a Python that has "
            "PyTorch"
        ) from None
    try:
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        pass  # said below
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
    raise UsageError(
        f"--torch_python: {python}: {lines[-1]}; expected a Python that has PyTorch "
        f"and NumPy, such as of an environment where pip install torch numpy was run"
    )
