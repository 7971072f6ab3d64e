"""One program at a time, in a process of its own, with the memory that it took."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from kcnn.errors import RunError
from kcnn.jobs import die_with_parent

_LAST_LINES = 3
# What the system counts memory in, see getrusage.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclasses.dataclass(frozen=True)
class Finished:
    """What came of a process: its standard output, its peak resident memory."""

    output: str
    peak_memory_mib: float


def run(
    command: Sequence[str],
    name: str,
    folder: pathlib.Path,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command to its end; whatever happens here, it does not outlive this call.

    The peak is no less than what this process, which is copied, has itself: it must not
    import TensorFlow.

    Args:
        command: its words.
        name: what it is called in an error.
        folder: for its output.
        environment: variables beside those of this process.

    Raises:
        RunError: it failed; with the last lines that it wrote.
    """
    out, errors = folder / "output.txt", folder / "errors.txt"
    with out.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C comes once, to the parent
            preexec_fn=die_with_parent(os.getpid()),
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # with its own children
            process.wait()
            raise
    if process.returncode:
        raise RunError(f"{name} failed: {_reason(process.returncode, errors)}")
    mib = usage.ru_maxrss * _MAXRSS_BYTES / 2**20
    return Finished(out.read_text(errors="replace"), mib)


def _reason(status: int, errors: pathlib.Path) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    text = errors.read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_LAST_LINES:]) or f"exit status {status}, no word"
