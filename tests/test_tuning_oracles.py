"""keras-tuner's oracles as kcnn changes them: no training here."""

import json

import pytest
from keras_tuner.engine.trial import TrialStatus

from kcnn.config import KNOBS
from kcnn.errors import RunError, UsageError
from tuning.objective import OBJECTIVES
from tuning.oracles import TUNERS, brackets, decoded, make_oracle
from tuning.space import build_space, parse_domain

SMALL = {
    "model": "mlp",
    "dense_units": "8;16;32",
    "dropout": "0.1,0.2",
    "activation": "relu",
    "batch_size": "32",
    "learning_rate": "0.1",
}
WIDE = {"model": "mlp", "dropout": "0..0.5", "learning_rate": "log:1e-4..1e-1"}


def space_of(texts):
    return build_space({n: parse_domain(KNOBS[n], text) for n, text in texts.items()})


def oracle_of(tuner, folder, texts, refusal=lambda values: None, seed=0, **more):
    common = {"max_trials": None, "max_epochs": 9, "factor": 3, "iterations": 1}
    return make_oracle(
        tuner,
        **{**common, **more},
        space=space_of(texts),
        file=folder / "oracle.json",
        refusal=refusal,
        random_seed=seed,
        objective=OBJECTIVES["accuracy"],
    )


def score_of(values):
    """Return a made-up accuracy: best at a dropout of 0.3."""
    return 1 - abs(values["dropout"] - 0.3)


def run(oracle, most=1000, fail=()):
    """Return what is proposed until the end, each given a score."""
    proposed = []
    while len(proposed) < most:
        trial = oracle.create_trial("tuner0")
        if trial.status == TrialStatus.STOPPED:
            break
        assert trial.status == TrialStatus.RUNNING
        values = decoded(oracle.searched, trial.hyperparameters.values)
        proposed.append(values)
        if len(proposed) in fail:
            trial.status, trial.message = TrialStatus.FAILED, "no"
        else:
            oracle.update_trial(trial.trial_id, {"val_accuracy": score_of(values)})
            trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
    return proposed


def distinct(proposed):
    return {json.dumps(values) for values in proposed}


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_an_exhausted_space_ends_with_every_combination_once(tuner, tmp_path):
    proposed = run(oracle_of(tuner, tmp_path, SMALL))
    assert len(proposed) == len(distinct(proposed)) == 6


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_what_cannot_be_run_costs_no_trial(tuner, tmp_path):
    def refusal(values):
        return "too wide" if values["dense_units"] == (32,) else None

    oracle = oracle_of(tuner, tmp_path, SMALL, refusal, max_trials=10)
    proposed = run(oracle)
    assert len(proposed) == len(distinct(proposed)) == 4
    assert (32,) not in {values["dense_units"] for values in proposed}
    assert oracle.refused == 2


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_seed_repeats_its_proposals_and_another_does_not(tuner, tmp_path):
    def proposals(name, seed):
        return run(oracle_of(tuner, tmp_path / name, WIDE, seed=seed), most=9)

    first, again, other = (proposals(n, s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again
    assert (first == other) == (tuner == "grid")
    if tuner != "grid":  # nor are they the same ones in another order
        assert not distinct(first) & distinct(other)


@pytest.mark.parametrize(
    "tuner",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "bayesian" else name
        for name in TUNERS
    ],
)
@pytest.mark.parametrize(
    "kill_in", ["a trial", pytest.param("between trials", marks=pytest.mark.slow)]
)
def test_a_search_goes_on_where_it_was(tuner, kill_in, tmp_path):
    """Whatever is forgotten with the process comes back from the one file."""
    whole = run(oracle_of(tuner, tmp_path / "whole", WIDE, max_trials=14))
    folder = tmp_path / "killed"
    proposed = run(oracle_of(tuner, folder, WIDE, max_trials=14), most=8)
    if kill_in == "a trial":
        oracle = oracle_of(tuner, folder, WIDE, max_trials=14)
        trial = oracle.create_trial("tuner0")
        interrupted = decoded(oracle.searched, trial.hyperparameters.values)
        assert interrupted == whole[8]
    oracle = oracle_of(tuner, folder, WIDE, max_trials=14)
    proposed += run(oracle)
    assert proposed == whole
    assert len(oracle.trials) == 14
    assert {t.status for t in oracle.trials.values()} == {TrialStatus.COMPLETED}


def test_a_damaged_file_is_named(tmp_path):
    run(oracle_of("random", tmp_path, SMALL), most=2)
    file = tmp_path / "oracle.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(RunError, match=r"oracle\.json: damaged"):
        oracle_of("random", tmp_path, SMALL)


def test_any_number_of_failures_is_gone_over(tmp_path):
    oracle = oracle_of("bayesian", tmp_path, WIDE, max_trials=12)
    assert len(run(oracle, fail=(1, 2, 3, 4, 5))) == 12
    failed = [t for t in oracle.trials.values() if t.status == TrialStatus.FAILED]
    assert len(failed) == 5


@pytest.mark.slow
def test_bayesian_search_finds_what_random_search_comes_near_to(tmp_path):
    best = max(map(score_of, run(oracle_of("bayesian", tmp_path, WIDE, max_trials=15))))
    assert best > 0.98


def test_hyperband_promotes_the_best_third(tmp_path):
    oracle = oracle_of("hyperband", tmp_path, WIDE)
    assert brackets(oracle) == [[(9, 1), (3, 3), (1, 9)], [(5, 3), (2, 9)], [(3, 9)]]
    proposed = run(oracle)
    assert len(proposed) == oracle.max_trials == 9 + 3 + 1 + 5 + 2 + 3
    first = sorted(proposed[:9], key=score_of, reverse=True)
    assert proposed[9:12] == first[:3]
    assert proposed[12] == first[0]


def test_hyperband_refuses_a_space_that_its_first_rungs_would_exhaust(tmp_path):
    with pytest.raises(
        UsageError, match="begin 17 different trials, and the space has 6"
    ):
        oracle_of("hyperband", tmp_path, SMALL)


def test_a_closed_oracle_begins_nothing_new(tmp_path):
    oracle = oracle_of("random", tmp_path, WIDE)
    trial = oracle.create_trial("tuner0")
    oracle.closed = True
    assert oracle.create_trial("tuner1").status == TrialStatus.STOPPED
    assert oracle.create_trial("tuner0") is trial


def test_the_trial_of_a_worker_that_is_gone_is_run_by_the_next(tmp_path):
    oracle = oracle_of("random", tmp_path, WIDE)
    lost = oracle.create_trial("worker1")
    oracle.put_back("worker1")
    assert oracle.create_trial("worker2").trial_id == lost.trial_id
    # Were it only slow, its end would count once.
    lost.status = TrialStatus.COMPLETED
    oracle.update_trial(lost.trial_id, {"val_accuracy": 0.5})
    oracle.end_trial(lost)
    oracle.end_trial(lost)
    assert oracle.end_order == [lost.trial_id]


def test_a_conditional_knob_is_drawn_only_where_it_exists(tmp_path):
    texts = {"model": "mlp", "optimizer": "adam,momentum", "momentum": "0.8,0.9"}
    for tuner in ("random", "grid", "bayesian"):
        oracle = oracle_of(
            tuner,
            tmp_path / tuner,
            {**SMALL, **texts, "dense_units": "8", "learning_rate": "0.1"},
        )
        proposed = run(oracle)
        assert len(proposed) == 2 + 4  # dropout x adam, dropout x two momenta
        for values in proposed:
            assert ("momentum" in values) == (values["optimizer"] == "momentum")
            oracle.searched.config(values)
