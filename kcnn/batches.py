"""How an epoch's images are divided into batches; nothing here needs TensorFlow."""

from __future__ import annotations

import numpy as np


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the number of batches that hold each of n images once."""
    return -(-n // batch_size)


def nearest_epochs(steps: float, n: int, batch_size: int) -> int:
    """Return how many whole epochs of n images come nearest to so many steps.

    At least 1.
    """
    return max(1, round(steps / steps_per_epoch(n, batch_size)))


def batch_bounds(
    n: int, batch_size: int, one_size: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each batch of an epoch begins and ends in the order of its n images.

    They share the images evenly, to within one, each in one batch. A last batch of what
    is left would move weights and batch normalization as much as the others, by little
    more than chance, and it is after the last batch that a network is tested.

    Of `one_size`, neighbours have an image in common here and there: fewer than one for
    each batch, in all.
    """
    steps = steps_per_epoch(n, batch_size)
    if one_size:
        size = -(-n // steps)
        begins = np.arange(steps) * (n - size) // max(steps - 1, 1)
        return begins, begins + size
    bounds = np.arange(steps + 1) * n // steps
    return bounds[:-1], bounds[1:]
