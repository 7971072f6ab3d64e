"""The model of the Keras tutorial and others as a notebook has them: one side.

Usage: stock_keras.py DATA.npz MODEL EPOCHS SEED UNTIL POLICY, the policy Keras's own
name of a dtype policy. Prints a line of JSON: seconds of each epoch and test accuracy
at the end; where UNTIL is not 0 also after every epoch, and training ends with the one
that reaches UNTIL. It knows nothing of kcnn. With a random seed set, Keras shuffles in
the same way in every epoch.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from keras import layers


def tutorial():
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
    ]


def convnet():
    found = []
    for filters in (16, 32):
        found += [
            layers.Conv2D(filters, 5, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        ]
    return [*found, layers.Flatten()]


def lenet():
    return [
        layers.ZeroPadding2D(2),  # 28x28 digits to LeNet's 32x32
        layers.Conv2D(6, 5, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(120, 5, activation="relu"),
        layers.Flatten(),
        layers.Dense(84, activation="relu"),
    ]


def shallow():
    return [
        layers.Conv2D(32, 5, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dense(128, activation="relu"),
    ]


class Clock(keras.callbacks.Callback):
    """Takes the seconds of every epoch and, outside of them, its test accuracy."""

    def __init__(self, until, *test):
        super().__init__()
        self.until, self.test = until, test
        self.seconds, self.accuracies = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._began)
        if self.until:
            self.accuracies.append(test_accuracy(self.model, *self.test))
            self.model.stop_training = self.accuracies[-1] >= self.until


def compiled_model(name):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *globals()[name](),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(
        loss="categorical_crossentropy",
        optimizer=keras.optimizers.Adadelta(learning_rate=1.0),
        metrics=["accuracy"],
    )
    return model


def test_accuracy(model, x, y):
    return float(model.evaluate(x, y, batch_size=128, verbose=0)[1])


def main(data, name, epochs, seed, until, policy):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(seed)
    with np.load(data) as file:
        arrays = {key: file[key] for key in file}
    x_train, x_test = (
        arrays[key][..., None].astype("float32") / 255 for key in ("x_train", "x_test")
    )
    y_train, y_test = (
        keras.utils.to_categorical(arrays[key], 10) for key in ("y_train", "y_test")
    )
    model = compiled_model(name)
    clock = Clock(until, x_test, y_test)
    model.fit(
        x_train, y_train, batch_size=128, epochs=epochs, verbose=0, callbacks=[clock]
    )
    told = {
        "seconds": clock.seconds,
        "accuracies": clock.accuracies,
        "accuracy": test_accuracy(model, x_test, y_test),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    _, data, name, epochs, seed, until, policy = sys.argv
    main(data, name, int(epochs), int(seed), float(until), policy)
