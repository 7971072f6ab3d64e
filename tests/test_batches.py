import numpy as np
import pytest

from kcnn.batches import batch_bounds, nearest_epochs, steps_per_epoch


@pytest.mark.parametrize(
    ("size", "steps"), [(5, 5), (23, 1), (22, 2), (1, 23), (99, 1)]
)
def test_steps_per_epoch(size, steps):
    assert steps_per_epoch(23, size) == steps
    assert len(batch_bounds(23, size)[0]) == steps


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (20, 5, [5, 5, 5, 5]),
        (21, 5, [4, 4, 4, 4, 5]),  # not 5, 5, 5, 5 and 1
        (24, 5, [4, 5, 5, 5, 5]),
        (9, 5, [4, 5]),
        (6, 5, [3, 3]),
        (5, 5, [5]),
        (3, 5, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batches_share_all_images_evenly(n, size, sizes):
    begins, ends = batch_bounds(n, size)
    assert (ends - begins).tolist() == sizes
    assert begins.tolist() == [0, *ends[:-1]] and ends[-1] == n


def test_a_published_last_batch_of_16_is_shared_by_the_epoch():
    """10,000 images in batches of 128: Keras ends each epoch with one of 16."""
    begins, ends = batch_bounds(10_000, 128)
    assert set(ends - begins) == {126, 127} and len(ends) == 79


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 23, 100, 101, 999, 1001])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 10, 100, 2000])
def test_batches_of_one_size_leave_out_none(n, batch_size):
    begins, ends = batch_bounds(n, batch_size, one_size=True)
    steps = steps_per_epoch(n, batch_size)
    size = -(-n // steps)
    assert set(ends - begins) == {size} and size <= batch_size
    seen = np.zeros(n, int)
    for begin, end in zip(begins, ends, strict=True):
        seen[begin:end] += 1
    assert len(begins) == steps and seen.min() == 1
    assert seen.sum() - n < min(steps, n)  # so few are seen again


@pytest.mark.parametrize(
    ("steps", "epochs"),
    [(0, 1), (7, 1), (8, 2), (10, 2), (11, 2), (13, 3)],  # 5 steps an epoch
)
def test_nearest_epochs(steps, epochs):
    assert nearest_epochs(steps, 23, 5) == epochs
