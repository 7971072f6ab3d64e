"""Show a model's layers with shapes, parameters and FLOPs, and draw it.

Give a run's folder, or the knobs of a model.
"""

from __future__ import annotations

from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.experiments import settings_of
from kcnn.knobs import Knob
from kcnn.run import Run, config_of, spec_of
from kcnn.spec import ImageSpec, wanted_shape
from kcnn.table import FORMATS, render

USAGE = "kcnn summary [RUN] [--model=NAME | --experiment=ID] [--flags]"

FLAGS = {
    "experiment": Knob("summary", "", "the model of a named run"),
    "num_classes": Knob(
        "summary", 10, "classes of the head", low=2, high=1000, kind=int
    ),
    "diagram": Knob(
        "summary", "", "PNG or SVG to draw to (default: MODEL.png); none: not drawn"
    ),
    "format": Knob("summary", "table", "form of the layer table", choices=FORMATS),
}

# Shapes of known data sets; for others --image_size and --color_mode.
_SHAPES = dict.fromkeys(("digits", "mnist", "fashion_mnist", "kmnist"), (28, 28, 1))
_SHAPES |= dict.fromkeys(("cifar10", "cifar100", "svhn_cropped"), (32, 32, 3))


def define_knobs(values: FlagValues) -> None:
    """Define the knobs that a model is built from."""
    names = ["dataset", "image_size", "color_mode", "normalize_input"]
    flags.define_knobs(values, names + flags.in_sections("model", "preprocessing"))


def main(values: FlagValues, arguments: list[str]) -> None:
    """Print a model's layers and draw it."""
    config, spec = _model_of(values, arguments)
    target = values.diagram or f"{config.model}.png"
    if target != "none" and not target.lower().endswith((".png", ".svg")):
        raise UsageError(f"--diagram: got {target!r}, expected a .png, a .svg or none")

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import diagram, models
    from kcnn.summary import model_summary

    model = models.build_model(config, spec)
    size = model_summary(model)
    form = values.format or "table"
    print(render([_row(layer) for layer in size["layers"]], form))
    if form == "table":
        print(
            f"\n{config.model} on {'x'.join(map(str, spec.shape))} images: "
            f"{size['parameters']:,} parameters ({size['trainable_parameters']:,} "
            f"trainable), {size['flops'] / 1e6:.3g} MFLOP an image forward"
        )
    if target != "none":
        diagram.architecture(size["layers"], target, config.model)
        if form == "table":
            print(f"drawn to {target}")


def _model_of(values: FlagValues, arguments: list[str]) -> tuple[Config, ImageSpec]:
    if len(arguments) > 1:
        raise UsageError(f"{arguments[1]}: unexpected; {USAGE}")
    given = flags.knobs_given(values)
    if arguments:
        if given or values.experiment or values.num_classes:
            raise UsageError("a run has its own model: give its folder or the knobs")
        note = Run(arguments[0]).read_config()
        return config_of(note), spec_of(note)
    base = settings_of(values.experiment) if values.experiment else {}
    config = Config.from_dict(base | given)
    if config.dataset not in _SHAPES:
        raise UsageError(
            f"--dataset: got {config.dataset!r}, expected one of {', '.join(_SHAPES)}; "
            "for others give --image_size, --color_mode and --num_classes"
        )
    shape = wanted_shape(config, _SHAPES[config.dataset])
    names = tuple(map(str, range(values.num_classes or 10)))
    if config.extra_class:
        names += (config.extra_class,)
    return config, ImageSpec(*shape, names, config.normalize_input)


def _row(layer: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer": layer["name"],
        "kind": layer["kind"],
        "detail": layer["detail"],
        "output": "x".join(map(str, layer["output_shape"])),
        "parameters": layer["parameters"],
        "FLOP": layer["flops"],
    }
