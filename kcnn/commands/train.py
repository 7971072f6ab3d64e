"""Train one model; test it, draw its plots and page, and export it.

A knob's value is the flag's, else that of --experiment or --config, else its default.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from absl.flags import FlagValues

from kcnn import flags, tensorboard
from kcnn.cluster import joined
from kcnn.config import Config, overlay
from kcnn.errors import Fault, LostWorker, RunError, UsageError, in_one_line
from kcnn.experiments import EXPERIMENTS, settings_of
from kcnn.interruption import stops_with
from kcnn.knobs import Knob, show
from kcnn.locks import FolderLock
from kcnn.progress import Progress
from kcnn.run import EXPORT_DIR, Run, config_of, export_base, new_model_dir

USAGE = "kcnn train [--dataset=NAME] [--model=NAME | --experiment=ID] [--flags]"

FLAGS = {
    "experiment": Knob("train", "", "start from a named run; see kcnn experiments"),
    "config": Knob("train", "", "start from the settings in a run's config.json"),
    "model_dir": Knob(
        "train", "", "folder of this run (default: the next free runs/NAME-N)"
    ),
    "export_dir": Knob(
        "train", EXPORT_DIR, "where NAME/VERSION is exported to; empty: nowhere"
    ),
    "export_name": Knob(
        "train", "", "NAME of the export (default: the experiment, or DATASET-MODEL)"
    ),
    "overwrite": Knob("train", False, "replace the run in --model_dir", kind=bool),
    "resume": Knob(
        "train", False, "go on with the run in --model_dir after a stop", kind=bool
    ),
    "tensorboard": Knob(
        "train",
        False,
        "write TensorBoard logs to MODEL_DIR/tensorboard; needs the extra tensorboard",
        kind=bool,
    ),
}

_RUNS = "runs"
_DRAWS = "kcnn.drawing:draw"

# Checkpoints that cost more are pointed out, except in a run that is over at once.
_CHECKPOINTS_PART = 0.03
_SECONDS_THAT_MATTER = 60.0

define_knobs = flags.define_knobs


def main(values: FlagValues, arguments: list[str]) -> None:
    """Train as the flags say."""
    run, config = plan(values, arguments)
    advised = stops_with(lambda: run.how_to_go_on)
    with _place_in(run, config), advised, _faults_with_advice(run):
        if values.resume:
            _go_on(values, run)
        else:
            _begin(values, run, config)


def plan(values: FlagValues, arguments: list[str]) -> tuple[Run, Config]:
    """Return the run that the flags are about, and its recipe; nothing is trained."""
    if arguments:
        raise UsageError(f"{arguments[0]}: unexpected; flags are given as --name=value")
    if values.resume:
        run = Run(_path_to_resume(values))
        return run, config_of(run.read_config())
    config = Config.from_dict(_settings(values))
    return Run(_new_path(values, config)), config


@contextlib.contextmanager
def _place_in(run: Run, config: Config) -> Iterator[None]:
    """Keep others out of the run's folder; a worker that is no chief only looks in."""
    if not _leads(config):
        yield
        return
    _check_writable(run.path)
    with FolderLock(run.path, "kcnn train"):
        run.remove_unfinished()
        yield


def _leads(config: Config) -> bool:
    """Whether this process writes what the training leaves."""
    workers = joined(config.strategy)
    return workers is None or workers.is_chief


@contextlib.contextmanager
def _faults_with_advice(run: Run) -> Iterator[None]:
    """Say how to go on after a fault, where the run has come to a checkpoint."""
    try:
        yield
    except (Fault, LostWorker, OSError) as error:
        if not run.state.exists() or isinstance(error, BrokenPipeError):
            raise
        kind = LostWorker if isinstance(error, LostWorker) else Fault
        raise kind(f"{in_one_line(error)}; {run.how_to_go_on}") from error


def _begin(values: FlagValues, run: Run, config: Config) -> None:
    if _leads(config):
        _check_free(run, bool(values.overwrite))
    source = pathlib.Path(config.init_from).expanduser()
    if config.init_from and source.resolve() == run.path.resolve():
        raise UsageError(f"--init_from={config.init_from} is the run to be written")
    repeats = None
    given = flags.knobs_given(values).keys()
    if values.config and given.isdisjoint(("dataset", "other")):
        repeats = _read_note(pathlib.Path(values.config))
    _train(values, run, config, values.experiment or None, None, repeats)


