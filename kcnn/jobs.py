"""Processes of a sweep: how many at a time, each dying with its parent; the lock.

Linux kills the children when the parent dies, however it dies. Elsewhere they train
on to their end; they hold the folder's lock as long, so that no second sweep starts
beside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO

from kcnn.errors import UsageError

_CORES_A_JOB = 2
_MEMORY_A_JOB = 2 * 2**30  # bytes; TensorFlow alone takes a quarter of it
_PATIENCE_SECONDS = 10  # for the children of a killed sweep to be gone
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def default_jobs() -> int:
    """Return how many runs go at a time where nothing is said.

    One where there is a GPU: a run takes all of its memory. Else one for every two
    cores and every 2 GiB of memory that is available, at least one.
    """
    if _has_gpu():
        return 1
    by_memory = _available_memory() // _MEMORY_A_JOB
    return max(1, min(_cores() // _CORES_A_JOB, by_memory))


def _has_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    found = pathlib.Path("/dev").glob("nvidia[0-9]*")
    return any(found) or pathlib.Path("/dev/kfd").exists()  # kfd: AMD


def _cores() -> int:
    """Return the cores that this process may use, also in a container."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return min(cores, int(quota) // int(period)) if quota.isdigit() else cores


def _available_memory() -> int:
    """Return bytes; 2**63 where the system does not say."""
    available = 2**63
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
        available = int(found[1]) * 1024 if found else available
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdigit() and used.isdigit():
        available = min(available, int(limit) - int(used))
    return available


def _cgroup(name: str) -> str:
    """Return a limit of the container that this process is in, "" without one."""
    try:
        return pathlib.Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


class FolderLock:
    """Within a `with` block, no other sweep, or what `of` names, writes in the folder.

    The lock is the system's own (flock), which ends with the processes that hold it:
    a lock file that a killed sweep left locks nothing. `descriptor` is handed to the
    children, which hold the lock too.
    """

    def __init__(self, folder: pathlib.Path, of: str = "sweep"):
        self._folder = folder
        self._of = of
        self._file: IO[str] | None = None

    @property
    def descriptor(self) -> int:
        """The open lock file."""
        assert self._file is not None
        return self._file.fileno()

    def __enter__(self) -> FolderLock:
        self._file = (self._folder / f".{self._of}.lock").open("a+")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._taken():
            self._file.seek(0)
            owner = self._file.read().strip()
            if _lives(owner):
                self._file.close()
                raise UsageError(
                    f"--model_dir={self._folder}: a {self._of} is running there "
                    f"already (process {owner})"
                )
            if time.monotonic() > deadline:
                self._file.close()
                raise UsageError(
                    f"--model_dir={self._folder}: runs of a {self._of} that was killed "
                    "are still going there; wait for them or end them"
                )
            time.sleep(0.1)
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._file is not None
        self._file.close()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


class Job:
    """One kcnn train, or another command, in a process of its own with a log file.

    `environment` is added to this process's.
    """

    def __init__(
        self,
        arguments: list[str],
        log: pathlib.Path,
        lock: FolderLock,
        command: str = "train",
        environment: Mapping[str, str] | None = None,
    ):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self._log = log
        self._command = command
        with log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kcnn", command, *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C comes once, from the parent
                pass_fds=(lock.descriptor,),
                preexec_fn=_die_with_parent(os.getpid()),
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
        with self._log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Return what the child does between fork and exec."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's & has it ignored
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return prepare
