"""The errors that a user sees as one line, with the exit status they mean."""

import pathlib
import sys
from collections.abc import Callable


class UsageError(Exception):
    """The command, a flag or the data it names is wrong: exit status 2."""

    exit_status = 2


class RunError(Exception):
    """The command was right but the run failed: exit status 1."""

    exit_status = 1


class Fault(RunError):
    """The machine or the data failed a run, which can go on when that is mended."""


class LostWorker(RunError):
    """Another worker of the cluster is gone: all can be started again."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again


class Interrupted(Exception):
    """A signal asked the run to stop and its state is kept: 128 + the signal."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_status = 128 + signal_number


def run_program(main: Callable[..., None], *arguments: object) -> None:
    """Run a program's main function; what went wrong is a line and the exit status."""
    try:
        main(*arguments)
    except (UsageError, RunError, Interrupted) as error:
        name = pathlib.Path(sys.argv[0]).name
        print(f"{name}: {in_one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_status)


def in_one_line(error: Exception) -> str:
    """Return what an error says, and of a system's error the file too."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split())
