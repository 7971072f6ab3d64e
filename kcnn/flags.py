"""The command line: absl flags generated from the knobs, and what they were given."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import flags

from kcnn import knobs
from kcnn.config import KNOBS
from kcnn.errors import UsageError
from kcnn.knobs import By, Knob, bounds, did_you_mean, show


class _KnobParser(flags.ArgumentParser):
    """Reads a flag's text as the knob's type, within its bounds, or as `read` does."""

    def __init__(
        self,
        name: str,
        declared: Knob,
        read: Callable[[Knob, str], Any] = knobs.parse,
    ):
        super().__init__()
        self._name = name
        self._declared = declared
        self._read = read

    def parse(self, argument: Any) -> Any:
        """Return the value; raises UsageError, which absl lets through."""
        try:
            return self._read(self._declared, argument)
        except ValueError as error:
            raise UsageError(f"--{self._name}: {error}") from None


def define(values: flags.FlagValues, name: str, declared: Knob) -> None:
    """Define one flag; absent from the command line it is None."""
    if declared.kind is bool:
        flags.DEFINE_boolean(name, None, declared.help, flag_values=values)
        return
    parser = _KnobParser(name, declared)
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    flags.DEFINE(parser, name, None, declared.help, values, serializer)


def define_knobs(values: flags.FlagValues, names: Iterable[str] = KNOBS) -> None:
    """Define the flags of the knobs named; of all by default."""
    for name in names:
        define(values, name, KNOBS[name])


def define_knobs_of_many(
    values: flags.FlagValues,
    names: Iterable[str] = KNOBS,
    read: Callable[[Knob, str], Any] = knobs.parse_values,
) -> None:
    """Define the flags of the knobs named such that each takes several values.

    `read` makes of a knob and a flag's text what the flag's value is; it raises
    ValueError for what it does not take.
    """
    for name in names:
        declared = KNOBS[name]
        parser = _KnobParser(name, declared, read)
        serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
        flags.DEFINE(
            parser,
            name,
            None,
            declared.help,
            values,
            serializer,
            boolean=declared.kind is bool,  # --strict and --nostrict too
        )


def of_command(command: Any) -> flags.FlagValues:
    """Return the flags of a command's module: its own, and knobs."""
    values = flags.FlagValues()
    for name, declared in command.FLAGS.items():
        define(values, name, declared)
    command.define_knobs(values)
    return values


def in_sections(*sections: str) -> list[str]:
    """Return the names of the knobs of some sections."""
    return [name for name, declared in KNOBS.items() if declared.section in sections]


def knobs_given(values: flags.FlagValues) -> dict[str, Any]:
    """Return the knobs that stood on the command line, with their values."""
    return {
        name: values[name].value
        for name in values
        if name in KNOBS and is_given(values, name)
    }


def is_given(values: flags.FlagValues, name: str) -> bool:
    """Tell whether a flag stood on the command line."""
    return values[name].present > 0


def value_of(values: flags.FlagValues, name: str, own: Mapping[str, Knob]) -> Any:
    """Return the value of a command's own flag, or its default where it is absent."""
    given = values[name].value
    return own[name].default if given is None else given


def parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Read a command line without its command; returns what is no flag.

    Raises UsageError for an unknown flag, with the nearest known one, and for a value
    that the flag does not take.
    """
    values.set_gnu_getopt(True)
    try:
        return values(["kcnn", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(
            f"unknown flag --{error.flagname}{_nearest(error.flagname, values)}"
        ) from None
    except flags.IllegalFlagValueError as error:  # knobs check theirs themselves
        raise UsageError(f"{error}, expected true or false") from None
    except (flags.Error, ValueError) as error:  # such as --nostrict=1
        raise UsageError(str(error)) from None


def _nearest(name: str, values: flags.FlagValues) -> str:
    hint = did_you_mean(name.split("=")[0], list(values))
    return hint.replace("mean ", "mean --") or "; --help lists them"


def help_text(usage: str, about: str, values: flags.FlagValues, own: dict[str, Knob]):
    """Return a command's help: its own flags first, then the knobs by section."""
    lines = [f"usage: {usage}", "", textwrap.fill(about, 80), ""]
    lines += [line for name, declared in own.items() for line in _entry(name, declared)]
    section = None
    for name, declared in KNOBS.items():
        if name not in values or name in own:
            continue
        if declared.section != section:
            section = declared.section
            lines += ["", f"{section}:"]
        lines += _entry(name, declared)
    return "\n".join(lines)


def _entry(name: str, declared: Knob) -> list[str]:
    text = declared.help
    if declared.choices:
        text += f" [{', '.join(declared.choices)}]"
    if declared.low is not None:
        text += f" [{bounds(declared)}]"
    if isinstance(declared.default, By):
        groups: dict[str, list[str]] = {}
        for other, value in declared.default.defaults.items():
            groups.setdefault(show(value) or "none", []).append(other)
        parts = [f"{value} ({', '.join(names)})" for value, names in groups.items()]
        text += f" (default by --{declared.default.knob}: {'; '.join(parts)})"
    elif declared.default not in (None, "", ()):
        text += f" (default: {show(declared.default)})"
    head = f"  --{'[no]' if declared.kind is bool else ''}{name}"
    indent = " " * 26
    body = textwrap.wrap(text, 88, initial_indent=indent, subsequent_indent=indent)
    if len(head) < 25:
        body[0] = head.ljust(26) + body[0].lstrip()
        return body
    return [head, *body]
