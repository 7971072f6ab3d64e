"""What each replica takes of a batch, and that the sum is what one device computes."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from kcnn import datasets, pipeline, replicas, runtime
from kcnn.batches import steps_per_epoch
from kcnn.cluster import Cluster
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fresh import FreshModel
from kcnn.layers import BatchNormalization
from kcnn.models import build_model
from kcnn.optimization import build_schedule
from kcnn.replicas import Replicas, Several, Share
from kcnn.spec import ImageSpec


def bounds(size, first, end, total):
    found = Share(first, end, total).bounds(tf.constant(size, tf.int64))
    return tuple(int(n) for n in found)


@pytest.mark.parametrize("total", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 100])
def test_a_batch_is_divided_evenly_and_whole(size, total):
    parts = [bounds(size, i, i + 1, total) for i in range(total)]
    copies = int(Share(0, 1, total).copies(tf.constant(size, tf.int64)))
    if size < total:
        assert parts == [(0, size)] * total and copies == total
        return
    lengths = [end - begin for begin, end in parts]
    assert copies == 1 and sum(lengths) == size
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
    assert [begin for begin, _ in parts[1:]] == [end for _, end in parts[:-1]]


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_a_worker_reads_what_its_replicas_take(size):
    """Two workers of two replicas each."""
    for first in (0, 2):
        begin, end = bounds(size, first, first + 2, 4)
        parts = [bounds(size, i, i + 1, 4) for i in (first, first + 1)]
        assert (begin, end) == (parts[0][0], parts[1][1])


def test_the_shares_of_all_workers_are_the_batch(npz):
    config = Config(dataset=f"npz:{npz}", batch_size=7, epochs=1)
    train = datasets.load(config).train
    whole = list(pipeline.training_batches(train, config, 3))
    for total in (2, 3):
        shares = [
            list(
                pipeline.training_batches(
                    train, config, 3, share=Share(i, i + 1, total)
                )
            )
            for i in range(total)
        ]
        for (images, labels), *parts in zip(whole, *shares, strict=True):
            assert {int(part[0]) for part in parts} == {len(images)}
            if len(images) >= total:
                both = (tf.concat([p[i] for p in parts], 0) for i in (1, 2))
                for found, expected in zip(both, (images, labels), strict=True):
                    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("requested", "workers", "gpus", "name", "reason"),
    [
        ("auto", None, 0, "one", "one device"),
        ("auto", None, 1, "one", "one device"),
        ("auto", None, 2, "mirrored", "2 GPUs"),
        ("auto", Cluster(("a:1", "b:1"), 1), 2, "multi_worker", "names 2 workers"),
        ("one", None, 2, "one", "as asked"),
        ("multi_worker", Cluster(("a:1",), 0), 0, "multi_worker", "as asked"),
    ],
)
def test_what_is_chosen_and_why(requested, workers, gpus, name, reason):
    found, why = replicas.decide(requested, workers, gpus)
    assert found == name and reason in why


def test_mirrored_needs_several_devices():
    if len(tf.config.list_logical_devices()) > 1:
        pytest.skip("there are several devices")
    with pytest.raises(UsageError, match=r"there is one device.*use --strategy=one"):
        replicas.choose("mirrored")


def test_what_trains_on_one_device_refuses_to_ignore_the_strategy(npz):
    config = Config(dataset=f"npz:{npz}", strategy="mirrored")
    data = datasets.load(config)
    with pytest.raises(UsageError, match="--strategy: got mirrored, expected auto or"):
        FreshModel.build(config, data.spec, data.train, 20)


def test_xla_is_refused_on_several_devices():
    model = build_model(Config(), ImageSpec(28, 28, 1, tuple("0123456789")))
    assert runtime.choose_jit(Config(), model, 2) is False
    with pytest.raises(UsageError, match="--jit_compile=on: XLA cannot compile a step"):
        runtime.choose_jit(Config(jit_compile="on"), model, 2)


def test_the_choice_is_told_and_kept(npz, tmp_path):
    assert replicas.choose("auto").note() == {
        "name": "one",
        "reason": "there is one device",
        "replicas": 1,
        "workers": 1,
    }


def weights_after(config, steps, crew):
    data = datasets.load(config)
    fresh = FreshModel.build(config, data.spec, data.train, 20, crew)
    loop = fresh.loop(config, build_schedule(config, 20))
    share = crew.share
    batches = pipeline.training_batches(data.train, config, 3, share=share)
    loop.run(iter(batches), steps)
    totals = loop.totals()
    return [*loop.weights(), np.array([totals.loss, totals.accuracy])]


def test_a_worker_puts_its_random_seeds_back_where_they_were(npz):
    """What a state holds is the chief's: any worker can go on from it."""
    config = Config(dataset=f"npz:{npz}", model="mlp", dropout=0.2)
    data = datasets.load(config)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    states, seeds = [], []
    for index in (0, 1):
        crew = replicas.Several("mirrored", "as asked", strategy)
        crew._index = index
        fresh = FreshModel.build(config, data.spec, data.train, 20, crew)
        loop = fresh.loop(config, build_schedule(config, 20))
        (seed,) = replicas.seeds_of(loop.model)
        before = seed.numpy()
        for _ in range(2):
            states.append(loop.state())
            loop.restore(states[-1])
            np.testing.assert_array_equal(seed.numpy(), before)
        seeds.append(before)
    assert seeds[0][0] != seeds[1][0]
    for state in states[1:]:
        for a, b in zip(state, states[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_replica_of_a_strategy_is_one_device(npz):
    """The way through tf.distribute, in this process."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    config = Config(
        dataset=f"npz:{npz}",
        model="mlp",
        dense_units=(5,),
        batch_size=32,
        precision="float32",
        dropout=0.2,
        ema_momentum=0.5,
    )
    expected = weights_after(config, 4, Replicas())
    found = weights_after(config, 4, Several("mirrored", "", strategy))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


ON_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
one = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [one] * int(sys.argv[1]))
from tests import test_replicas
getattr(test_replicas, sys.argv[2])(sys.argv[3])
"""


def on_devices(count, function, *arguments):
    """Call one of these functions where so many processors are the devices."""
    done = subprocess.run(
        [sys.executable, "-c", ON_DEVICES, str(count), function.__name__, *arguments],
        capture_output=True,
        text=True,
        timeout=1800,  # a busy machine
    )
    assert done.returncode == 0, done.stderr[-3000:]


PLAIN = {"model": "lenet", "precision": "float32", "learning_rate": 0.01}
RECIPES = [
    PLAIN | {"batch_size": 22, "class_weight": "balanced", "keep": "last"},
    PLAIN | {"batch_size": 89, "clip_norm": 0.1, "optimizer": "sgd"},
    # Batches of 2 images and of 1: fewer than there are devices.
    PLAIN | {"batch_size": 2, "train_size": 3, "class_weight": "balanced"},
    PLAIN | {"weight_decay": 0.1, "optimizer": "adamw", "ema_momentum": 0.9},
    PLAIN | {"label_smoothing": 0.1, "optimizer": "rmsprop", "batch_size": 45},
]


@pytest.mark.slow
def test_three_devices_compute_what_one_does(npz):
    on_devices(3, compare_with_one_device, str(npz))


def compare_with_one_device(npz):
    crew = replicas.choose("mirrored")
    assert crew.count == 3 and crew.note()["name"] == "mirrored"
    for recipe in RECIPES:
        config = Config(dataset=f"npz:{npz}", validation_fraction=0, epochs=9, **recipe)
        steps = steps_per_epoch(len(datasets.load(config).train), config.batch_size)
        expected = weights_after(config, 2 * steps, Replicas())
        found = weights_after(config, 2 * steps, crew)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=str(recipe))


@pytest.mark.slow
def test_batch_normalization_is_of_the_whole_batch(npz):
    on_devices(3, compare_batch_normalization, str(npz))


def compare_batch_normalization(_):
    """Of images whose mean is a hundred deviations: sums of squares would not do."""
    random = np.random.default_rng(0)
    x = random.normal(100.0, 1.0, (7, 5, 5, 3)).astype("float32")
    upstream = random.normal(size=x.shape).astype("float32")
    alone = of_batch_normalization(Replicas(), x, upstream)
    together = of_batch_normalization(replicas.choose("mirrored"), x, upstream)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def of_batch_normalization(crew, x, upstream):
    """Return gradients, sums over the outputs, and the weights after a step."""
    with crew.scope():
        layer = BatchNormalization(momentum=0.9)
        layer.build(x.shape)

    def part(size, copies, x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            value = tf.reduce_sum(y * upstream)
        own, *others = tape.gradient(value, [x, *layer.trainable_variables])
        return [*others, tf.reduce_sum(own**2), tf.reduce_sum(tf.abs(y))]

    @tf.function
    def step():
        batch = (tf.constant(x), tf.constant(upstream))
        size = () if crew.share is None else (tf.constant(len(x), tf.int64),)
        return crew.sum(part, (*size, *batch))

    return [*(value.numpy() for value in step()), *layer.get_weights()]


@pytest.mark.slow
def test_each_device_has_seeds_of_its_own_that_repeat(npz):
    on_devices(2, compare_seeds, str(npz))


def compare_seeds(npz):
    crew = replicas.choose("mirrored")
    config = Config(dataset=f"npz:{npz}", dropout=0.5, translate=0.1, batch_size=32)
    first, again = (weights_after(config, 4, crew) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    data = datasets.load(config)
    fresh = FreshModel.build(config, data.spec, data.train, 20, crew)
    loop = fresh.loop(config, build_schedule(config, 20))
    batches = iter(pipeline.training_batches(data.train, config, 3, share=crew.share))
    loop.run(batches, 2)
    state = loop.state()
    for variable in replicas.seeds_of(loop.model):
        own = [tuple(copy.numpy()) for copy in variable.value.values]
        assert own[0][0] != own[1][0] and own[0][1] == own[1][1] > 0
    loop.run(batches, 2)
    other = FreshModel.build(config, data.spec, data.train, 20, crew)
    resumed = other.loop(config, build_schedule(config, 20))
    resumed.restore(state)
    rest = pipeline.training_batches(
        data.train, config, 3, start_step=2, share=crew.share
    )
    resumed.run(iter(rest), 2)
    for a, b in zip(resumed.weights(), loop.weights(), strict=True):
        np.testing.assert_array_equal(a, b)
