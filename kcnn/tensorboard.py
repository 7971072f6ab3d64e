"""TensorBoard logs of a run's epochs, for those who installed the extra."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from kcnn.errors import UsageError

_SCALARS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def check_installed() -> None:
    """Raise UsageError if TensorBoard is missing, as TensorFlow 2.21 leaves it out."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard: TensorBoard is not installed; pip install "
            "'kcnn[tensorboard]' brings it"
        )


def epoch_logger(folder: pathlib.Path) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that logs a row of metrics.csv under its epoch."""
    import tensorflow as tf

    @functools.cache  # opened with the first row: a run may clear its folder before
    def writer() -> Any:
        return tf.summary.create_file_writer(str(folder))

    def log(row: Mapping[str, Any]) -> None:
        with writer().as_default():
            log_row(row)
        writer().flush()

    return log


def log_row(row: Mapping[str, Any]) -> None:
    """Write what there is of a row of metrics.csv to the default writer."""
    import tensorflow as tf

    for name in _SCALARS:
        if row[name] is not None:
            tf.summary.scalar(name, row[name], step=row["epoch"])
