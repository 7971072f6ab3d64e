"""Layers between the stored uint8 image and the network, all inside the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from kcnn.config import Config
from kcnn.handwriting import RandomHandwriting
from kcnn.layers import RandomTranslation
from kcnn.views import Views

# Images that are looked at for the principal components of patches, and what is added
# to the variances of those, so that noise stays small; both as in the record recipe.
WHITENED_IMAGES = 5_000
_LEAST_VARIANCE = 5e-4


@keras.saving.register_keras_serializable("kcnn")
class Standardization(keras.layers.Layer):
    """Subtract a mean and divide by a deviation, never by less than a floor.

    Args:
        axes: axes of an (height, width, channels) image that have statistics of
            their own: () for one number, (2,) by channel, (0, 1, 2) by pixel.
        floor: smallest divisor. Pixels that never change (the border of a
            handwritten digit) have deviation 0 and would give NaN.
    """

    def __init__(self, axes: tuple[int, ...], floor: float, **kwargs):
        super().__init__(**kwargs)
        self.axes = tuple(axes)
        self.floor = floor

    def build(self, input_shape):
        """Create the statistics: 0 and 1 until `measure` or a checkpoint sets them."""
        shape = [n if i in self.axes else 1 for i, n in enumerate(input_shape[1:])]
        self.mean = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="mean"
        )
        self.deviation = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="deviation"
        )

    def call(self, images):
        """Standardize (batch, height, width, channels) images."""
        return (images - self.mean) / keras.ops.maximum(self.deviation, self.floor)

    def compute_output_shape(self, input_shape):
        """Return the input's shape."""
        return input_shape

    def measure(self, batches: Iterable[np.ndarray]) -> None:
        """Set the statistics from batches of uint8 images in [0, 255].

        They are those of the rescaled images, in [0, 1]. Sums of whole numbers in
        float64 are exact up to 2**53, so the order of the batches does not matter.
        """
        reduced = (0, *(i + 1 for i in range(3) if i not in self.axes))
        total = np.zeros(self.mean.shape)
        squares = np.zeros(self.mean.shape)
        count = 0
        for batch in batches:
            values = np.asarray(batch, np.float64)
            total += values.sum(reduced, keepdims=True)[0]
            squares += np.square(values).sum(reduced, keepdims=True)[0]
            count += values.size // total.size
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        self.mean.assign(mean / 255)
        self.deviation.assign(np.sqrt(variance) / 255)

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "axes": self.axes, "floor": self.floor}


