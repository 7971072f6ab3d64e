"""A page to try a SavedModel on: an ASGI application for one person on one machine.

It answers only to the names of the loopback address, so that no page from elsewhere can
reach it through the browser, by another name for the address (DNS rebinding) or by a
request across origins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kcnn import pages
from kcnn.images import check_header

MOST_BYTES = 10_000_000  # of an uploaded file

# What a browser says of the files that kcnn.images reads.
TYPES = ("image/png", "image/jpeg", "image/gif", "image/bmp")

# Fewer classes stand on the page in their own order, of more the likeliest.
_MOST_IN_ORDER, _LIKELIEST = 12, 10

_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Labeler(Protocol):
    """What the page needs of a kcnn.inference.Classifier."""

    class_names: list[str]

    def outputs_of_files(
        self, contents: Sequence[bytes]
    ) -> list[dict[str, np.ndarray] | str]:
        """Return what the model makes of encoded images, or why it makes nothing."""

    def images_of_files(self, contents: Sequence[bytes]) -> np.ndarray:
        """Return what the network is shown, (n, height, width, channels) uint8."""


class _Refused(Exception):
    """A request that is not answered, with its status and the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def application(classifier: Labeler, name: str, port: int) -> Starlette:
    """Return the page of a model.

    Args:
        classifier: the model.
        name: what the page calls it.
        port: where it is served, on the loopback address.
    """
    hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost")}
    one_at_a_time = asyncio.Semaphore(1)  # an image may take a lot of memory
    text, digest = pages.script("serve.js")
    facts = {
        "name": name,
        "types": ",".join(TYPES),
        "megabytes": MOST_BYTES // 10**6,
        "script": text,
        "hash": digest,
    }
    page = pages.render("serve.html", facts)

    async def show(request: Request) -> Response:
        _check_host(request, hosts)
        return HTMLResponse(
            page, headers={"Content-Security-Policy": _POLICY.format(script=digest)}
        )

    async def label(request: Request) -> Response:
        _check_host(request, hosts)
        data = await _body(request)
        async with one_at_a_time:
            return JSONResponse(await run_in_threadpool(_label, classifier, data))

    return Starlette(
        routes=[
            Route("/", _answered(show)),
            Route("/label", _answered(label), methods=["POST"]),
        ]
    )


def _answered(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Answer a refused request with its reason, and keep browsers from guessing."""

    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except _Refused as error:
            response = JSONResponse({"error": str(error)}, error.status)
            if error.status == 413:  # the rest of the body is not read
                response.headers["Connection"] = "close"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return answer


def _check_host(request: Request, hosts: set[str]) -> None:
    host, origin = request.headers.get("host"), request.headers.get("origin")
    if host not in hosts:
        raise _Refused(403, f"this page answers to {' and '.join(sorted(hosts))} only")
    if origin not in (None, *(f"http://{host}" for host in hosts)):
        raise _Refused(403, "a page from elsewhere may not ask here")


async def _body(request: Request) -> bytes:
    """Return an uploaded image's bytes, refused as soon as they are too many."""
    kind = request.headers.get("content-type", "")
    if kind not in TYPES:
        raise _Refused(415, f"{kind or 'no type'}, not one of {', '.join(TYPES)}")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MOST_BYTES:
                raise _Refused(413, f"larger than {MOST_BYTES // 10**6} MB")
    except ClientDisconnect:
        raise _Refused(400, "the upload was cut off") from None
    return bytes(data)


def _label(classifier: Labeler, data: bytes) -> dict[str, Any]:
    """Return what the page shows of one encoded image, or `error`: why it cannot."""
    try:
        check_header(data)
    except ValueError as error:
        return {"error": str(error)}
    outputs = classifier.outputs_of_files([data])[0]
    if isinstance(outputs, str):
        return {"error": outputs}
    probabilities = outputs["probabilities"]
    names = classifier.class_names
    order = np.arange(len(names))
    if len(names) > _MOST_IN_ORDER:
        order = np.argsort(-probabilities, kind="stable")[:_LIKELIEST]
    return {
        "bars": [
            {"label": names[i], "probability": float(probabilities[i])} for i in order
        ],
        "label": names[int(probabilities.argmax())],
        "probability": float(probabilities.max()),
        "accepted": bool(outputs.get("accepted", True)),
        "seen": pages.as_picture(classifier.images_of_files([data])[0]),
    }
