"""Try a SavedModel in the browser: draw, drop or paste an image and see its label.

The page is for one person on this machine: it is served on the loopback address only.
For production the README shows TensorFlow Serving.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket

from absl.flags import FlagValues

from kcnn.errors import UsageError
from kcnn.extras import check_installed
from kcnn.flags import value_of
from kcnn.knobs import Knob
from kcnn.run import EXPORT_DIR, TRUST

USAGE = "kcnn serve [SAVED_MODEL] [--port=8000]"

FLAGS = {
    "port": Knob(
        "serve",
        8000,
        "where the page is, on 127.0.0.1; 0 takes one that is free",
        low=0,
        high=65535,
        kind=int,
    ),
    "trust": Knob("serve", False, TRUST, kind=bool),
}

_HOST = "127.0.0.1"


def define_knobs(values: FlagValues) -> None:
    """Define no knobs: the SavedModel holds all that is needed."""


def main(values: FlagValues, arguments: list[str]) -> None:
    """Serve the page until Ctrl-C."""
    if len(arguments) > 1:
        raise UsageError(f"expected one SavedModel: {USAGE}")
    check_installed("kcnn serve", "serve", "starlette", "uvicorn")

    from kcnn import runtime

    with _listening(value_of(values, "port", FLAGS)) as listening:
        runtime.start_tensorflow()
        import uvicorn

        from kcnn.inference import Classifier, newest_export
        from kcnn.web import application

        place = arguments[0] if arguments else newest_export(pathlib.Path(EXPORT_DIR))
        classifier = Classifier(place, trust=bool(values.trust))
        port = listening.getsockname()[1]
        name = "/".join(classifier.path.resolve().parts[-2:])  # NAME/VERSION
        app = application(classifier, name, port)
        config = uvicorn.Config(
            app, log_level="warning", lifespan="off", limit_concurrency=32
        )
        print(f"{classifier.path}: http://{_HOST}:{port}/ (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(
            f"--port={port}: {error.strerror}; name another, or 0 for one that is free"
        ) from None
    return listening
