"""What TensorFlow is told before it is imported."""

import os
import subprocess
import sys

import pytest

from kcnn import runtime

VARIABLE = runtime.ONEDNN


@pytest.mark.parametrize(
    ("flags", "said", "expected", "another"),
    [
        ({"avx", "avx2", "fma"}, None, True, True),
        ({"avx2", "avx512f"}, None, True, True),
        ({"avx2", "avx512f", "avx512_vnni"}, None, True, False),
        ({"avx"}, None, None, False),  # left to TensorFlow
        (set(), None, None, False),  # no Linux, or no x86
        ({"avx2"}, "0", False, False),
        ({"avx2"}, "false", False, False),
        ({"avx"}, "1", True, False),
    ],
)
def test_onednn_is_for_processors_with_avx2(
    monkeypatch, flags, said, expected, another
):
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: flags)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv(VARIABLE, said or "")
    if said is None:
        monkeypatch.delenv(VARIABLE)
    assert runtime.prefer_onednn() is another
    assert runtime.onednn() is expected
    assert os.environ.get(VARIABLE) == (said or ("1" if expected else None))


def test_what_tensorflow_has_read_already_is_left(monkeypatch):
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: {"avx2"})
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    assert not runtime.prefer_onednn()
    assert runtime.onednn() is None


def in_a_process(code, said):
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    if said is not None:
        environment[VARIABLE] = said
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.skipif("avx2" not in runtime._cpu_flags(), reason="no AVX2")
@pytest.mark.parametrize("said", [None, "0"])
def test_onednn_is_what_tensorflow_itself_says(said):
    code = """
from kcnn import runtime
runtime.start_tensorflow()
from tensorflow.python.util import _pywrap_util_port
print(runtime.hardware()["onednn"], _pywrap_util_port.IsMklEnabled())
import gc
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    on = str(said is None)
    assert in_a_process(code, said) == [on, on, "True", "True"]


@pytest.mark.skipif(not runtime._cpu_flags(), reason="no Linux on x86")
def test_where_tensorflow_computes_by_onednn_of_itself():
    code = """
import tensorflow
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""
    expected = bool(runtime._cpu_flags() & runtime._ONEDNN_OF_ITSELF)
    assert in_a_process(code, None) == [str(expected)]
