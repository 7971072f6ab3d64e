"""Labels of a folder's images that a run of kcnn confidently disagrees with."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from kcnn import predictions
from kcnn.errors import UsageError
from kcnn.fingerprint import of_contents
from kcnn.inspection import Inspection
from kcnn.label_errors import suspicious
from kcnn.run import Run, spec_of


def disputed(path: str, seen: Inspection) -> dict[str, Any]:
    """Compare the labels of a run's test images with its predictions of them.

    Args:
        path: the run's folder.
        seen: the folder that the run was trained on, wherever it is now.

    Returns:
        run, split (where its test images are), images (how many there are), accuracy
        (the part of them whose label is also the run's: what a run that is often wrong
        contradicts says little), and suspicious: file, label, said, probability and
        probability_of_label, the likeliest error first.

    Raises:
        UsageError: there is no complete run, or it was tested on other images.
    """
    run = Run(pathlib.Path(path))
    note = run.read_config()
    if not run.predictions.exists():
        raise UsageError(f"--run: {path} has no predictions.npz; {run.how_to_go_on}")
    known = note["data"].get("fingerprint", {}).get("test")
    number = next((i for i in range(len(seen.splits)) if _mark(seen, i) == known), None)
    if number is None:
        raise UsageError(
            f"--run: {path} was not tested on the images of this folder as they are now"
        )
    indices, labels, probabilities = predictions.read(run.predictions)
    names = spec_of(note).class_names
    places = np.flatnonzero(seen.split == number)[indices]
    return {
        "run": path,
        "split": seen.splits[number],
        "images": len(labels),
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "suspicious": [
            {
                "file": seen.files[places[i]].name,
                "label": names[labels[i]],
                "said": names[said],
                "probability": float(probabilities[i, said]),
                "probability_of_label": float(probabilities[i, labels[i]]),
            }
            for i, said in suspicious(labels, probabilities).tolist()
        ],
    }


def _mark(seen: Inspection, split: int) -> str:
    """Return the fingerprint that training takes of a split."""
    places = np.flatnonzero(seen.split == split)
    return of_contents((seen.files[i].name, seen.contents[i].tobytes()) for i in places)
