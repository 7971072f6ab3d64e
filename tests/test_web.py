"""The page of kcnn serve, as an ASGI application in this process."""

import asyncio
import base64
import hashlib
import html.parser
import io
import json
import re
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="kcnn[serve] is not installed")

from kcnn import web
from kcnn.commands import serve
from kcnn.errors import UsageError

PORT = 8000
HOST = f"127.0.0.1:{PORT}"
EVIL = "<script>alert(1)</script>"


class Labeler:
    """Ten classes, or more; says 7 and keeps what it was asked."""

    def __init__(self, classes=10, accepted=None):
        self.class_names = [str(i) for i in range(classes - 1)] + [EVIL]
        self.accepted = accepted
        self.asked = []

    def outputs_of_files(self, contents):
        self.asked += contents
        count = len(self.class_names)
        probabilities = np.full(count, 0.5 / (count - 1), np.float32)
        probabilities[7] = 0.5
        outputs = {"probabilities": probabilities}
        if self.accepted is not None:
            outputs["accepted"] = np.bool_(self.accepted)
        return [outputs for _ in contents]

    def images_of_files(self, contents):
        return np.stack([np.full((4, 4, 1), 9, np.uint8) for _ in contents])


def ask(app, path="/", method="GET", body=(), **headers):
    """Return status, headers and body; `body` are the chunks as they come in."""
    headers = {"host": HOST, **headers}
    chunks = list(body)
    sent = []
    taken = []

    async def receive():
        taken.append(1)
        if not chunks:
            return {"type": "http.request", "body": b"", "more_body": False}
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [
            (k.replace("_", "-").encode(), v.encode())
            for k, v in headers.items()
            if v is not None
        ],
        "server": ("127.0.0.1", PORT),
        "client": ("127.0.0.1", 5),
    }
    asyncio.run(app(scope, receive, send))
    start = sent[0]
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    ask.taken = len(taken)
    return start["status"], found, b"".join(m.get("body", b"") for m in sent[1:])


def app_of(labeler=None):
    return web.application(labeler or Labeler(), "models/my <b>model</b>/1", PORT)


def label(app, data, kind="image/png", **headers):
    found = ask(app, "/label", "POST", [data], content_type=kind, **headers)
    return found[0], json.loads(found[2])


def png(image=None):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((5, 5), np.uint8) if image is None else image).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def bomb():
    """A PNG of a few bytes whose header says 20,000 x 20,000 pixels."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_has_all_it_needs_and_nothing_from_elsewhere():
    status, headers, body = ask(app_of())
    page = body.decode()
    assert status == 200
    for tag, attributes in Tags(page).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "<b>" not in page and EVIL not in page
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    for policy in (
        headers["content-security-policy"],
        next(a["content"] for t, a in Tags(page).tags if "http-equiv" in a),
    ):
        assert "default-src 'none'" in policy
        assert f"script-src 'sha256-{digest}'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_an_image_gets_its_bars_and_what_the_network_saw():
    labeler = Labeler()
    data = png()
    status, answer = label(app_of(labeler), data)
    assert status == 200
    assert labeler.asked == [data]
    assert (answer["label"], answer["probability"]) == ("7", 0.5)
    assert answer["accepted"] is True
    assert [bar["label"] for bar in answer["bars"]] == labeler.class_names
    assert sum(bar["probability"] for bar in answer["bars"]) == pytest.approx(1)
    seen = base64.b64decode(answer["seen"].removeprefix("data:image/png;base64,"))
    assert np.array(Image.open(io.BytesIO(seen))).tolist() == [[9] * 4] * 4


def test_of_many_classes_the_likeliest_come_first():
    _, answer = label(app_of(Labeler(50)), png())
    assert [bar["label"] for bar in answer["bars"]] == list("7012345689")


@pytest.mark.parametrize("accepted", [True, False])
def test_a_model_that_rejects_says_so(accepted):
    assert label(app_of(Labeler(accepted=accepted)), png())[1]["accepted"] is accepted


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (bomb(), "20000 x 20000 pixels; the limit is 50,000,000"),
    ],
)
def test_what_is_no_image_is_not_decoded(data, reason):
    labeler = Labeler()
    status, answer = label(app_of(labeler), data)
    assert (status, answer, labeler.asked) == (200, {"error": reason}, [])


def test_a_reason_of_tensorflows_is_passed_on():
    labeler = Labeler()
    labeler.outputs_of_files = lambda contents: ["Invalid PNG data"]
    assert label(app_of(labeler), png())[1] == {"error": "Invalid PNG data"}


def test_an_upload_that_is_too_large_is_not_read_to_its_end():
    labeler = Labeler()
    chunks = [b"x" * 1_000_000] * 50
    found = ask(app_of(labeler), "/label", "POST", chunks, content_type="image/png")
    assert found[0] == 413
    assert found[1]["connection"] == "close"
    assert json.loads(found[2]) == {"error": "larger than 10 MB"}
    assert ask.taken == 11
    assert labeler.asked == []


@pytest.mark.parametrize("kind", ["text/plain", "image/svg+xml", ""])
def test_other_types_are_refused(kind):
    labeler = Labeler()
    status, answer = label(app_of(labeler), png(), kind)
    assert status == 415 and "not one of image/png" in answer["error"]
    assert labeler.asked == []


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"host": f"localhost:{PORT}"}, 200),
        ({"origin": f"http://{HOST}"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": f"evil.example:{PORT}"}, 403),  # DNS rebinding
        ({"host": "127.0.0.1:9"}, 403),
        ({"host": None}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://{HOST}"}, 403),
    ],
)
def test_only_the_page_itself_is_answered(headers, status):
    labeler = Labeler()
    app = app_of(labeler)
    assert label(app, png(), **headers)[0] == status
    assert ask(app, **headers)[0] == status
    assert len(labeler.asked) == (status == 200)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port={port}: .* in use; name another"):
            serve._listening(port)


def test_there_is_nothing_else():
    app = app_of()
    assert ask(app, "/etc/passwd")[0] == 404
    assert ask(app, "/label")[0] == 405
    assert ask(app, "/label", "OPTIONS", origin="http://evil.example")[0] == 405