def _go_on(values: FlagValues, run: Run) -> None:
    config, note = _run_to_resume(values, run)
    _train(values, run, config, note["experiment"], note.get("export_base"))


def _train(
    values: FlagValues,
    run: Run,
    config: Config,
    experiment: str | None,
    export_to: str | None,
    repeats: dict[str, Any] | None = None,
) -> None:
    if export_to is None or any(
        flags.is_given(values, name) for name in ("export_dir", "export_name")
    ):
        export_to = _export_base(values, _name(config, experiment))
    leads = _leads(config)
    if export_to and leads:
        _check_writable(pathlib.Path(export_to))

    if values.tensorboard:
        tensorboard.check_installed()

    from kcnn import beside, runtime

    output = sys.stdout if leads else None
    with beside.Helper(_DRAWS) as helper, Progress(output) as progress:
        if leads and runtime.cores() > 1:
            helper.prepare()  # TensorFlow's import leaves a core for it
        replicas = runtime.start_tensorflow(config)
        from kcnn import pictures, report, trainer

        log = None
        if values.tensorboard and leads:
            log = tensorboard.epoch_logger(run.tensorboard)
        trained = trainer.train(
            config,
            run,
            progress,
            about={
                "command": shlex.join(["kcnn", *sys.argv[1:]]),
                "experiment": experiment,
                "reported": _reported(experiment),
                "export_base": export_to,
            },
            resume=bool(values.resume),
            repeats=repeats,
            on_epoch=log,
            replicas=replicas,
            since=runtime.process_began(),
            on_tested=lambda tested: pictures.draw_beside(helper, run, config, tested),
        )
        if trained is None:  # the chief does the rest
            return
        helper.result()
    page = report.write_report(run.path)
    _conclude(progress, trained.evaluation, len(trained.data.train), page)


def _settings(values: FlagValues) -> dict[str, Any]:
    """Return what is set, by rising precedence: experiment or file, then flags."""
    if values.experiment and values.config:
        raise UsageError("--experiment and --config: give one of them")
    base: dict[str, Any] = {}
    if values.experiment:
        base = settings_of(values.experiment)
    elif values.config:
        base = dict(_read_note(pathlib.Path(values.config))["config"])
    return overlay(base, flags.knobs_given(values))


def _read_note(path: pathlib.Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text())
        if all(isinstance(note[key], dict) for key in ("config", "data")):
            return note
    except FileNotFoundError:
        raise UsageError(f"--config={path}: no such file") from None
    except (ValueError, OSError, TypeError, KeyError):
        pass  # said below
    raise UsageError(f"--config={path}: not a config.json as kcnn train writes it")


def _name(config: Config, experiment: str | None) -> str:
    """Return a name for folders: the experiment, or the data set and the model."""
    if experiment:
        return experiment
    kind, _, place = config.dataset.partition(":")
    data = pathlib.Path(place).stem if place else kind
    return re.sub(r"[^\w.-]+", "_", f"{data}-{config.model}")


def _new_path(values: FlagValues, config: Config) -> pathlib.Path:
    if values.model_dir:
        return pathlib.Path(values.model_dir)
    if joined(config.strategy):
        raise UsageError("--model_dir: say where the run goes; all workers need it")
    _check_writable(pathlib.Path(_RUNS))
    name = _name(config, values.experiment or None)
    return new_model_dir(pathlib.Path(_RUNS), name)


def _check_free(run: Run, overwrite: bool) -> None:
    """Refuse to write over a run, or over files of someone else."""
    if run.exists and not overwrite:
        raise UsageError(
            f"--model_dir={run.path}: there is a run already; give another folder, "
            "--overwrite to replace it or --resume to go on with it"
        )
    if run.files() and not overwrite:
        raise UsageError(
            f"--model_dir={run.path}: {run.files()[0]} is in the way, of no run of "
            "kcnn; give another folder, or --overwrite to replace it"
        )


def _path_to_resume(values: FlagValues) -> pathlib.Path:
    if not values.model_dir:
        raise UsageError("--resume: say which run to go on with: --model_dir=DIR")
    for other in ("overwrite", "config"):
        if values[other].value:
            raise UsageError(f"--resume and --{other}: give one of them")
    run = Run(values.model_dir)
    run.read_config()  # refuses a folder without a run
    return run.path


