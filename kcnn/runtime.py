"""The machine: TensorFlow without its start-up noise, precision, XLA, hardware."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kcnn import memory
from kcnn.config import Config
from kcnn.errors import RunError, UsageError

if TYPE_CHECKING:
    from kcnn.replicas import Replicas

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow reads it once
# Where a processor has one of these, TensorFlow computes by oneDNN of itself: those of
# its core/util/port.cc, as Linux names them.
_ONEDNN_OF_ITSELF = {
    *("avx512_vnni", "avx512_bf16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16"),
}

# What TensorFlow tells about itself when it starts, whether or not it matters.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl|[IW]0000 |To enable the following"
    rb"|E0000 .*(cuInit|cuda_|Unable to register)|.*\bI tensorflow/"
    rb"|fully_quantize: |INFO: Created TensorFlow Lite"
)


def start_tensorflow(training: Config | None = None) -> Replicas:
    """Import TensorFlow and Keras and open the devices, quietly.

    Returns the replicas of a training; those of a cluster must be the first thing that
    TensorFlow does. Its threads are set for that training too, see kcnn.towers. Without
    a Config there is one replica.

    What TensorFlow writes meanwhile goes to a file; lines that are not its known
    greetings are passed on, all of them if the start fails. Raises UsageError when
    Keras is set to another backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # What TensorFlow logs as an error it also raises.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    prefer_onednn()
    atexit.register(gc.freeze)  # garbage need not be looked for when all is given back
    with standard_error_filtered():
        with _left_out("sklearn", "matplotlib"), _uncollected():
            import keras
            import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # leave room for others
        use_exact_float32()
        # After the import of TensorFlow.
        from kcnn import replicas, towers

        if training:
            towers.set_threads(training)
        found = replicas.choose(training.strategy if training else "one")
        tf.constant(0) + 1
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND={keras.backend.backend()}: kcnn needs tensorflow; unset it"
        )
    return found


def prefer_onednn() -> bool:
    """Have TensorFlow compute by oneDNN on processors with AVX2; before its import.

    Of itself it does so only on newer ones, and leaves others to slower code: see
    docs/speed.md. What TF_ENABLE_ONEDNN_OPTS says already stands, and so does the
    choice of a TensorFlow that is imported already. Returns whether kcnn's is another
    than TensorFlow's.
    """
    flags = _cpu_flags()
    if "avx2" not in flags or ONEDNN in os.environ or "tensorflow" in sys.modules:
        return False
    os.environ[ONEDNN] = "1"
    return not flags & _ONEDNN_OF_ITSELF


def onednn() -> bool | None:
    """Return whether TensorFlow was told to compute by oneDNN; None: its own choice."""
    said = os.environ.get(ONEDNN, "").lower()
    return {"1": True, "true": True, "0": False, "false": False}.get(said)


@contextlib.contextmanager
def _left_out(*packages: str) -> Iterator[None]:
    """Have packages not be found within the block, unless they are imported already.

    Keras imports these two where they are installed, for its scikit-learn wrappers and
    its galleries, which kcnn does not use: a third of its own time more.
    """
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's garbage collector from what a block of imports makes, for good.

    It would go through those half a million objects again and again, and find that
    nearly all are in use.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def use_exact_float32() -> None:
    """Have float32 be float32: what is evaluated must be what is exported."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextlib.contextmanager
def standard_error_filtered() -> Iterator[None]:
    """Hold back what TensorFlow is known to say, unless the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        original = os.dup(2)
        os.dup2(caught.fileno(), 2)
        noise = _NOISE
        try:
            yield
        except (UsageError, RunError):
            raise  # and says all
        except BaseException:
            noise = re.compile(rb"(?!)")  # matches nothing: show all
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught:
                if not noise.match(line):
                    sys.stderr.buffer.write(line)
            sys.stderr.flush()


