"""The images as every side reads them, and what is known of models and machine.

In a process of its own: TensorFlow's memory would else count as that of every side.
"""

from __future__ import annotations

import multiprocessing
import pathlib
import signal
from multiprocessing.connection import Connection
from typing import Any

from kcnn.benchmark.plan import CLASSES, SHAPE, Plan
from kcnn.errors import RunError, UsageError


def prepare(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
    """Write the images into a folder.

    Returns:
        data: dataset, available (training images), test, notes; speed and time_to (if
        it is measured): images, npz (a file), dataset (the same for kcnn train); flop:
        model -> FLOP of one image forward; hardware, versions, commit; precision: what
        kcnn computes in here, and why; onednn_chosen: whether it computes by oneDNN
        where TensorFlow of itself does not.

    Raises:
        UsageError: the data set cannot be had, or is not what the models take.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(sender, plan, folder), daemon=True)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        raise RunError("the process that reads the images was killed") from None
    finally:
        process.kill()  # it has told all, or a signal came
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send(sender: Connection, plan: Plan, folder: pathlib.Path) -> None:
    """Send what `_prepare` returns, or the error that a user is to see."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    try:
        sender.send(_prepare(plan, folder))
    except (UsageError, RunError, OSError) as error:
        sender.send(error)


def _prepare(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
    from kcnn import runtime

    chosen = runtime.prefer_onednn()
    runtime.start_tensorflow()
    from kcnn import datasets
    from kcnn.config import Config

    data = datasets.load(
        Config(dataset=plan.dataset, data_dir=plan.data_dir, validation_fraction=0.0)
    )
    _check(plan.dataset, data)
    precision, reason = runtime.choose_precision("auto")
    found = {
        "data": {
            "dataset": plan.dataset,
            "available": len(data.train),
            "test": len(data.test),
            "notes": list(data.notes),
        },
        "speed": _write(data, plan.images, folder / "speed", validate=False),
        "time_to": None,
        "flop": {name: _flop(name, data.spec) for name in plan.models},
        "precision": {"policy": precision, "reason": reason},
        "onednn_chosen": chosen and not runtime.has_gpu(),
        "hardware": runtime.hardware(),
        "versions": runtime.versions(),
        "commit": runtime.commit(),
    }
    if plan.targets:
        images = plan.time_to_images
        found["time_to"] = _write(data, images, folder / "time_to", validate=True)
    return found


def _check(dataset: str, data: Any) -> None:
    """Refuse what the scripts' models are not made for."""
    spec = data.spec
    if (spec.shape, spec.num_classes) != (SHAPE, CLASSES):
        height, width, channels = spec.shape
        raise UsageError(
            f"--dataset: {dataset} has {height}x{width}x{channels} images of "
            f"{spec.num_classes} classes; the stock scripts' models take 28x28x1 and "
            f"{CLASSES}, such as mnist, fashion_mnist, digits or npz:FILE"
        )


def _write(
    data: Any, images: int, folder: pathlib.Path, validate: bool
) -> dict[str, Any]:
    """Write a stratified part of the training images, and all test images.

    With `validate`, what kcnn train reads has the test images as validation split too.
    """
    import numpy as np

    from kcnn import example_files, pipeline, splits
    from kcnn.examples import Place

    train = splits.sample_of(data.train, images, 0)
    arrays: dict[str, Any] = {}
    for name, split in (("train", train), ("test", data.test)):
        every = pipeline.images_at(split, np.arange(len(split)))
        arrays |= {f"x_{name}": every[..., 0], f"y_{name}": split.labels}
    folder.mkdir()
    npz = folder / "data.npz"
    np.savez(npz, **arrays)
    dataset = f"npz:{npz}"
    if validate:
        parts = {"train": train, "validation": data.test, "test": data.test}
        example_files.write(parts, data.spec, folder / "examples", shards=1)
        dataset = str(Place({}, str(folder / "examples")))
    return {"images": len(train), "npz": str(npz), "dataset": dataset}


def _flop(model: str, spec: Any) -> int:
    from kcnn import models, summary
    from kcnn.config import Config

    built = models.build_model(Config(model=model), spec, augment=False)
    return summary.model_summary(built)["flops"]
