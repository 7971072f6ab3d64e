"""The findings of a folder as lines of text, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcnn.table import render

_LISTED = 8  # of anything; check.json has all
_CLASSES = 30

# Kind of a group of duplicates -> how its lines begin, and what it is said to be.
_KINDS = {
    "across_splits": ("LEAK", "in more than one split"),
    "across_classes": ("LABELS", "in more than one class"),
    "within": ("duplicates", "more than once in a class"),
}

_EQUAL, _NEAR = " = ", " ~ "


def text(result: Mapping[str, Any]) -> str:
    """Return what `kcnn data check` prints.

    Args:
        result: of `findings.findings`, with folder, and disputed: None or of
            `disputes.disputed`.
    """
    parts = [_overview(result), _classes(result["classes"]), _problems(result)]
    return "\n\n".join("\n".join(lines) for lines in parts)


def headline(result: Mapping[str, Any]) -> str:
    """Return the gravest finding in a sentence."""
    found = result["duplicates"]
    if found["across_splits"]:
        some = " and ".join(
            f"{n:,} of {result['splits'][split]:,} {split} images"
            for split, n in found["leaked"].items()
        )
        first, _, *more = result["splits"]
        return f"{some} are in {'an earlier split' if more else first} as well"
    if found["across_classes"]:
        return f"{count(len(found['across_classes']), 'image')} in more than one class"
    places = "split or class" if len(result["splits"]) > 1 else "class"
    return f"no image in more than one {places}"


def described(group: Mapping[str, Any]) -> str:
    """Return the files of a group of duplicates: a = b, or a ~ b where they differ."""
    shown = (_EQUAL if group["equal"] else _NEAR).join(group["files"][:4])
    more = len(group["files"]) - 4
    return f"{shown} and {more:,} more" if more > 0 else shown


def mismatch(one: Mapping[str, Any]) -> str:
    """Return how two splits differ in a figure."""
    first, other = one["splits"]
    before, after = one["medians"]
    effect = one["superiority"]
    return (
        f"{one['figure']}: median {after:,.4g} in {other}, {before:,.4g} in {first} "
        f"({one['unit']}); {'more' if effect >= 0.5 else 'less'} in {other} in "
        f"{max(effect, 1 - effect):.0%} of pairs"
    )


def shares(counts: Mapping[str, int]) -> str:
    """Return the commonest of some values with their numbers."""
    values = list(counts.items())
    if len(values) == 1:
        return f"all {values[0][0]}"
    shown = ", ".join(f"{name} ({n:,})" for name, n in values[:5])
    rest = sum(n for _, n in values[5:])
    return f"{shown}, {len(values) - 5:,} more ({rest:,})" if rest else shown


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _overview(result: Mapping[str, Any]) -> list[str]:
    splits = ", ".join(f"{n:,} {name}" for name, n in result["splits"].items())
    what = (
        f"{result['folder']}: {count(result['images'], 'image')} ({splits}) of "
        f"{count(len(result['classes']), 'class', 'classes')}"
    )
    named = {name: shares(result[name]) for name in ("sizes", "formats", "modes")}
    return [_row("folder", what), *(_row(k, v) for k, v in named.items())]


def _classes(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [{"class": row["name"], **row["counts"]} for row in classes]
    lines = render(rows[:_CLASSES], "table").splitlines()
    more = len(rows) - _CLASSES
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def _problems(result: Mapping[str, Any]) -> list[str]:
    lines = [_row("result", headline(result))]
    for kind, (label, where) in _KINDS.items():
        groups = result["duplicates"][kind]
        what = f"{count(len(groups), 'image')} {where}"
        lines += _list(label, what, [described(group) for group in groups])
    if result["disputed"]:
        lines += _disputed(result["disputed"])
    lines += [
        _row("mismatch", mismatch(one))
        for one in result["mismatches"]
        if one["differs"]
    ]
    lines += [_row("imbalance", line) for line in balance(result["balance"])]
    files = [f"{one['file']}: {one['reason']}" for one in result["skipped"]]
    what = f"{count(len(files), 'file')} that training skips"
    lines += _list("unreadable", what, files)
    ignored = result["ignored"]
    lines += _list("no image", count(len(ignored), "path"), ignored)
    converted = [f"{one['file']}: {one['how']}" for one in result["converted"]]
    return lines + _list("converted", count(len(converted), "file"), converted)


def balance(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to say of the sizes of the classes."""
    largest, smallest = found["largest"], found["smallest"]
    if found["imbalanced"]:
        yield (
            f"{found['split']} has {largest['n']:,} of {largest['name']}, and "
            f"{smallest['n']:,} of {smallest['name']}"
        )
    missing = [f"{one['class']} in {one['split']}" for one in found["empty"]]
    if missing:
        more = f" and {len(missing) - _LISTED:,} more" if missing[_LISTED:] else ""
        yield f"no image of {', '.join(missing[:_LISTED])}{more}"


def _disputed(found: Mapping[str, Any]) -> list[str]:
    items = [
        f"{one['file']}: {found['run']} says {one['said']} ({one['probability']:.0%})"
        for one in found["suspicious"]
    ]
    what = (
        f"{len(items):,} of {count(found['images'], 'label')} in {found['split']} are "
        f"confidently contradicted, by a run that is right on {found['accuracy']:.1%}"
    )
    return _list("suspicious", what, items) or [_row("suspicious", what)]


def _list(label: str, what: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    lines = [_row(label, what), *(_row("", item) for item in items[:_LISTED])]
    more = len(items) - _LISTED
    return [*lines, _row("", f"and {more:,} more")] if more > 0 else lines


def _row(label: str, what: str) -> str:
    what = what.replace("\n", "\\n")  # a file's name may hold one
    return f"{label:<11}{what}"
