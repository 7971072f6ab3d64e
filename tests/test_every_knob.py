"""A knob that changes nothing is the commonest bug of the field: each must act."""

import numpy as np
import pytest
import tensorflow as tf

from kcnn import datasets, runtime
from kcnn.batches import steps_per_epoch
from kcnn.config import KNOBS, Config
from kcnn.errors import UsageError
from kcnn.fitting import Fitting
from kcnn.loop import TrainingLoop
from kcnn.models import build_model
from kcnn.optimization import build_optimizer, build_schedule
from kcnn.progress import Progress
from kcnn.run import Run
from kcnn.spec import ImageSpec
from tests.conftest import whole_run, write_npz

SPEC = ImageSpec(28, 28, 1, tuple("0123456789"))
CONVNET = {"model": "convnet"}
BOTTLENECK = {"model": "bottleneck"}

# knob -> settings that make room for it, and another value than the default.
MODEL_KNOBS = {
    "model": ({}, "mlp"),
    "filters": ({}, (8, 16)),
    "convs_per_block": (CONVNET, 2),
    "kernel_size": ({}, 5),
    "strides": (BOTTLENECK, (1, 2)),
    "padding": (BOTTLENECK, 1),
    "pool_sizes": (BOTTLENECK, (2, 2)),
    "dense_units": ({}, (64, 32)),
    "conv_dropout": ({}, 0.1),
    "spatial_dropout": ({}, True),
    "dropout": ({}, 0.1),
    "batch_norm": ({}, 2),
    "batch_norm_momentum": (CONVNET, 0.5),
    "extra_conv": ({}, 16),
    "extra_conv_pool": ({"extra_conv": 16}, False),
    "activation": ({}, "tanh"),
    "head": (CONVNET | {"dropout": 0.2}, "dropout_softmax"),
    "standardize": ({}, "pixel"),
    "standardize_floor": ({"standardize": "pixel"}, 0.5),
    "augment": ({}, "handwriting"),
    "translate": ({}, 0.1),
    "rotate": ({}, 10.0),
    "zoom": ({}, 0.1),
    "flip": ({}, "horizontal"),
    "cutout": ({}, 0.3),
    "crop": ({}, 8),
    "whiten": ({}, 2),
    "test_views": ({}, "mirror"),
    "freeze": ({"init_from": "runs/a"}, 1),
}

TRAINING_KNOBS = {
    "epochs": ({}, 3),
    "batch_size": ({}, 16),
    "optimizer": ({}, "rmsprop"),
    "learning_rate": ({}, 0.01),
    "momentum": ({"optimizer": "momentum"}, 0.5),
    "beta_1": ({}, 0.5),
    "beta_2": ({}, 0.5),
    "weight_decay": ({}, 0.5),
    "schedule": ({}, "cosine"),
    "warmup_epochs": ({"schedule": "cosine"}, 1.0),
    "step_epochs": ({"schedule": "step"}, 1),
    "step_factor": ({"schedule": "step", "step_epochs": 1}, 0.7),
    "label_smoothing": ({}, 0.2),
    "class_weight": ({}, "balanced"),
    "clip_norm": ({}, 0.001),
    "ema_momentum": ({}, 0.5),
    "early_stopping": ({"learning_rate": 3.0, "epochs": 6}, 1),
    "keep": ({"learning_rate": 0.5, "epochs": 8, "schedule": "constant"}, "best"),
    "random_seed": ({}, 1),
}

DATA_KNOBS = {
    "dataset": "digits",
    "image_size": (6, 8),
    "color_mode": "rgb",
    "normalize_input": "mnist",
    "train_size": 30,
    "validation_fraction": 0.3,
    "extra_class": "none of these",
}

# Each of these has a test of its own, named here.
ELSEWHERE = {
    "data_dir": "test_data_dir_is_where_tensorflow_datasets_looks",
    "test_fraction": "test_test_fraction_carves_the_test_set",
    "strict": "test_datasets.py",
    "cache": "test_datasets.py",
    "precision": "test_precision_is_the_policy_of_the_network",
    "checkpoint_every": "test_faults.py",
    "checkpoint_epochs": "test_faults.py",
    "deterministic": "test_repetition.py",
    "on_divergence": "test_divergence.py",
    "max_rollbacks": "test_divergence.py",
    "strategy": "test_replicas.py",
    "jit_compile": "test_jit_compile_is_obeyed_or_refused",
    "towers": "test_towers.py",
    "calibrate": "test_confidence.py",
    "reject": "test_confidence.py",
    "coverage": "test_confidence.py",
    "initializer": "test_models.py",
    "unknown": "test_unknown.py",
    "other": "test_other.py",
    "init_from": "test_transfer.py",
}


def test_the_tables_cover_every_knob_once():
    tables = [*MODEL_KNOBS, *TRAINING_KNOBS, *DATA_KNOBS, *ELSEWHERE]
    assert sorted(tables) == sorted(KNOBS)


@pytest.mark.parametrize("name", MODEL_KNOBS)
def test_changes_the_model_that_is_built(name):
    base, value = MODEL_KNOBS[name]
    before = build_model(Config(**base), SPEC)
    after = build_model(Config(**base | {name: value}), SPEC)
    assert after.to_json() != before.to_json()


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory):
    """A data set whose third class has half the images of the others."""
    path = write_npz(tmp_path_factory.mktemp("data") / "stripes.npz")
    with np.load(path) as file:
        arrays = dict(file)
    third = np.flatnonzero(arrays["y_train"] == 2)[::2]
    arrays["x_train"] = np.delete(arrays["x_train"], third, 0)
    arrays["y_train"] = np.delete(arrays["y_train"], third, 0)
    np.savez(path, **arrays)
    return f"npz:{path}"


