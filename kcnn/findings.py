"""What an inspected folder shows: counts, leaks, wrong labels, what does not match."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import numpy as np

from kcnn.duplicates import CERTAIN, PART_OF_USUAL, Group, groups_of
from kcnn.inspection import Inspection
from kcnn.mismatch import MEDIUM, differs, superiority

# Of the largest class over the smallest; beyond it accuracy alone says little.
_IMBALANCE = 10

# What training reads, but not all of it.
_CONVERTED = {
    "CMYK": "CMYK, read as RGB",
    "I;16": "16 bits a pixel, of which the higher 8 are read",
    "I;16B": "16 bits a pixel, of which the higher 8 are read",
    "I": "more than 8 bits a pixel, of which the higher 8 are read",
    "LA": "transparent, laid over white",
    "RGBA": "transparent, laid over white",
}


def findings(seen: Inspection, distance: int) -> dict[str, Any]:
    """Return all figures of a folder, as plain values for JSON.

    Args:
        seen: the folder.
        distance: in how many of 64 bits the perceptual hashes of near duplicates may
            differ.

    Returns:
        images, splits (name -> number), classes (name, and counts by split), balance,
        sizes, formats and modes (the commonest first), skipped, ignored, converted,
        duplicates, mismatches, and decided_by, which says how each is decided.
    """
    splits = {name: int((seen.split == i).sum()) for i, name in enumerate(seen.splits)}
    classes = [
        {
            "name": name,
            "counts": {
                split: int(((seen.label == i) & (seen.split == j)).sum())
                for j, split in enumerate(seen.splits)
            },
        }
        for i, name in enumerate(seen.class_names)
    ]
    sizes = _counted(f"{f.header.width}x{f.header.height}" for f in seen.files)
    return {
        "images": len(seen.files),
        "splits": splits,
        "classes": classes,
        "balance": _balance(seen, classes),
        "sizes": sizes,
        "formats": _counted(f.header.format for f in seen.files),
        "modes": _counted(f.header.mode for f in seen.files),
        "skipped": [{"file": f, "reason": reason} for f, reason in seen.skipped],
        "ignored": seen.ignored,
        "converted": _converted(seen),
        "duplicates": _duplicates(seen, distance),
        "mismatches": _mismatches(seen),
        "decided_by": {
            "duplicates": f"equal SHA-256; or a perceptual hash that differs in "
            f"{distance} of 64 bits at most, and 32x32 thumbnails that differ by "
            f"{CERTAIN:g} of their contrast at most (root mean square), or by "
            f"{PART_OF_USUAL:.2f} of what they differ from the nearest hundredth of "
            "the images",
            "balance": f"the largest class has over {_IMBALANCE} times the smallest",
            "mismatches": f"Vargha and Delaney's A of {MEDIUM:g} or more (medium), and "
            "p < 0.001 (Mann and Whitney)",
        },
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(values).most_common())


def _balance(seen: Inspection, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest and the smallest class of the first split, and what lacks."""
    first = seen.splits[0]
    largest = max(classes, key=lambda c: c["counts"][first])
    smallest = min(classes, key=lambda c: c["counts"][first])
    return {
        "split": first,
        "largest": {"name": largest["name"], "n": largest["counts"][first]},
        "smallest": {"name": smallest["name"], "n": smallest["counts"][first]},
        "imbalanced": largest["counts"][first] > _IMBALANCE * smallest["counts"][first],
        "empty": [
            {"split": split, "class": c["name"]}
            for split in seen.splits
            for c in classes
            if c["counts"][split] == 0
        ],
    }


def _converted(seen: Inspection) -> list[dict[str, str]]:
    found = []
    for file in seen.files:
        if file.header.format == "GIF":
            found.append({"file": file.name, "how": "GIF, of which one frame is read"})
        elif file.header.mode in _CONVERTED:
            found.append({"file": file.name, "how": _CONVERTED[file.header.mode]})
    return found


def _duplicates(seen: Inspection, distance: int) -> dict[str, Any]:
    """Return the groups: across splits, else across classes, else within one of both.

    A group across splits may be one across classes as well.
    """
    groups = groups_of(seen.contents, seen.hashes, seen.thumbnails, distance)
    parts: dict[str, list[dict[str, Any]]] = {
        "across_splits": [],
        "across_classes": [],
        "within": [],
    }
    leaked: collections.Counter[str] = collections.Counter()
    for group in sorted(groups, key=lambda g: (not g.equal, g.members)):
        members = list(group.members)
        spread = len(set(seen.split[members])) > 1
        torn = len(set(seen.label[members])) > 1
        kind = "across_splits" if spread else "across_classes" if torn else "within"
        parts[kind].append(_described(seen, group, spread, torn))
        if spread:
            first = min(seen.split[members])
            leaked.update(seen.splits[i] for i in seen.split[members] if i != first)
    return {
        **parts,
        "leaked": dict(leaked),
        "superfluous": sum(len(group.members) - 1 for group in groups),
        "largest": max((len(group.members) for group in groups), default=0),
    }


def _described(seen: Inspection, group: Group, spread: bool, torn: bool) -> dict:
    return {
        "files": [seen.files[i].name for i in group.members],
        "equal": group.equal,
        "across_splits": spread,
        "across_classes": torn,
    }


def _mismatches(seen: Inspection) -> list[dict[str, Any]]:
    """Compare each split with the first one, in figures that a camera changes."""
    pixels = np.array([f.header.width * f.header.height for f in seen.files])
    shape = np.array([f.header.width / f.header.height for f in seen.files])
    figures = {
        "brightness": (seen.brightness, "grey levels"),
        "contrast": (seen.contrast, "grey levels"),
        "size": (pixels, "pixels"),
        "aspect ratio": (shape, "width to height"),
    }
    first, *others = (np.flatnonzero(seen.split == i) for i in range(len(seen.splits)))
    return [
        {
            "figure": name,
            "unit": unit,
            "splits": [seen.splits[0], seen.splits[i]],
            **_compared(values[first], values[other]),
        }
        for i, other in enumerate(others, start=1)
        for name, (values, unit) in figures.items()
        if len(first) and len(other)
    ]


def _compared(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    effect, p_value = superiority(before, after)
    return {
        "medians": [float(np.median(before)), float(np.median(after))],
        "superiority": effect,
        "p_value": p_value,
        "differs": differs(effect, p_value),
    }
