import hashlib
import itertools

import imagehash
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kcnn import duplicates

RNG = np.random.default_rng(0)


def scene(seed, shift=0, side=32):
    """Return an image with some structure of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return np.clip(pixels.astype(int) + shift, 0, 255).astype(np.uint8)


def contents(images):
    digests = b"".join(hashlib.sha256(image.tobytes()).digest() for image in images)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def groups(images, distance=4):
    images = np.asarray(images)
    return duplicates.groups_of(
        contents(images), duplicates.hashes_of(images), lambda i: images[i], distance
    )


def test_hashes_are_those_of_the_library():
    images = np.stack([scene(i) for i in range(5)])
    found = duplicates.hashes_of(images)
    assert found.shape == (5,) and found.dtype == np.uint64
    for a, b in itertools.combinations(range(5), 2):
        one, other = (imagehash.phash(Image.fromarray(images[i])) for i in (a, b))
        assert int(found[a] ^ found[b]).bit_count() == one - other


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 9])
def test_near_pairs_are_all_pairs_that_are_near(distance):
    # Few bits vary, so that many pairs are near, and many agree in several bands.
    bits = RNG.integers(0, 2, (300, 14)).astype(np.uint64)
    places = RNG.choice(64, 14, replace=False).astype(np.uint64)
    hashes = (bits << places).sum(axis=1, dtype=np.uint64)
    found = [tuple(pair) for p in duplicates.near_pairs(hashes, distance) for pair in p]
    expected = {
        (a, b)
        for a, b in itertools.combinations(range(300), 2)
        if int(hashes[a] ^ hashes[b]).bit_count() <= distance
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_difference_by_hand():
    black, white = (
        np.zeros((1, 2, 2, 3), np.uint8),
        np.full((1, 2, 2, 3), 255, np.uint8),
    )
    halves = np.repeat(np.array([[0, 200], [0, 200]], np.uint8)[None, ..., None], 3, -1)
    mirrored = halves[:, :, ::-1]
    # All pixels 200 apart, the contrast 100; 255 apart and none, of which 16 are least.
    assert duplicates.differences(halves, mirrored) == pytest.approx([2.0])
    assert duplicates.differences(black, white) == pytest.approx([255 / 16])
    assert duplicates.differences(halves, halves) == 0


def test_usual_difference_is_that_of_the_second_nearest_of_few():
    flat = np.array([0, 8, 32, 80])[:, None, None, None]
    images = np.broadcast_to(flat, (4, 2, 2, 3)).astype(np.uint8)
    # In units of 16: 0.5, 2 and 5 from the first; itself does not count.
    assert duplicates.usual_differences(images[:1], images) == pytest.approx([2.0])
    few = duplicates.usual_differences(images[:1], images[:1])
    assert few.tolist() == [np.inf]


def test_equal_and_nearly_equal_images_are_found_in_groups():
    images = [scene(i) for i in range(40)]
    images += [scene(3), scene(7, shift=4), scene(7, shift=-4), scene(3)]
    assert groups(images) == [
        duplicates.Group((3, 40, 43), True),
        duplicates.Group((7, 41, 42), False),
    ]


def test_flat_images_are_the_same_only_in_the_same_grey():
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (0, 255, 128, 1)]
    found = groups([*flat, *(scene(i) for i in range(20))])
    assert found == [duplicates.Group((0, 3), False)]


def test_handwriting_that_looks_alike_is_not_a_duplicate():
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)
    drawn = [Image.fromarray(d).resize((32, 32)).convert("RGB") for d in digits]
    images = np.stack([np.asarray(image) for image in drawn])
    pairs = [*duplicates.near_pairs(duplicates.hashes_of(images), 4)]
    assert sum(map(len, pairs)) > 50, "the hash alone takes many for the same"
    assert len(groups(images)) <= 1
    again = np.clip(images[5].astype(int) + 3, 0, 255).astype(np.uint8)
    assert duplicates.Group((5, 1797), False) in groups([*images, again])


def test_one_image_and_none_alike():
    assert groups([scene(0)]) == []
    assert groups([scene(0), scene(1)]) == []
    assert groups([scene(0), scene(0)]) == [duplicates.Group((0, 1), True)]
