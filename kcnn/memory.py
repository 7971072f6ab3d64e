"""How much memory there is, and a clear word where it cannot be enough."""

from __future__ import annotations

import pathlib
import re

from kcnn.errors import RunError


def available() -> int:
    """Return bytes; 2**63 where the system does not say."""
    found = 2**63
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
        found = int(match[1]) * 1024 if match else found
    limit, used = cgroup("memory.max"), cgroup("memory.current")
    if limit.isdigit() and used.isdigit():
        found = min(found, int(limit) - int(used))
    return found


def cgroup(name: str) -> str:
    """Return a limit of the container that this process is in, "" without one."""
    try:
        return pathlib.Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def check(need: int, what: str, advice: str) -> None:
    """Raise RunError if more is needed than there is.

    Args:
        need: bytes, certainly needed; what is not certain is left out.
        what: what needs them, in the plural.
        advice: what to lower.
    """
    there = available()
    if need > there:
        raise RunError(
            f"out of memory before it began: {what} need {_size(need)} at least, "
            f"{_size(there)} are available; {advice}"
        )


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
