"""What each replica takes of a batch, and that the sum is what one device computes."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from kcnn import datasets, pipeline, replicas
from kcnn.cluster import Cluster
from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.fresh import FreshModel
from kcnn.optimization import build_schedule
from kcnn.replicas import Replicas, Several, Share


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
    assert 1 <= min(lengths) and max(lengths) - min(lengths) <= 1
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
    with pytest.raises(UsageError, match="there is one device.*use --strategy=one"):
        replicas.choose("mirrored")


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
    return [*loop.weights(), np.array(loop.totals()[:2] if False else 0)]


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


def on_devices(count, code):
    """Run code in a process of its own that has so many processors for devices."""
    begin = f"""
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
one = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [one] * {count})
import numpy as np
from tests.test_replicas import *
crew = replicas.choose("mirrored")
assert crew.count == {count}
"""
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def stripes(tmp_path, n=90):
    from tests.conftest import write_npz

    return write_npz(tmp_path / "a.npz", n_train=n)
