"""What a person sees of a training: a live line on a terminal, else a line an epoch."""

from __future__ import annotations

import io
import shutil
import time
from typing import Any, TextIO

_REFRESH_SECONDS = 0.2


class Output:
    """A stream to write to whose reader may go, such as head, without harm."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream or io.StringIO()  # closed by the caller: >&-
        self._reader_gone = False
        self.is_terminal = self._stream.isatty()

    def write(self, text: str) -> None:
        """Write at once; what nobody reads any more is dropped."""
        if self._reader_gone:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self._reader_gone = True


class Progress:
    """Prints notes, the steps of an epoch, and a line for each epoch done."""

    def __init__(self, stream: TextIO | None):
        self._output = Output(stream)
        self._live = self._output.is_terminal
        self._width = 0
        self._shown = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """End a live line, so that an error stands on one of its own."""
        if self._width:
            self._output.write("\n")
            self._width = 0

    def note(self, topic: str, text: str) -> None:
        """Print a line with its topic in a column of its own."""
        self._line(f"{topic:<10} {text}")

    def step(self, text: str, seconds_left: float | None) -> None:
        """Show how far the epoch is, on a terminal, a few times a second."""
        now = time.monotonic()
        if not self._live or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        left = "" if seconds_left is None else f"  {duration(seconds_left)} left"
        line = (text + left)[: shutil.get_terminal_size().columns - 1]
        self._output.write("\r" + line.ljust(self._width))
        self._width = len(line)

    def epoch(
        self, row: dict[str, Any], epochs: int, seconds_left: float | None
    ) -> None:
        """Print the line of a finished epoch."""
        width = len(str(epochs))
        text = (
            f"epoch {row['epoch']:>{width}}/{epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.2%}"
        )
        if row["val_loss"] is not None:
            text += (
                f"  val_loss {row['val_loss']:.4f}  "
                f"val_accuracy {row['val_accuracy']:.2%}"
            )
        text += f"  {row['seconds']:.1f} s  {row['images_per_second']:,.0f} images/s"
        if seconds_left is not None:
            text += f"  {duration(seconds_left)} left"
        self._line(text)

    def _line(self, text: str) -> None:
        if self._live:
            text = "\r" + text.ljust(self._width)
            self._width = 0
        self._output.write(text + "\n")


def duration(seconds: float) -> str:
    """Return seconds as a person reads them: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
