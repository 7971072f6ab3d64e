"""The story of one training run, from a Config to an evaluated, exported model."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import secrets
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import scipy

from kcnn import (
    checkpoint,
    datasets,
    export,
    model_card,
    models,
    optimization,
    pipeline,
    predictions,
    repetition,
    runtime,
    scoring,
    summary,
    towers,
    warmup,
)
from kcnn.batches import steps_per_epoch
from kcnn.confidence import PLAIN, Judged, Rule
from kcnn.config import Config
from kcnn.datasets import Dataset, OneSplit, Split
from kcnn.errors import UsageError
from kcnn.files import write_json
from kcnn.fitting import Fitting
from kcnn.fresh import FreshModel
from kcnn.history import History
from kcnn.knobs import show
from kcnn.progress import Progress
from kcnn.replicas import Replicas
from kcnn.replicas import choose as choose_replicas
from kcnn.run import Run
from kcnn.spec import ImageSpec

_EXPORT_CHECK_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Trained:
    """A tested run, still in memory for the pictures."""

    data: Dataset
    model: keras.Model  # float32, without augmentation: what was evaluated
    rule: Rule
    test: Judged
    unknown: Judged | None
    evaluation: dict[str, Any]


def train(
    config: Config,
    run: Run,
    progress: Progress,
    *,
    about: dict[str, Any],
    resume: bool = False,
    repeats: Mapping[str, Any] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_tested: Callable[[Trained], None] | None = None,
    since: float | None = None,
    data: Dataset | None = None,
    replicas: Replicas | None = None,
) -> Trained | None:
    """Train, evaluate and export one model, and write it all under run.path.

    In a cluster the chief alone does so. Another worker takes its part in the training,
    writes nothing, and gets None.

    Args:
        config: the recipe.
        run: an empty run directory, or one to go on with.
        progress: what the user sees.
        about: kept with the run: `command`, `experiment`, `reported`, and
            `export_base`, the folder of the SavedModel's versions or nothing.
        resume: go on from the run's last checkpoint.
        repeats: the config.json of a run of the same data set that this one repeats.
        on_epoch: called with each row of metrics.csv at the end of its epoch.
        on_tested: called with what is known before the export, which it may go beside.
        since: when the command began, by time.perf_counter, for `start_seconds` of
            evaluation.json: from then to the first step. None: now.
        data: the Config's data set, where it is loaded already.
        replicas: those of the Config's strategy, where they are chosen already.

    Raises:
        UsageError: the data or a combination of knobs is wrong.
        RunError: the training diverged, or the export does not agree.
        LostWorker: another worker of the cluster is gone.
        Interrupted: a signal came; the state is kept.
    """
    began = time.perf_counter()
    replicas = replicas or choose_replicas(config.strategy)
    data = data or datasets.load(config)
    unknown = datasets.load_unknown(config, data.spec)
    steps = steps_per_epoch(len(data.train), config.batch_size)
    with replicas.losing():
        fresh = FreshModel.build(
            config, data.spec, data.train, steps * config.epochs, replicas
        )

    note = _describe(config, run, data, fresh) | about
    _announce(progress, config, data, unknown, note)
    for text in fresh.source.lines(config, data.spec) if fresh.source else ():
        progress.note("start", text)
    if fresh.shortened:
        progress.note("", fresh.shortened)
    if resume:
        repeats = run.read_config()
        note["run_id"] = repeats.get("run_id", "")
    if repeats is not None:
        changed = repetition.changed_data(repeats, note)
        changed += repetition.changed_source(repeats, note)
        if changed and resume:
            raise UsageError(f"--resume: {changed[0]}")
        for text in changed + repetition.changed_machine(repeats, note):
            progress.note("", text)
    if not resume and replicas.is_chief:
        run.begin(note)

    schedule = optimization.build_schedule(config, steps)
    with replicas.losing():
        loop = fresh.loop(config, schedule)
        fitting = Fitting(config, data, loop, schedule, run, progress, on_epoch)
        if resume:
            fitting.resume()
        weights = fitting.fit()
    if not replicas.is_chief:
        return None
    checkpoint.save(run.weights, {"weights": weights})

    final = models.build_model(config, data.spec, augment=False)
    final.set_weights(weights)
    rule, test, strange, scores = scoring.score(
        final, config, data, unknown.split if unknown else None
    )
    predictions.write(run.predictions, _predictions(data.test, test), test.accepted)
    if on_tested is not None:
        on_tested(Trained(data, final, rule, test, strange, scores))
    exported = None
    if about["export_base"]:
        base = pathlib.Path(about["export_base"])
        if resume:
            exported = _exported_before(final, data.spec, data.test, base, note, rule)
        exported = exported or export_and_check(
            final, data.spec, data.test, base, scores, note, rule
        )
    skipped = data.skipped + (unknown.skipped if unknown else [])
    result = scores | {
        "skipped_files": [{"file": f, "reason": r} for f, r in skipped],
        "timing": {
            "start_seconds": fitting.first_step_began
            and fitting.first_step_began - (since or began),
            "steps_a_call": fitting.steps_a_call,
            **_timing(fitting.history, data, scores, began),
        },
        "best_epoch": fitting.history.best_epoch or None,
        "stopped_early": fitting.history.stopped_early,
        "rollbacks": fitting.history.rollbacks,
        "export": exported,
        "reported": about["reported"],
    }
    write_json(run.evaluation, result)
    return Trained(data, final, rule, test, strange, result)


def _exported_before(
    model: keras.Model,
    spec: ImageSpec,
    test: Split,
    base: pathlib.Path,
    note: dict[str, Any],
    rule: Rule,
) -> dict[str, Any] | None:
    """Return the export of this run that a kill kept it from recording, if any."""
    path = note["run_id"] and export.export_of(base, note["run_id"])
    if not path:
        return None
    export.remove_unfinished(base)
    checked = export.check_export(path, model, spec, first_images(test), rule)
    return {"path": str(path), **checked}


def export_and_check(
    model: keras.Model,
    spec: ImageSpec,
    test: Split,
    base: pathlib.Path,
    scores: dict[str, Any],
    note: dict[str, Any],
    rule: Rule,
    license: str | None = None,
    reader: export.ExampleReader | None = None,
) -> dict[str, Any]:
    """Export a model with its model card, and prove it on the first test images.

    See `kcnn.export.export_model`.
    """
    figures = ("n", "accuracy", "accuracy_interval")
    card = {
        "spec": dataclasses.asdict(spec),
        "test": {key: scores["test"][key] for key in figures},
        "data": note["data"],
        **{
            k: note.get(k)
            for k in ("run_id", "config", "command", "versions", "commit")
        },
    }
    if rule != PLAIN:
        card["confidence"] = dataclasses.asdict(rule)
    images = first_images(test)
    about = model_card.model_card(base.name, note, scores, rule, license)
    beside = model_card.files(about)
    by_images = export.image_signature(reader)
    beside[warmup.FILE] = warmup.warmup_requests(base.name, spec, by_images)
    return export.export_model(model, spec, base, card, images, rule, beside, reader)


def first_images(split: Split, limit: int = _EXPORT_CHECK_IMAGES) -> np.ndarray:
    """Return the first images of a split, (n, height, width, channels) uint8."""
    for batch in pipeline.evaluation_batches(split, limit).take(1):
        return np.asarray(batch)
    raise ValueError("the split is empty")


def _describe(
    config: Config,
    run: Run,
    data: Dataset,
    fresh: FreshModel,
) -> dict[str, Any]:
    return {
        "run_id": secrets.token_hex(16),
        "config": config.to_dict(),
        "model_dir": str(run.path),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "precision": fresh.precision._asdict(),
        "jit_compile": fresh.jit_compile,
        "jit_obstacle": runtime.jit_obstacle(config, fresh.model, fresh.replicas.count),
        "towers": fresh.towers._asdict(),
        "threads": towers.threads(),
        "strategy": fresh.replicas.note(),
        "spec": dataclasses.asdict(data.spec),
        "model": summary.model_summary(fresh.model),
        "init_from": fresh.source and fresh.source.note(),
        "data": {
            "train": len(data.train),
            "validation": len(data.validation) if data.validation else 0,
            "test": len(data.test),
            "fingerprint": repetition.fingerprints(data),
            "notes": list(data.notes),
        },
        "versions": runtime.versions(),
        "commit": runtime.commit(),
        "hardware": runtime.hardware(),
    }


def _announce(
    progress: Progress,
    config: Config,
    data: Dataset,
    unknown: OneSplit | None,
    note: dict[str, Any],
) -> None:
    spec, counts, size = data.spec, note["data"], note["model"]
    progress.note(
        "data",
        f"{config.dataset}: {counts['train']:,} train, {counts['validation']:,} "
        f"validation, {counts['test']:,} test; {spec.height}x{spec.width}x"
        f"{spec.channels}, {spec.num_classes} classes",
    )
    for text in data.notes:
        progress.note("", text)
    for file, reason in data.skipped[:10]:
        progress.note("skipped", f"{file}: {reason}")
    if len(data.skipped) > 10:
        progress.note("", f"and {len(data.skipped) - 10} more")
    progress.note(
        "model",
        f"{config.model}: {size['parameters']:,} parameters, "
        f"{size['flops'] / 1e6:.3g} MFLOP an image",
    )
    progress.note(
        "optimizer",
        f"{config.optimizer}, learning rate {show(config.learning_rate)} "
        f"({config.schedule}), batches of {config.batch_size}",
    )
    hardware = note["hardware"]
    device = ", ".join(hardware["gpus"]) or f"CPU, {hardware['cores']} cores"
    policy, reason = note["precision"]["policy"], note["precision"]["reason"]
    xla = ", XLA" if note["jit_compile"] else ""
    if note["jit_obstacle"]:
        xla = f", no XLA (it cannot compile {note['jit_obstacle']})"
    parts = note["towers"]["parts"]
    beside = f"; batches in {parts} parts" if parts > 1 else ""
    progress.note("device", f"{device}; {policy} ({reason}){xla}{beside}")
    if config.strategy != "auto" or note["strategy"]["replicas"] > 1:
        progress.note("strategy", _told(note["strategy"]))
    if unknown:
        count = f"{config.unknown}: {len(unknown.split):,} images"
        skipped = f", {len(unknown.skipped):,} skipped" if unknown.skipped else ""
        progress.note("unknown", count + skipped)
    progress.note("run", note["model_dir"])


def _told(strategy: dict[str, Any]) -> str:
    said = f"{strategy['name']} ({strategy['reason']})"
    if strategy["replicas"] == 1:
        return said
    several = f"; {strategy['replicas']} replicas share each batch"
    if strategy["workers"] > 1:
        several = f"; {strategy['workers']} workers share each batch"
    return said + several


def _predictions(split: Split, judged: Judged) -> predictions.Predictions:
    probabilities = scipy.special.softmax(judged.logits, axis=1).astype(np.float32)
    return predictions.Predictions(split.indices, split.labels, probabilities)


def _timing(
    history: History, data: Dataset, scores: dict[str, Any], began: float
) -> dict[str, float]:
    seconds = [row["seconds"] for row in history.rows]
    median = statistics.median(seconds)
    return {
        "train_seconds": sum(seconds),
        "mean_epoch_seconds": statistics.mean(seconds),
        "median_epoch_seconds": median,
        "images_per_second": len(data.train) / median,
        "first_step_seconds": history.first_step_seconds,
        "checkpoint_seconds": history.checkpoint_seconds,
        "test_seconds": scores["test"]["seconds"],
        "test_images_per_second": scores["test"]["images_per_second"],
        "total_seconds": time.perf_counter() - began,
    }
