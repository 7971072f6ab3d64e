"""What a model has to know of a data set: the images' shape and the classes."""

from __future__ import annotations

import dataclasses

from kcnn.config import Config

# What --normalize_input gives, of any image.
NORMALIZED = (28, 28, 1)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The images are (height, width, channels) uint8, channels 1 or 3.

    `normalize_input` says how others are brought to this shape: "none" resizes them.
    """

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    normalize_input: str = "none"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels

    @property
    def num_classes(self) -> int:
        """Number of classes, 2 or more."""
        return len(self.class_names)


def wanted_shape(config: Config, natural: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape that a Config gives to images of a data set's own shape."""
    if config.normalize_input != "none":
        return NORMALIZED
    height, width = config.image_size or natural[:2]
    channels = {"auto": natural[2], "grayscale": 1, "rgb": 3}[config.color_mode]
    return height, width, channels