def _run_to_resume(values: FlagValues, run: Run) -> tuple[Config, dict[str, Any]]:
    note = run.read_config()
    if run.complete:
        raise UsageError(f"--resume: the run in {run.path} is complete")
    config = config_of(note)
    for name, value in flags.knobs_given(values).items():
        own = getattr(config, name)
        if value != own:
            raise UsageError(
                f"--resume goes on with the run's own settings: --{name}={show(own)}, "
                f"not {show(value)}"
            )
    if values.experiment and values.experiment != note["experiment"]:
        raise UsageError(f"--resume: the run's experiment is {note['experiment']}")
    return config, note


def _export_base(values: FlagValues, name: str) -> str:
    """Return the folder of the export's versions, or nothing for no export."""
    base = export_base(values.export_dir, values.export_name or name)
    if base is None and values.export_name:
        raise UsageError("--export_name changes nothing with an empty --export_dir")
    return str(base or "")


def _check_writable(path: pathlib.Path) -> None:
    """Find out before an hour of training that its result cannot be written."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise RunError(f"{path}: cannot be made: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{path}: cannot be written: no permission for {existing}")


def _reported(experiment: str | None) -> dict[str, Any] | None:
    if experiment is None:
        return None
    entry = EXPERIMENTS.get(experiment)
    if entry is None:  # a recipe, or a run of another version of kcnn
        return None
    return {
        "accuracy": entry.reported.accuracy,
        "loss": entry.reported.loss,
        "seconds": entry.reported.train_seconds,
        "note": entry.about,
    }


def _conclude(
    progress: Progress, result: dict[str, Any], trained_on: int, page: pathlib.Path
) -> None:
    from kcnn.evaluation import known_classes

    test = result["test"]
    low, high = test["accuracy_interval"]
    progress.note(
        "test",
        f"accuracy {test['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}; "
        f"{test['mistakes']:,} of {test['n']:,} wrong), loss {test['loss']:.4f}",
    )
    others = f"train {result['train']['accuracy']:.2%}"
    if result["train"]["n"] < trained_on:
        others += f" (of {result['train']['n']:,} images)"
    if result["validation"] is not None:
        others += f", validation {result['validation']['accuracy']:.2%}"
    progress.note("", others)
    for text in known_classes(test):
        progress.note("", text)
    for topic, text in _confidence(result):
        progress.note(topic, text)
    reported = result["reported"]
    if reported and reported["accuracy"] is not None:
        progress.note("published", f"{reported['accuracy']:.2%}, from one run")
    timing = result["timing"]
    progress.note(
        "time",
        f"{timing['train_seconds']:.1f} s training "
        f"({timing['images_per_second']:,.0f} images/s), "
        f"{timing['test_seconds']:.1f} s testing, "
        f"{timing['checkpoint_seconds']:.1f} s writing checkpoints, "
        f"{timing['total_seconds']:.1f} s in all",
    )
    part = timing["checkpoint_seconds"] / timing["train_seconds"]
    if part > _CHECKPOINTS_PART and timing["train_seconds"] > _SECONDS_THAT_MATTER:
        progress.note(
            "", f"checkpoints took {part:.0%} of the training: raise --checkpoint_every"
        )
    if result["export"]:
        progress.note("model", result["export"]["path"])
        progress.note(
            "", f"kcnn predict --saved_model={result['export']['path']} IMAGE..."
        )
    progress.note("page", str(page))


def _confidence(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield topic and text of what was fitted to the validation images."""
    from kcnn.confidence import Rule
    from kcnn.rejection import lines

    calibration, rejection = result["calibration"], result["rejection"]
    if calibration:
        before, after = calibration["test"]["before"], calibration["test"]["after"]
        error = "expected_calibration_error"
        yield (
            "calibrated",
            f"loss {before['loss']:.4f} before, {after['loss']:.4f} after; calibration "
            f"error {before[error]:.2%} before, {after[error]:.2%} after",
        )
        if calibration["note"]:
            yield "", calibration["note"]
    rejected = rejection and rejection["test"]
    texts = [str(Rule.of(result)), *lines(rejected, result["unknown"])]
    topics = itertools.chain(["rejection"], itertools.repeat(""))
    yield from zip(topics, filter(None, texts), strict=False)
