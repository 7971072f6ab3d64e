import numpy as np
import pytest

from kcnn.batches import batch_ends, nearest_epochs, steps_per_epoch


@pytest.mark.parametrize(
    ("size", "steps"), [(5, 5), (23, 1), (22, 2), (1, 23), (99, 1)]
)
def test_steps_per_epoch(size, steps):
    assert steps_per_epoch(23, size) == steps
    assert len(batch_ends(23, size)) == steps


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (20, 5, [5, 5, 5, 5]),
        (21, 5, [5, 5, 5, 3, 3]),  # not 5 and 1
        (24, 5, [5, 5, 5, 5, 4]),
        (9, 5, [5, 4]),
        (6, 5, [3, 3]),
        (5, 5, [5]),
        (3, 5, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_the_last_two_batches_share_what_is_left(n, size, sizes):
    ends = batch_ends(n, size)
    assert np.diff(ends, prepend=0).tolist() == sizes


@pytest.mark.parametrize(
    ("steps", "epochs"),
    [(0, 1), (7, 1), (8, 2), (10, 2), (11, 2), (13, 3)],  # 5 steps an epoch
)
def test_nearest_epochs(steps, epochs):
    assert nearest_epochs(steps, 23, 5) == epochs
