"""keras-tuner's oracles, made to keep what they know and to end when all is tried.

What they would do otherwise, in keras-tuner 1.4.8: a seed of 0 is replaced by a random
one; the state lies in several files that are not written whole, so that a kill loses
a trial, repeats one, or leaves a file that cannot be read; a grid search forgets its
queue; Bayesian search proposes what it has tried and draws anew after a restart; three
failed trials end the search; and 20 draws that were tried already pass for an
exhausted space.
"""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from kcnn.config import KNOBS
from kcnn.errors import RunError, UsageError
from kcnn.files import write_json
from kcnn.knobs import parse, show
from tuning.objective import Objective
from tuning.space import Choices, Domain, Space, Span

TUNERS = ("random", "bayesian", "hyperband", "grid")

_DRAWS = 200  # before an unexplored rest of the space is looked for one by one
_MOST_LISTED = 100_000  # combinations that are gone through one by one
_LEAST_INITIAL = 5  # random trials of a Bayesian search

Values = dict[str, Any]


def hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Return a space as keras-tuner has it; lists of numbers are texts there."""
    hp = keras_tuner.HyperParameters()
    for name, domain in space.domains.items():
        condition = space.condition(name)
        if condition is None:
            _declare(hp, name, domain)
            continue
        parent, values = condition
        with hp.conditional_scope(parent, [encoded(v) for v in values]):
            _declare(hp, name, domain)
    return hp


def _declare(hp: keras_tuner.HyperParameters, name: str, domain: Domain) -> None:
    if isinstance(domain, Choices):
        hp.Choice(name, [encoded(value) for value in domain.values])
        return
    kind = hp.Int if domain.whole else hp.Float
    sampling = "log" if domain.log else "linear"
    kind(name, domain.low, domain.high, sampling=sampling)


def encoded(value: Any) -> Any:
    """Return what keras-tuner can hold: it knows no tuples, and mixes up booleans."""
    return show(value) if isinstance(value, tuple | bool) else value


def decoded(space: Space, given: Mapping[str, Any]) -> Values:
    """Return keras-tuner's values as Config's, in the order of the space.

    Numbers drawn from a span lose the digits that do not matter. Names that are not
    searched, such as Hyperband's tuner/epochs, are left out.
    """
    values = {}
    for name, domain in space.domains.items():
        if name not in given:
            continue
        value = given[name]
        if isinstance(domain, Span):
            values[name] = domain.rounded(value)
        else:
            knob = KNOBS[name]
            values[name] = parse(knob, value) if isinstance(value, str) else value
    return values


class Durable(keras_tuner.Oracle):
    """What is changed in every oracle; mixed in before one of keras-tuner's.

    Args:
        space: what is searched.
        file: where the whole state is kept.
        refusal: says why a combination cannot be run, or None; such a one costs no
            trial.
        random_seed: 0 or more; the same seed proposes the same trials.
        **kwargs: the oracle's own.
    """

    def __init__(
        self,
        *,
        space: Space,
        file: pathlib.Path,
        refusal: Callable[[Values], str | None],
        random_seed: int,
        objective: Objective,
        **kwargs,
    ):
        self.searched = space
        self.refused = 0  # combinations that could not be run
        self.last_refusal = ""  # why the last of them in this process could not
        self.closed = False  # no trial begins any more
        self._file = file
        self._refusal = refusal
        super().__init__(
            objective=keras_tuner.Objective(objective.column, objective.direction),
            hyperparameters=hyperparameters(space),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=_spread(random_seed),
            max_consecutive_failed_trials=None,  # equal to no number of failures
            **kwargs,
        )
        self.verbose = 0

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Return the next trial, or one that says STOPPED or IDLE."""
        if self.closed and tuner_id not in self.ongoing_trials:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), "none", TrialStatus.STOPPED)
        return super().create_trial(tuner_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Take a trial's end; what has ended already stays as it is."""
        if trial.trial_id in self.end_order:
            return
        # What a worker sends back has been through another form.
        trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
        super().end_trial(trial)
        self.save()  # keras-tuner saves before it takes the trial from the ongoing

    @keras_tuner.synchronized
    def put_back(self, tuner_id: str) -> None:
        """Let another worker have the trial of one that is gone."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue.append(trial.trial_id)
            self.save()

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose values that can be run and were not tried."""
        response = super().populate_space(trial_id)
        if response["status"] != TrialStatus.RUNNING:
            return response
        # What Hyperband promotes was tried, and rightly.
        if "tuner/trial_id" in response["values"] or self._is_new(response["values"]):
            return response
        return self._proposed(self._random_values())

    @staticmethod
    def _proposed(values: Values | None) -> dict[str, Any]:
        status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
        return {"status": status, "values": values}

    def _random_values(self) -> Values | None:
        """Return values at random, new ones that can be run; None if all are tried."""
        for _ in range(_DRAWS):
            values = self._drawn()
            if self._is_new(values):
                return values
        return next(self._rest(), None)

    def _drawn(self) -> Values:
        hp = keras_tuner.HyperParameters()
        for one in self.hyperparameters.space:
            hp.merge([one])
            if hp.is_active(one):
                hp.values[one.name] = one.random_sample(self._seed_state)
            self._seed_state += 1
        return self._as_run(hp.values)

    def _rest(self) -> Iterator[Values]:
        """Yield what is left of a space small enough to be listed."""
        if self.searched.size is not None and self.searched.size <= _MOST_LISTED:
            yield from filter(self._is_new, _every(self.hyperparameters))

    def _as_run(self, values: Values) -> Values:
        """Return values as the trial has them, so that equal trials are equal."""
        own = decoded(self.searched, values)
        return values | {name: encoded(value) for name, value in own.items()}

    def _is_new(self, values: Values) -> bool:
        """Whether values can be run and were neither tried nor refused before."""
        if self._duplicate(values):
            return False
        reason = self._refusal(decoded(self.searched, values))
        if reason is None:
            return True
        self.refused, self.last_refusal = self.refused + 1, reason
        self._tried_so_far.add(self._compute_values_hash(values))
        return False

    def _save_trial(self, trial: Trial) -> None:
        """Write nothing: `save` writes the trials with all the rest."""

    def save(self) -> None:
        """Write the state and the trials as one file, whole or not at all."""
        trials = [trial.get_state() for trial in self.trials.values()]
        state = self.get_state() | {"refused": self.refused}
        write_json(self._file, {"oracle": state, "trials": trials})

    def reload(self) -> None:
        """Go on from the file, if there is one; what was running is run again."""
        try:
            content = json.loads(self._file.read_text())
            trials = map(Trial.from_state, content["trials"])
            self.trials = {trial.trial_id: trial for trial in trials}
            self.set_state(content["oracle"])
            self.refused = content["oracle"]["refused"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._file}: damaged: {error!r}") from None
        self.ongoing_trials: dict[str, Trial] = {}
        self._retry_queue = [
            trial_id
            for trial_id in reversed(self.trials)  # they are taken from the end
            if trial_id not in self.end_order
        ]


class RandomOracle(Durable, keras_tuner.oracles.RandomSearchOracle):
    """Random search (Bergstra and Bengio, JMLR 13, 2012)."""


class BayesianOracle(Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process and an upper confidence bound, after some random trials."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Draw for a trial what depends on the seed and the trial alone."""
        seed = (self.seed, int(trial_id))
        self._random_state = np.random.RandomState(
            np.random.SeedSequence(seed).generate_state(1)
        )
        return super().populate_space(trial_id)

    def _vector_to_values(self, vector) -> Values:
        return self._as_run(super()._vector_to_values(vector))


class HyperbandOracle(Durable, keras_tuner.oracles.HyperbandOracle):
    """Successive halving over several brackets (Li et al., JMLR 18, 2018)."""


class GridOracle(Durable):
    """Every combination once, the last knob changing first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._combinations = _every(self.hyperparameters, self.searched)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the first combination that was not tried."""
        return self._proposed(next(filter(self._is_new, self._combinations), None))


def make_oracle(
    tuner: str,
    *,
    max_trials: int | None,
    max_epochs: int,
    factor: int,
    iterations: int,
    **common: Any,
) -> Durable:
    """Return an oracle with what its file holds.

    Args:
        tuner: one of TUNERS.
        max_trials: None: until the space is exhausted, or Hyperband's brackets.
        max_epochs: of Hyperband: those of its last rung.
        factor: of Hyperband: one of so many trials goes on to the next rung.
        iterations: of Hyperband: times that it goes through its brackets.
        **common: what `Durable` takes.

    Raises:
        UsageError: the space has too few combinations for Hyperband.
    """
    oracle: Durable
    if tuner == "random":
        oracle = RandomOracle(max_trials=max_trials, **common)
    elif tuner == "bayesian":
        # keras-tuner's 3 a knob would leave nothing of a short search to the model.
        initial = max(_LEAST_INITIAL, (max_trials or 0) // 3)
        oracle = BayesianOracle(
            max_trials=max_trials, num_initial_points=initial, **common
        )
    elif tuner == "grid":
        oracle = GridOracle(max_trials=max_trials, **common)
    else:
        oracle = HyperbandOracle(
            max_epochs=max_epochs,
            factor=factor,
            hyperband_iterations=iterations,
            **common,
        )
        _check_hyperband(oracle, iterations)
        # keras-tuner has None there, on which TFX's Tuner fails.
        oracle.max_trials = min(max_trials or 10**9, hyperband_trials(oracle))
    oracle.reload()
    return oracle


def brackets(oracle: HyperbandOracle) -> list[list[tuple[int, int]]]:
    """Return Hyperband's plan: of each bracket, trials and epochs of each rung."""
    return [
        [
            (oracle._get_size(number, rung), oracle._get_epochs(number, rung))
            for rung in range(number + 1)
        ]
        for number in reversed(range(oracle._get_num_brackets()))
    ]


def hyperband_trials(oracle: HyperbandOracle) -> int:
    """Return how many trials Hyperband runs, over all rungs and iterations."""
    sizes = (size for bracket in brackets(oracle) for size, _ in bracket)
    return int(oracle.hyperband_iterations) * sum(sizes)


def _check_hyperband(oracle: HyperbandOracle, iterations: int) -> None:
    """Refuse a space that would end in the first rung, with nothing promoted."""
    needed = iterations * sum(bracket[0][0] for bracket in brackets(oracle))
    size = oracle.searched.size
    if size is not None and size < needed:
        raise UsageError(
            f"--tuner=hyperband: its brackets begin {needed} different trials, and the "
            f"space has {size}; use --tuner=grid, or give knobs more values"
        )


def _every(hp: keras_tuner.HyperParameters, points: Space | None = None):
    """Yield every combination of active values, of a span what `Span.values` has.

    Args:
        hp: the space.
        points: where the points of spans come from; None: whole numbers, all of them.
    """
    space, seen = hp.space, set()
    lists = []
    for one in space:
        if isinstance(one, keras_tuner.engine.hyperparameters.Choice):
            lists.append(list(one.values))
        elif points is not None:
            lists.append(list(points.domains[one.name].values))
        else:
            lists.append(list(range(one.min_value, one.max_value + 1)))
    for combination in itertools.product(*lists):
        found = keras_tuner.HyperParameters()
        for one, value in zip(space, combination, strict=True):
            found.merge([one])
            if found.is_active(one):
                found.values[one.name] = value
        key = json.dumps(found.values)
        if key not in seen:  # inactive knobs make combinations equal
            seen.add(key)
            yield found.values


def _spread(random_seed: int) -> int:
    """Return a seed that is not 0 and whose successors are no neighbor's.

    keras-tuner counts its seed up with each number that it draws: searches with the
    seeds 1 and 2 would draw nearly the same numbers.
    """
    return int(np.random.SeedSequence(random_seed).generate_state(1)[0] >> 2) + 1