@keras.saving.register_keras_serializable("kcnn")
class Whitening(keras.layers.Layer):
    """Convolve with the principal components of small patches, scaled to variance 1.

    Each component is there twice, as it is and negative: after an activation that cuts
    off one side nothing is lost. Never trained. From Page, "How to train your ResNet 8"
    (2019), in the form of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU"
    (2024).

    Args:
        size: height and width of the patches.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape):
        """Create the kernel: zeros until `measure` or a checkpoint sets it."""
        values = self.size**2 * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1], 2 * values),
            initializer="zeros",
            trainable=False,
            name="kernel",
        )

    def call(self, images):
        """Turn (batch, height, width, channels) images into maps of components."""
        return keras.ops.conv(images, self.kernel, padding="valid")

    def compute_output_shape(self, input_shape):
        """Return the shape without the border, with a channel a component and sign."""
        batch, height, width, channels = input_shape
        less = self.size - 1
        return batch, height - less, width - less, 2 * self.size**2 * channels

    def measure(self, batches: Iterable[np.ndarray]) -> None:
        """Set the kernel by batches of (n, height, width, channels) float images."""
        values = self.kernel.shape[-1] // 2
        products, count = np.zeros((values, values)), 0
        for images in batches:
            window = (self.size, self.size)
            patches = np.lib.stride_tricks.sliding_window_view(images, window, (1, 2))
            patches = np.moveaxis(patches, 3, -1).reshape(-1, values)
            products += patches.T @ patches
            count += len(patches)
        covariance = products / count  # about 0, as the record's
        variances, components = np.linalg.eigh(covariance)
        scaled = components / np.sqrt(variances + _LEAST_VARIANCE)
        kernel = np.concatenate([scaled, -scaled], 1)
        self.kernel.assign(kernel.reshape(self.kernel.shape))

    def get_config(self):
        """Return what rebuilds the layer."""
        return {**super().get_config(), "size": self.size}


def preprocessing_layers(config: Config, augment: bool) -> list[keras.layers.Layer]:
    """Return the layers that take uint8 images to what the first convolution sees.

    Args:
        config: uses augment, translate, rotate, zoom, flip, cutout, standardize and
            crop.
        augment: with the augmentation layers, which act in training only.
    """
    layers = [keras.layers.Rescaling(1 / 255, dtype="float32", name="rescaling")]
    if augment:
        layers += augmentation_layers(config)
    layers += _standardization_layers(config)
    if config.crop:  # last: what is shifted or turned comes in from outside
        layers.append(
            keras.layers.CenterCrop(
                config.crop, config.crop, dtype="float32", name="crop"
            )
        )
    if config.whiten:  # bfloat16's digits are too few: small components are large then
        layers.append(Whitening(config.whiten, dtype="float32", name="whitening"))
    return layers


def augmentation_layers(config: Config) -> list[keras.layers.Layer]:
    """Return layers that change training images, in [0, 1], at random."""
    k = keras.layers
    common = {"dtype": "float32"}
    layers: list[keras.layers.Layer] = []
    if config.augment == "handwriting":
        # An image that was normalized has ink of one brightness on black.
        paper = config.normalize_input == "none"
        layers.append(RandomHandwriting(paper, name="random_handwriting", **common))
    if config.flip not in ("none", "alternate"):  # that goes by the epoch: pipeline
        mode = "horizontal_and_vertical" if config.flip == "both" else config.flip
        layers.append(k.RandomFlip(mode, name="random_flip", **common))
    if config.translate:
        layers.append(
            RandomTranslation(config.translate, name="random_translation", **common)
        )
    # What comes in at the border repeats the edge, whatever the background is.
    common["fill_mode"] = "nearest"
    if config.rotate:
        turn = config.rotate / 360
        layers.append(k.RandomRotation(turn, name="random_rotation", **common))
    if config.zoom:
        layers.append(k.RandomZoom(config.zoom, name="random_zoom", **common))
    if config.cutout:
        layers.append(
            k.RandomErasing(
                factor=(1.0, 1.0),
                scale=(config.cutout**2, config.cutout**2),  # Keras takes the root
                fill_value=0.0,
                value_range=(0.0, 1.0),
                dtype="float32",
                name="cutout",
            )
        )
    return layers


def _standardization_layers(config: Config) -> list[keras.layers.Layer]:
    if config.standardize == "none":
        return []
    if config.standardize == "image":
        # Epsilon stands under the root, beside the variance.
        return [
            keras.layers.LayerNormalization(
                axis=(1, 2, 3),
                center=False,
                scale=False,
                epsilon=config.standardize_floor**2,
                dtype="float32",
                name="standardization",
            )
        ]
    axes = {"global": (), "channel": (2,), "pixel": (0, 1, 2)}[config.standardize]
    return [
        Standardization(
            axes, config.standardize_floor, dtype="float32", name="standardization"
        )
    ]


def measure_statistics(
    model: keras.Model,
    batches: Iterable[np.ndarray],
    some: Iterable[np.ndarray] | None = None,
) -> None:
    """Give a model's preprocessing layers the statistics of the training split.

    Args:
        model: as built by models.build_model; left alone without such a layer.
        batches: the training split's images, (batch, height, width, channels) uint8;
            read only where they are needed.
        some: WHITENED_IMAGES of them at random, for the principal components of
            patches; None: all.
    """
    before: list[keras.layers.Layer] = []  # up to one
    for layer in model.layers:
        if isinstance(layer, Standardization):
            layer.measure(batches)
        if isinstance(layer, Whitening):
            layer.measure(_seen(batches if some is None else some, before))
        if not isinstance(layer, keras.layers.InputLayer | Views):
            before.append(layer)


def _seen(
    batches: Iterable[np.ndarray], layers: list[keras.layers.Layer]
) -> Iterator[np.ndarray]:
    """Yield batches of images as some layers show them, not augmented, float32."""
    for images in batches:
        for layer in layers:
            images = layer(images, training=False)  # Keras's own default is True
        yield np.asarray(images)
