"""What has happened in a run so far, besides the weights; JSON in a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class History:
    """Rows of metrics.csv, and every counter that decides how the run goes on."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    lowest_loss: float = float("inf")  # for early stopping, of any epoch
    epochs_without_progress: int = 0
    first_step_seconds: float = 0.0
    epoch_seconds: float = 0.0  # of the epoch under way
    checkpoint_seconds: float = 0.0  # spent on writing checkpoints
    stopped_early: bool = False
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, row: dict[str, Any], patience: int) -> bool:
        """Take in an epoch's row; tell whether the epoch is the best so far.

        Args:
            row: with val_loss and val_accuracy, None where there is no validation.
            patience: of early stopping; 0 never stops.
        """
        self.rows.append(row)
        if row["val_loss"] is None:
            return False
        score = (row["val_accuracy"], -row["val_loss"])
        is_best = score > (self.best_accuracy, -self.best_loss)
        if is_best:
            self.best_epoch = row["epoch"]
            self.best_accuracy, self.best_loss = row["val_accuracy"], row["val_loss"]
        if row["val_loss"] < self.lowest_loss:
            self.lowest_loss = row["val_loss"]
            self.epochs_without_progress = 0
        else:
            self.epochs_without_progress += 1
        if patience and self.epochs_without_progress >= patience:
            self.stopped_early = True
        return is_best
