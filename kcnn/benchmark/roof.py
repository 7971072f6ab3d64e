"""The roof: the fastest product of two 2048 x 2048 matrices on this machine.

Usage: python -m kcnn.benchmark.roof. Prints a line of JSON: FLOP/s in float32 and in
bfloat16.
"""

import json
import os
import time

from kcnn.runtime import prefer_onednn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
prefer_onednn()  # as kcnn train: it multiplies faster, and a roof is of the fastest
import tensorflow as tf  # noqa: E402

_SIZE = 2048
_TIMES = 30


def main() -> None:
    """Measure both."""
    told = {dtype: flop_per_second(dtype) for dtype in ("float32", "bfloat16")}
    print(json.dumps(told))


def flop_per_second(dtype: str) -> float:
    """Return the FLOP/s of the fastest of some calls."""
    # A GPU's products are over before they are asked for: several in a call.
    products = 20 if tf.config.list_physical_devices("GPU") else 1
    matrix = tf.cast(tf.random.normal((_SIZE, _SIZE)) / _SIZE**0.5, dtype)

    @tf.function
    def multiply():
        found = matrix
        for _ in range(products):
            found = tf.matmul(found, matrix)
        return found[0, 0]

    best = float("inf")
    for _ in range(_TIMES):
        began = time.perf_counter()
        multiply().numpy()
        best = min(best, time.perf_counter() - began)
    return products * 2 * _SIZE**3 / best


if __name__ == "__main__":
    main()
