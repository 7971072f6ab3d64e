"""Finding a data set of tensorflow-datasets: prepared already, or to be downloaded."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from kcnn.config import Config
from kcnn.errors import UsageError
from kcnn.knobs import did_you_mean

# If its name cannot be looked up, nothing can be downloaded; the downloader itself
# would take minutes to say so.
_PROBE = "www.tensorflow.org"


def prepared_builder(config: Config) -> Any:
    """Return the tfds.core.DatasetBuilder of a Config's dataset, its files in place.

    Raises:
        UsageError: the name is unknown, or the files are neither there nor to be had;
            one line, with what would work.
    """
    name, folder = config.dataset, data_dir(config)
    with _quiet():
        import tensorflow_datasets as tfds

        prepared = prepared_names(folder)
        known = tfds.list_builders(with_community_datasets=False)
        known += ["digits", *(p.split("/")[0] for p in prepared)]
        base = re.split("[/:]", name)[0]
        if base not in known:
            raise UsageError(
                f"--dataset: unknown data set {name!r}{did_you_mean(base, known)}; "
                f"{_what_works(prepared, folder)}"
            )
        try:
            builder = tfds.builder(name, data_dir=str(folder))
        except Exception as error:  # of many kinds: no such version, config ...
            raise UsageError(f"--dataset: {name}: {_first_line(error)}") from error
        if not builder.is_prepared():
            _download(builder, name, folder)
    file_format = builder.info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise UsageError(
            f"--dataset: {name} is prepared as {file_format.value} in {folder}; kcnn "
            "reads tfrecord"
        )
    return builder


def data_dir(config: Config) -> pathlib.Path:
    """Return where tensorflow-datasets keeps its data."""
    given = config.data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(given or "~/tensorflow_datasets").expanduser()


def prepared_names(folder: pathlib.Path) -> list[str]:
    """Return the data sets in a data_dir, NAME or NAME/CONFIG."""
    infos = [*folder.glob("*/*/dataset_info.json")]
    infos += folder.glob("*/*/*/dataset_info.json")
    return sorted({str(info.parents[1].relative_to(folder)) for info in infos})


def _download(builder: Any, name: str, folder: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    why = ""
    if _offline() and not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        why = "there is no network to download it"
    else:
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        try:
            # Its progress is no part of a command's output.
            with contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare()
        except Exception as error:  # network, disk, checksums, manual steps ...
            why = f"the download failed: {_first_line(error)}"
    if why:
        works = _what_works(prepared_names(folder), folder)
        raise UsageError(
            f"--dataset: {name} is not prepared in {folder} and {why}; {works}"
        )


def _offline() -> bool:
    if urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo(_PROBE, 443)
    except OSError:
        return True
    return False


def _what_works(prepared: list[str], folder: pathlib.Path) -> str:
    text = "digits, npz:FILE, folder:DIR and examples:DIR always work"
    if prepared:
        text += f", and from {folder}: {', '.join(prepared)}"
    return text


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of the library and its downloads to itself; errors are raised."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
