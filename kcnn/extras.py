"""Packages that only some of kcnn's users want: extras of the installation."""

from __future__ import annotations

import importlib.util

from kcnn.errors import UsageError


def check_installed(asked: str, extra: str, *modules: str) -> None:
    """Raise UsageError if a module of an extra is missing; `asked` is what wants it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{asked}: {', '.join(missing)} not installed; pip install "
            f"'kcnn[{extra}]' brings what it needs"
        )
