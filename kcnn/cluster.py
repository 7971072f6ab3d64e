"""TF_CONFIG, by which every TensorFlow cluster tells a process who it is."""

from __future__ import annotations

import dataclasses
import json
import os

from kcnn.errors import UsageError

VARIABLE = "TF_CONFIG"
_EXPECTED = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train one model together.

    Attributes:
        addresses: HOST:PORT of each, the chief's first.
        index: which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes."""
        return self.index == 0

    def text(self) -> str:
        """Return the TF_CONFIG of this worker."""
        task = {"type": "worker", "index": self.index}
        cluster = {"worker": list(self.addresses)}
        return json.dumps({"cluster": cluster, "task": task})


def from_environment() -> Cluster | None:
    """Return the cluster that TF_CONFIG names; None where it is not set."""
    text = os.environ.get(VARIABLE, "")
    return parse(text) if text.strip() else None


def joined(strategy: str) -> Cluster | None:
    """Return the cluster that a process with this `--strategy` is a worker of, if any.

    With auto one of several workers. Raises UsageError where there must be one.
    """
    if strategy not in ("auto", "multi_worker"):
        return None
    found = from_environment()
    if strategy == "multi_worker" and found is None:
        raise UsageError(
            f"--strategy=multi_worker needs {VARIABLE}, which names the workers; on "
            "one machine kcnn launch sets it"
        )
    return found if strategy == "multi_worker" or (found and len(found) > 1) else None


def parse(text: str) -> Cluster | None:
    """Read a TF_CONFIG.

    A worker named chief stands before the others. Returns None where no cluster is
    named, as on a single machine of some services. Raises UsageError for what is no
    TF_CONFIG, and for tasks that train nothing (ps, evaluator).
    """
    try:
        value = json.loads(text)
        cluster, task = value.get("cluster") or {}, value.get("task") or {}
        chief, workers = (_addresses(cluster.get(k, [])) for k in ("chief", "worker"))
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f"{VARIABLE}: got {text}, expected {_EXPECTED}") from None
    if not cluster:
        return None
    others = sorted(cluster.keys() - {"chief", "worker"})
    if others or kind not in ("chief", "worker"):
        raise UsageError(
            f"{VARIABLE}: got a task {(others or [kind])[0]}, expected chief and worker"
        )
    own = chief if kind == "chief" else workers
    if len(chief) > 1 or not 0 <= index < len(own):
        raise UsageError(
            f"{VARIABLE}: got task {kind} {index} of {len(chief)} chief and "
            f"{len(workers)} worker addresses, expected one of them"
        )
    place = index if kind == "chief" else len(chief) + index
    return Cluster((*chief, *workers), place)


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError("no list of addresses")
    return tuple(value)
