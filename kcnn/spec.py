"""What a model has to know of a data set: the images' shape and the classes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The images are (height, width, channels) uint8, channels 1 or 3."""

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels

    @property
    def num_classes(self) -> int:
        """Number of classes, 2 or more."""
        return len(self.class_names)
