"""Processes of a sweep: how many at a time, each dying with its parent.

Linux kills the children when the parent dies, however it dies. Elsewhere they train
on to their end; they hold the folder's lock as long, so that no second sweep starts
beside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from kcnn import memory, runtime
from kcnn.locks import FolderLock

_CORES_A_JOB = 2
_MEMORY_A_JOB = 2 * 2**30  # bytes; TensorFlow alone takes a quarter of it
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def default_jobs() -> int:
    """Return how many runs go at a time where nothing is said.

    One where there is a GPU: a run takes all of its memory. Else one for every two
    cores and every 2 GiB of memory that is available, at least one.
    """
    if _has_gpu():
        return 1
    by_memory = memory.available() // _MEMORY_A_JOB
    return max(1, min(runtime.cores() // _CORES_A_JOB, by_memory))


def threads_of(count: int) -> dict[str, str]:
    """Return what of the environment has `count` processes share the cores."""
    threads = str(max(1, runtime.cores() // count))
    return {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}


def _has_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    found = pathlib.Path("/dev").glob("nvidia[0-9]*")
    return any(found) or pathlib.Path("/dev/kfd").exists()  # kfd: AMD


class Job:
    """One kcnn train, or another command, in a process of its own.

    Args:
        arguments: of the command.
        log: where its output goes; None: where that of this process goes.
        lock: of a folder, which the process holds too.
        command: its name.
        environment: added to this process's.
    """

    def __init__(
        self,
        arguments: list[str],
        log: pathlib.Path | None,
        lock: FolderLock | None = None,
        command: str = "train",
        environment: Mapping[str, str] | None = None,
    ):
        self.began = time.monotonic()
        self._log = log
        self._command = command
        with contextlib.ExitStack() as stack:
            output = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(log.open("ab"))
                self._begin = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kcnn", command, *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C comes once, from the parent
                pass_fds=() if lock is None else (lock.descriptor,),
                preexec_fn=die_with_parent(os.getpid()),
            )

    @property
    def status(self) -> int | None:
        """The exit status, minus the signal that killed it, or None: running."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.began

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, if it is still running."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def epoch(self) -> tuple[int, int]:
        """Return the last epoch done and how many there are; (0, 0) before the first.

        Epochs are read from the lines of the log.
        """
        found = re.findall(r"^epoch +(\d+)/(\d+) ", self._text(), re.M)
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)

    def reason(self) -> str:
        """Return in one line why the process failed."""
        status = self._process.returncode
        if status == -signal.SIGKILL:
            return "killed by SIGKILL, perhaps for want of memory: try fewer at a time"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}; see {self._log}"
        lines = [line for line in self._text().splitlines() if line.strip()]
        name = f"kcnn {self._command}: "
        told = [line for line in lines if line.startswith(name)]
        if told:
            return told[-1].removeprefix(name)
        return f"{lines[-1].strip() if lines else 'no word'}; see {self._log}"

    def _text(self) -> str:
        assert self._log is not None
        with self._log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return what a child of `parent` does between fork and exec."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's & has it ignored
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return prepare
