"""The copies of a model that train together: one, one a GPU, or on several machines.

tf.distribute keeps the copies' variables and adds up what they compute. Every step's
batch is divided among them, and their sum is one optimizer step, so that the result
is that of one device, but for rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kcnn.cluster import Cluster, joined
from kcnn.errors import LostWorker, RunError, UsageError

# The seeds of two copies differ in this, an odd number far from 1, times their numbers.
_SEED_STEP = 0x9E3779B1

# What a collective operation ends with when another worker is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of `total` replicas one takes of each batch: `first` to before `end`.

    A batch is divided evenly. One with fewer images than replicas goes whole to each of
    them, and counts 1/total for each: none ever works on nothing.
    """

    first: int | tf.Tensor
    end: int | tf.Tensor
    total: int

    def bounds(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return from which image to before which, of a batch of int64 `size`."""
        first, end = (tf.cast(n, tf.int64) for n in (self.first, self.end))
        few = size < self.total
        begin = tf.where(few, tf.zeros_like(size), size * first // self.total)
        return begin, tf.where(few, size, size * end // self.total)

    def copies(self, size: tf.Tensor) -> tf.Tensor:
        """Return how many replicas get the same image: 1 or all, int64."""
        return tf.where(size < self.total, tf.constant(self.total, tf.int64), 1)


class Replicas:
    """One device and nothing of tf.distribute; `Several` is the others' form.

    Attributes:
        name: one, mirrored or multi_worker.
        reason: why it was chosen.
        count: how many copies there are, on all machines.
        cluster: the workers; None where there is but this process.
    """

    def __init__(self, reason: str = "as asked"):
        self.name = "one"
        self.reason = reason
        self.count = 1
        self.cluster: Cluster | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the training leaves."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def share(self) -> Share | None:
        """What of each batch this process reads; None: all."""
        return None

    def note(self) -> dict[str, Any]:
        """Return what config.json keeps of it."""
        workers = len(self.cluster) if self.cluster else 1
        about = {"name": self.name, "reason": self.reason}
        return about | {"replicas": self.count, "workers": workers}

    def scope(self) -> contextlib.AbstractContextManager:
        """Return a context in which variables get a copy on every device."""
        return contextlib.nullcontext()

    def size(self, batch: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return how many images all of the batch has that this is a part of."""
        return tf.shape(batch[0])[0]

    def sum(
        self, function: Callable[..., Sequence[tf.Tensor]], batch: Sequence[tf.Tensor]
    ) -> Sequence[tf.Tensor]:
        """Return what a function of a part of a batch adds up to over all its parts.

        Args:
            function: takes the size of the batch, how many parts each image is in, both
                float32, and a part of `batch`.
            batch: an element of `pipeline.training_batches`, of this process's share.
        """
        return function(tf.cast(self.size(batch), tf.float32), 1.0, *batch)

    def scatter_seeds(self, model: keras.Model) -> None:
        """Have each copy draw random numbers of its own, by the first one's state."""

    def first_seed(self, seed: np.ndarray) -> np.ndarray:
        """Return the state of the first copy of all, by that of the first one here."""
        return seed

    def agree(self, steps: int, signal_number: int | None) -> tuple[int, int | None]:
        """Return the chief's number of steps, and a signal that came to any worker."""
        return steps, signal_number

    def from_chief(
        self, compute: Callable[[], Sequence[float]], length: int
    ) -> list[float]:
        """Return so many numbers that the chief computes, in every worker."""
        return list(compute())

    @contextlib.contextmanager
    def losing(self) -> Iterator[None]:
        """Turn the end of another worker, within the block, into LostWorker."""
        yield


class Several(Replicas):
    """Copies on several devices, of this machine or of a cluster.

    Args:
        name: mirrored or multi_worker.
        reason: why it was chosen.
        strategy: of tf.distribute, of the same kind.
        cluster: the workers.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        strategy: tf.distribute.Strategy,
        cluster: Cluster | None = None,
    ):
        super().__init__(reason)
        self.name = name
        self.cluster = cluster
        self.count = strategy.num_replicas_in_sync
        self._strategy = strategy
        self._index = cluster.index if cluster else 0
        self._workers = len(cluster) if cluster else 1
        self._here = self.count // self._workers
        self._sum_of_workers = tf.function(self._sum_values)

    @property
    def share(self) -> Share:
        """What of each batch this process reads."""
        first = self._index * self._here
        return Share(first, first + self._here, self.count)

    def scope(self) -> contextlib.AbstractContextManager:
        """Return a context in which variables get a copy on every device."""
        return self._strategy.scope()

    def size(self, batch: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return how many images all of the batch has that this is a part of."""
        return batch[0]

    def sum(
        self, function: Callable[..., Sequence[tf.Tensor]], batch: Sequence[tf.Tensor]
    ) -> Sequence[tf.Tensor]:
        """Return what a function of a part of a batch adds up to over all its parts.

        What comes out travels as one vector: a message costs more than its bytes.
        """
        size, *own = batch
        start, _ = self.share.bounds(size)
        shapes: list[tf.TensorShape] = []

        def part() -> tf.Tensor:
            number = _number()
            share = Share(number, number + 1, self.count)
            begin, end = share.bounds(size)
            with tf.device("CPU"):  # no more than the part goes to its device
                mine = [tensor[begin - start : end - start] for tensor in own]
            counts = (tf.cast(n, tf.float32) for n in (size, share.copies(size)))
            found = function(*counts, *mine)
            shapes[:] = [tensor.shape for tensor in found]
            return tf.concat([tf.reshape(tensor, [-1]) for tensor in found], 0)

        vector = self._strategy.reduce("SUM", self._strategy.run(part), axis=None)
        parts = tf.split(vector, [shape.num_elements() for shape in shapes])
        return [tf.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]

    def scatter_seeds(self, model: keras.Model) -> None:
        """Have each copy draw random numbers of its own, by the first one's state."""
        for variable in seeds_of(model):
            first = variable.numpy()
            copies = self._strategy.experimental_local_results(variable.value)
            for number, copy in enumerate(copies, self._index * self._here):
                copy.assign(_moved(first, number))

    def first_seed(self, seed: np.ndarray) -> np.ndarray:
        """Return the state of the first copy of all, by that of the first one here."""
        return _moved(seed, -self._index * self._here)

    def agree(self, steps: int, signal_number: int | None) -> tuple[int, int | None]:
        """Return the chief's number of steps, and a signal that came to any worker."""
        if self._workers == 1:
            return steps, signal_number
        said = np.zeros(1 + self._workers)
        said[0] = steps * self.is_chief
        said[1 + self._index] = signal_number or 0
        found = self._over_workers(said)
        signals = [int(number) for number in found[1:] if number]
        return int(found[0]), signals[0] if signals else None

    def from_chief(
        self, compute: Callable[[], Sequence[float]], length: int
    ) -> list[float]:
        """Return so many numbers that the chief computes, in every worker."""
        if self._workers == 1:
            return list(compute())
        values = compute() if self.is_chief else [0.0] * length
        return self._over_workers(np.array(values, np.float64)).tolist()

    @contextlib.contextmanager
    def losing(self) -> Iterator[None]:
        """Turn the end of another worker, within the block, into LostWorker."""
        try:
            yield
        except _LOST as error:
            if self._workers == 1:
                raise
            raise LostWorker(
                f"another of the {self._workers} workers is gone, or was silent for "
                f"too long ({type(error).__name__})"
            ) from error

    def _over_workers(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of every worker's (n,) float64 vector."""
        return self._sum_of_workers(tf.constant(values, tf.float64)).numpy()

    def _sum_values(self, values: tf.Tensor) -> tf.Tensor:
        def of_the_first() -> tf.Tensor:
            is_first = tf.equal(_number() % self._here, 0)
            return tf.where(is_first, values, tf.zeros_like(values))

        return self._strategy.reduce("SUM", self._strategy.run(of_the_first), axis=None)


def _number() -> tf.Tensor:
    """Return which of all replicas the calling one is, int64."""
    context = tf.distribute.get_replica_context()
    return tf.cast(context.replica_id_in_sync_group, tf.int64)


def _moved(seed: np.ndarray, number: int) -> np.ndarray:
    """Return the state of a generator whose copy is so many further, (2,)."""
    found = seed.astype(np.uint64)
    found[0] = (int(found[0]) + number * _SEED_STEP) % 2**64
    return found.astype(seed.dtype)


def seeds_of(model: keras.Model) -> list[keras.Variable]:
    """Return the states of a model's random number generators, (2,) each."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def choose(requested: str) -> Replicas:
    """Return the replicas for `--strategy`.

    auto is multi_worker in a cluster of several workers, else mirrored where there are
    several GPUs, else one. A cluster's have to be chosen before TensorFlow computes
    anything; this waits for all of its workers.

    Raises:
        UsageError: mirrored with one device, or multi_worker without a cluster.
        RunError: this worker's port is taken, or TensorFlow was used before.
    """
    workers = joined(requested)
    gpus = len(tf.config.list_physical_devices("GPU"))
    name, reason = decide(requested, workers, gpus)
    if name == "multi_worker":
        return Several(name, reason, _strategy_of_workers(), workers)
    if name == "mirrored":
        devices = [d.name for d in tf.config.list_logical_devices("GPU")]
        # Several processors are what a test makes of one.
        devices = devices or [d.name for d in tf.config.list_logical_devices("CPU")]
        if len(devices) == 1:
            raise UsageError(
                f"--strategy=mirrored: there is one device, {devices[0]}, expected "
                "several; use --strategy=one"
            )
        return Several(name, reason, tf.distribute.MirroredStrategy(devices))
    return Replicas(reason)


def decide(requested: str, workers: Cluster | None, gpus: int) -> tuple[str, str]:
    """Return the strategy for `--strategy`, and why.

    Args:
        requested: the knob's value.
        workers: the cluster that this process has joined.
        gpus: how many TensorFlow sees.
    """
    if requested != "auto":
        return requested, "as asked"
    if workers is not None:
        return "multi_worker", f"TF_CONFIG names {len(workers)} workers"
    if gpus > 1:
        return "mirrored", f"there are {gpus} GPUs"
    return "one", "there is one device"


def _strategy_of_workers() -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:  # TensorFlow has computed something already
        raise RunError(f"--strategy=multi_worker: {error}") from None
    except tf.errors.OpError as error:
        raise LostWorker(
            f"the workers cannot be connected: {error.message.splitlines()[0]}"
        ) from None
