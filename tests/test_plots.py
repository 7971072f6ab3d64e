import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from kcnn import canvas, diagram, galleries, plots

pytestmark = pytest.mark.filterwarnings("error")  # a missing glyph is a warning

AWKWARD = [
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk number 1",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk number 2",
    "日本語のクラス名",
    "$\\frac{1}{2$ & <b>",
    "tab\tand\nline",
    "W" * 60,
    "",
]


def names(count):
    return (AWKWARD + [f"class {i}" for i in range(count)])[:count]


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_visible()]


def tick_names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def undrawn_labels(figure):
    """Labels of ticks that Matplotlib keeps but does not draw."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def assert_text_apart_and_inside(figure):
    """No two texts of a figure overlap, and none is cut off."""
    renderer = figure.canvas.get_renderer()
    undrawn = set(undrawn_labels(figure))
    boxes = [
        (t.get_text(), t.get_window_extent(renderer))
        for t in figure.findobj(Text)
        if t.get_visible() and t.get_text().strip() and t not in undrawn
    ]
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text
        for other, there in boxes[:i]:
            width = min(box.x1, there.x1) - max(box.x0, there.x0)
            height = min(box.y1, there.y1) - max(box.y0, there.y0)
            # Boxes of neighboring lines touch by a descender's depth.
            assert width <= 2 or height <= 5, f"{text!r} on {other!r}"


def epochs(count, validation=True):
    rows = []
    for i in range(1, count + 1):
        row = {"epoch": i, "loss": 2 / i, "accuracy": 1 - 0.5 / i}
        row |= {"val_loss": None, "val_accuracy": None}
        if validation:
            row |= {"val_loss": 1.9 / i, "val_accuracy": 0.9 - abs(i - 3) / 100}
        rows.append(row | {"learning_rate": 0.001, "seconds": 3.0})
    return rows


def class_rows(count):
    return [
        {
            "name": name,
            "precision": 0.99,
            "recall": 0.97,
            "f1": 0.98 - i / 5000,
            "support": 1234,
        }
        for i, name in enumerate(names(count))
    ]


def test_learning_curves_mark_the_best_epoch(tmp_path):
    figure = plots.learning_curves(epochs(12), tmp_path / "a.png")
    loss, accuracy, rate = figure.axes
    assert [a.get_ylabel() for a in (loss, accuracy, rate)] == [
        "loss (cross-entropy)",
        "accuracy (%)",
        "learning rate",
    ]
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend[2] == "best validation accuracy: 90.00%, epoch 3"
    assert "running average" in legend[0] and "dropout on" in legend[0]
    validation = accuracy.lines[1]
    assert validation.get_ydata()[2] == pytest.approx(90)  # percent
    assert_text_apart_and_inside(figure)


def test_learning_curves_without_validation(tmp_path):
    figure = plots.learning_curves(epochs(5, validation=False), tmp_path / "a.png")
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]
    assert len(figure.legends[0].get_texts()) == 1


def test_learning_curves_of_one_epoch(tmp_path):
    figure = plots.learning_curves(epochs(1), tmp_path / "a.png")
    rate = figure.axes[2]
    low, high = rate.get_xlim()
    assert [x for x in rate.get_xticks() if low <= x <= high] == [1]
    assert rate.lines[0].get_marker() == "o"  # a line of one point is invisible


def test_loss_is_on_a_log_scale_only_where_that_helps(tmp_path):
    scales = [
        plots.learning_curves(epochs(n), tmp_path / "a.png").axes[0].get_yscale()
        for n in (10, 100)
    ]
    assert scales == ["linear", "log"]


def test_confusion_matrix_writes_counts(tmp_path):
    matrix = [[8, 2, 0], [0, 5, 0], [1, 0, 199]]
    figure = plots.confusion_matrix(matrix, ["a", "b", "c"], tmp_path / "a.png")
    axes = figure.axes[0]
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written == {
        (0, 0): "8",
        (1, 0): "2",
        (1, 1): "5",
        (0, 2): "1",
        (2, 2): "199",
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    colored = axes.images[1].get_array()
    assert colored.count() == 3 - 1  # the two errors, not the diagonal
    assert colored.max() == 2


def test_confusion_matrix_writes_percent_of_rows(tmp_path):
    matrix = [[8, 2, 0], [0, 0, 0], [1, 0, 9999]]
    figure = plots.confusion_matrix(
        matrix, ["a", "b", "c"], tmp_path / "a.png", normalize=True
    )
    written = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    assert written == {(0, 0): "80.0", (1, 0): "20.0", (0, 2): "<0.1", (2, 2): "100.0"}


def test_confusion_matrix_without_errors_says_so(tmp_path):
    figure = plots.confusion_matrix(np.eye(2), ["a", "b"], tmp_path / "a.png")
    assert "no errors" in texts(figure)
    assert len(figure.axes) == 1  # no scale of colors for nothing


@pytest.mark.parametrize(
    ("classes", "cells", "named"),
    [(2, True, True), (20, True, True), (47, False, True), (300, False, False)],
)
def test_confusion_matrix_shows_what_there_is_room_for(tmp_path, classes, cells, named):
    matrix = np.eye(classes, dtype=int) * 95 + 1
    figure = plots.confusion_matrix(matrix, names(classes), tmp_path / "a.png")
    axes = figure.axes[0]
    assert len(axes.texts) == (classes**2 if cells else 0)
    assert (len(axes.get_yticks()) == classes) == named
    assert ("index" in axes.get_ylabel()) != named
    assert_text_apart_and_inside(figure)


def test_per_class_says_that_the_axis_is_cut(tmp_path):
    figure = plots.per_class(class_rows(10), tmp_path / "a.png")
    axes = figure.axes[0]
    assert axes.get_xlim()[0] == 95
    assert axes.get_xlabel() == "percent (the axis starts at 95 %, not at 0)"
    assert len(axes.get_yticks()) == 10
    assert_text_apart_and_inside(figure)


def test_per_class_shows_the_worst_of_many(tmp_path):
    figure = plots.per_class(class_rows(1000), tmp_path / "a.png")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "the 30 classes of 1,000 with the lowest F1"
    assert tick_names(axes.yaxis)[0] == "class 992  (n=1,234)"


def test_per_class_starts_at_zero_where_a_class_is_bad(tmp_path):
    rows = [{"name": "a", "precision": 0.2, "recall": 0.9, "f1": 0.3, "support": 7}]
    axes = plots.per_class(rows, tmp_path / "a.png").axes[0]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "percent"


def test_reliability_leaves_out_empty_bins(tmp_path):
    bins = [
        {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 1.0, "n": 100, "confidence": 0.9, "accuracy": 0.8},
    ]
    figure = plots.reliability(bins, 0.1, tmp_path / "a.png")
    top, bottom = figure.axes
    accuracy, gap = top.patches
    assert (accuracy.get_x(), accuracy.get_height()) == (50, 80)
    assert (gap.get_y(), gap.get_height()) == pytest.approx((80, 10))
    assert [bar.get_height() for bar in bottom.patches] == [100]
    assert "expected calibration error 10.00 %" in texts(figure)
    assert_text_apart_and_inside(figure)


def mistake(probability, true="a", predicted="b", channels=1):
    image = np.full((8, 8, channels), 200, np.uint8)
    values = {"true": true, "predicted": predicted, "name": f"test {probability}"}
    return {"image": image, "probability": probability} | values


def test_mistakes_come_most_certain_first(tmp_path):
    items = [mistake(p / 100) for p in range(40, 70)]
    figure = galleries.mistakes(items, tmp_path / "a.png", tested=1000)
    title, *captions = (text.get_text() for text in figure.axes[0].texts)
    assert title == "the 25 most certain mistakes on the 1,000 test images"
    assert len(captions) == len(figure.axes[0].images) == 25
    assert captions[0] == "is a\nsaid b (69 %)\ntest 0.69"
    assert captions[24] == "is a\nsaid b (45 %)\ntest 0.45"


def test_mistakes_with_long_names_and_colors(tmp_path):
    items = [mistake(0.5, name, AWKWARD[0], 3) for name in AWKWARD]
    figure = galleries.mistakes(items, tmp_path / "a.png")
    assert_text_apart_and_inside(figure)
    shown = figure.axes[0].images[0]
    assert shown.get_array().shape == (8, 8, 3)


def test_grey_images_keep_their_brightness(tmp_path):
    figure = galleries.mistakes([mistake(0.5)], tmp_path / "a.png")
    assert figure.axes[0].images[0].get_clim() == (0, 255)


def test_a_gallery_stretches_no_image_and_keeps_all_apart(tmp_path):
    shapes = [(8, 8), (4, 20), (30, 10), (5, 5), (6, 9), (9, 6)]
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    items = [mistake(0.5) | {"image": image} for image in images]
    figure = galleries.mistakes(items, tmp_path / "a.png")
    assert_text_apart_and_inside(figure)
    renderer = figure.canvas.get_renderer()
    boxes = [image.get_window_extent(renderer) for image in figure.axes[0].images]
    for (height, width), box in zip(shapes, boxes, strict=True):
        assert box.height / box.width == pytest.approx(height / width)
    words = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place] + words)
    assert boxes[0].y0 > boxes[5].y1  # the sixth begins a row
    assert boxes[0].x0 + boxes[0].x1 == pytest.approx(boxes[5].x0 + boxes[5].x1)


def test_no_mistakes_is_a_picture_too(tmp_path):
    figure = galleries.mistakes([], tmp_path / "a.png", tested=10_000)
    assert texts(figure) == ["no mistakes on the 10,000 test images"]
    assert (tmp_path / "a.png").exists()


def test_image_grid_scales_all_images_alike(tmp_path):
    images = np.stack([np.full((4, 4, 1), -2.0), np.full((4, 4, 1), 3.0)])
    images[1, 0, 0] = 0.5  # halfway
    figure = galleries.image_grid(images, ["a", "b"], tmp_path / "a.png")
    first, second = (image.get_array() for image in figure.axes[0].images)
    assert first.max() == 0
    assert (second[0, 0], second[1, 1]) == (128, 255)
    assert any("-2 black, 3 white" in text for text in texts(figure))


def test_image_grid_of_one_flat_image(tmp_path):
    figure = galleries.image_grid(np.ones((1, 4, 4, 3)), ["a"], tmp_path / "a.png")
    assert figure.axes[0].images[0].get_array().max() == 0


def test_fit_keeps_both_ends_and_replaces_what_no_font_has():
    assert canvas.fit("short", 100) == "short"
    first, second = (canvas.fit(name, 100) for name in AWKWARD[:2])
    assert first != second
    assert first.startswith("Donau") and "…" in first
    assert canvas.fit("a\tb\U0010ffff", 100) == "a□b□"


def test_pictures_are_modest_pngs_and_leave_no_settings_behind(tmp_path):
    before = dict(matplotlib.rcParams)
    path = tmp_path / "new folder" / "a.png"
    plots.confusion_matrix(np.eye(10) * 9 + 1, names(10), path)
    assert dict(matplotlib.rcParams) == before
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 600
    assert path.stat().st_size < 150_000
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_svg_by_the_paths_ending_and_always_the_same(tmp_path):
    written = []
    for name in ("a.svg", "b.SVG"):
        plots.learning_curves(epochs(3), tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert b"<svg" in written[0]
    assert written[0] == written[1]


def layer(kind, shape, detail="", parameters=0, flops=0):
    return {
        "name": kind.lower(),
        "kind": kind,
        "detail": detail,
        "output_shape": shape,
        "parameters": parameters,
        "flops": flops,
    }


SMALL = [
    layer("Rescaling", (28, 28, 1)),
    layer("Conv2D", (26, 26, 32), "32 filters 3x3, relu", 320, 389_376),
    layer("MaxPooling2D", (13, 13, 32), "2x2"),
    layer("Dropout", (13, 13, 32), "rate 0.25"),
    layer("Flatten", (5408,)),
    layer("Dense", (10,), "10 units", 54_090, 108_160),
]


def test_architecture_writes_every_layer_and_the_totals(tmp_path):
    figure = diagram.architecture(SMALL, tmp_path / "a.png", title="tiny")
    written = texts(figure)
    assert "tiny: 6 layers, 54,410 parameters, 498 kFLOP an image" in written
    for expected in ("Conv2D", "32 filters 3x3, relu", "26×26×32", "320 parameters"):  # noqa: RUF001
        assert expected in written
    assert written.count("13×13×32") == 1  # dropout changes no shape  # noqa: RUF001
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == [
        "convolution",
        "pooling",
        "dense",
        "random, in training only",
        "rescaling",
        "reshaping",
    ]
    assert_text_apart_and_inside(figure)


def test_kinds_are_told_apart_without_color(tmp_path):
    figure = diagram.architecture(SMALL, tmp_path / "a.png")
    hatches = [patch.get_hatch() for patch in figure.legends[0].get_patches()]
    assert len(set(hatches)) == len(hatches)


@pytest.mark.parametrize("repeats", [1, 3, 14])
def test_architecture_wraps_without_overlap(tmp_path, repeats):
    block = [
        layer(
            "SeparableConv2D", (224, 224, 512), "512 filters 3x3, relu, stride 2", 10**7
        ),
        layer("BatchNormalization", (224, 224, 512), "momentum 0.99", 2048),
        layer("ALayerOfTheUsersOwnWithAVeryLongName", (112, 112, 1024), "x" * 60),
        layer("GlobalAveragePooling2D", (2048,), "y" * 60, 0),
    ]
    figure = diagram.architecture(block * repeats, tmp_path / "a.png")
    assert_text_apart_and_inside(figure)
    width, height = figure.get_size_inches()
    assert width < 11
    assert (height > 5) == (repeats > 2)
