"""TF_CONFIG as clusters set it, and what is none."""

import json

import pytest

from kcnn import cluster
from kcnn.cluster import Cluster
from kcnn.errors import UsageError


def config(task=None, **addresses):
    task = {"type": "worker", "index": 0} | (task or {})
    return json.dumps({"cluster": addresses, "task": task})


def test_workers_alone():
    found = cluster.parse(config({"index": 1}, worker=["a:1", "b:2"]))
    assert found == Cluster(("a:1", "b:2"), 1)
    assert not found.is_chief and len(found) == 2
    assert cluster.parse(found.text()) == found


def test_a_chief_stands_before_the_workers():
    addresses = {"chief": ["c:0"], "worker": ["a:1", "b:2"]}
    chief = cluster.parse(config({"type": "chief"}, **addresses))
    assert chief == Cluster(("c:0", "a:1", "b:2"), 0) and chief.is_chief
    last = cluster.parse(config({"index": "1"}, **addresses))  # Kubeflow writes text
    assert last.index == 2


def test_no_cluster():
    assert cluster.parse("{}") is None
    assert cluster.parse('{"environment": "cloud"}') is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "got nonsense, expected {"),
        ("[]", "expected {"),
        ('{"cluster": {"worker": "a:1"}}', "expected {"),
        (config({"index": 2}, worker=["a:1", "b:2"]), "task worker 2"),
        (config({"index": -1}, worker=["a:1"]), "task worker -1"),
        (config({"index": "x"}, worker=["a:1"]), "expected {"),
        (config({"type": "chief"}, worker=["a:1"]), "task chief 0 of 0 chief"),
        (config({"type": "evaluator"}, worker=["a:1"]), "a task evaluator"),
        (config(worker=["a:1"], ps=["b:1"]), "a task ps"),
        (config(worker=["a:1"], chief=["b:1", "c:1"]), "of 2 chief"),
    ],
)
def test_what_is_none_is_refused_in_a_line(text, said):
    with pytest.raises(UsageError, match="TF_CONFIG: ") as caught:
        cluster.parse(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_which_strategies_join(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.joined("auto") is None
    with pytest.raises(UsageError, match="--strategy=multi_worker needs TF_CONFIG"):
        cluster.joined("multi_worker")
    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1"]))
    assert cluster.joined("auto") is None
    assert len(cluster.joined("multi_worker")) == 1
    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1", "b:2"]))
    assert len(cluster.joined("auto")) == 2
    assert cluster.joined("one") is None and cluster.joined("mirrored") is None
