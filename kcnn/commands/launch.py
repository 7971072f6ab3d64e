"""Train one model by several processes on this machine, and keep them going.

Each takes a part of every batch, so that the result is that of kcnn train. When one is
killed, all start again from the last checkpoint. The chief's output is shown, that of
the others goes to MODEL_DIR/logs. On several machines, whatever starts the processes
sets TF_CONFIG: see docs/distributed.md.
"""

from __future__ import annotations

import sys

from absl.flags import FlagValues

from kcnn import flags
from kcnn.commands import train
from kcnn.errors import UsageError
from kcnn.jobs import threads_of
from kcnn.knobs import Knob
from kcnn.launch import Launcher
from kcnn.progress import Progress

USAGE = "kcnn launch --workers=N [--max_restarts=N] -- train [--flags of kcnn train]"

FLAGS = {
    "workers": Knob(
        "launch", None, "how many processes train together", low=1, high=256, kind=int
    ),
    "max_restarts": Knob(
        "launch",
        3,
        "how many times all are started again after one was killed",
        low=0,
        high=1_000_000,
        kind=int,
    ),
}


def define_knobs(values: FlagValues) -> None:
    """Define none: those of the training stand after the two dashes."""


def main(values: FlagValues, arguments: list[str]) -> int:
    """Launch the training that the arguments are of; returns the chief's status."""
    if values.workers is None:
        raise UsageError("--workers: say how many processes: --workers=2")
    if arguments[:1] != ["train"]:
        given = arguments[0] if arguments else "nothing"
        raise UsageError(f"expected -- train --flags at the end, got {given}")
    of_train = flags.of_command(train)
    run, config = train.plan(of_train, flags.parse(of_train, arguments[1:]))
    if config.strategy not in ("auto", "multi_worker"):
        raise UsageError(
            f"--strategy: got {config.strategy}, expected auto or multi_worker: the "
            "processes are workers of one training"
        )
    place = f"--model_dir={run.path}"
    begin = [*arguments[1:], place]
    resume = ["--resume", place, *(["--tensorboard"] if of_train.tensorboard else [])]
    threads = threads_of(values.workers)["OMP_NUM_THREADS"]
    progress = Progress(sys.stdout)
    progress.note(
        "launch", f"{values.workers} workers, each with {threads} of the cores"
    )
    return Launcher(
        values.workers,
        run,
        begin,
        resume=begin if of_train.resume else resume,
        most_restarts=flags.value_of(values, "max_restarts", FLAGS),
        tell=lambda text: progress.note("launch", text),
    ).run()
