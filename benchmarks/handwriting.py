"""How well does an MNIST-trained model label other people's digits on paper?

    python benchmarks/handwriting.py MODEL ...

Each MODEL is a SavedModel that kcnn exported, trained on MNIST. scikit-learn's 1,797
digits, of other writers and other scanners, are drawn on pages of 200x150 pixels, dark
on light, at random places and sizes, in several kinds: clean, on grey paper, and as a
phone takes them (light that falls off, blur, noise, specks, JPEG). The files go through
the model's own `serving_bytes`. The odd ones are reported; the constants of
kcnn/normalization.py were chosen on the even ones (--half=even).
"""

from __future__ import annotations

import argparse
import io
import pathlib

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

KINDS = ("clean", "grey", "photo")
_WIDTH, _HEIGHT = 200, 150


def page(digit: np.ndarray, kind: str, rng: np.random.Generator) -> bytes:
    """Draw an 8x8 digit, 0 to 16, on a page; return it as a PNG or JPEG file."""
    side = int(rng.integers(60, 121))
    ink = Image.fromarray(np.rint(digit * 255 / 16).astype(np.uint8))
    left = int(rng.integers(8, _WIDTH - side - 7))
    top = int(rng.integers(8, _HEIGHT - side - 7))
    dark = np.zeros((_HEIGHT, _WIDTH))
    dark[top : top + side, left : left + side] = np.asarray(
        ink.resize((side, side), Image.Resampling.BICUBIC)
    )
    dark /= 255
    if kind == "clean":
        return _file(255 * (1 - dark), "PNG")
    if kind == "grey":
        paper, pen = rng.uniform(110, 200), rng.uniform(10, 60)
        return _file(paper + dark * (pen - paper), "PNG")
    y, x = np.mgrid[-1 : 1 : 1j * _HEIGHT, -1 : 1 : 1j * _WIDTH]
    angle = rng.uniform(0, 2 * np.pi)
    light = 170 + 50 * (np.cos(angle) * x + np.sin(angle) * y) - 25 * (x**2 + y**2)
    shown = light * (1 - rng.uniform(0.5, 0.8) * dark)
    for _ in range(rng.integers(3, 9)):  # specks
        at_y, at_x = rng.integers(0, _HEIGHT - 3), rng.integers(0, _WIDTH - 3)
        shown[at_y : at_y + rng.integers(1, 4), at_x : at_x + rng.integers(1, 4)] *= 0.5
    blurred = Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))
    )
    noisy = np.asarray(blurred) + rng.normal(0, rng.uniform(3, 10), shown.shape)
    return _file(noisy, "JPEG")


def _file(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))
    image.save(buffer, form, quality=80)
    return buffer.getvalue()


def pages(kind: str, half: str) -> tuple[list[bytes], np.ndarray]:
    """Return one half of the digits as files of a kind, and their labels."""
    digits = load_digits()
    chosen = range(half == "odd", len(digits.target), 2)
    files = [
        page(digits.images[i], kind, np.random.default_rng((i, KINDS.index(kind))))
        for i in chosen
    ]
    return files, digits.target[list(chosen)]


def main() -> None:
    """Print a row a model, a column a kind of page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--half", choices=("even", "odd"), default="odd")
    parser.add_argument("--write", help="write the pages to this folder too, and look")
    given = parser.parse_args()

    from kcnn.inference import Classifier
    from kcnn.table import render

    classifiers = {name: Classifier(name) for name in given.models}
    rows = [{"model": name} for name in classifiers]
    for kind in KINDS:
        files, labels = pages(kind, given.half)
        if given.write:
            _write(pathlib.Path(given.write) / kind, files, labels)
        for row, classifier in zip(rows, classifiers.values(), strict=True):
            found = [one["classes"] for one in classifier.outputs_of_files(files)]
            row[kind] = f"{np.mean(np.array(found) == labels):.1%}"
    print(render(rows, "table"))
    print(f"{len(labels):,} pages of each kind: the {given.half} digits")


def _write(folder: pathlib.Path, files: list[bytes], labels: np.ndarray) -> None:
    for number, (data, label) in enumerate(zip(files, labels, strict=True)):
        suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
        place = folder / str(label) / f"{number}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


if __name__ == "__main__":
    main()
