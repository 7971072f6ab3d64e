"""Run the commands that a page of docs/ names, and paste what they print.

    python benchmarks/paste.py docs/speed.md [--only=TEXT]

A line `<!-- measured: COMMAND -->` in the page is followed by a block with the command
and its output, which is replaced, or made where there is none. The commands run one
after another in a folder of their own that is removed afterwards, so that one can read
what those before it wrote. With --only those run whose command has TEXT in it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PLACE = re.compile(
    r"^<!-- measured: (?P<command>[^\n]+) -->\n(\n```\n.*?^```\n)?",
    re.MULTILINE | re.DOTALL,
)


def paste(page: str, run: Callable[[str], str | None]) -> str:
    """Return a page with what `run` gives for each command; None leaves its block."""

    def block(place: re.Match) -> str:
        command = place["command"]
        output = run(command)
        if output is None:
            return place[0]
        return f"<!-- measured: {command} -->\n\n```\n$ {command}\n{output}\n```\n"

    return _PLACE.sub(block, page)


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "benchmarks").symlink_to(ROOT / "benchmarks")

        def run(command: str) -> str | None:
            if given.only not in command:
                return None
            print(command, flush=True)
            program, *words = shlex.split(command)
            assert program == "python"
            done = subprocess.run(
                [sys.executable, *words],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return done.stdout.rstrip()

        given.page.write_text(paste(given.page.read_text(), run))


if __name__ == "__main__":
    main()
