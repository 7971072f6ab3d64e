"""What a sweep runs: the values of knobs, their cross product, each run's name.

Nothing here starts a process or imports TensorFlow.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcnn.config import Config, overlay
from kcnn.errors import RunError, UsageError
from kcnn.experiments import NAMED, matching
from kcnn.knobs import MOST_VALUES, show
from kcnn.run import Run, config_of

# What is swept, the experiment, all settings, and those of them to give as flags.
Point = tuple[dict[str, Any], str | None, dict[str, Any], dict[str, Any]]

_LONGEST_NAME = 200  # bytes; file systems take 255


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One point of the cross product.

    `swept` holds what tells the run from the others, `flags` every knob that its
    command line needs beside `experiment`.
    """

    name: str
    swept: dict[str, Any]
    config: Config
    experiment: str | None
    flags: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what was swept but the random seed, over which figures are means."""
        return {k: v for k, v in self.swept.items() if k != "random_seed"}

    def arguments(self, model_dir: pathlib.Path) -> list[str]:
        """Return the flags of kcnn train for this run, to start it afresh."""
        named = [f"--experiment={self.experiment}"] if self.experiment else []
        given = [f"--{name}={show(value)}" for name, value in self.flags.items()]
        return [*named, *given, f"--model_dir={model_dir}"]


def plan(
    chosen: Mapping[str, Sequence[Any]], patterns: Sequence[str]
) -> tuple[list[PlannedRun], dict[str, str]]:
    """Return every run of the cross product, and the experiments left out with why.

    Args:
        chosen: the values of each knob on the command line.
        patterns: of experiments' ids and groups; none: start from the defaults.

    Raises:
        UsageError: a combination that cannot be run, named; nothing to sweep.
    """
    bases, left_out = _bases(patterns)
    several = {name for name, values in chosen.items() if len(values) > 1}
    if not several and not patterns:
        raise UsageError(
            "nothing to sweep: give a knob several values, such as --random_seed=0..4, "
            "or --experiment=PATTERN; kcnn train trains one model"
        )
    number = math.prod(map(len, chosen.values())) * len(bases)
    if number > MOST_VALUES:
        raise UsageError(f"this is {number:,} runs, expected at most {MOST_VALUES:,}")
    chosen_points = [p for base in bases for p in points(base, chosen, several)]
    return planned(chosen_points), left_out


def planned(points: Sequence[Point]) -> list[PlannedRun]:
    """Return the runs of some points, each with a folder name of its own.

    Raises UsageError for a combination that cannot be run, named.
    """
    names = _file_names([_label(swept) for swept, *_ in points])
    runs = []
    for name, (swept, experiment, settings, flags) in zip(names, points, strict=True):
        try:
            config = Config.from_dict(settings)
        except UsageError as error:
            raise UsageError(f"{_label(swept)}: {error}") from None
        runs.append(PlannedRun(name, swept, config, experiment, flags))
    return runs


def _bases(patterns: Sequence[str]) -> tuple[list[str | None], dict[str, str]]:
    """Return the experiments to start from, and those that are no training run."""
    if not patterns:
        return [None], {}
    names = matching(patterns)
    left_out = {
        name: f"is no training run but {NAMED[name].stands_for}"
        for name in names
        if not NAMED[name].can_be_run
    }
    bases: list[str | None] = [name for name in names if name not in left_out]
    if not bases:
        lines = (f"{name} {why}" for name, why in left_out.items())
        raise UsageError(f"--experiment: nothing to run: {'; '.join(lines)}")
    return bases, left_out


def points(
    base: str | None, chosen: Mapping[str, Sequence[Any]], several: set[str]
) -> Iterator[Point]:
    """Yield the cross product of an experiment's own values and those chosen.

    Args:
        base: the experiment; None starts from the defaults.
        chosen: the values of each knob, instead of the experiment's.
        several: the knobs of chosen that tell the runs apart.
    """
    settings: dict[str, Any] = {}
    own: Mapping[str, Sequence[Any]] = {}
    if base:
        settings, own = dict(NAMED[base].settings), NAMED[base].sweep
    axes = {**own, **chosen}
    apart = several | (own.keys() - chosen.keys())
    for values in itertools.product(*axes.values()):
        given = dict(zip(axes, values, strict=True))
        swept = {"experiment": base} if base else {}
        swept |= {name: value for name, value in given.items() if name in apart}
        if own:  # kcnn train does not know it by its name
            merged = overlay(settings, given)
            yield swept, None, merged, merged
        else:
            yield swept, base, overlay(settings, given), given


def _label(swept: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={show(value)}" for name, value in swept.items())


def _file_names(labels: list[str]) -> list[str]:
    """Return a folder name a label, the same in every sweep that has the label."""
    names = [re.sub(r"[^\w.,=+-]", "_", label) for label in labels]
    times = collections.Counter(name.casefold() for name in names)
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        cut = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
        if cut != name or times[name.casefold()] > 1:
            names[i] = f"{cut}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return names


def action_for(planned: PlannedRun, run: Run, overwrite: bool) -> str:
    """Return what to do about a run: "keep", "resume", "start" or "replace" it.

    Raises UsageError if another run is in its place and may not be replaced.
    """
    if not run.exists:
        return "start"
    difference = _difference(planned.config, run)
    if difference and overwrite:
        return "replace"
    if difference:
        raise UsageError(
            f"{run.path}: holds another run ({difference}); give another --model_dir, "
            "or --overwrite to replace it"
        )
    return "keep" if run.complete else "resume"


def _difference(config: Config, run: Run) -> str:
    """Return how the config of a run is another one, "" if it is not."""
    try:
        found = config_of(run.read_config()).to_dict()
    except (UsageError, RunError, KeyError, TypeError):
        return "its config.json is not of this version of kcnn"
    for name, value in config.to_dict().items():
        if found[name] != value:
            return f"--{name}={_or_none(found[name])}, not {_or_none(value)}"
    return ""


def _or_none(value: Any) -> str:
    return "none" if value is None else show(value)
