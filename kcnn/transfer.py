"""The weights of a finished run as the start of another one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.fingerprint import of_arrays
from kcnn.knobs import show
from kcnn.models import HEAD
from kcnn.run import Run, config_of, load_model, spec_of
from kcnn.spec import ImageSpec

# What else than weights makes a network what it was trained to be.
_SECTIONS = ("model", "preprocessing")


@dataclasses.dataclass(frozen=True)
class Source:
    """A finished run to start from.

    Attributes:
        path: its folder, as the user named it.
        config: its recipe.
        spec: its images' shape and its classes.
        weights: layer -> its arrays, of the layers that have any, in their order.
        digest: of all of them.
    """

    path: str
    config: Config
    spec: ImageSpec
    weights: dict[str, list[np.ndarray]]
    digest: str

    @classmethod
    def read(cls, path: str) -> Source:
        """Read a run; raises UsageError if there is none, or it is not finished."""
        run = Run(pathlib.Path(os.path.expanduser(path)))
        try:
            note = run.read_config()
            model = load_model(run)
        except UsageError as error:
            raise UsageError(f"--init_from: {error}") from None
        weights = {layer.name: layer.get_weights() for layer in _weighted(model)}
        arrays = [array for own in weights.values() for array in own]
        return cls(path, config_of(note), spec_of(note), weights, of_arrays(*arrays))

    def keeps_head(self, spec: ImageSpec) -> bool:
        """Tell whether a model of other images gets the head's weights too."""
        return spec.class_names == self.spec.class_names

    def start(self, model: keras.Model, spec: ImageSpec) -> None:
        """Give a model the weights, layer by layer and by name.

        The statistics of a standardization are among them: the weights were trained
        with these. The head keeps its fresh weights where the classes, or their order,
        are not the same.

        Raises:
            UsageError: a layer that is not the head is on one side only, or of another
                shape.
        """
        left_out = set() if self.keeps_head(spec) else {HEAD}
        layers = {v.name: v for v in _weighted(model) if v.name not in left_out}
        for name in [*layers, *self.weights]:
            if name in left_out:
                continue
            there = _shapes(self.weights.get(name))
            here = _shapes(layers[name].get_weights() if name in layers else None)
            if there != here:
                raise UsageError(
                    f"--init_from={self.path}: another architecture: layer {name} has "
                    f"{there} there and {here} here; that run's images are "
                    f"{'x'.join(map(str, self.spec.shape))}, and its knobs "
                    f"{self._knobs()}"
                )
        for name, layer in layers.items():
            layer.set_weights(self.weights[name])

    def note(self) -> dict[str, str]:
        """Return what config.json keeps of it: path, and the digest of the weights."""
        return {"path": self.path, "digest": self.digest}

    def lines(self, config: Config, spec: ImageSpec) -> Iterator[str]:
        """Yield what the user should know of a run that starts from this one."""
        head = "with its head" if self.keeps_head(spec) else "with a fresh head"
        frozen = f"; frozen layers: {config.freeze}" if config.freeze else ""
        yield f"{self.path}, {head}{frozen}"
        for name in _knobs():
            there, here = getattr(self.config, name), getattr(config, name)
            if there != here:
                yield f"--{name}: {show(there)} there, {show(here)} here"

    def _knobs(self) -> str:
        """Return what was set of the knobs that decide about weights."""
        values = {name: getattr(self.config, name) for name in _knobs()}
        plain = Config(model=self.config.model)
        return " ".join(
            f"--{name}={show(value)}"
            for name, value in values.items()
            if name == "model" or value != getattr(plain, name)
        )


def _knobs() -> list[str]:
    return [name for name, knob in KNOBS.items() if knob.section in _SECTIONS]


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _shapes(weights: list[np.ndarray] | None) -> str:
    if weights is None:
        return "no weights"
    return "weights of " + ", ".join(
        "x".join(map(str, w.shape)) or "1" for w in weights
    )
