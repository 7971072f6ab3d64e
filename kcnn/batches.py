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


def batch_ends(n: int, batch_size: int) -> np.ndarray:
    """Return where each batch of an epoch ends in the order of its n images.

    The last two share what is left for them. A batch of a handful would move weights
    and batch normalization as much as the others, by little more than chance, and it is
    after the last batch that a network is tested.
    """
    steps = steps_per_epoch(n, batch_size)
    ends = np.minimum(batch_size * np.arange(1, steps + 1), n)
    if steps > 1:
        left = n - batch_size * (steps - 2)
        ends[-2] = n - left // 2
    return ends
