"""What a benchmark measures: plain data, read from the command's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kcnn.errors import UsageError
from kcnn.knobs import did_you_mean, show

BATCH_SIZE = 128
SHAPE = (28, 28, 1)
CLASSES = 10
RECIPE, RECIPE_DATASET = "mnist-99", "mnist"

MODELS = ("tutorial", "convnet", "lenet", "shallow")
VARIANTS = ("eager", "channels_last", "bf16", "channels_last+bf16", "compile")
_VARIANT_WORDS = ("eager", "channels_last", "bf16", "compile")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        dataset: as kcnn train takes it.
        data_dir: where tensorflow-datasets keeps its data; "": as kcnn train finds it.
        images: training images for images/s, if there are as many.
        models: which are trained.
        rounds: times that every side runs.
        epochs: of each run for images/s.
        stock: whether the stock Keras script runs too.
        torch_python: a Python that has PyTorch, or "".
        torch_variants: of PyTorch.
        targets: test accuracies to be reached, ascending; none: not measured.
        time_to_model: which model has to reach them.
        time_to_images: training images for that, if there are as many.
        time_to_epochs: epochs at most for that.
    """

    dataset: str
    data_dir: str
    images: int
    models: tuple[str, ...]
    rounds: int
    epochs: int
    stock: bool
    torch_python: str
    torch_variants: tuple[str, ...]
    targets: tuple[float, ...]
    time_to_model: str
    time_to_images: int
    time_to_epochs: int


def models_of(text: str) -> tuple[str, ...]:
    """Read --models; raises UsageError for one that is not known, or stands twice."""
    found = _parts("models", text)
    for name in found:
        if name not in MODELS:
            raise UsageError(
                f"--models: got {name!r}, expected some of {', '.join(MODELS)}"
                f"{did_you_mean(name, MODELS)}"
            )
    return found


def variants_of(text: str) -> tuple[str, ...]:
    """Read --torch_variants; raises UsageError as `models_of` does."""
    found = _parts("torch_variants", text)
    for word in (word for variant in found for word in variant.split("+")):
        if word not in _VARIANT_WORDS:
            raise UsageError(
                f"--torch_variants: got {word!r}, expected "
                f"{', '.join(_VARIANT_WORDS)}, joined by + where several act together"
                f"{did_you_mean(word, _VARIANT_WORDS)}"
            )
    return found


def targets_of(text: str) -> tuple[float, ...]:
    """Read --time_to, ascending; raises UsageError unless all are in (0, 1]."""
    if not text:
        return ()
    targets = []
    for part in _parts("time_to", text):
        try:
            target = float(part)
        except ValueError:
            target = 0.0
        if not 0 < target <= 1:
            raise UsageError(
                f"--time_to: got {part!r}, expected accuracies above 0 and up to 1, "
                "separated by commas, such as 0.97,0.98; empty: not measured"
            )
        targets.append(target)
    _refuse_twice("time_to", targets)
    return tuple(sorted(targets))


def _parts(flag: str, text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    _refuse_twice(flag, found)
    return found


def _refuse_twice(flag: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UsageError(f"--{flag}: got {show(value)} more than once")
