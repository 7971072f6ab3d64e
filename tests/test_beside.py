"""A call in another process: its result, its errors, and that it never outlives us."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from kcnn.beside import Helper
from kcnn.errors import RunError
from tests.conftest import write_npz


def told(function, *arguments):
    with Helper(f"{__name__}:{function}") as helper:
        helper.start(*arguments)
        return helper.result()


def add(a, b):
    print("printed in between")
    return a + b


def fill_the_disk(path):
    error = OSError(28, "No space left on device")
    error.filename = path
    raise error


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_wait(path):
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def test_it_returns_what_the_function_returns():
    large = b"x" * 10**6  # more than a pipe holds
    assert told("add", large, b"y") == large + b"y"


def test_its_errors_are_raised_here():
    with pytest.raises(OSError, match="No space left") as caught:
        told("fill_the_disk", "a/b.png")
    assert caught.value.filename == "a/b.png"
    with pytest.raises(TypeError) as caught:
        told("add", 1, "2")
    assert "in add" in str(caught.value.__cause__)  # where it happened


def test_one_that_is_killed_is_told_of():
    with pytest.raises(RunError, match="ended by SIGKILL"):
        told("die")


def test_one_that_is_prepared_waits_for_its_arguments():
    with Helper(f"{__name__}:add") as helper:
        helper.prepare()
        time.sleep(0.5)
        helper.start(1, 2)
        assert helper.result() == 3


def test_one_that_was_killed_while_it_waited_is_replaced():
    with Helper(f"{__name__}:add") as helper:
        helper.prepare()
        os.kill(helper._process.pid, signal.SIGKILL)
        helper._process.wait()
        helper.start(1, 2)
        assert helper.result() == 3


def test_what_cannot_be_imported_is_told_when_the_result_is_asked_for():
    with Helper("kcnn.no_such_module:draw") as helper:
        helper.prepare()
        time.sleep(0.5)  # it has ended
        helper.start(b"x" * 10**6)
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            helper.result()


def waiting(path):
    """Return the number of the process that writes it to a file."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def assert_ends(process):
    deadline = time.monotonic() + 60
    while pathlib.Path(f"/proc/{process}").exists():
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        if state.split()[0] == "Z":  # it has; nobody took note yet
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_block_ends_it(tmp_path):
    path = tmp_path / "number"
    with (
        pytest.raises(KeyboardInterrupt),
        Helper(f"{__name__}:note_and_wait") as helper,
    ):
        helper.start(str(path))
        process = waiting(path)
        raise KeyboardInterrupt
    assert_ends(process)


def test_it_ends_with_a_process_that_is_killed(tmp_path):
    path = tmp_path / "number"
    code = (
        "from kcnn.beside import Helper\n"
        "helper = Helper('tests.test_beside:note_and_wait')\n"
        f"helper.start({str(path)!r})\n"
        "helper.result()"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        process = waiting(path)
        parent.kill()
    assert_ends(process)


def test_one_that_waits_ends_with_a_process_that_is_killed():
    code = (
        "import time\n"
        "from kcnn.beside import Helper\n"
        "helper = Helper('tests.test_beside:add')\n"
        "helper.prepare()\n"
        "time.sleep(2)\n"
        "assert helper._process.poll() is None\n"
        "print(helper._process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        process = int(parent.stdout.readline())
        assert pathlib.Path(f"/proc/{process}").exists()
        parent.kill()
    assert_ends(process)


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_is_named_in_one_line(
    kcnn, tmp_path, full_disk
):
    write_npz(tmp_path / "stripes.npz")
    (full_disk / "filling").write_bytes(bytes(1000 * 1024))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plots").symlink_to(full_disk)
    flags = ["--dataset=npz:stripes.npz", "--model=mlp", "--epochs=1"]
    done = kcnn("train", *flags, "--model_dir=run", "--export_dir=exports")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert ".png: No space left on device; to go on: kcnn train --resume" in done.stderr
    assert not (tmp_path / "run" / "report.html").exists()
    (full_disk / "filling").unlink()
    again = kcnn("train", "--resume", "--model_dir=run")
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "run" / "plots").glob("*.png"))) >= 8


def test_what_draws_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys, kcnn.drawing\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'scipy.stats', 'scipy.optimize'}\n"
        "print(heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
