"""Which knobs a search tries, and over what: plain data, read as flags are.

Nothing here imports TensorFlow or keras-tuner.
"""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.knobs import By, Knob, did_you_mean, parse, parse_values, show

_SPAN = re.compile(r"(log:)?(.+?)\.\.(.+)")
_GRID_POINTS = 5  # of a span
_DIGITS = 4  # of a number drawn from a span: no more are worth repeating


@dataclass(frozen=True)
class Choices:
    """A few values of a knob, in the order in which they were given."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        lists = isinstance(self.values[0], tuple)
        return (";" if lists else ",").join(map(show, self.values))


@dataclass(frozen=True)
class Span:
    """All numbers from `low` to `high`, evenly or, if `log`, by their logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int)

    @property
    def values(self) -> tuple[float, ...]:
        """Return up to five numbers from end to end, which a grid search tries."""
        parts = [i / (_GRID_POINTS - 1) for i in range(_GRID_POINTS)]
        if self.log:
            points = [self.low * (self.high / self.low) ** p for p in parts]
        else:
            points = [self.low + (self.high - self.low) * p for p in parts]
        return tuple(dict.fromkeys(map(self.rounded, points)))

    def rounded(self, value: float) -> float:
        """Return a number of the span with no more digits than matter."""
        if self.whole:
            return round(value)
        near = float(f"{value:.{_DIGITS}g}")
        return min(max(near, self.low), self.high)

    def __str__(self) -> str:
        return f"{'log:' * self.log}{show(self.low)}..{show(self.high)}"


Domain = Choices | Span

# What is searched where nothing is said, besides learning_rate and batch_size. Around
# each model's defaults; what makes the network larger ends where a step on 28x28
# images takes about four times as long.
SPACES: dict[str, dict[str, str]] = {
    "tutorial": {
        "kernel_size": "3,5",
        "dense_units": "64;128;256;512",
        "conv_dropout": "0..0.5",
        "dropout": "0..0.6",
        "batch_norm": "0,1,2",
    },
    "convnet": {
        "filters": "16,32;32,64;16,32,64;32,64,128",
        "kernel_size": "3,5",
        "dense_units": ";64;128",
        "dropout": "0..0.5",
    },
    "lenet": {
        "kernel_size": "3,5",
        "dense_units": "84;128;256",
        "conv_dropout": "0..0.4",
        "dropout": "0..0.5",
        "batch_norm": "0,1",
    },
    "shallow": {
        "filters": "32;64;32,64",
        "kernel_size": "3,5",
        "dense_units": "128;256;512;512,128",
        "dropout": "0..0.6",
    },
    "bottleneck": {"filters": "4,2;8,4;16,8", "kernel_size": "2,3,4"},
    "mlp": {
        "dense_units": "128;256;512;512,128;512,256,128",
        "dropout": "0..0.6",
        "activation": "relu,gelu",
    },
    "airbench": {
        "filters": "32,64,64;64,128,128;64,256,256",
        "activation": "relu,gelu,silu",
    },
}
_BATCH_SIZES = "32,64,128,256"
_LEARNING_RATES = 10  # times the optimizer's default, up and down

# Trials with different values of these could not be compared with each other.
_ONE_VALUE = {
    "dataset",
    "data_dir",
    "train_size",
    "validation_fraction",
    "test_fraction",
    "extra_class",
    "other",
    "strict",
    "cache",
    "random_seed",
    "precision",
    "jit_compile",
    "towers",
    "strategy",
    # What is fitted when a training is over; no trial's score knows of it.
    *(name for name, knob in KNOBS.items() if knob.section == "confidence"),
}


def parse_domain(declared: Knob, text: str) -> Domain:
    """Turn a flag's text into a domain; one value fixes the knob.

    Values as `kcnn.knobs.parse_values` reads them, or LOW..HIGH for all numbers
    between, log:LOW..HIGH for a logarithmic scale. Raises ValueError saying why not.
    """
    span = _SPAN.fullmatch(text) if declared.kind in (int, float) else None
    if span is None:
        return Choices(parse_values(declared, text))
    log, *ends = span.groups()
    low, high = (parse(declared, end) for end in ends)
    if high <= low:
        raise ValueError(f"got {text!r}, expected LOW..HIGH, the lower first")
    if log and low <= 0:
        raise ValueError(f"got {text!r}; a logarithmic scale begins above 0")
    return Span(low, high, bool(log))


