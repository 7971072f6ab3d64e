"""Which images go where: stratified, by seed, and a group on one side."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence

import numpy as np

from kcnn.duplicates import components
from kcnn.errors import UsageError


def merged_groups(n: int, parts: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """Return a group for each of n items, so that no part is torn.

    Args:
        n: number of items.
        parts: several kinds of parts, each some positions that belong together; parts
            that share an item are one group.

    Returns:
        (n,) int64, the groups numbered from 0.
    """
    edges = [(part[0], i) for kind in parts for part in kind for i in part]
    return components(np.array(edges, np.int64).reshape(-1, 2), n)


def groups_by_name(names: Sequence[str], pattern: str) -> list[list[int]]:
    """Return the positions of names that belong together, by --group_regex.

    The group is what the pattern's first parentheses match, or all that it matches.

    Raises:
        UsageError: it is no pattern, or a name does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group_regex: got {pattern!r}, expected a regular expression: {error}"
        ) from None
    found = collections.defaultdict(list)
    unmatched = []
    for i, name in enumerate(names):
        match = expression.search(name)
        if match:
            found[match[1] if expression.groups else match[0]].append(i)
        else:
            unmatched.append(name)
    if unmatched:
        raise UsageError(
            f"--group_regex: {pattern!r} does not match {len(unmatched):,} of "
            f"{len(names):,} names, such as {unmatched[0]}"
        )
    return list(found.values())


def assign(
    labels: np.ndarray, groups: np.ndarray, shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """Divide items among splits: whole groups, and each class by the splits' shares.

    Groups of several items come first, the largest first, each to the split that it
    brings nearest to its share of every class (as scikit-learn's StratifiedGroupKFold
    does, for folds of equal size); the other items fill up what is left, exactly.

    Args:
        labels: (n,) int64 from 0.
        groups: (n,) int64 from 0.
        shares: split -> its part of all items; they add up to 1.
        seed: decides among equals.

    Returns:
        (n,) int64, the place of each item's split in `shares`.
    """
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    # What each split still lacks of each class.
    lacking = np.outer(list(shares.values()), np.bincount(labels, minlength=classes))
    result = np.full(len(labels), -1)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    several = [m for m in members if len(m) > 1]
    for i in sorted(rng.permutation(len(several)), key=lambda i: -len(several[i])):
        counts = np.bincount(labels[several[i]], minlength=classes)
        # Squares, per item of the class: a small class weighs as much as a large one.
        weights = 1 / np.maximum(lacking.sum(axis=0), 1)
        change = ((lacking - counts) ** 2 - lacking**2) @ weights
        split = int(change.argmin())
        result[several[i]] = split
        lacking[split] -= counts
    for label in range(classes):
        left = rng.permutation(np.flatnonzero((labels == label) & (result < 0)))
        result[left] = _filled(np.maximum(lacking[:, label], 0), len(left))
    return result


def _filled(lacking: np.ndarray, n: int) -> np.ndarray:
    """Return n splits as they are lacking, to the whole item.

    The first, train, has the first item, so that a class of one is trained.
    """
    if not n:
        return np.empty(0, np.int64)
    wanted = (
        lacking * n / lacking.sum() if lacking.any() else np.eye(len(lacking))[0] * n
    )
    counts = np.floor(wanted + 1e-9).astype(int)
    rest = np.argsort(-(wanted - counts), kind="stable")[: n - counts.sum()]
    counts[rest] += 1
    return np.repeat(np.arange(len(lacking)), counts)
