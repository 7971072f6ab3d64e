"""What all HTML pages share: the template engine, its filters, embedded pictures.

A page is one file, with nothing from elsewhere; templates/base.html has its frame and
its style. Its policy lets no script run but those whose hash a page names.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import io
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from kcnn.knobs import show


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return the page that a template of kcnn/templates makes of some facts."""
    return _environment().get_template(template).render(facts)


def template_environment(**options: Any) -> jinja2.Environment:
    """Return an environment for kcnn/templates; a fact that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("kcnn"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = template_environment(autoescape=True)
    environment.filters.update(
        percent=percent,
        whole=whole,
        decimal=decimal,
        duration=duration,
        setting=setting,
        python=repr,
    )
    return environment


def embedded(path: pathlib.Path) -> str:
    """Return a PNG file as a data URL."""
    return _data_url(path.read_bytes())


def as_picture(image: np.ndarray) -> str:
    """Return an image, (height, width, 1 or 3) uint8, as a data URL."""
    buffer = io.BytesIO()
    grey = image.shape[-1] == 1
    Image.fromarray(image[..., 0] if grey else image).save(buffer, "PNG")
    return _data_url(buffer.getvalue())


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def script(name: str) -> tuple[str, str]:
    """Return a script of kcnn/templates, and the hash that lets it run on a page."""
    path = importlib.resources.files("kcnn") / "templates" / name
    text = path.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"


def setting(value: Any) -> str:
    """Write a knob's value; "not set" for None."""
    if value is None:
        return "not set"
    return show(value) or "(empty)"


def percent(part: float | None) -> str:
    """Write a part of 1 as percent; a dash for None."""
    return "–" if part is None else f"{100 * part:.2f}\u202f%"  # noqa: RUF001


def whole(number: float) -> str:
    """Write a whole number with its thousands apart."""
    return f"{number:,.0f}"


def decimal(number: float | None) -> str:
    """Write a loss and the like with four decimals; a dash for None."""
    return "–" if number is None else f"{number:.4f}"  # noqa: RUF001


def duration(seconds: float) -> str:
    """Write a time as people say it: 4.2 ms, 3.1 s, 2 min 5 s, 1 h 4 min."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{math.floor(10 * seconds) / 10:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
