"""--normalize_input=mnist on images made by hand, from the function to the export."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from kcnn import datasets, images
from kcnn.commands import predict
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.inference import Classifier
from kcnn.models import build_model
from kcnn.normalization import normalize
from kcnn.spec import ImageSpec
from kcnn.trust import check_saved_model
from tests.test_export import export_model

SPEC = ImageSpec(28, 28, 1, tuple("0123456789"), "mnist")
RNG = np.random.default_rng(0)


def page(paper=230, ink=40, size=(150, 200), box=(60, 100, 120, 130), width=8):
    """Return (height, width) uint8 with a frame drawn at (top, left, bottom, right)."""
    image = Image.new("L", size[::-1], paper)
    top, left, bottom, right = box
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=ink, width=width)
    return np.asarray(image)


def normalized(image):
    found = normalize(tf.constant(image[..., None].astype(np.uint8))).numpy()
    assert found.shape == (28, 28, 1) and found.dtype == np.uint8
    return found[..., 0]


def ink_of(image):
    """Return the part of an image that has ink, as floats."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)


def center_of_mass(image):
    """Return row and column, the first pixel's middle being 0."""
    rows, columns = np.mgrid[:28, :28]
    return (image * rows).sum() / image.sum(), (image * columns).sum() / image.sum()


def difference(one, other):
    """Return how much the ink differs in the mean; where it is may differ.

    A frame's middle falls between two pixels: it may be set on either.
    """
    return np.abs(ink_of(one) - ink_of(other)).mean()


def with_noise(image):
    noisy = image + RNG.normal(0, 8, image.shape)
    for _ in range(12):
        y, x = RNG.integers(0, np.array(image.shape) - 2)
        noisy[y : y + 2, x : x + 2] = 60
    return np.clip(noisy, 0, 255)


def in_shadow(image):
    y, x = np.mgrid[-1 : 1 : 1j * image.shape[0], -1 : 1 : 1j * image.shape[1]]
    return image * (0.7 + 0.25 * x - 0.1 * y - 0.1 * x * x)


@pytest.mark.parametrize(
    "image",
    [
        page(),
        page(box=(5, 140, 65, 170)),  # in a corner
        page(size=(900, 700), box=(200, 300, 600, 500), width=40),  # large
        page(paper=128, ink=90),  # faint, on grey
        255 - page(),  # chalk on a board
        with_noise(page()),
        in_shadow(page()),
    ],
    ids=["plain", "corner", "large", "grey", "light ink", "noisy", "shadow"],
)
def test_a_frame_twice_as_high_as_wide_becomes_20_by_10_in_the_middle(image):
    found = normalized(image)
    assert ink_of(found).shape == (20, 10)
    assert center_of_mass(found) == pytest.approx((14, 14), abs=0.6)
    assert found.max() == 255
    assert found[14, 14] == 0  # a frame, not a block
    assert difference(found, normalized(page())) < 20


def test_two_frames_lie_down_as_they_were():
    found = normalized(page(box=(70, 40, 100, 160)))
    assert ink_of(found).shape == (6, 20)  # 5, but for its strokes


def test_strokes_of_any_width_become_alike():
    thin, thick = (
        normalized(page(size=(300, 300), box=(50, 50, 250, 210), width=width))
        for width in (6, 48)
    )
    shares = np.array([thin.mean(), thick.mean()]) / 255
    # As drawn they differ by a factor of 6; MNIST's images have a share of 0.13.
    assert shares[1] / shares[0] < 1.8
    assert shares.min() > 0.08 and shares.max() < 0.25


def test_a_fine_pen_on_a_large_page_is_not_lost():
    image = page(size=(600, 800), box=(200, 300, 360, 380), width=2)
    found = normalized(image)
    # The strokes' middles are 17.3 by 8.6 apart, and the strokes 2.7 wide.
    assert ink_of(found).shape in ((20, 11), (20, 12))
    assert found[14, 14] == 0 and found.max() == 255
    shrunk = tf.image.resize(image[..., None], (28, 28), antialias=True).numpy()
    assert np.ptp(shrunk) < 60  # of 190: what there is after shrinking first


def test_a_digit_that_fills_an_image_of_8x8_is_found():
    zero = np.rint(load_digits().images[0] * 255 / 16)  # touches two borders
    found = normalized(zero)
    assert ink_of(found).shape[0] == 20
    assert found[14, 14] == 0
    assert difference(normalized(255 - zero), found) < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (8, 8), (28, 28), (150, 200)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_without_ink_the_result_is_empty(size, value):
    assert not normalized(np.full(size, value)).any()


