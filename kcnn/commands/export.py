"""Write the SavedModel of a trained run again, as a new version.

It is reloaded and compared with the model on real test images.
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import UsageError
from kcnn.knobs import Knob
from kcnn.run import (
    EXPORT_DIR,
    Run,
    config_of,
    export_base,
    load_model,
    spec_of,
)

USAGE = "kcnn export RUN [--export_dir=saved_models] [--export_name=NAME]"

FLAGS = {
    "export_dir": Knob("export", EXPORT_DIR, "where NAME/VERSION is written"),
    "export_name": Knob(
        "export", "", "NAME of the export (default: the one the run was exported under)"
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define where the data set lies, should it have moved."""
    flags.define_knobs(values, ("data_dir", "dataset", "other"))


def main(values: FlagValues, arguments: list[str]) -> None:
    """Export one run."""
    if len(arguments) != 1:
        raise UsageError(f"expected one run's folder: {USAGE}")
    run = Run(arguments[0])
    note = run.read_config()
    if not run.complete:
        raise UsageError(f"{run.path}: the run is not complete; {run.how_to_go_on}")

    from kcnn import runtime

    runtime.start_tensorflow()
    from kcnn import datasets, trainer
    from kcnn.confidence import Rule

    config = config_of({"config": note["config"] | flags.knobs_given(values)})
    name = values.export_name or _own_name(run, note)
    base = export_base(values.export_dir, name)
    if base is None:
        raise UsageError("--export_dir: empty; name a folder")
    model = load_model(run)
    spec = spec_of(note)
    loaded = datasets.load_split(config, "test", spec)
    test = datasets.in_classes_of(spec, loaded)
    evaluation = run.read_evaluation()
    exported = trainer.export_and_check(
        model, spec, test, base, evaluation, note, Rule.of(evaluation)
    )
    print(
        f"{exported['path']}: {', '.join(exported['signatures'])} agree with the run "
        f"on {exported['checked_images']} test images (largest difference of a "
        f"probability {exported['largest_difference']:.1g})"
    )


def _own_name(run: Run, note: dict[str, Any]) -> str:
    """Return the name that training exported the run under, or its folder's."""
    exported = pathlib.Path(note.get("export_base") or "")
    return exported.name or run.path.resolve().name
