"""Real trainings that are killed: `python -m tests.killing` reads jobs, a line each.

A job is {"arguments": [...], "cwd": ..., "writes": n or null, "seconds": s or null}:
kcnn is run with the arguments and killed by SIGKILL before its n-th operation on
files, or after s seconds. The answer is a line: its status, and how many operations
there were. Each is a fork of a process that has imported TensorFlow, and done nothing
with it, which saves most of the time.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

_HANGS = 3600  # seconds, of which a busy machine can take hundreds

OPERATIONS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "open")


def _shim(count_file, kill_at):
    """Count what changes files, and die before number `kill_at`."""
    count = itertools.count()
    counter = pathlib.Path(count_file).open("w")  # noqa: SIM115
    counter.write("0")
    counter.flush()

    def counted(function):
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


def _writes(arguments, kwargs):
    flags = arguments[1] if len(arguments) > 1 else kwargs.get("flags", 0)
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _serve():
    import kcnn.cli
    import kcnn.commands.train
    import kcnn.pictures
    import kcnn.report
    import kcnn.trainer

    for line in sys.stdin:
        job = json.loads(line)
        count_file = job["cwd"] + "/operations"
        child = os.fork()
        if child == 0:
            os.chdir(job["cwd"])
            with open("log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            _shim(count_file, job.get("writes"))
            sys.argv[1:] = job["arguments"]
            os._exit(kcnn.cli.main())
        status = None
        deadline = time.monotonic() + (job.get("seconds") or _HANGS)
        while status is None and time.monotonic() < deadline:
            found, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if found else None
            time.sleep(0.02)
        if status is None:
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, pathlib.Path(count_file).read_text(), flush=True)


class Killer:
    """Asks the server for one training after the other."""

    def __init__(self, folder):
        self.folder = folder
        command = [sys.executable, "-m", "tests.killing"]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments, writes=None, seconds=None):
        """Return the exit status (-9: killed) and the number of operations."""
        assert self._server.stdin is not None and self._server.stdout is not None
        job = {"arguments": list(arguments), "cwd": str(self.folder)}
        job |= {"writes": writes, "seconds": seconds}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        status, count = self._server.stdout.readline().split()
        return int(status), int(count)

    def start_again(self):
        """Take away what earlier trainings left, but their data."""
        for name in ("run", "exports"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def log(self):
        """Return what the trainings said."""
        return (self.folder / "log").read_text()

    def close(self):
        """End the server."""
        self._server.kill()
        self._server.wait()


if __name__ == "__main__":
    _serve()
