"""Write the model of a trained run again, as a SavedModel or in other formats.

A SavedModel is reloaded and compared with the model on real test images; the other
formats are compared with the SavedModel on every test image. What does not agree is
not kept.
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl.flags import FlagValues

from kcnn import flags
from kcnn.errors import UsageError
from kcnn.extras import check_installed
from kcnn.knobs import Knob, did_you_mean
from kcnn.run import (
    EXPORT_DIR,
    Run,
    config_of,
    export_base,
    load_model,
    spec_of,
)
from kcnn.table import render

USAGE = "kcnn export RUN [--format=saved_model,keras,litert,onnx] [--export_name=NAME]"

# Format -> the modules of the extra of that name.
_NEEDS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "keras": (),
    "litert": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}

FLAGS = {
    "format": Knob(
        "export",
        "saved_model",
        "one or more, with commas between: saved_model, keras, litert (float and "
        "int8), onnx",
    ),
    "export_dir": Knob(
        "export",
        EXPORT_DIR,
        "where NAME/VERSION is written, and NAME/FORMAT/VERSION of other formats",
    ),
    "export_name": Knob(
        "export", "", "NAME of the export (default: the one the run was exported under)"
    ),
    "license": Knob(
        "export", "", "under which the model may be used, for its model card"
    ),
}

_SAMPLES = 500  # training images that int8 is calibrated on


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
    wanted = _formats(values.format or "saved_model")

    from kcnn import runtime

    runtime.start_tensorflow()
    import numpy as np

    from kcnn import datasets, export, trainer
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
    rule = Rule.of(evaluation)
    license = values.license or None
    others = [form for form in wanted if form != "saved_model"]
    path = export.export_of(base, note.get("run_id") or "")
    if path is None or others != wanted:
        exported = trainer.export_and_check(
            model, spec, test, base, evaluation, note, rule, license
        )
        path = pathlib.Path(exported["path"])
        print(
            f"{path}: {', '.join(exported['signatures'])} agree with the run "
            f"on {exported['checked_images']} test images (largest difference of a "
            f"probability {exported['largest_difference']:.1g})"
        )
    if not others:
        return

    from kcnn import model_card, pipeline
    from kcnn.format_check import Judge, size_of
    from kcnn.formats import Model, write
    from kcnn.inference import Classifier
    from kcnn.splits import sample_of

    saved_model = Classifier(path).outputs
    judge = Judge.by(saved_model, test, rule)
    rows = [judge.row("saved_model", saved_model, size_of(path))]
    train = datasets.load_split(config, "train", spec).split
    samples = sample_of(train, _SAMPLES, config.random_seed)
    images = pipeline.images_at(samples, np.arange(len(samples)))
    card = model_card.model_card(base.name, note, evaluation, rule, license)
    beside = model_card.files(card)
    beside["labels.txt"] = "".join(f"{one}\n" for one in spec.class_names).encode()
    for form in others:
        written, found = write(
            form, Model(model, spec, rule, images), base / form, beside, judge.rows
        )
        print(f"{written}: {', '.join(row['file'] for row in found)}")
        rows += found
    print()
    print(_table(rows, len(test)))


def _formats(text: str) -> list[str]:
    """Return the formats asked for, none twice, whose extras are installed."""
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in _NEEDS:
            raise UsageError(
                f"--format: got {name!r}, expected {', '.join(_NEEDS)}"
                f"{did_you_mean(name, _NEEDS)}"
            )
        check_installed(f"--format={name}", name, *_NEEDS[name])
    return names


def _table(rows: list[dict[str, Any]], count: int) -> str:
    shown = [
        row
        | {
            "accuracy": f"{row['accuracy']:.2f}%",
            "difference": f"{row['difference']:+.2f}",
            "largest_difference": f"{row['largest_difference']:.1g}",
            "p50_ms": f"{row['p50_ms']:.2f}",
            "p99_ms": f"{row['p99_ms']:.2f}",
        }
        | ({"accepted": _part(row["accepted"])} if "accepted" in row else {})
        for row in rows
    ]
    right = {key for key in shown[0] if key != "file"}
    return (
        f"{render(shown, 'table', right=right)}\n\n"
        f"on {count:,} test images; difference from the SavedModel in points, other: "
        "images labelled otherwise, largest difference of a probability; milliseconds "
        "for one image at a time, on all cores"
    )


def _part(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}%"


def _own_name(run: Run, note: dict[str, Any]) -> str:
    """Return the name that training exported the run under, or its folder's."""
    exported = pathlib.Path(note.get("export_base") or "")
    return exported.name or run.path.resolve().name
