"""Every architecture: parameters and shapes worked out by hand."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.experiments import EXPERIMENTS
from kcnn.models import MODELS, build_model, copy_of, shorten_batch_norm
from kcnn.spec import ImageSpec
from kcnn.summary import model_summary

DIGITS = ImageSpec(28, 28, 1, tuple("0123456789"))
COLOR = ImageSpec(32, 32, 3, tuple("0123456789"))


def conv(k, inputs, outputs):
    return (k * k * inputs + 1) * outputs


def dense(inputs, outputs):
    return (inputs + 1) * outputs


# Sums of layers by hand: conv(kernel, channels in, channels out), dense(in, out).
PARAMETERS = {
    "tutorial": conv(3, 1, 32) + conv(3, 32, 64) + dense(12 * 12 * 64, 128)
    + dense(128, 10),
    # Without biases, with four numbers a channel of batch norm.
    "convnet": 25 * 16 + 4 * 16 + 25 * 16 * 32 + 4 * 32 + dense(7 * 7 * 32, 10),
    "lenet": conv(5, 1, 6) + conv(5, 6, 16) + conv(5, 16, 120) + dense(120, 84)
    + dense(84, 10),
    "shallow": conv(5, 1, 32) + dense(12 * 12 * 32, 512) + dense(512, 128)
    + dense(128, 10),
    "bottleneck": conv(3, 1, 4) + conv(3, 4, 2) + dense(2, 10),
    "mlp": dense(784, 512) + dense(512, 128) + dense(128, 10),
    # Without biases, with three numbers a channel of batch norm: it has no scale.
    "airbench": 9 * (64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 3 * (2 * 64 + 4 * 256)
    + 256 * 10,
}  # fmt: skip


def test_the_table_covers_every_model():
    assert set(PARAMETERS) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_parameters_and_output(name, policy):
    keras.utils.set_random_seed(1)  # of some, no unit of the bottleneck's two is alive
    model = build_model(Config(model=name), DIGITS, policy=policy)
    assert model.count_params() == PARAMETERS[name]
    assert model.output_shape == (None, 10)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    logits = model(images, training=False)
    assert logits.dtype == "float32"
    assert logits.shape == (3, 10)
    assert np.ptp(logits) > 0


def test_the_tutorial_has_the_known_number_of_parameters():
    model = build_model(Config(model="tutorial"), DIGITS)
    assert model.count_params() == 1_199_882  # as keras.io prints it


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            {},
            "conv_1 conv_2 pool_1 activation_2 conv_dropout flatten dense_1 dropout "
            "logits",
        ),
        (
            {"batch_norm": 1},
            "conv_1 batch_norm_1 conv_2 pool_1 activation_2 conv_dropout flatten "
            "dense_1 dropout logits",
        ),
        (
            {"batch_norm": 2, "extra_conv": 64, "conv_dropout": 0.0},
            "conv_1 batch_norm_1 conv_2 pool_1 activation_2 conv_3 pool_2 activation_3 "
            "flatten dense_1 batch_norm_2 dropout logits",
        ),
        (
            {"extra_conv": 64, "extra_conv_pool": False, "dropout": 0.0},
            "conv_1 conv_2 pool_1 activation_2 conv_3 conv_dropout flatten dense_1 "
            "logits",
        ),
        (
            {"model": "convnet", "filters": (8,), "dropout": 0.1},
            "images conv_1 batch_norm_1 pool_1 activation_1 flatten dropout logits",
        ),
        (
            {"model": "convnet", "filters": (8, 4), "convs_per_block": 2},
            "images conv_1 batch_norm_1 pool_1 activation_1 conv_1_2 batch_norm_1_2 "
            "activation_1_2 conv_2 batch_norm_2 pool_2 activation_2 conv_2_2 "
            "batch_norm_2_2 activation_2_2 flatten logits",
        ),
        (
            {
                "model": "convnet",
                "filters": (8,),
                "dense_units": (16,),
                "dropout": 0.1,
                "head": "dropout_softmax",
                "batch_norm": 0,
            },
            "images conv_1 pool_1 activation_1 flatten dense_1 logits dropout softmax",
        ),
        (
            {"model": "airbench", "filters": (8, 4), "convs_per_block": 1},
            "conv_1 pool_1 batch_norm_1 activation_1 conv_2 pool_2 batch_norm_2 "
            "activation_2 pool logits scale",
        ),
        (
            {
                **{"model": "airbench", "filters": (8,), "batch_norm": 0, "whiten": 2},
                "test_views": "mirror",
            },
            "images views whitening activation_0 conv_1 pool_1 activation_1 conv_1_2 "
            "activation_1_2 pool logits scale mean_of_views",
        ),
        (
            {"model": "lenet", "conv_dropout": 0.5, "batch_norm": 1},
            "pad conv_1 batch_norm_1 pool_1 conv_2 conv_dropout pool_2 conv_3 "
            "flatten dense_1 logits",
        ),
    ],
)
def test_layers_stand_where_the_knobs_say(settings, names):
    model = build_model(Config(**settings), DIGITS)
    found = [layer.name for layer in model.layers if layer.name != "rescaling"]
    assert " ".join(found) == names


@pytest.mark.parametrize(
    "name", [n for n, e in EXPERIMENTS.items() if not e.stands_for]
)
def test_every_experiment_builds(name):
    config = Config.from_dict(dict(EXPERIMENTS[name].settings))
    spec = COLOR if config.dataset == "cifar10" else DIGITS
    model = build_model(config, spec)
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [2, 1000])
def test_any_shape_and_number_of_classes(name, classes):
    spec = ImageSpec(40, 56, 3, tuple(map(str, range(classes))))
    assert build_model(Config(model=name), spec).output_shape == (None, classes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel_size": 31}, ["--kernel_size=31", "conv_1", "28x28"]),
        ({"kernel_size": 15}, ["--kernel_size=15", "conv_2", "14x14"]),
        ({"model": "convnet", "filters": (2,) * 5}, ["pool_5", "1x1"]),
        ({"model": "bottleneck", "pool_sizes": (2, 5)}, ["pool_2", "4x4"]),
        ({"model": "lenet", "kernel_size": 11}, ["pool_2", "1x1"]),
        ({"model": "lenet", "kernel_size": 13}, ["--kernel_size=13", "conv_2"]),
    ],
)
def test_an_impossible_shape_names_the_knob(settings, words):
    with pytest.raises(UsageError) as caught:
        build_model(Config(**settings), DIGITS)
    assert all(word in str(caught.value) for word in words), caught.value


def test_pytorchs_weights_are_uniform_within_the_root_of_the_fan_in():
    """As torch.nn.Conv2d(1, 32, 3) and Linear(9216, 128) have them."""
    keras.utils.set_random_seed(0)
    model = build_model(Config(model="tutorial", initializer="pytorch"), DIGITS)
    for name, fan_in in (("conv_1", 9), ("dense_1", 9216), ("logits", 128)):
        kernel, bias = map(np.ravel, model.get_layer(name).get_weights())
        bound = fan_in**-0.5
        for drawn in (kernel, bias):
            assert np.abs(drawn).max() <= bound
            uniform = scipy.stats.uniform(-bound, 2 * bound)
            assert scipy.stats.kstest(drawn, uniform.cdf).pvalue > 1e-3
        assert not np.allclose(kernel[: len(bias)], bias)


@pytest.mark.parametrize("size", [5, 4])
def test_identity_weights_pass_the_inputs_on(size):
    config = Config(
        model="convnet", batch_norm=0, initializer="identity", kernel_size=size
    )
    model = build_model(config, DIGITS)
    images = np.random.default_rng(0).random((2, 14, 14, 16), np.float32)
    seen = np.asarray(model.get_layer("conv_2")(images))
    kernel, bias = model.get_layer("conv_2").get_weights()
    np.testing.assert_allclose(seen[..., :16], images + bias[:16], atol=1e-6)
    bound = (size**2 * 16) ** -0.5
    assert 0 < np.abs(kernel[..., 16:]).max() <= bound
    assert kernel[..., 16:].std() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("glorot_uniform", 2 / (9216 + 128)),
        ("he_normal", 2 / 9216),
        ("lecun_normal", 1 / 9216),
    ],
)
def test_initial_weights_have_the_variance_that_their_source_says(
    initializer, variance
):
    config = Config(model="tutorial", initializer=initializer)
    kernel, bias = build_model(config, DIGITS).get_layer("dense_1").get_weights()
    assert kernel.var() == pytest.approx(variance, rel=0.02)
    assert not bias.any()


def test_layers_of_one_shape_begin_with_different_weights():
    config = Config(model="mlp", dense_units=(50, 50, 50), initializer="he_normal")
    model = build_model(config, DIGITS)
    second, third = (model.get_layer(f"dense_{i}").kernel.numpy() for i in (2, 3))
    assert not np.allclose(second, third)


def test_policy_holds_in_the_layers_and_not_after():
    import keras

    model = build_model(Config(model="convnet"), DIGITS, policy="mixed_bfloat16")
    assert model.get_layer("conv_1").compute_dtype == "bfloat16"
    assert model.get_layer("conv_1").variable_dtype == "float32"
    assert model.get_layer("logits").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_flops_by_hand():
    summary = model_summary(build_model(Config(model="tutorial"), DIGITS))
    by_name = {row["name"]: row["flops"] for row in summary["layers"]}
    assert by_name["conv_1"] == 26 * 26 * 32 * (2 * 9 + 1)
    assert by_name["conv_2"] == 24 * 24 * 64 * (2 * 9 * 32 + 1)
    assert by_name["dense_1"] == 128 * (2 * 9216 + 1)
    assert by_name["pool_1"] == 0
    assert summary["flops"] == sum(by_name.values())


def test_flops_agree_with_tensorflows_profiler():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = build_model(Config(model="lenet", activation="tanh"), DIGITS)
    call = tf.function(lambda x: model(x, training=False))
    spec = tf.TensorSpec((1, 28, 28, 1), tf.uint8)
    graph = convert_variables_to_constants_v2(call.get_concrete_function(spec)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    # TensorFlow also counts pooling and rescaling, a few percent.
    assert model_summary(model)["flops"] == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "steps", "momentum"),
    [
        ({"model": "convnet"}, 20, 0.5),
        ({"model": "convnet"}, 5, 0.0),
        ({"model": "convnet"}, 100, 0.9),
        ({"model": "convnet"}, 5000, 0.9),
        ({"model": "convnet", "batch_norm_momentum": 0.99}, 20, 0.99),
        ({"model": "tutorial", "batch_norm": 2}, 40, 0.75),
    ],
)
def test_batch_norm_keeps_up_in_a_short_run(settings, steps, momentum):
    config = Config(**settings)
    model = build_model(config, DIGITS)
    note = shorten_batch_norm(model, config, steps)
    norms = [layer for layer in model.layers if "batch_norm" in layer.name]
    assert [layer.momentum for layer in norms] == [momentum] * 2
    assert (note is not None) == (momentum < 0.9)


def test_without_batch_norm_there_is_nothing_to_shorten():
    config = Config(model="mlp")
    assert shorten_batch_norm(build_model(config, DIGITS), config, 3) is None


def test_predictions_are_not_compiled_on_a_gpu_either(monkeypatch):
    # There Keras would: half a minute for what takes a second.
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [gpu])
    assert keras.Sequential([keras.layers.Dense(1)]).jit_compile
    model = build_model(Config(model="mlp"), DIGITS)
    assert not model.jit_compile and not copy_of(model).jit_compile