def test_noise_alone_and_shadow_alone_are_no_ink():
    noise = np.clip(RNG.normal(180, 10, (150, 200)), 0, 255)
    assert not normalized(noise).any()
    assert not normalized(in_shadow(np.full((150, 200), 220))).any()


def test_applied_twice_it_does_nothing_more():
    once = normalized(page())
    np.testing.assert_array_equal(normalized(once), once)
    batch = np.stack([page(), in_shadow(page())])[..., None].astype(np.uint8)
    many = normalize(tf.constant(batch)).numpy()
    np.testing.assert_array_equal(many[0, ..., 0], once)
    np.testing.assert_array_equal(normalize(tf.constant(many)).numpy(), many)


@pytest.mark.slow
def test_mnist_is_left_as_it_is(mnist_dir):
    both = [
        datasets.load_split(
            Config(dataset="mnist", data_dir=mnist_dir, normalize_input=choice),
            "test",
            ImageSpec(28, 28, 1, SPEC.class_names, choice),
        ).split.images.gather(tf.range(10_000))
        for choice in ("none", "mnist")
    ]
    np.testing.assert_array_equal(*both)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_of_photographs_is_read_so(tmp_path):
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        color = Image.fromarray(page(size=(150 + i, 200))).convert("RGB")
        color.save(folder / f"{i}.png")
    dataset = f"folder:{tmp_path}"
    for cache in ("memory", "none"):
        config = Config(dataset=dataset, normalize_input="mnist", cache=cache)
        data = datasets.load(config)
        assert data.spec == ImageSpec(28, 28, 1, ("a", "b"), "mnist")
        assert not any("resized" in note for note in data.notes)
        first = data.train.images.gather(data.train.indices[:1])[0].numpy()
        assert ink_of(first[..., 0]).shape == (20, 10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": (32, 32)}, ["--image_size", "32,32", "28,28"]),
        ({"color_mode": "rgb"}, ["--color_mode", "rgb", "grayscale"]),
    ],
)
def test_what_it_cannot_give_is_refused(settings, words):
    with pytest.raises(UsageError) as caught:
        Config(normalize_input="mnist", **settings)
    assert all(word in str(caught.value) for word in words)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = build_model(Config(model="mlp", dense_units=(8,)), SPEC)
    base = tmp_path_factory.mktemp("saved_models") / "m"
    card = {"spec": {"class_names": SPEC.class_names}}
    return export_model(model, SPEC, base, card), model


def test_the_export_does_it_in_every_signature(export):
    path, model = export
    check_saved_model(path)
    pictures = [page(), in_shadow(page(size=(90, 160), box=(10, 30, 80, 60)))]
    seen = np.stack([normalized(image) for image in pictures])[..., None]
    expected = keras.ops.softmax(model(seen, training=False))
    classifier = Classifier(path)
    contents = [png(image) for image in pictures]
    found = [one["probabilities"] for one in classifier.outputs_of_files(contents)]
    # A PNG holds whole numbers, of which a shadow has none.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(classifier.images_of_files(contents), seen)
    for image, row in zip(pictures, expected, strict=True):
        raw = image[None, ..., None].astype(np.uint8)
        outputs = classifier.outputs(raw)
        np.testing.assert_allclose(outputs["probabilities"][0], row, atol=1e-5)


def test_predict_shows_what_the_network_saw(export, tmp_path):
    classifier = Classifier(export[0])
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "a.png", tmp_path / "b" / "a.png", tmp_path / "bad.png"]
    paths[0].write_bytes(png(page()))
    paths[1].write_bytes(png(255 - page(box=(20, 20, 50, 120))))
    paths[2].write_bytes(b"no image")
    show = predict._Gallery(classifier, str(tmp_path / "shown"))
    outcomes = dict(predict._label(classifier, [str(p) for p in paths], show))
    assert outcomes[str(paths[2])] == "not an image"
    shown = {p.name: np.asarray(Image.open(p)) for p in (tmp_path / "shown").iterdir()}
    assert sorted(shown) == ["a-2.png", "a.png"]
    np.testing.assert_array_equal(shown["a.png"], normalized(page()))
    second = normalized(page(box=(20, 20, 50, 120)))
    assert difference(shown["a-2.png"], second) < 3


def test_an_image_of_three_channels_becomes_grey():
    color = np.stack([page()] * 3, -1)
    found = images.fit(color, SPEC.shape, "mnist").numpy()[..., 0]
    np.testing.assert_array_equal(found, normalized(page()))
