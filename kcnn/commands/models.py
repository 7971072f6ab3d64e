"""List the architectures: parameters on 28x28 grey images of 10 classes, and knobs."""

from __future__ import annotations

from typing import Any

from absl.flags import FlagValues

from kcnn.config import KNOBS, MODELS, Config
from kcnn.errors import UsageError
from kcnn.knobs import Knob, show
from kcnn.spec import ImageSpec
from kcnn.table import FORMATS, render

USAGE = "kcnn models [--format=table|json|csv]"

FLAGS = {"format": Knob("models", "table", "form of the output", choices=FORMATS)}


def define_knobs(values: FlagValues) -> None:
    """Define no knobs."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Print a row an architecture."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; {USAGE}")

    from kcnn import runtime

    runtime.start_tensorflow()
    rows = [_row(name) for name in MODELS]
    print(render(rows, values.format or "table", below=("what it is", "knobs")))


def _row(name: str) -> dict[str, Any]:
    from kcnn.models import build_model
    from kcnn.summary import model_summary

    config = Config(model=name)
    spec = ImageSpec(28, 28, 1, tuple("0123456789"))
    model = build_model(config, spec)
    size = model_summary(model)
    knobs = [
        f"--{knob}={show(getattr(config, knob)) or 'none'}"
        for knob, declared in KNOBS.items()
        if declared.section == "model"
        and knob != "model"
        and getattr(config, knob) is not None
    ]
    return {
        "model": name,
        "kind": type(model).__name__,
        "parameters": size["parameters"],
        "MFLOP": round(size["flops"] / 1e6, 3),
        "what it is": MODELS[name],
        "knobs": " ".join(knobs),
    }
