"""kcnn: train, compare, export and serve small convolutional image classifiers."""

__version__ = "0.1.0"