def cores() -> int:
    """Return the cores that this process may use, also in a container."""
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    quota, _, period = memory.cgroup("cpu.max").partition(" ")
    return min(found, max(1, int(quota) // int(period))) if quota.isdigit() else found


def process_began() -> float | None:
    """Return when this process was started, by time.perf_counter; None: not known."""
    try:
        text = pathlib.Path("/proc/self/stat").read_text()
        ticks = int(text.rpartition(")")[2].split()[19])  # starttime of proc(5)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        return None
    return time.perf_counter() - age


def make_deterministic() -> None:
    """Have TensorFlow use no operation whose result depends on threads' order.

    Holds for the whole process. Random seeds are set apart from it.
    """
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def has_gpu() -> bool:
    """Tell whether TensorFlow computes on a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class Precision(NamedTuple):
    """A Keras dtype policy and why it was chosen."""

    policy: str
    reason: str


def choose_precision(requested: str) -> Precision:
    """Return the policy for `--precision`; auto is mixed where hardware has it."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if requested == "mixed_float16" and not gpus:
        raise UsageError(
            "--precision=mixed_float16 needs a GPU: on a processor it is hundreds of "
            "times slower than mixed_bfloat16 or float32"
        )
    if requested != "auto":
        return Precision(requested, "as asked")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        return _gpu_precision(capability)
    return _cpu_precision(_cpu_flags())


def _gpu_precision(capability: tuple[int, int]) -> Precision:
    name = "GPU of compute capability " + ".".join(map(str, capability))
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"{name} has bfloat16")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"{name} has float16, not bfloat16")
    return Precision("float32", f"{name} has no fast 16-bit arithmetic")


def _cpu_precision(flags: set[str]) -> Precision:
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    if found:
        return Precision("mixed_bfloat16", f"the processor has {found[0]}")
    return Precision("float32", "the processor has no bfloat16 instructions")


def _cpu_flags() -> set[str]:
    """Return the processor's feature flags; none are known outside Linux."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    match = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return set(match.group(1).split()) if match else set()


def choose_jit(config: Config, model: Any, replicas: int = 1) -> bool:
    """Return whether to compile the training step with XLA for `--jit_compile`.

    Raises UsageError where it is asked for and cannot be.
    """
    obstacle = jit_obstacle(config, model, replicas)
    if config.jit_compile == "on" and obstacle:
        raise UsageError(
            f"--jit_compile=on: XLA cannot compile {obstacle}; use auto or off"
        )
    return wants_xla(config) and not obstacle


def wants_xla(config: Config) -> bool:
    """Return whether XLA is to compile the training step, if it can."""
    if config.jit_compile == "auto":
        return has_gpu()
    return config.jit_compile == "on"


def jit_obstacle(config: Config, model: Any, replicas: int = 1) -> str | None:
    """Return what of a training step XLA is to compile and cannot, if anything."""
    if not wants_xla(config):
        return None
    import keras

    unfit = [layer.name for layer in model.layers if not layer.supports_jit]
    if unfit:
        return ", ".join(unfit)
    if replicas > 1:  # what they tell each other
        return f"a step of {replicas} devices"
    pools = [m.name for m in model.layers if isinstance(m, keras.layers.MaxPooling2D)]
    if config.deterministic and pools:  # the gradient, in TensorFlow 2.21
        return f"{', '.join(pools)} with --deterministic"
    return None


def hardware() -> dict[str, Any]:
    """Describe the processor, memory and GPUs."""
    with standard_error_filtered():  # where it is the first to ask TensorFlow
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "processor": _processor_name(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "onednn": onednn(),  # its sums are rounded otherwise
        "gpus": [d.get("device_name", "GPU") for d in details],
        "system": platform.platform(),
    }


def _processor_name() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match.group(1)
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return None
    return round(size / 2**30, 1)


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes."""
    import keras
    import numpy
    import tensorflow

    import kcnn

    return {
        "python": platform.python_version(),
        "kcnn": kcnn.__version__,
        "tensorflow": tensorflow.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
    }


def commit() -> str | None:
    """Return the commit of the checkout that kcnn runs from, if it is one."""
    folder = pathlib.Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git here: nothing to tell
        return None
    return done.stdout.strip() or None
