import keras
import numpy as np
import pytest
import scipy.stats

from kcnn import datasets
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fresh import FreshModel
from kcnn.models import build_model
from kcnn.preprocessing import Standardization, measure_statistics
from kcnn.spec import ImageSpec

SPEC = ImageSpec(12, 12, 3, ("a", "b"))


def some_images(n=40):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (n, 12, 12, 3), np.uint8)
    images[:, 0] = 7  # a row that never changes, as the border of a digit
    return images


def standardized(mode, images):
    """Return what the first convolution of a model would see."""
    config = Config(model="mlp", standardize=mode)
    model = build_model(config, SPEC)
    measure_statistics(model, np.array_split(images, 3))
    layers = [model.get_layer(name) for name in ("rescaling", "standardization")]
    return np.asarray(layers[1](layers[0](images)))


@pytest.mark.parametrize(
    ("mode", "axes"), [("global", (0, 1, 2, 3)), ("channel", (0, 1, 2)), ("pixel", 0)]
)
def test_statistics_are_numpys_with_a_floor(mode, axes):
    images = some_images()
    values = images / 255
    mean = values.mean(axes, keepdims=True)
    deviation = np.maximum(values.std(axes, keepdims=True), 0.1)
    found = standardized(mode, images)
    np.testing.assert_allclose(found, (values - mean) / deviation, atol=2e-5)


def test_each_image_by_itself():
    images = some_images()
    values = images / 255
    mean = values.mean((1, 2, 3), keepdims=True)
    deviation = np.sqrt(values.var((1, 2, 3), keepdims=True) + 0.1**2)
    found = standardized("image", images)
    np.testing.assert_allclose(found, (values - mean) / deviation, atol=2e-5)


def test_whitened_patches_have_uncorrelated_components_of_variance_one():
    config = Config(model="airbench", filters=(4,), whiten=2, standardize="channel")
    model = build_model(config, SPEC)
    images = some_images(400)
    measure_statistics(model, np.array_split(images, 3))
    seen = standardized("channel", images)
    whitening = model.get_layer("whitening")
    found = np.asarray(whitening(seen)).reshape(-1, 24)
    np.testing.assert_array_equal(found[:, 12:], -found[:, :12])
    products = found[:, :12].T @ found[:, :12] / len(found)
    np.testing.assert_allclose(products, np.eye(12), atol=0.01)
    assert whitening.trainable_weights == []
    assert whitening.compute_output_shape((None, 12, 12, 3)) == (None, 11, 11, 24)


def test_whitening_goes_by_the_images_themselves_not_by_views_of_them():
    kernels = []
    for views in ("none", "mirror_shift"):
        settings = {"model": "airbench", "filters": (4,), "test_views": views}
        model = build_model(Config(whiten=2, **settings), SPEC)
        measure_statistics(model, [some_images()])
        kernels.append(model.get_layer("whitening").get_weights()[0])
    np.testing.assert_array_equal(*kernels)


def test_whitening_goes_by_images_that_are_not_augmented():
    kernels = []
    for augmented in ({}, {"cutout": 0.5, "rotate": 20, "zoom": 0.3, "flip": "both"}):
        config = Config(model="airbench", filters=(4,), whiten=2, **augmented)
        model = build_model(config, SPEC)
        measure_statistics(model, [some_images()])
        kernels.append(model.get_layer("whitening").get_weights()[0])
    np.testing.assert_array_equal(*kernels)


def test_whitening_goes_by_a_part_of_the_images_of_every_class(tmp_path):
    """Of files the first thousands are often of one class."""
    labels = np.repeat([0, 1], 4_000)
    images = np.random.default_rng(0).integers(0, 256, (8_000, 4, 4, 1), np.uint8)
    images[labels == 1] //= 8
    some = {"x_test": images[::400], "y_test": labels[::400]}
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, **some)
    config = Config(
        dataset=f"npz:{tmp_path / 'a.npz'}",
        validation_fraction=0.0,
        model="airbench",
        filters=(4,),
        whiten=2,
        standardize="channel",
    )
    data = datasets.load_training(config)
    model = FreshModel.build(config, data.spec, data.train, 10).model
    values = images / 255
    mean, deviation = model.get_layer("standardization").get_weights()
    assert (mean.item(), deviation.item()) == pytest.approx(
        (values.mean(), values.std()), rel=1e-5
    )
    patches = ((values - mean) / deviation)[:, :2, :2]
    kernel = model.get_layer("whitening").get_weights()[0]
    components = np.tensordot(patches, kernel, 3)
    np.testing.assert_allclose(np.square(components).mean(0), 1, rtol=0.05)


