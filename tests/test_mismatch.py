import numpy as np
import pytest

from kcnn.mismatch import differs, superiority


def test_superiority_by_hand():
    effect, _ = superiority(np.array([1, 2, 3]), np.array([2, 4]))
    # Of 6 pairs the second is above in 1 + 3 and equal in 1.
    assert effect == pytest.approx(4.5 / 6)
    assert superiority(np.ones(3), np.ones(4)) == (0.5, 1.0)


def test_medium_effects_of_many_images_differ_and_accidents_do_not():
    rng = np.random.default_rng(0)
    dark, light = rng.normal(90, 20, 500), rng.normal(120, 20, 200)
    assert differs(*superiority(dark, light)) and differs(*superiority(light, dark))
    assert not differs(*superiority(dark, rng.normal(92, 20, 5000)))
    assert not differs(*superiority(dark[:3], light[:3]))
