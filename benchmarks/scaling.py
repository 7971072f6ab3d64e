"""What one GPU, several, and several machines would give: calculated, not measured.

    python benchmarks/scaling.py --steps=FILE,FILE --pipeline=FILE [--ASSUMPTION=...]

The files are what benchmarks/profile_step.py and benchmarks/input_pipeline.py write
with --output. A step of kcnn on each GPU is taken to be one thing after another:

    compute   = FLOP of an image's training step * batch / (peak * part of it reached)
    launch    = operations of a step * time to launch one
    copy      = bytes of the batch / bandwidth to the GPU
    gradients = ring(GPUs of a machine) + ring(machines), where
                ring(n) = 2 (n - 1) / n * 4 * parameters / bandwidth
                          + messages * 2 (n - 1) * latency
    messages  = 1, and 2 for each batch normalization, which is over the whole batch

as its gradients are added up after the last of them, in one message. Assumptions with
two values are a favourable and a cautious one; results go from one to the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
from typing import Any, NamedTuple

from kcnn.table import render

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Work:
    """A training step, of one image where nothing is said.

    Attributes:
        name: of the model.
        flop: forward and backward.
        operations: of a step, whatever its batch.
        parameters: that are trained.
        batch_norms: layers of batch normalization.
        image_bytes: as uint8.
        measured: images/s of the machine that the figures are from.
    """

    name: str
    flop: float
    operations: float
    parameters: int
    batch_norms: int
    image_bytes: int
    measured: float


@dataclasses.dataclass(frozen=True)
class Link:
    """What machines or GPUs tell each other by: bytes/s each way, seconds a message."""

    name: str
    bandwidth: float
    latency: float


class System(NamedTuple):
    """Machines with some GPUs each, and the network between them."""

    machines: int
    gpus: int
    network: Link | None = None


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What is assumed of a GPU: FLOP/s reached, seconds a launch, bytes/s from memory.

    Attributes:
        flop_per_second: of the peak, the part that is reached.
        launch: seconds.
        copy: bytes/s from the machine's memory to the GPU's.
    """

    flop_per_second: float
    launch: float
    copy: float


class Seconds(NamedTuple):
    """The parts of a step."""

    compute: float
    launch: float
    copy: float
    gradients: float


def ring(count: int, size: float, messages: int, link: Link | None) -> float:
    """Return the seconds in which `count` add up a vector of `size` bytes in a ring.

    `messages` are how many vectors there are; all but one are short.
    """
    if count == 1:
        return 0.0
    assert link is not None
    rounds = 2 * (count - 1)
    return rounds / count * size / link.bandwidth + messages * rounds * link.latency


def step_seconds(
    work: Work, batch: int, gpu: Gpu, system: System, inside: Link
) -> Seconds:
    """Return the seconds of a step with `batch` images on each GPU."""
    size, messages = FLOAT_BYTES * work.parameters, 1 + 2 * work.batch_norms
    return Seconds(
        compute=work.flop * batch / gpu.flop_per_second,
        launch=work.operations * gpu.launch,
        copy=work.image_bytes * batch / gpu.copy,
        gradients=ring(system.gpus, size, messages, inside)
        + ring(system.machines, size, messages, system.network),
    )


def limited(
    seconds: Seconds, batch: int, system: System, input_speed: float
) -> tuple[float, str]:
    """Return images/s of all GPUs, and what limits them.

    `input_speed` are the images/s that the input pipeline gives in one machine.
    """
    speed = system.machines * system.gpus * batch / sum(seconds)
    most = system.machines * input_speed
    if speed > most:
        return most, "input"
    longest = max(Seconds._fields, key=lambda part: getattr(seconds, part))
    return speed, longest


def row(
    work: Work,
    batch: int,
    gpus: tuple[Gpu, Gpu],
    system: System,
    inside: Link,
    speed_per_core: float,
    cores_per_gpu: int,
) -> dict[str, Any]:
    """Return a row of the table; `gpus` are the favourable and the cautious one."""
    both = [step_seconds(work, batch, gpu, system, inside) for gpu in gpus]
    most = speed_per_core * cores_per_gpu * system.gpus
    (best, first), (worst, second) = (limited(s, batch, system, most) for s in both)
    wanted = system.gpus * batch / sum(both[0])  # by one machine, if it could be
    return {
        "machines x GPUs": f"{system.machines} x {system.gpus}",
        "network": system.network.name if system.network else "",
        "batch of a GPU": batch,
        "compute": _range(*(1000 * s.compute for s in both)),
        "launch": _range(*(1000 * s.launch for s in both)),
        "copy": f"{1000 * both[0].copy:.2g}",
        "gradients": f"{1000 * both[0].gradients:.2g}",
        "images/s": _range(worst / 1000, best / 1000) + " k",
        "limit": first if first == second else f"{second}, {first}",
        "cores for input": f"{math.ceil(wanted / speed_per_core):,}",
    }


