"""Searches for hyperparameters, by keras-tuner, on kcnn's own models and training."""

from __future__ import annotations

from typing import Any


def tuner_fn(fn_args: Any) -> Any:
    """Return a tuner for TFX's Tuner component; see `tuning.tfx.tuner_fn`."""
    from tuning import tfx  # imports TensorFlow

    return tfx.tuner_fn(fn_args)
