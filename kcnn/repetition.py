"""Whether a run can end with the same bits as the one that a config.json is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcnn.datasets import Dataset

_SPLITS = ("train", "validation", "test")

# What of hardware and versions changes the bits of a result.
_MACHINE = ("processor", "cores", "gpus", "onednn")
_VERSIONS = ("tensorflow", "keras")


def fingerprints(data: Dataset) -> dict[str, str | None]:
    """Return the fingerprint of what each split is taken from; None: no such split."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {k: s.fingerprint if s is not None else None for k, s in splits.items()}


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what the data of two config.json differ.

    Numbers of images are compared where the knobs that divide them are the same; a
    file of an older version has no fingerprints to compare.
    """
    was, found = before["data"], now["data"]
    texts = []
    if _division(before) == _division(now):
        texts += [
            f"the data set has changed: {found[name]} {name} images, {was.get(name)} "
            "when the run began"
            for name in _SPLITS
            if was.get(name) != found[name]
        ]
    return texts or [
        f"the data set has changed: other {name} images or labels than when the run "
        "began"
        for name in _SPLITS
        if other_images(before, name, found["fingerprint"][name])
    ]


def changed_source(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return that the run which both started from has other weights now, if so."""
    was, found = before.get("init_from"), now["init_from"]
    if not was or not found or was["path"] != found["path"]:
        return []
    if was["digest"] == found["digest"]:
        return []
    return [f"--init_from={found['path']} has other weights than when the run began"]


def other_images(note: Mapping[str, Any], split: str, fingerprint: str | None) -> bool:
    """Tell whether a split's fingerprint is known and is not this one."""
    known = note.get("data", {}).get("fingerprint", {}).get(split)
    return bool(known and fingerprint and known != fingerprint)


def _division(note: Mapping[str, Any]) -> list[Any]:
    knobs = ("train_size", "validation_fraction", "test_fraction")
    return [note["config"].get(name) for name in knobs]


def changed_machine(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what was another machine, where a run was to repeat to the bit."""
    if not now["config"]["deterministic"]:
        return []
    return [
        f"{name} was {was}, is {found}: the bits may differ"
        for part, names in (("hardware", _MACHINE), ("versions", _VERSIONS))
        for name in names
        if (was := before.get(part, {}).get(name)) != (found := now[part][name])
        and None not in (was, found)  # not known
    ]
