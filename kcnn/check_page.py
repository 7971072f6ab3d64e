"""The findings of a folder as a page, with its contact sheet."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kcnn import check_text, images, pages
from kcnn.contact_sheet import MOST_ROWS, SAMPLES, contact_sheet
from kcnn.files import write_text
from kcnn.inspection import Inspection
from kcnn.scan import ImageFile

_SIDE = 96  # pixels of the longer side of an image
_GROUPS, _MEMBERS = 12, 4  # of each kind, and of a group, that are pictured
_SUSPICIOUS = 24
_LISTED = 100


def write(
    result: Mapping[str, Any], seen: Inspection, folder: pathlib.Path
) -> pathlib.Path:
    """Write contact_sheet.png and check.html; return the page."""
    sheet = folder / "contact_sheet.png"
    contact_sheet(_rows(seen), sheet)
    found = result["duplicates"]
    files = {file.name: file for file in seen.files}
    kinds = [
        ("In more than one split", found["across_splits"]),
        ("In more than one class", found["across_classes"]),
        ("More than once in a class", found["within"]),
    ]
    facts = {
        "check": result,
        "headline": check_text.headline(result),
        "sheet": pages.embedded(sheet),
        "shown_classes": min(len(seen.class_names), MOST_ROWS),
        "kinds": [
            (name, _pictured(groups, files), len(groups)) for name, groups in kinds
        ],
        "suspicious": _suspicious(result["disputed"], files),
        "balance": list(check_text.balance(result["balance"])),
        "overview": [
            (name, check_text.shares(result[name]))
            for name in ("sizes", "formats", "modes")
        ],
        "lists": [
            ("Files that training skips", _texts(result["skipped"], "reason")),
            ("Paths that are no image in a class folder", list(result["ignored"])),
            ("Files of which not all is read", _texts(result["converted"], "how")),
        ],
        "listed": _LISTED,
    }
    page = folder / "check.html"
    write_text(page, pages.render("check.html", facts))
    return page


def _rows(seen: Inspection) -> list[tuple[str, list[np.ndarray]]]:
    """Return each class's caption and samples, the same ones for the same files."""
    # By content: at random, but none changes when other files come or go.
    order = np.lexsort((seen.contents[:, 1], seen.contents[:, 0]))
    rows = []
    for i, name in enumerate(seen.class_names[:MOST_ROWS]):
        of_class = order[seen.label[order] == i]
        chosen = [seen.files[k] for k in of_class[:SAMPLES]]
        rows.append((f"{name}\n{len(of_class):,}", [_small(file) for file in chosen]))
    return rows


def _small(file: ImageFile) -> np.ndarray:
    """Return an image as training sees it, its longer side _SIDE pixels at the most."""
    width, height = file.header.width, file.header.height
    shrink = max(1.0, max(width, height) / _SIDE)
    shape = max(1, round(height / shrink)), max(1, round(width / shrink)), 3
    return images.decode(tf.io.read_file(file.path), shape).numpy()


def _picture(file: ImageFile) -> str:
    """Return an image as a data URL."""
    return pages.as_picture(_small(file))


def _pictured(
    groups: Sequence[Mapping[str, Any]], files: Mapping[str, ImageFile]
) -> list[dict[str, Any]]:
    return [
        {
            **group,
            "pictures": [
                (name, _picture(files[name])) for name in group["files"][:_MEMBERS]
            ],
        }
        for group in groups[:_GROUPS]
    ]


def _suspicious(
    found: Mapping[str, Any] | None, files: Mapping[str, ImageFile]
) -> list[dict[str, Any]]:
    if not found:
        return []
    return [
        one | {"picture": _picture(files[one["file"]])}
        for one in found["suspicious"][:_SUSPICIOUS]
    ]


def _texts(rows: Sequence[Mapping[str, str]], key: str) -> list[str]:
    return [f"{row['file']}: {row[key]}" for row in rows]
