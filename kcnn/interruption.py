"""Signals that ask a training to stop between two steps."""

from __future__ import annotations

import signal
import types
from typing import Any


class StopRequest:
    """Within a `with` block, SIGINT and SIGTERM are noted instead of obeyed.

    `signal_number` is None until one comes; a second one acts at once, as it would
    have without the block.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
