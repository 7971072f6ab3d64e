"""Does an MNIST-trained model know other people's digits, and that letters are none?

    python benchmarks/handwriting.py MODEL ...

Each MODEL is a SavedModel that kcnn exported, trained on MNIST. scikit-learn's 1,797
digits, of other writers and other scanners, are drawn on pages of 200x150 pixels, dark
on light, at random places and sizes, in several kinds: clean, on grey paper, and as a
phone takes them (light that falls off, blur, noise, specks, JPEG). The files go through
the model's own `serving_bytes`. The odd ones are reported; the constants of
kcnn/normalization.py were chosen on the even ones (--half=even).

Letters and symbols are drawn on the same pages, in the text fonts that come with
Matplotlib, slightly turned, and once more upside down. The area under the ROC curve
says how well a score tells the pages with digits from these: max_probability, and
energy of a model trained with --reject=energy, whose export gives it. Signs that are a
digit to anyone are left out: O, I, l, Z, S, b, g, q and the like, and of the others
upside down E, L, e and h, which are 3, 7, 9 and 4 then. --train_signs=DIR writes pages
of the same signs in other fonts (Computer Modern), to train a model with --other on;
not_other is then the probability of all classes but that.
"""

from __future__ import annotations

import argparse
import io
import pathlib
from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

from kcnn import runtime

runtime.start_tensorflow()

from kcnn.confidence import ENERGY, MAX_PROBABILITY, scores_of  # noqa: E402
from kcnn.datasets import OTHER  # noqa: E402
from kcnn.errors import run_program  # noqa: E402
from kcnn.inference import Classifier, Outputs  # noqa: E402
from kcnn.rejection import auroc  # noqa: E402
from kcnn.table import render  # noqa: E402

KINDS = ("clean", "grey", "photo")
_WIDTH, _HEIGHT = 200, 150

SIGNS = "ABCDEFGHJKLMNPQRTUVWXYacdefhkmnprtuvwxy#%&@?!+=*<>€§"
_NOT_TURNED = "ELeh+=*"  # digits upside down, or the same
_FONTS = "DejaVuS*[!y].ttf", "STIXGeneral*.ttf"  # but those called Display
_TRAINING_FONTS = "cmb10.ttf", "cmr10.ttf", "cmss10.ttf", "cmti10.ttf", "cmtt10.ttf"
_SIGN_PAGES = 4  # of each sign and kind, each in a font of its own


def page(ink: Image.Image, kind: str, rng: np.random.Generator) -> bytes:
    """Draw a square image, 0 no ink and 255 ink, on a page; return a PNG or JPEG file.

    Args:
        ink: grey, of any size.
        kind: one of KINDS.
        rng: decides size and place, and what the kind leaves to chance.
    """
    side = int(rng.integers(60, 121))
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
    files = []
    for i in chosen:
        ink = Image.fromarray(np.rint(digits.images[i] * 255 / 16).astype(np.uint8))
        files.append(page(ink, kind, np.random.default_rng((i, KINDS.index(kind)))))
    return files, digits.target[list(chosen)]


def sign_pages(
    kind: str, patterns: tuple[str, ...] = _FONTS
) -> tuple[list[bytes], list[str]]:
    """Return letters and symbols as files of a kind, and what is on each."""
    folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = sorted({font for pattern in patterns for font in folder.glob(pattern)})
    signs = [(s, 0) for s in SIGNS] + [(s, 180) for s in SIGNS if s not in _NOT_TURNED]
    files, names = [], []
    for i, (sign, turn) in enumerate(signs):
        rng = np.random.default_rng((i, 10 + KINDS.index(kind)))
        for font in rng.choice(len(fonts), _SIGN_PAGES, replace=False):
            if ord(sign) not in FT2Font(str(fonts[font])).get_charmap():
                continue
            ink = _sign(sign, fonts[font], turn + rng.uniform(-10, 10))
            files.append(page(ink, kind, rng))
            names.append(f"U+{ord(sign):04X}{'-turned' * (turn > 0)}")
    return files, names


def _sign(sign: str, font: pathlib.Path, degrees: float) -> Image.Image:
    """Draw a sign in the middle of a square that is a quarter larger."""
    image = Image.new("L", (240, 240))
    letters = ImageFont.truetype(font, 180)
    ImageDraw.Draw(image).text((120, 120), sign, 255, letters, anchor="mm")
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    left, top, right, bottom = turned.getbbox()
    half = max(right - left, bottom - top) * 5 // 8
    x, y = (left + right) // 2, (top + bottom) // 2
    return turned.crop((x - half, y - half, x + half, y + half))


def scores(outputs: list[Outputs], classifier: Classifier) -> dict[str, np.ndarray]:
    """Return name -> (n,) of the scores that an export's outputs hold."""
    probabilities = np.stack([one["probabilities"] for one in outputs])
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    found = {MAX_PROBABILITY: scores_of(logits, 1.0)[MAX_PROBABILITY]}
    if classifier.card.get("confidence", {}).get("score") == ENERGY:
        found[ENERGY] = np.array([one["score"] for one in outputs])
    if OTHER in classifier.class_names:
        found["not_other"] = -logits[:, classifier.class_names.index(OTHER)]
    return found


def main() -> None:
    """Print rows a model, a column a kind of page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--half", choices=("even", "odd"), default="odd")
    parser.add_argument("--write", help="write the pages to this folder too, and look")
    parser.add_argument("--train_signs", help="write pages for --other here, and end")
    given = parser.parse_args()
    if given.train_signs:
        for kind in KINDS:
            signs, names = sign_pages(kind, _TRAINING_FONTS)
            _write(pathlib.Path(given.train_signs) / kind, signs, names)
        return

    classifiers = {name: Classifier(name) for name in given.models}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for kind in KINDS:
        files, labels = pages(kind, given.half)
        signs, names = sign_pages(kind)
        if given.write:
            _write(pathlib.Path(given.write) / kind, files, map(str, labels))
            _write(pathlib.Path(given.write) / kind, signs, names)
        for name, classifier in classifiers.items():
            known = classifier.outputs_of_files(files)
            strange = scores(classifier.outputs_of_files(signs), classifier)
            right = np.array([one["classes"] for one in known]) == labels
            found = {"accuracy": f"{right.mean():.1%}"}
            for score, values in scores(known, classifier).items():
                area = auroc(values, strange[score])
                low, high = area["interval"]
                found[f"AUROC, {score}"] = f"{area['value']:.3f} ({low:.3f}-{high:.3f})"
            for figure, text in found.items():
                row = rows.setdefault((name, figure), {"model": name, "figure": figure})
                row[kind] = text
    print(render(list(rows.values()), "table"))
    print(
        f"pages of each kind: {len(labels):,} digits, the {given.half} ones, and "
        f"{len(signs):,} letters and symbols; in brackets 95% intervals of the pages"
    )


def _write(folder: pathlib.Path, files: list[bytes], labels: Iterable[str]) -> None:
    for number, (data, label) in enumerate(zip(files, labels, strict=True)):
        suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
        place = folder / label / f"{number}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


if __name__ == "__main__":
    run_program(main)
