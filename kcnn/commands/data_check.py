"""Look for leaks, wrong labels and damage in a folder of images.

DIR holds a folder for each class, or train/, validation/ and test/ with such folders.
Every image is read as training reads it; nothing in DIR is changed. The gravest comes
first: images that are in two splits or two classes, as equal files or nearly the same.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import time
from typing import Any

from absl.flags import FlagValues

from kcnn.errors import UsageError
from kcnn.files import is_within, write_json
from kcnn.flags import value_of
from kcnn.knobs import Knob

USAGE = "kcnn data check DIR [--output=DIR] [--run=RUN] [--distance=4]"

DISTANCE = Knob(
    "data",
    4,
    "images are nearly the same if this many of the 64 bits of their perceptual hash "
    "differ at most, and their pixels little; lower it for drawings that look alike",
    low=0,
    high=16,
    kind=int,
)

FLAGS = {
    "distance": DISTANCE,
    "run": Knob(
        "data",
        "",
        "a run trained on DIR: name the labels of its test images that it confidently "
        "contradicts",
    ),
    "output": Knob(
        "data", "", "folder for check.json, check.html and contact_sheet.png"
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define no knobs."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Print what the folder shows, and write it where --output says."""
    root = the_folder(arguments, USAGE)
    output = pathlib.Path(values.output) if values.output else None
    if output and is_within(output, root):
        raise UsageError(f"--output: {output} is in {root}, which is not changed")

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import check_text
    from kcnn.findings import findings
    from kcnn.inspection import inspect

    seen = inspect(root)
    distance = value_of(values, "distance", FLAGS)
    result = {
        "folder": root,
        "command": f"kcnn data check {shlex.quote(root)} --distance={distance}",
        "checked": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **findings(seen, distance),
        "disputed": _disputed(values.run, seen),
    }
    print(check_text.text(result))
    if output:
        from kcnn import check_page

        write_json(output / "check.json", result)
        print(f"page       {check_page.write(result, seen, output)}")


def the_folder(arguments: list[str], usage: str) -> str:
    """Return the only argument; raises UsageError if it is no folder."""
    if len(arguments) != 1:
        raise UsageError(f"expected one folder of images: {usage}")
    if not os.path.isdir(arguments[0]):
        raise UsageError(f"{arguments[0]}: no such folder")
    return arguments[0]


def _disputed(run: str | None, seen: Any) -> dict[str, Any] | None:
    if not run:
        return None
    from kcnn.disputes import disputed

    return disputed(run, seen)
