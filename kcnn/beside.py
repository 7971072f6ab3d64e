"""One call in a process of its own, beside this one.

The process is a fresh Python: TensorFlow's threads do not survive a fork. It ends when
this one does, however that ends, because its standard input is then closed; while it
imports, as soon as that is done.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any

from kcnn.errors import RunError

_SIZE_BYTES = 8

# It looks for modules where this process does.
_CODE = (
    "import sys; function, *sys.path[:] = sys.argv[1:]; "
    "from kcnn import beside; beside.work(function)"
)


class Helper:
    """Runs one function beside the `with` block, which ends it if it must.

    It is named as MODULE:NAME, so that what it needs is imported there and not here;
    its arguments and its result are pickled.
    """

    def __init__(self, function: str) -> None:
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def prepare(self) -> None:
        """Start the process, which imports what the function needs, and waits."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, self._function, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C comes to this process alone
        )

    def start(self, *arguments: Any) -> None:
        """Begin the call, in a process that was prepared or a new one; returns soon."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self.prepare()  # one that waited may have been killed
        self._started = True
        assert self._process is not None and self._process.stdin is not None
        task = pickle.dumps(arguments)
        try:
            self._process.stdin.write(len(task).to_bytes(_SIZE_BYTES, "big") + task)
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended already, as `result` tells
            pass

    def result(self) -> Any:
        """Wait for the call and return what it returned, or raise what it raised.

        Raises RunError if the process was ended from outside.
        """
        process = self._process
        assert self._started and process is not None, "start comes first"
        assert process.stdout is not None
        answer = process.stdout.read()
        status = process.wait()
        if status:
            cause = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise RunError(f"a helper process was ended by {cause}; is memory short?")
        value, error, trace = pickle.loads(answer)
        if error is not None:
            raise error from RuntimeError(trace)
        return value


def work(function: str) -> None:
    """Make the call that standard input tells, and answer on standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed may come between
    value, error, trace = None, None, ""
    try:
        module, _, name = function.partition(":")
        call = getattr(importlib.import_module(module), name)  # for seconds
        value = call(*_told())
    except Exception as caught:
        error, trace = caught, traceback.format_exc()
    pickle.dump((value, error, trace), answers)
    answers.flush()
    os._exit(0)


def _told() -> tuple[Any, ...]:
    """Wait for the arguments; end with the process that should tell them."""
    size = sys.stdin.buffer.read(_SIZE_BYTES)
    if len(size) < _SIZE_BYTES:
        os._exit(1)
    task = sys.stdin.buffer.read(int.from_bytes(size, "big"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return pickle.loads(task)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)
