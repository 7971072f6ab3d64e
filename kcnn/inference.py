"""A SavedModel -> predictions. Needs TensorFlow only, no Keras."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from kcnn.errors import UsageError
from kcnn.images import reason
from kcnn.trust import check_saved_model

# Name -> array, the first dimension being the images: probabilities (n, classes)
# float32, classes (n,) int64, labels (n,) bytes; of a model that rejects images also
# accepted (n,) bool and score (n,) float32.
Outputs = dict[str, np.ndarray]


class Classifier:
    """An exported model, ready to label images.

    Args:
        path: a version folder, or a model's folder, of which the newest version is
            taken.
        trust: load it even if it could do more than compute; see kcnn.trust.

    Raises:
        UsageError: there is no SavedModel of kcnn, or it is not to be trusted.
    """

    def __init__(self, path: str | pathlib.Path, trust: bool = False):
        self.path = newest_version(pathlib.Path(path))
        card = self.path / "assets.extra" / "kcnn.json"
        if not card.exists():
            raise UsageError(f"{self.path}: not a SavedModel that kcnn exported")
        if not trust:
            check_saved_model(self.path)
        try:
            self.card = json.loads(card.read_text())
            self.class_names: list[str] = self.card["spec"]["class_names"]
            # Kept: the signatures alone do not keep the variables alive.
            self._model = tf.saved_model.load(str(self.path))
            self._signatures = self._model.signatures
        except Exception as error:  # TensorFlow's loader has no type of its own
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"{self.path}: a damaged SavedModel: {text}") from error

    def outputs(self, images: np.ndarray) -> Outputs:
        """Return what the model makes of (n, height, width, channels) uint8 images."""
        # Of a model for TFX serving_default takes tf.Examples.
        own = "serving_images" in self._signatures
        signature = self._signatures["serving_images" if own else "serving_default"]
        return _arrays(signature(images=tf.constant(images)))

    def outputs_of_batches(self, batches: Iterable[np.ndarray]) -> Outputs:
        """Return the same of batch after batch, put together."""
        found = [self.outputs(np.asarray(batch)) for batch in batches]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def outputs_of_files(self, contents: Sequence[bytes]) -> list[Outputs | str]:
        """Return for each encoded image its outputs, or why it cannot be decoded.

        Its outputs are those of `outputs`, without the first dimension.
        """
        signature = self._signatures["serving_bytes"]
        try:
            outputs = _arrays(signature(contents=tf.constant(list(contents))))
        except tf.errors.InvalidArgumentError as error:
            if len(contents) == 1:
                return [reason(error)]
            # One bad image fails a whole request: find it.
            return [self.outputs_of_files([one])[0] for one in contents]
        return [
            {name: array[i] for name, array in outputs.items()}
            for i in range(len(contents))
        ]

    def images_of_files(self, contents: Sequence[bytes]) -> np.ndarray:
        """Return what the network is shown: (n, height, width, channels) uint8.

        Raises UsageError if the export is older than this signature.
        """
        if "preprocess" not in self._signatures:
            raise UsageError(
                f"{self.path}: has no signature `preprocess`: it was exported before "
                "there was one; kcnn export RUN writes it anew"
            )
        signature = self._signatures["preprocess"]
        return signature(contents=tf.constant(list(contents)))["images"].numpy()


def _arrays(outputs: Mapping[str, tf.Tensor]) -> Outputs:
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def newest_version(path: pathlib.Path) -> pathlib.Path:
    """Return `path` if it is a SavedModel, else its version of the highest number."""
    if (path / "saved_model.pb").exists():
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; expected a SavedModel")
    versions = [p for p in path.iterdir() if (p / "saved_model.pb").exists()]
    numbered = [p for p in versions if p.name.isdecimal()]
    if not numbered:
        raise UsageError(
            f"{path}: no SavedModel here; expected saved_model.pb, or folders named "
            "by version with one each"
        )
    return max(numbered, key=lambda p: int(p.name))


def newest_export(base: pathlib.Path) -> pathlib.Path:
    """Return the SavedModel under BASE/NAME/VERSION that was written last."""
    exports = list(base.glob("*/[0-9]*/saved_model.pb"))
    if not exports:
        raise UsageError(
            f"--saved_model: none given and none under {base}/; train one first, or "
            "name its folder"
        )
    return max(exports, key=lambda p: p.stat().st_mtime).parent