def test_pixels_that_never_change_stay_finite_even_when_they_do():
    layer = Standardization((0, 1, 2), 0.1)
    layer.build((None, 12, 12, 3))
    layer.measure([some_images()])
    surprise = np.full((1, 12, 12, 3), 1.0, np.float32)
    found = np.asarray(layer(surprise))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1 / 0.1


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        ({"translate": 0.2}, "random_translation"),
        ({"rotate": 30.0}, "random_rotation"),
        ({"zoom": 0.3}, "random_zoom"),
        ({"flip": "horizontal"}, "random_flip"),
        ({"flip": "both"}, "random_flip"),
        ({"cutout": 0.4}, "cutout"),
    ],
)
def test_augmentation_acts_in_training_only_and_can_be_left_out(settings, layer):
    config = Config(model="mlp", **settings)
    model = build_model(config, SPEC)
    images = some_images(8).astype(np.float32) / 255
    acting = model.get_layer(layer)
    assert np.abs(np.asarray(acting(images, training=True)) - images).max() > 0.1
    np.testing.assert_array_equal(np.asarray(acting(images, training=False)), images)
    without = build_model(config, SPEC, augment=False)
    assert layer not in [one.name for one in without.layers]
    without.set_weights(model.get_weights())
    raw = some_images(8)
    np.testing.assert_allclose(
        model(raw, training=False), without(raw, training=False), atol=1e-6
    )


def test_translation_is_by_whole_pixels_each_as_likely_and_repeats_the_edge():
    keras.utils.set_random_seed(0)
    model = build_model(Config(model="mlp", translate=0.25), SPEC)
    rows, columns = np.mgrid[:12, :12].astype(np.float32)
    image = np.stack([rows, columns, rows], -1)
    moved = np.asarray(
        model.get_layer("random_translation")(np.stack([image] * 3000), training=True)
    )
    down, across = moved[:, 6, 6, 0] - 6, moved[:, 6, 6, 1] - 6
    counts, *_ = np.histogram2d(down, across, bins=np.arange(-3.5, 4))
    assert counts.sum() == 3000  # a quarter of 12 pixels, and no further
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 0.001
    places = np.arange(12)
    for i in range(50):
        np.testing.assert_array_equal(
            moved[i, :, :, 0],
            np.broadcast_to(np.clip(places + down[i], 0, 11)[:, None], (12, 12)),
        )
        np.testing.assert_array_equal(
            moved[i, :, :, 1],
            np.broadcast_to(np.clip(places + across[i], 0, 11), (12, 12)),
        )


def test_a_translation_of_less_than_a_pixel_is_refused():
    with pytest.raises(UsageError, match=r"--translate: got 0.05, .* at least 0.083"):
        build_model(Config(model="mlp", translate=0.05), SPEC)


def test_cutout_blanks_a_square_of_the_size_asked():
    model = build_model(Config(model="mlp", cutout=0.5), SPEC)
    ones = np.ones((50, 12, 12, 3), np.float32)
    cut = np.asarray(model.get_layer("cutout")(ones, training=True))
    blank = (cut == 0).mean((1, 2, 3))
    assert blank.max() == pytest.approx(0.25, abs=0.1)  # whole pixels
    assert blank.min() > 0.1


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_crop_leaves_the_middle_of_the_image(model):
    net = build_model(Config(model=model, crop=6), SPEC)
    images = some_images(4)
    border = np.ones(SPEC.shape, bool)
    border[3:9, 3:9] = False
    other = np.where(border, 255 - images, images)
    np.testing.assert_array_equal(net(images), net(other))
    seen = net.get_layer("crop").output
    assert seen.shape == (None, 6, 6, 3)
    with pytest.raises(UsageError, match="--crop: got 13, but the images are 12x12"):
        build_model(Config(model=model, crop=13), SPEC)