def trained_weights(tmp_path, dataset, **settings):
    """Return all weights after two tiny epochs on one thread's worth of data."""
    import keras

    base = {
        "dataset": dataset,
        "model": "mlp",
        "dense_units": (8,),
        "epochs": 2,
        "precision": "float32",
        "learning_rate": 0.002,
    }
    if settings.get("optimizer") == "rmsprop":
        base["learning_rate"] = Config().learning_rate
    config = Config(**base | settings)
    data = datasets.load(config)
    keras.utils.set_random_seed(config.random_seed)
    model = build_model(config, data.spec)
    schedule = build_schedule(
        config, steps_per_epoch(len(data.train), config.batch_size)
    )
    loop = TrainingLoop(
        model, build_optimizer(config, schedule, "float32"), config, jit_compile=False
    )
    with open(tmp_path / "log", "w") as log:
        run = Run(tmp_path / "run")
        fitting = Fitting(config, data, loop, schedule, run, Progress(log))
        return np.concatenate([w.ravel() for w in fitting.fit()])


@pytest.mark.parametrize("name", TRAINING_KNOBS)
def test_changes_the_weights_that_come_out(name, tmp_path, unbalanced):
    base, value = TRAINING_KNOBS[name]
    if name == "batch_size":
        base = {"batch_size": 32}
    before = trained_weights(tmp_path, unbalanced, **base)
    again = trained_weights(tmp_path, unbalanced, **base)
    after = trained_weights(tmp_path, unbalanced, **base | {name: value})
    np.testing.assert_array_equal(again, before)
    assert np.abs(after - before).max() > 1e-6


@pytest.mark.parametrize("name", DATA_KNOBS)
def test_changes_the_data_that_is_loaded(name, npz):
    def describe(config):
        data = datasets.load(config)
        validation = len(data.validation) if data.validation else 0
        return data.spec, len(data.train), validation, len(data.test)

    base = {"dataset": f"npz:{npz}"}
    changed = Config(**base | {name: DATA_KNOBS[name]})
    assert describe(changed) != describe(Config(**base))


def test_test_fraction_carves_the_test_set():
    assert len(datasets.load(Config(test_fraction=0.5)).test) == 899
    assert len(datasets.load(Config()).test) == 360


def test_data_dir_is_where_tensorflow_datasets_looks(mnist_dir, monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR")
    config = Config(dataset="mnist", data_dir=mnist_dir, train_size=100)
    assert len(datasets.load(config).test) == 10_000


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_precision_is_the_policy_of_the_network(policy):
    asked = runtime.choose_precision(Config(precision=policy).precision)
    model = build_model(Config(), SPEC, policy=asked.policy)
    assert model.get_layer("conv_1").dtype_policy.name == policy


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
        ({"avx512f"}, "float32"),
        (set(), "float32"),
    ],
)
def test_precision_auto_on_a_processor(flags, policy):
    assert runtime._cpu_precision(flags).policy == policy


@pytest.mark.parametrize(
    ("capability", "policy"),
    [
        ((9, 0), "mixed_bfloat16"),
        ((8, 0), "mixed_bfloat16"),
        ((7, 5), "mixed_float16"),
        ((7, 0), "mixed_float16"),
        ((6, 1), "float32"),
    ],
)
def test_precision_auto_on_a_gpu(capability, policy):
    assert runtime._gpu_precision(capability).policy == policy


@pytest.mark.slow
def test_what_keeps_xla_off_is_told(npz, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "wants_xla", lambda config: True)  # as on a GPU
    settings = {"dataset": f"npz:{npz}", "model": "mlp", "epochs": 1, "rotate": 5.0}
    run, _, said = whole_run(tmp_path, **settings)
    assert ", no XLA (it cannot compile random_rotation)" in said
    note = run.read_config()
    assert (note["jit_compile"], note["jit_obstacle"]) == (False, "random_rotation")
    assert "off: it cannot compile random_rotation" in run.report.read_text()


def test_jit_compile_is_obeyed_or_refused():
    plain = build_model(Config(), SPEC)
    turned = build_model(Config(rotate=10.0), SPEC)
    on, off = (Config(jit_compile=value) for value in ("on", "off"))
    assert runtime.choose_jit(on, plain) is True
    assert runtime.choose_jit(off, plain) is False
    with pytest.raises(UsageError, match="random_rotation"):
        runtime.choose_jit(on, turned)
    exact = Config(jit_compile="on", deterministic=True)
    with pytest.raises(UsageError, match="compile pool_1 with --deterministic"):
        runtime.choose_jit(exact, plain)
    assert runtime.choose_jit(exact, build_model(Config(model="mlp"), SPEC)) is True
    config = Config()
    loops = [
        TrainingLoop(
            build_model(config, SPEC),
            build_optimizer(config, build_schedule(config, 1), "float32"),
            config,
            jit_compile=choice,
        )
        for choice in (True, False)
    ]
    assert [loop._step._jit_compile for loop in loops] == [True, False]
    batch = (np.zeros((4, 28, 28, 1), np.uint8), np.eye(10, dtype=np.float32)[:4])
    for loop in loops:
        loop.run(iter(tf.data.Dataset.from_tensors(batch)), 1)
        assert loop.totals().loss == pytest.approx(np.log(10), rel=0.05)


def test_float16_needs_a_gpu():
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(UsageError, match="needs a GPU"):
            runtime.choose_precision("mixed_float16")
