"""The same models in PyTorch: one side, in an environment of its own.

Usage: stock_torch.py DATA.npz MODEL EPOCHS SEED UNTIL VARIANT, the variant any of
eager, channels_last, bf16, compile joined by "+". Prints a line of JSON: seconds of
each epoch and test accuracy at the end; where UNTIL is not 0 also after every epoch,
and training ends with the one that reaches UNTIL. It knows nothing of kcnn.
"""

import contextlib
import json
import sys
import time

import numpy as np
import torch
from torch import nn


def tutorial():
    return [
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()),
        *(nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    ]


def convnet():
    found = []
    for before, filters in ((1, 16), (16, 32)):
        found += [nn.Conv2d(before, filters, 5, padding=2, bias=False)]
        found += [nn.BatchNorm2d(filters, momentum=0.1), nn.ReLU(), nn.MaxPool2d(2)]
    return [*found, nn.Flatten(), nn.Linear(7 * 7 * 32, 10)]


def lenet():
    return [
        *(nn.ZeroPad2d(2), nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ]


def shallow():
    return [
        *(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(12 * 12 * 32, 512), nn.ReLU(), nn.Linear(512, 128), nn.ReLU()),
        nn.Linear(128, 10),
    ]


def main(data, name, epochs, seed, until, variant):
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with np.load(data) as file:
        arrays = {key: torch.from_numpy(file[key]).to(device) for key in file}
    x_train, x_test = (
        arrays[key][:, None].float() / 255 for key in ("x_train", "x_test")
    )
    y_train, y_test = (arrays[key].long() for key in ("y_train", "y_test"))
    model = nn.Sequential(*globals()[name]()).to(device)
    if "channels_last" in variant:
        model = model.to(memory_format=torch.channels_last)
        x_train = x_train.to(memory_format=torch.channels_last)
    if "compile" in variant:
        model = torch.compile(model)
    mixed = (
        torch.autocast(device, torch.bfloat16)
        if "bf16" in variant
        else contextlib.nullcontext()
    )
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-7)
    seconds, accuracies = [], []
    for _ in range(epochs):
        began = time.perf_counter()
        order = torch.randperm(len(x_train), device=device)
        for batch in order.split(128):
            with mixed:
                loss = nn.functional.cross_entropy(
                    model(x_train[batch]), y_train[batch]
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()  # a GPU is done only now
        seconds.append(time.perf_counter() - began)
        if until:
            accuracies.append(test_accuracy(model, x_test, y_test))
            if accuracies[-1] >= until:
                break
    told = {
        "seconds": seconds,
        "accuracies": accuracies,
        "accuracy": test_accuracy(model, x_test, y_test),
    }
    print(json.dumps(told))


@torch.no_grad()
def test_accuracy(model, x_test, y_test):
    model.eval()
    hits = torch.cat([model(x).argmax(1) for x in x_test.split(128)]) == y_test
    model.train()
    return hits.float().mean().item()


if __name__ == "__main__":
    _, data, name, epochs, seed, until, variant = sys.argv
    main(data, name, int(epochs), int(seed), float(until), variant)
