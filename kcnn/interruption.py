"""Signals that ask a command to stop."""

from __future__ import annotations

import contextlib
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any

from kcnn.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within a `with` block, SIGINT and SIGTERM are noted instead of obeyed.

    `signal_number` is None until one comes. A second one acts at once, as it would
    have without the block, or where `then_dies` by ending the process, whatever it is
    in the middle of.
    """

    def __init__(self, then_dies: bool = False) -> None:
        self.signal_number: int | None = None
        self._then_dies = then_dies
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.signal_number = number
        if self._then_dies:
            _let_die()
        else:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stops_with(advice: Callable[[], str]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM within the block into Interrupted with an advice.

    A second one ends the process, whatever it is in the middle of.
    """

    def stop(number: int, frame: types.FrameType | None) -> None:
        _let_die()
        raise stopped_by(number, advice())

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_by(number: int, advice: str = "", where: str = "") -> Interrupted:
    """Return the error that names a signal and says what to do now."""
    said = f"stopped by {signal.Signals(number).name}{where}"
    return Interrupted(f"{said}; {advice}" if advice else said, number)


def _let_die() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
