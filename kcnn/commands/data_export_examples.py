"""Write a data set's splits as gzipped TFRecord files of tf.Examples, as TFX has them.

An example has `image`, a PNG file with the pixels that are trained on, `label`, an
int64, and `label_name`. Train, validation and test images go to OUT/Split-train/ and so
on: all is written, or nothing. --dataset=examples:OUT reads them again.
"""

from __future__ import annotations

import pathlib

from absl.flags import FlagValues

from kcnn import flags
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.files import check_new_folder
from kcnn.interruption import stops_with
from kcnn.knobs import Knob

USAGE = "kcnn data export-examples --dataset=NAME --out=NEW_DIR [--shards=1]"

FLAGS = {
    "out": Knob("data", "", "the new folder"),
    "shards": Knob(
        "data", 1, "files that each split is spread over", low=1, high=10_000, kind=int
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define what says which images there are, and how they are divided."""
    names = [name for name in flags.in_sections("data") if name != "extra_class"]
    flags.define_knobs(values, [*names, "random_seed"])


def main(values: FlagValues, arguments: list[str]) -> None:
    """Write the files, and print how many examples they hold."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    if not values.out:
        raise UsageError("--out: say where the examples go: --out=NEW_DIR")
    target = pathlib.Path(values.out)
    check_new_folder(target, "out")
    config = Config.from_dict(flags.knobs_given(values))

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, example_files

    data = datasets.load(config)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    there = {name: split for name, split in splits.items() if split is not None}
    with stops_with(lambda: "nothing was written"):
        shards = flags.value_of(values, "shards", FLAGS)
        example_files.write(there, data.spec, target, shards)
    for text in data.notes:
        print(f"data       {text}")
    for name, why in data.skipped:
        print(f"skipped    {name}: {why}")
    counts = ", ".join(f"{len(split):,} {name}" for name, split in there.items())
    height, width, channels = data.spec.shape
    print(
        f"images     {counts}; {height}x{width}x{channels}, {data.spec.num_classes} "
        "classes"
    )
    print(f"written    {target}")
