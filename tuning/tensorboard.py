"""TensorBoard logs of a search, with its HParams page, for those with the extra."""

from __future__ import annotations

import pathlib

from kcnn.tensorboard import log_row
from tuning.journal import Record
from tuning.objective import Objective
from tuning.oracles import encoded


def log_trial(folder: pathlib.Path, record: Record, objective: Objective) -> None:
    """Write a trial's knobs, score and epochs to a folder of its own.

    Args:
        folder: of all the search's logs.
        record: a trial that has ended; one without a score has its knobs alone.
        objective: what the score is.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    writer = tf.summary.create_file_writer(str(folder / f"trial-{record.number}"))
    with writer.as_default(step=0):
        values = {name: encoded(value) for name, value in record.values.items()}
        api.hparams(values, trial_id=str(record.number))
        for row in record.histories[0] if record.histories else []:
            log_row(row)
        if record.score is not None:
            tf.summary.scalar(f"score ({objective.title})", record.score)
    writer.close()
