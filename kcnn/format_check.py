"""Is a model in another format still the model? The whole test set tells."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from kcnn import pipeline
from kcnn.confidence import Rule
from kcnn.errors import RunError
from kcnn.export import TOLERANCE
from kcnn.formats import INT8, Runner
from kcnn.inference import Outputs
from kcnn.splits import Split

# The part of the images that an int8 model may get wrong more than the SavedModel.
INT8_LOSS = 0.003

_BATCH = 100
_FIRST, _TIMED = 20, 300  # images, one at a time: to get ready, and to take the time of
_LONGEST = 10.0  # seconds that taking the time may last


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares what runs a model with its SavedModel.

    Attributes:
        test: the test images.
        rule: which images the model accepts.
        expected: what the SavedModel makes of them.
    """

    test: Split
    rule: Rule
    expected: Outputs

    @classmethod
    def by(cls, saved_model: Runner, test: Split, rule: Rule) -> Judge:
        """Return a judge who goes by a SavedModel."""
        return cls(test, rule, _outputs(saved_model, test))

    def rows(self, runners: Mapping[pathlib.Path, Runner]) -> list[dict[str, Any]]:
        """Return the `row` of each of some files, given with what runs them."""
        return [
            self.row(path.name, run, size_of(path)) for path, run in runners.items()
        ]

    def row(self, name: str, run: Runner, size: int) -> dict[str, Any]:
        """Return how a model does, as plain values.

        Args:
            name: of the model's file.
            run: what runs it.
            size: of the file, in bytes.

        Returns:
            file; accuracy in percent; difference from the SavedModel in points; other,
            the number of images with another class; largest_difference of a
            probability; bytes; p50_ms and p99_ms, of one image at a time; accepted,
            in percent, where the rule rejects images; None of a file without scores.

        Raises:
            RunError: it is not the model any more.
        """
        found = _outputs(run, self.test)
        self._check(name, found)
        hits = found["classes"] == self.test.labels
        expected = self.expected["classes"] == self.test.labels
        p50, p99 = latency(run, pipeline.images_at(self.test, np.array([0])))
        row = {
            "file": name,
            "accuracy": 100 * float(hits.mean()),
            "difference": 100 * float(hits.mean() - expected.mean()),
            "other": int((found["classes"] != self.expected["classes"]).sum()),
            "largest_difference": _largest(found, self.expected),
            "bytes": size,
            "p50_ms": p50,
            "p99_ms": p99,
        }
        if self.rule.threshold is not None:
            accepted = found.get("accepted")
            row["accepted"] = None if accepted is None else 100 * float(accepted.mean())
        return row

    def _check(self, name: str, found: Outputs) -> None:
        if found["probabilities"].dtype != np.float32:
            raise RunError(f"{name} was not kept: its probabilities are no float32")
        if name == INT8:
            lost = int((self.expected["classes"] == self.test.labels).sum()) - int(
                (found["classes"] == self.test.labels).sum()
            )
            # Of a small test set one image is more than that part.
            if lost > max(1, INT8_LOSS * len(self.test)):
                raise RunError(
                    f"{name} was not kept: it is wrong about {lost:,} more of the "
                    f"{len(self.test):,} test images than the SavedModel; "
                    f"{INT8_LOSS:.1%} are allowed"
                )
            return
        largest = _largest(found, self.expected)
        if not largest <= TOLERANCE:
            raise RunError(
                f"{name} was not kept: it differs from the SavedModel by {largest:.2g} "
                "in a probability"
            )
        if "accepted" in found:
            near = np.abs(self.expected["score"] - self.rule.threshold) <= TOLERANCE
            wrong = (found["accepted"] != self.expected["accepted"]) & ~near
            if wrong.any():
                raise RunError(
                    f"{name} was not kept: it accepts or rejects {wrong.sum():,} "
                    "images otherwise than the SavedModel"
                )


def size_of(path: pathlib.Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def latency(run: Runner, image: np.ndarray) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time that one image takes.

    Args:
        run: what runs the model.
        image: (1, height, width, channels) uint8.

    Returns:
        in milliseconds, NumPy arrays in and out.
    """
    for _ in range(_FIRST):
        run(image)
    took: list[float] = []
    end = time.perf_counter() + _LONGEST
    while len(took) < _TIMED and (not took or time.perf_counter() < end):
        began = time.perf_counter()
        run(image)
        took.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(took, [50, 99])
    return float(p50), float(p99)


def _outputs(run: Runner, test: Split) -> Outputs:
    """Return what is made of every test image, put together."""
    with pipeline.reading(test):
        batches = pipeline.evaluation_batches(test, _BATCH)
        found = [run(np.asarray(batch)) for batch in batches]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _largest(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    return float(np.abs(found["probabilities"] - expected["probabilities"]).max())
