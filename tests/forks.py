"""The command line in forks of a process that has imported TensorFlow, once.

Importing it takes most of a short command's time. `python -m tests.forks` reads jobs,
a line of JSON each, runs each in a fork of its own, and answers with a line: its exit
status, and how many operations on files it made. It has done nothing with TensorFlow
that a fork could not begin anew; what a command imports, and when, only a process of
its own can show (tests/test_cli.py).
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

OPERATIONS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "open")


def _shim(count_file: str, kill_at: int | None) -> None:
    """Count what changes files, and die before number `kill_at`."""
    count = itertools.count()
    counter = pathlib.Path(count_file).open("w")  # noqa: SIM115

    def counted(function: Callable) -> Callable:
        def instead(*arguments, **kwargs):
            if function.__name__ != "open" or _writes(arguments, kwargs):
                number = next(count)
                counter.seek(0)
                counter.write(str(number + 1))
                counter.flush()
                if number == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **kwargs)

        return instead

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def _writes(arguments: Sequence, kwargs: Mapping) -> bool:
    flags = arguments[1] if len(arguments) > 1 else kwargs.get("flags", 0)
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _serve() -> None:
    import kcnn.cli
    import kcnn.commands.train
    import kcnn.pictures
    import kcnn.report
    import kcnn.trainer

    answers = os.fdopen(os.dup(1), "w")
    with os.fdopen(os.dup(0)) as jobs:
        for line in jobs:
            job = json.loads(line)
            child = os.fork()
            if child == 0:
                _become(job)
                _end_as_python_does(kcnn.cli.main)
            status = _wait(child, job["seconds"])
            count = 0
            if job["count_file"]:
                count = int(pathlib.Path(job["count_file"]).read_text() or 0)
            print(status, count, file=answers, flush=True)


def _become(job: Mapping[str, Any]) -> None:
    """Be the process that was asked for."""
    os.chdir(job["cwd"])
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_APPEND
        os.dup2(os.open(job[name], flags), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    if job["count_file"]:
        _shim(job["count_file"], job["writes"])
    sys.argv[1:] = job["arguments"]


def _end_as_python_does(main: Callable[[], int]) -> None:
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _wait(child: int, seconds: float) -> int:
    """Return the exit status, -9 for one killed when its time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(code)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Forks:
    """Asks the server for one command after the other."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "TF_CPP_MIN_LOG_LEVEL": "3",  # as kcnn sets it for the import
                "TMPDIR": self._folder.name,  # what the killed leave goes with it
            },
        )

    def run(
        self,
        *arguments: Any,
        cwd: str | os.PathLike,
        timeout: float = 900,
        text: bool = True,
        input: str | bytes = b"",
    ) -> subprocess.CompletedProcess:
        """Run a command as subprocess.run does, which captures its output."""
        folder = pathlib.Path(self._folder.name)
        data = input.encode() if isinstance(input, str) else input
        places = {name: folder / name for name in ("stdin", "stdout", "stderr")}
        places["stdin"].write_bytes(data)
        places["stdout"].write_bytes(b"")
        places["stderr"].write_bytes(b"")
        words = list(map(str, arguments))
        status, _ = self.ask(words, cwd, timeout, **places)
        output, error = (places[name].read_bytes() for name in ("stdout", "stderr"))
        if not text:
            return subprocess.CompletedProcess(words, status, output, error)
        return subprocess.CompletedProcess(
            words, status, output.decode(), error.decode()
        )

    def ask(
        self,
        arguments: Sequence[str],
        cwd: str | os.PathLike,
        seconds: float,
        *,
        stdin: str | os.PathLike = os.devnull,
        stdout: str | os.PathLike,
        stderr: str | os.PathLike,
        count_file: str | os.PathLike = "",
        writes: int | None = None,
    ) -> tuple[int, int]:
        """Run a command, its output appended to files that are there.

        Args:
            seconds: when it is killed at the latest.
            count_file: where operations on files are counted, if anywhere.
            writes: before which of them it is killed.

        Returns the exit status, -9 if it was killed, and the number of operations.
        """
        job = {
            "arguments": list(arguments),
            "cwd": os.fspath(cwd),
            "seconds": seconds,
            "stdin": os.fspath(stdin),
            "stdout": os.fspath(stdout),
            "stderr": os.fspath(stderr),
            "count_file": os.fspath(count_file),
            "writes": writes,
        }
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        status, count = self._server.stdout.readline().split()
        return int(status), int(count)

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


if __name__ == "__main__":
    _serve()
