"""The function that TFX's Tuner component calls; TFX itself is not imported.

Name it as `tuner_fn="kcnn.tfx.tuner_fn"`, with a custom_config such as

    {"model": "convnet", "space": {"dropout": "0..0.5"}, "tuner": "hyperband"}
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any, NamedTuple

from kcnn import runtime
from kcnn.batches import nearest_epochs
from kcnn.commands.tune import FLAGS
from kcnn.datasets import load_training
from kcnn.errors import UsageError
from kcnn.knobs import Knob, parse, resolve
from kcnn.progress import Progress
from kcnn.tfx import divided, place_of
from tuning.search import KcnnTuner
from tuning.session import Settings, open_session
from tuning.space import Choices, build_space, domains_of

# Keys of custom_config beside those of kcnn.tfx: the fields of Settings.
_SETTINGS: dict[str, Knob] = {
    "tuner": FLAGS["tuner"],
    "objective": FLAGS["objective"],
    "executions": FLAGS["executions_per_trial"],
    "pruning": FLAGS["pruning"],
    "factor": FLAGS["factor"],
    "iterations": FLAGS["hyperband_iterations"],
    "keep": Knob("tune", 1, "", low=0, high=1000, kind=int),
    "max_trials": FLAGS["max_trials"],
    "time_budget": Knob("tune", None, "", low=1, is_time=True, kind=float),
}


class TunerFnResult(NamedTuple):
    """What TFX's executor takes: it calls tuner.search(**fit_kwargs)."""

    tuner: KcnnTuner
    fit_kwargs: dict[str, Any]


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Return a tuner for TFX's Tuner component.

    Args:
        fn_args: TFX's FnArgs. The files and custom_config are as those of
            `kcnn.tfx.run_fn`: validation images are taken from the train files, and the
            eval files are not read, unless eval_split is "validation". train_steps
            becomes whole epochs of each trial unless custom_config says how many.
            working_dir takes the search's files. custom_config may also have `space`,
            an object as in a --space file of kcnn tune, whose values win over those of
            knobs beside it, and the fields of `tuning.session.Settings`.

    Raises:
        UsageError: custom_config or the files are wrong.
    """
    keys, knobs, own = divided(fn_args.custom_config, ("space", *_SETTINGS))
    settings = Settings(**{n: _setting(n, own[n]) for n in _SETTINGS if n in own})
    searched = own.get("space", {})
    if "dataset" in searched:
        raise UsageError("custom_config: space: dataset: train_files say it")
    place = place_of(fn_args, keys)
    domains = domains_of(knobs, "custom_config")
    domains |= domains_of(searched, "custom_config: space")
    domains["dataset"] = Choices((str(place),))
    runtime.use_exact_float32()
    if fn_args.train_steps and "epochs" not in domains:
        recipe = build_space(domains).baseline
        images = len(load_training(recipe).train)
        epochs = nearest_epochs(fn_args.train_steps, images, recipe.batch_size)
        domains["epochs"] = Choices((epochs,))
    space = build_space(domains)
    folder = pathlib.Path(fn_args.working_dir)
    session = open_session(space, settings, folder, progress=Progress(None))
    oracle = session.oracle
    if oracle.max_trials is None:  # TFX's executor asks for so many of the best
        oracle.max_trials = session.total or sys.maxsize
    return TunerFnResult(session.tuner, {})


def _setting(name: str, value: Any) -> Any:
    declared = _SETTINGS[name]
    try:
        if declared.is_time and isinstance(value, str):
            value = parse(declared, value)
        return resolve(name, declared, value, None)
    except (ValueError, UsageError) as error:
        text = str(error).removeprefix(f"--{name}: ")
        raise UsageError(f"custom_config: {name}: {text}") from None