def read_space(path: pathlib.Path) -> dict[str, Domain]:
    """Read a JSON file: knob -> a text as after a flag, a value, or a list of values.

    Raises:
        UsageError: the file, a name or a value is wrong; one line.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"--space={path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--space={path}: cannot be read: {error}") from None
    return domains_of(content, f"--space={path}")


def domains_of(content: Any, where: str) -> dict[str, Domain]:
    """Return the domains in the content of such a file; `where` it is, for errors."""
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected an object, knob: values")
    domains = {}
    for name, value in content.items():
        if name not in KNOBS:
            hint = did_you_mean(name, KNOBS)
            raise UsageError(f"{where}: unknown knob {name!r}{hint}")
        try:
            domains[name] = parse_domain(KNOBS[name], _as_typed(KNOBS[name], value))
        except ValueError as error:
            raise UsageError(f"{where}: {name}: {error}") from None
    return domains


def _as_typed(declared: Knob, value: Any) -> str:
    if isinstance(value, str):
        return value
    one_list = declared.kind is tuple and not any(isinstance(v, list) for v in value)
    if isinstance(value, list) and not one_list:
        if not value:
            raise ValueError("got [], expected at least one value")
        return ";".join(map(show, value)) + ";"
    return show(value)


@dataclass(frozen=True)
class Space:
    """What every trial has in common, and what is searched.

    Attributes:
        fixed: settings of every trial.
        domains: knob -> what it is searched over; parents of conditions come first.
    """

    fixed: Mapping[str, Any]
    domains: Mapping[str, Domain]

    @property
    def baseline(self) -> Config:
        """The untuned recipe: all that is searched at its default."""
        return self.config({})

    def config(self, values: Mapping[str, Any]) -> Config:
        """Return a trial's Config.

        Args:
            values: of knobs searched; those that are not there keep their defaults.

        Raises:
            UsageError: the combination cannot be run.
        """
        settings = {**self.fixed, **values}
        for name in self.fixed:
            parent = self.condition(name)
            if parent and settings.get(parent[0], _default(parent[0])) not in parent[1]:
                del settings[name]
        return Config.from_dict(settings)

    def condition(self, name: str) -> tuple[str, tuple[Any, ...]] | None:
        """Return the searched knob, and its values, that another knob exists for."""
        default = KNOBS[name].default
        if not isinstance(default, By) or default.knob not in self.domains:
            return None
        values = self.domains[default.knob].values
        wanted = tuple(value for value in values if value in default.defaults)
        return None if wanted == values else (default.knob, wanted)

    @property
    def size(self) -> int | None:
        """How many combinations there are; None where a span of fractions is."""
        size = 1
        for domain in self.domains.values():
            if isinstance(domain, Choices):
                size *= len(domain.values)
            elif domain.whole:
                size *= int(domain.high - domain.low) + 1
            else:
                return None
        return size

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield every combination, of a span its `values`; the last knob first."""
        for values in itertools.product(*(d.values for d in self.domains.values())):
            yield dict(zip(self.domains, values, strict=True))

    @property
    def grid_size(self) -> int:
        """How many combinations `grid` yields."""
        return math.prod(len(domain.values) for domain in self.domains.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, each domain as it is typed."""
        searched = {name: str(domain) for name, domain in self.domains.items()}
        return {"fixed": dict(self.fixed), "searched": searched}


def build_space(given: Mapping[str, Domain]) -> Space:
    """Return the space: what is given, over the defaults of its model.

    Args:
        given: from a file or from flags; a single value fixes its knob.

    Raises:
        UsageError: a knob cannot be searched or does not exist here; nothing is left
            to search.
    """
    several = {n: d for n, d in given.items() if isinstance(d, Span) or d.values[1:]}
    fixed = {n: d.values[0] for n, d in given.items() if n not in several}
    for name in several:
        if name in _ONE_VALUE:
            raise UsageError(
                f"--{name}: got {several[name]}, expected one value: trials with "
                "different ones could not be compared"
            )
    own = _default_domains(fixed, several)
    merged = {n: d for n, d in own.items() if n not in fixed} | several
    space = Space(fixed, {name: merged[name] for name in KNOBS if name in merged})
    if not space.domains:
        raise UsageError("nothing to search: every knob has one value only")
    for name, domain in space.domains.items():
        if space.condition(name) is None:
            _check_exists(space, name, domain)
    return space


def _default_domains(
    fixed: Mapping[str, Any], several: Mapping[str, Domain]
) -> dict[str, Domain]:
    """Return the model's default space; only what all have where several are tried."""
    texts = {"batch_size": _BATCH_SIZES}
    if "model" not in several:
        texts |= SPACES[fixed.get("model", KNOBS["model"].default)]
    domains = {name: parse_domain(KNOBS[name], text) for name, text in texts.items()}
    if "optimizer" not in several:
        optimizer = fixed.get("optimizer", KNOBS["optimizer"].default)
        usual = KNOBS["learning_rate"].default.defaults[optimizer]
        low, high = usual / _LEARNING_RATES, usual * _LEARNING_RATES
        domains["learning_rate"] = Span(low, high, log=True)
    return domains


def _check_exists(space: Space, name: str, domain: Domain) -> None:
    """Refuse a knob that would change nothing, as Config does."""
    default = KNOBS[name].default
    if not isinstance(default, By):
        return
    other = space.fixed.get(default.knob, _default(default.knob))
    if default.knob not in space.domains and other not in default.defaults:
        Config.from_dict({default.knob: other, name: domain.values[0]})


def _default(name: str) -> Any:
    return KNOBS[name].default
