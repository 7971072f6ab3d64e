"""Write the SavedModel of a trained run again, as a new version.

It is reloaded and compared with the model on real test images.
"""

from __future__ import annotations

import pathlib

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.run import Run, config_of, load_model, spec_of

USAGE = "kcnn export RUN [--export_dir=saved_models] [--export_name=NAME]"

FLAGS = {
    "export_dir": Knob("export", "saved_models", "where NAME/VERSION is written"),
    "export_name": Knob("export", "", "NAME of the export (default: the run's folder)"),
}


def define_knobs(values: FlagValues) -> None:
    """Define where the data set lies, should it have moved."""
    flags.define_knobs(values, ("data_dir", "dataset"))


def main(values: FlagValues, arguments: list[str]) -> None:
    """Export one run."""
    if len(arguments) != 1:
        raise UsageError(f"expected one run's folder: {USAGE}")
    run = Run(arguments[0])
    note = run.read_config()
    if not run.complete:
        raise UsageError(
            f"{run.path}: the run is not complete; kcnn train --resume "
            f"--model_dir={run.path} goes on with it"
        )

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, trainer

    config = config_of({"config": note["config"] | flags.knobs_given(values)})
    folder = values.export_dir or FLAGS["export_dir"].default
    name = values.export_name or run.path.resolve().name
    model = load_model(run)
    spec = spec_of(note)
    test = datasets.load_split(config, "test", spec).split
    exported = trainer.export_and_check(
        model, spec, test, pathlib.Path(folder) / name, run.read_evaluation(), note
    )
    print(
        f"{exported['path']}: {', '.join(exported['signatures'])} agree with the run "
        f"on {exported['checked_images']} test images (largest difference of a "
        f"probability {exported['largest_difference']:.1g})"
    )
