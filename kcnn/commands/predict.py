"""Label image files with a SavedModel.

Name image files, folders (searched for images), or - for one image on standard input.
Files that cannot be read as images are named on standard error, the others labelled.
A model trained with --reject labels what it is not sure of "unknown".
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl.flags import FlagValues

from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.run import TRUST
from kcnn.table import FORMATS, render

USAGE = "kcnn predict [--saved_model=DIR] [--top_k=1] IMAGE|FOLDER|- ..."

FLAGS = {
    "saved_model": Knob(
        "predict",
        "",
        "SavedModel, or the folder of its versions (default: the newest in "
        "saved_models)",
    ),
    "show": Knob(
        "predict",
        "",
        "write each image to this folder too, as the network is shown it (PNG)",
    ),
    "top_k": Knob(
        "predict", 1, "how many classes to name an image", low=1, high=1000, kind=int
    ),
    "trust": Knob("predict", False, TRUST, kind=bool),
    "format": Knob("predict", "table", "form of the output", choices=FORMATS),
}

UNKNOWN = "unknown"  # the label of an image that the model rejects

_FILES_A_BATCH = 64


def define_knobs(values: FlagValues) -> None:
    """Define no knobs: the SavedModel holds all that is needed."""


def main(values: FlagValues, arguments: list[str]) -> int:
    """Print a row an image and class; returns 2 if an image could not be read."""
    if not arguments:
        raise UsageError(f"no image given: {USAGE}")
    _check_exist(arguments)

    from kcnn import runtime

    runtime.start_tensorflow()
    paths = list(_files(arguments))
    if not paths:
        raise UsageError(f"no images in {', '.join(arguments)}")

    from kcnn.inference import Classifier, newest_export

    place = values.saved_model or newest_export(pathlib.Path("saved_models"))
    classifier = Classifier(place, trust=bool(values.trust))
    top_k = min(values.top_k or 1, len(classifier.class_names))
    show = _Gallery(classifier, values.show) if values.show else None
    rows: list[dict[str, Any]] = []
    bad = 0
    for start in range(0, len(paths), _FILES_A_BATCH):
        batch = paths[start : start + _FILES_A_BATCH]
        for path, outcome in _label(classifier, batch, show):
            if _is_bad(outcome):
                bad += 1
                print(f"kcnn predict: {path}: {outcome}", file=sys.stderr)
            else:
                rows += _rows(path, outcome, classifier.class_names, top_k)
    if rows:
        print(render(rows, values.format or "table"))
    return 2 if bad else 0


def _check_exist(arguments: list[str]) -> None:
    for argument in arguments:
        if argument != "-" and not pathlib.Path(argument).exists():
            raise UsageError(f"{argument}: no such file or folder")


def _files(arguments: list[str]) -> Iterator[str]:
    from kcnn.images import SUFFIXES

    for argument in arguments:
        path = pathlib.Path(argument)
        if argument != "-" and path.is_dir():
            found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            yield from map(str, sorted(found))
        else:
            yield argument


class _Gallery:
    """A folder of images as the network is shown them.

    Each is named after its file; of two of the same name the second gets a number.
    """

    def __init__(self, classifier: Any, folder: str):
        self._classifier = classifier
        self._folder = pathlib.Path(folder)
        self._names: set[str] = set()
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, contents: dict[str, bytes]) -> None:
        """Write images by the path that they were read from."""
        import tensorflow as tf

        from kcnn.files import replacing

        images = self._classifier.images_of_files(list(contents.values()))
        for path, image in zip(contents, images, strict=True):
            with replacing(self._folder / self._name(path)) as file:
                file.write(tf.io.encode_png(image).numpy())

    def _name(self, path: str) -> str:
        stem = "standard-input" if path == "-" else pathlib.Path(path).stem
        name, number = f"{stem}.png", 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}.png"
        self._names.add(name)
        return name


def _label(
    classifier: Any, paths: list[str], show: _Gallery | None
) -> Iterator[tuple[str, Any]]:
    """Yield each path with the model's outputs, or why there are none."""
    from kcnn.images import check_header

    contents, outcomes = {}, {}
    for path in paths:
        try:
            data = sys.stdin.buffer.read() if path == "-" else _read(path)
            check_header(data)
            contents[path] = data
        except (ValueError, OSError) as error:
            outcomes[path] = str(error)
    outputs = classifier.outputs_of_files(list(contents.values()))
    outcomes |= dict(zip(contents, outputs, strict=True))
    if show:
        show.write({p: c for p, c in contents.items() if not _is_bad(outcomes[p])})
    return ((path, outcomes[path]) for path in paths)


def _is_bad(outcome: Any) -> bool:
    """Tell whether an outcome is the reason why there are no probabilities."""
    return isinstance(outcome, str)


def _read(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()


def _rows(
    path: str, outputs: dict[str, Any], class_names: list[str], top_k: int
) -> Iterator[dict[str, Any]]:
    """Yield a row a class, the likeliest first.

    Of a model that rejects images the label may be "unknown"; `nearest` is then the
    class of the probability.
    """
    probabilities = outputs["probabilities"]
    order = (-probabilities).argsort(kind="stable")[:top_k]
    for rank, index in enumerate(order, start=1):
        row: dict[str, Any] = {"image": path}
        if top_k > 1:
            row["rank"] = rank
        row["label"] = class_names[index]
        row["probability"] = round(float(probabilities[index]), 6)
        if "accepted" in outputs:
            row["nearest"] = class_names[index]
            row["label"] = class_names[index] if outputs["accepted"] else UNKNOWN
        yield row
