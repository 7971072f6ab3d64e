"""One command at a time in a folder."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import platform
import time
from typing import IO, Any

from kcnn.errors import UsageError

_NAME = ".lock"
_PATIENCE_SECONDS = 10  # for the children of a killed command to be gone


class FolderLock:
    """Within a `with` block, no other command writes in the folder.

    The lock is the system's own (flock), which ends with the processes that hold it:
    a file that a killed command left locks nothing. A folder that is not there is
    made, and taken away again if nothing was put into it.

    Args:
        folder: what is locked.
        command: the holder, as others are told of it: "kcnn train".
    """

    def __init__(self, folder: pathlib.Path, command: str):
        self._folder = folder
        self._command = command
        self._path = folder / _NAME
        self._file: IO[str] | None = None
        self._made: list[pathlib.Path] = []

    @property
    def descriptor(self) -> int:
        """The open lock file; children that inherit it hold the lock too."""
        assert self._file is not None
        return self._file.fileno()

    def __enter__(self) -> FolderLock:
        self._made = [
            p for p in (self._folder, *self._folder.parents) if not p.exists()
        ]
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._taken():
            holder = _read_holder(self._path)
            if _lives(holder):
                raise UsageError(
                    f"--model_dir={self._folder}: {holder['command']} is running "
                    f"there already (process {holder['process']} since "
                    f"{holder['since']})"
                )
            if time.monotonic() > deadline:
                raise UsageError(
                    f"--model_dir={self._folder}: processes of a command that was "
                    "killed are still going there; wait for them or end them"
                )
            time.sleep(0.1)
        assert self._file is not None
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        holder = {"process": os.getpid(), "host": platform.node(), "since": now}
        self._file.truncate(0)
        json.dump(holder | {"command": self._command}, self._file)
        self._file.flush()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._file is not None
        self._path.unlink(missing_ok=True)
        self._file.close()
        for folder in self._made:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()

    def _taken(self) -> bool:
        """Try to take the lock; it counts only if the file still has its name."""
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self.descriptor), self._path.stat()):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass  # held, or removed by who held it
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                return True  # a file system without locks, where nobody can have one
            raise
        self._file.close()
        return False


def _read_holder(path: pathlib.Path) -> dict[str, Any]:
    """Return what a lock file says; {} while its holder has not written it yet."""
    try:
        holder = json.loads(path.read_text())
        return {k: holder[k] for k in ("process", "host", "since", "command")}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _lives(holder: dict[str, Any]) -> bool:
    if not holder:
        return False
    if holder["host"] != platform.node():
        return True  # cannot be asked from here, and something holds the lock
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
