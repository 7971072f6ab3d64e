"""How a knob is declared, read from text and checked; the knobs are in config.py."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from kcnn.errors import UsageError

MOST_VALUES = 10_000  # of a sweep; more is a slip of the keyboard
_SECONDS_IN = {"s": 1, "m": 60, "h": 3600}
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclasses.dataclass(frozen=True)
class By:
    """A default that depends on another knob.

    The knob exists only for the values listed; elsewhere setting it is refused,
    because it would change nothing.
    """

    knob: str
    defaults: Mapping[str, Any]


def default_among(knob: Knob, settings: Mapping[str, Any]) -> Any:
    """Return a knob's default beside the values of others; None where it is no knob."""
    default = knob.default
    if isinstance(default, By):
        return default.defaults.get(str(settings.get(default.knob)))
    return default


def by_model(**defaults: Any) -> By:
    """Declare a knob that exists only for the models named, with their defaults."""
    return By("model", defaults)


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is declared about one field of Config besides its type."""

    section: str
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_time: bool = False  # a float in seconds that may be typed as 90s, 5m or 1h
    kind: type = str  # int, float, str, bool or tuple (of int): set by knobs_of


def knob(
    section: str,
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] = (),
    is_time: bool = False,
) -> Any:
    """Declare one knob as a dataclass field; `low` and `high` are inclusive."""
    declared = Knob(section, default, help, low, high, tuple(choices), is_time)
    plain = None if isinstance(default, By) else default
    return dataclasses.field(default=plain, metadata={"knob": declared})


def knobs_of(config_class: type) -> dict[str, Knob]:
    """Return name -> Knob for each field of a dataclass made with `knob`."""
    hints = typing.get_type_hints(config_class)
    return {
        field.name: dataclasses.replace(
            field.metadata["knob"], kind=_plain_type(hints[field.name])
        )
        for field in dataclasses.fields(config_class)
    }


def _plain_type(hint: Any) -> type:
    """Reduce `int | None` to int and `tuple[int, ...]` to tuple."""
    if typing.get_origin(hint) is tuple:
        return tuple
    options = [t for t in typing.get_args(hint) if t is not type(None)]
    return _plain_type(options[0]) if options else hint


def parse(knob: Knob, text: str) -> Any:
    """Turn a flag's text into a knob's value; raises ValueError saying why not."""
    value: Any = text
    if knob.kind is tuple:
        value = tuple(_number(int, part) for part in text.split(",") if part)
    elif knob.is_time:
        value = _seconds(text)
    elif knob.kind in (int, float):
        value = _number(knob.kind, text)
    elif knob.kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"got {text!r}, expected true or false")
        value = text.lower() == "true"
    check_bounds(knob, value)
    return value


def parse_values(declared: Knob, text: str) -> tuple[Any, ...]:
    """Turn a flag's text into the values of one knob, each checked.

    Commas separate values. Where the text holds a `;` that does instead, and it is
    the only separator of knobs that are lists; one at the end adds no value. `a..b`
    stands for the whole numbers from a to b. Raises ValueError saying what is wrong.
    """
    values: list[Any] = []
    for part in _parts(declared, text):
        found = _RANGE.fullmatch(part) if declared.kind is int else None
        if found:
            first, last = (parse(declared, end) for end in found.groups())
            if last < first:
                raise ValueError(f"got {part!r}, expected FIRST..LAST, the lower first")
            if last - first >= MOST_VALUES:
                raise ValueError(f"got {part!r}, expected {MOST_VALUES:,} at most")
            values += range(first, last + 1)
        else:
            values.append(parse(declared, part))
    for value, times in collections.Counter(values).items():
        if times > 1:
            raise ValueError(f"got {show(value)} {times} times, expected once")
    return tuple(values)


def _parts(declared: Knob, text: str) -> list[str]:
    if ";" in text:
        return text.removesuffix(";").split(";")
    return [text] if declared.kind is tuple else text.split(",")


def show(value: Any) -> str:
    """Return a value as it is typed after a flag, with all its digits."""
    if isinstance(value, tuple | list):
        return ",".join(str(v) for v in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def resolve(name: str, knob: Knob, value: Any, others: Any) -> Any:
    """Fill in a default that depends on another knob, and check the value.

    Returns None where the knob does not exist for the others' values. Raises
    UsageError that names the knob.
    """
    default = knob.default
    if isinstance(default, By):
        other = getattr(others, default.knob)
        if other not in default.defaults:
            if value is not None:
                raise UsageError(
                    f"--{name} changes nothing for --{default.knob}={other}; it "
                    f"belongs to --{default.knob}={'|'.join(default.defaults)}"
                )
            return None
        value = default.defaults[other] if value is None else value
    if value is None and default is None:
        return None
    try:
        value = _coerce(knob.kind, value)
        check_bounds(knob, value)
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None
    return value


def check_bounds(knob: Knob, value: Any) -> None:
    """Raise ValueError if a value of the right type is not an accepted one."""
    if knob.choices and value not in knob.choices:
        raise ValueError(
            f"got {value!r}, expected one of {', '.join(knob.choices)}"
            f"{did_you_mean(str(value), knob.choices)}"
        )
    if knob.low is None:
        return
    for number in value if isinstance(value, tuple) else (value,):
        high = math.inf if knob.high is None else knob.high
        if not knob.low <= number <= high or not math.isfinite(number):
            raise ValueError(f"got {show(value)}, expected {bounds(knob)}")


def bounds(knob: Knob) -> str:
    """Return what a knob with a least value accepts, as text."""
    if knob.high is None:
        return f"{show(knob.low)} or more"
    return f"{show(knob.low)} to {show(knob.high)}"


def _number(kind: type, text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"got {text!r}, expected {_KIND_NAMES[kind]}") from None


def _seconds(text: str) -> float:
    unit = _SECONDS_IN.get(text[-1:])
    try:
        return float(text) if unit is None else float(text[:-1]) * unit
    except ValueError:
        raise ValueError(f"got {text!r}, expected a time such as 90s, 5m, 1h") from None


def _coerce(kind: type, value: Any) -> Any:
    if kind is tuple and isinstance(value, list | tuple):
        if all(type(v) is int for v in value):
            return tuple(value)
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"got {value!r}, expected {_KIND_NAMES[kind]}")


_KIND_NAMES = {
    tuple: "whole numbers",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}

# What people type for a knob that has another name here.
_SYNONYMS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "seed": "random_seed",
    "data": "dataset",
    "arch": "model",
    "output_dir": "model_dir",
    "out": "model_dir",
    "weights": "saved_model",
    "train_size": "sizes",
    "amp": "precision",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known word, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    synonym = _SYNONYMS.get(word)
    best = synonym if synonym in known else near[0] if near else None
    return f"; did you mean {best}?" if best else ""
