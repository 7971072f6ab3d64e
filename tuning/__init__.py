"""Searches for hyperparameters, by keras-tuner, on kcnn's own models and training."""