def _range(low: float, high: float) -> str:
    a, b = (f"{n:,.0f}" if n >= 100 else f"{n:.2g}" for n in (low, high))
    return a if a == b else f"{a} to {b}"


def work_of(figures: dict[str, Any]) -> Work:
    """Read what benchmarks/profile_step.py writes."""
    return Work(
        figures["model"],
        figures["flop_per_image"],
        figures["operations"],
        figures["parameters"],
        figures["batch_norms"],
        math.prod(figures["image_shape"]),
        figures["images_per_second"],
    )


def input_speed(figures: dict[str, Any], image_bytes: int) -> float:
    """Return images/s and core of images in memory, from benchmarks/input_pipeline.py.

    Of the rows with images of such a size, the fastest; where there is none, by bytes.
    """
    in_memory = [r for r in figures["rows"] if r["source"].startswith("arrays")]
    same = [r for r in in_memory if math.prod(r["image"]) == image_bytes]
    speeds = [
        r["images_per_second"] * math.prod(r["image"]) / image_bytes
        for r in same or in_memory
    ]
    return max(speeds) / figures["hardware"]["cores"]


def main() -> None:
    """Print the assumptions, and a table a model."""
    given = _parser().parse_args()
    gpus = tuple(
        Gpu(given.peak * 1e12 * part, launch / 1e6, given.pcie * 1e9)
        for part, launch in zip(given.part, given.launch, strict=True)
    )
    inside = Link("NVLink", given.nvlink * 1e9, given.nvlink_latency / 1e6)
    networks = [
        Link(f"{bits:g} Gbit/s", bits * 1e9 / 8, given.network_latency / 1e6)
        for bits in given.networks
    ]
    systems = [System(1, 1), System(1, 8), *(System(8, 1, n) for n in networks)]
    systems.append(System(8, 8, networks[-1]))
    pipeline = json.loads(pathlib.Path(given.pipeline).read_text())
    print("\n".join(_assumptions(given)))
    for path in given.steps:
        work = work_of(json.loads(pathlib.Path(path).read_text()))
        speed = input_speed(pipeline, work.image_bytes)
        print(
            f"\n{work.name}: {work.flop / 1e6:.3g} MFLOP an image, "
            f"{work.operations:.0f} operations a step, {work.parameters:,} parameters, "
            f"{work.batch_norms} batch normalizations, {work.image_bytes:,} bytes an "
            f"image\nmeasured: {work.measured:,.0f} images/s of training here, "
            f"{speed:,.0f} images/s of input a core\ncalculated, in milliseconds:\n"
        )
        rows = [
            row(work, batch, gpus, system, inside, speed, given.cores)
            for batch in given.batch_sizes
            for system in systems
        ]
        print(render(rows, "table", right=_RIGHT))


_RIGHT = ("compute", "launch", "copy", "gradients", "images/s", "cores for input")


def _assumptions(given: argparse.Namespace) -> list[str]:
    parts = " to ".join(f"{part:.0%}" for part in given.part)
    launches = " to ".join(f"{us:g}" for us in given.launch)
    return [
        f"assumed: {given.peak:,g} TFLOP/s of bfloat16 at most, {parts} of it reached;",
        f"{launches} us a launch; {given.pcie:g} GB/s to a GPU;",
        f"{given.cores} cores a GPU for input, which grows with them;",
        f"NVLink {given.nvlink:g} GB/s each way, "
        f"{given.nvlink_latency:g} us a message;",
        f"between machines {given.network_latency:g} us a message",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--steps", type=lambda text: text.split(","), required=True)
    add("--pipeline", required=True)
    add("--batch_sizes", type=_numbers(int), default=[128, 1024])
    add("--peak", type=float, default=989.5, help="TFLOP/s of a GPU, dense")
    add("--part", type=_numbers(float), default=[0.4, 0.2], help="of it: two values")
    add("--launch", type=_numbers(float), default=[5, 20], help="us: two values")
    add("--pcie", type=float, default=64, help="GB/s")
    add("--nvlink", type=float, default=450, help="GB/s each way")
    add("--nvlink_latency", type=float, default=5, help="us")
    add("--networks", type=_numbers(float), default=[10, 25, 100], help="Gbit/s")
    add("--network_latency", type=float, default=50, help="us")
    add("--cores", type=int, default=14, help="of a machine, for each GPU")
    return parser


def _numbers(kind: type):
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
