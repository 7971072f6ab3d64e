"""kcnn COMMAND --flags: looks up the command and imports only what it needs."""

from __future__ import annotations

import importlib
import io
import os
import sys

COMMANDS = {
    "train": "train, test, picture and export one model",
    "launch": "train one model by several processes, and keep them going",
    "sweep": "train a model for every combination of several values",
    "learning-curve": "train with ever more images: what would twice the data bring?",
    "find-lr": "suggest a learning rate by a range test",
    "tune": "search for the best values of knobs on validation images",
    "evaluate": "test a run or a SavedModel on any data set and split",
    "compare": "rank runs over their random seeds and say which is better",
    "benchmark": "measure kcnn beside stock Keras and PyTorch on this machine",
    "reproduce": "run published experiments again, and set them side by side",
    "predict": "label image files with a SavedModel",
    "serve": "try a SavedModel in the browser: draw or drop an image",
    "export": "write a run's model again: SavedModel, Keras, LiteRT, ONNX",
    "data check": "look for leaks, wrong labels and damage in a folder of images",
    "data split": "divide a folder of images into train, validation and test",
    "data export-examples": "write any data set as gzipped TFRecords of tf.Examples",
    "summary": "show a model's layers, and draw its architecture",
    "models": "list the architectures and their knobs",
    "experiments": "list the named runs and their published figures",
}


def main() -> int:
    """Run one command; returns the exit status (0 done, 1 failed, 2 wrong command)."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:]
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        import kcnn

        print(f"kcnn {kcnn.__version__}")
        return 0
    words = 2 if " ".join(argv[:2]) in COMMANDS else 1
    return _run(" ".join(argv[:words]), argv[words:])


def _overview() -> str:
    lines = ["kcnn trains, compares, exports and serves small image classifiers.", ""]
    lines += ["usage: kcnn COMMAND [--flags]", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}} {text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "kcnn COMMAND --help lists the flags of a command."])


def _run(name: str, argv: list[str]) -> int:
    from kcnn.errors import Interrupted, RunError, UsageError, in_one_line
    from kcnn.flags import help_text, of_command, parse
    from kcnn.knobs import did_you_mean

    try:
        longer = [c for c in COMMANDS if c.startswith(f"{name} ")]
        if longer:
            raise UsageError(f"expected kcnn {' or kcnn '.join(longer)}")
        if name not in COMMANDS:
            raise UsageError(
                f"unknown command {name}{did_you_mean(name, COMMANDS)}; kcnn --help "
                "lists them"
            )
        command = importlib.import_module(f"kcnn.commands.{_module(name)}")
        values = of_command(command)
        if any(word in ("--help", "-h") for word in argv):
            print(help_text(command.USAGE, str(command.__doc__), values, command.FLAGS))
            return 0
        arguments = parse(values, argv)
        return command.main(values, arguments) or 0
    except (UsageError, RunError, Interrupted) as error:
        return _fail(name, str(error), error.exit_status)
    except BrokenPipeError:  # the reader, such as head, has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        return _fail(name, in_one_line(error), 1)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", 130)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(
            name, "out of memory; lower --batch_size, --image_size or the model", 1
        )


def _module(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def _is_out_of_memory(error: Exception) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    return isinstance(error, MemoryError) or (
        tensorflow is not None
        and isinstance(error, tensorflow.errors.ResourceExhaustedError)
    )


def _fail(name: str, text: str, status: int) -> int:
    print(f"kcnn {name}: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
