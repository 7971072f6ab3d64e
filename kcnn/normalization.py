"""`--normalize_input=mnist`: handwriting of any size, put as MNIST's digits were made.

The step takes the place of resizing: it sees an image at its own resolution, before
anything is shrunk. Reading a data set, labelling files and the exported SavedModel
call it, in TensorFlow operations alone.

1. Paper. Its brightness is a surface of second order, fitted from the border inwards
   with little weight on what departs: uneven light and grey paper go with it.
2. Polarity. Ink is what departs from the paper, to the side that departs more.
3. Crop. Specks are thin on the ground and left out.
4. Strokes are thickened or thinned towards MNIST's width, by greyscale morphology.
5. The longer side becomes 20 pixels, antialiased, and the center of mass, to the
   nearest pixel, the middle of 28x28: so MNIST was made (LeCun et al., 1998).

An image that is so already, as all of MNIST's are, is returned bit for bit: the step
may be applied to its own result. What has no ink becomes black.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kcnn.spec import NORMALIZED

_SIDE = NORMALIZED[0]
_BOX = 20  # pixels of the longer side
_MIDDLE = 14.5  # row and column of the center of mass: the 15th pixel's middle

_PAGE = 128  # pixels of the longer side, where the ink is looked for
_INK = 112  # pixels of the square in which it is drawn anew,
_INK_BOX = 80  # and of its longer side there

_STROKE = 2.7  # MNIST's mean, as `_even_strokes` measures it, in pixels of the result
_MOST_CHANGE = 10  # of the strokes' edges, in pixels of the drawing
_SMOOTH = 2  # standard deviation in pixels of the drawing
_SHARPEN, _AROUND = 1.0, 7  # how much, against a surrounding of this deviation
_EDGE = (0.45, 0.85)  # of the ink's contrast: where a stroke begins and is full
_SPARSE = 0.2  # of the highest density of ink: below it are specks
_TURNS = 4  # of fitting the paper, on the border and everywhere
_FAINTEST = 0.04  # contrast of ink with paper
_LEAST_NOISE = 1 / 255

_ANY = (None, None, 1)


def normalize(images: tf.Tensor) -> tf.Tensor:
    """Put handwriting as MNIST's digits were made.

    Args:
        images: (height, width, 1) or (batch, height, width, 1) uint8, of any size.

    Returns:
        (28, 28, 1) or (batch, 28, 28, 1) uint8: light ink on a background of 0.
    """
    return _normalize_one(images) if images.shape.rank == 3 else _normalize_all(images)


@tf.function(autograph=False, input_signature=[tf.TensorSpec(_ANY, tf.uint8)])
def _normalize_one(image: tf.Tensor) -> tf.Tensor:
    same_size = tf.reduce_all(tf.shape(image) == NORMALIZED)
    result = tf.cond(same_size & is_normal(image), lambda: image, lambda: redraw(image))
    return tf.ensure_shape(result, NORMALIZED)


@tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *_ANY), tf.uint8)])
def _normalize_all(images: tf.Tensor) -> tf.Tensor:
    spec = tf.TensorSpec(NORMALIZED, tf.uint8)
    return tf.map_fn(_normalize_one, images, fn_output_signature=spec)


def is_normal(image: tf.Tensor) -> tf.Tensor:
    """Tell whether a (28, 28, 1) uint8 image is as all 70,000 of MNIST's are.

    That is, black or: 18 to 20 pixels on its longer side, the center of mass within 0.6
    pixels of the middle, and white at its lightest.
    """
    values = tf.cast(image[..., 0], tf.float32)
    longer = tf.reduce_max(_sides(values > 0))
    off = tf.abs(tf.stack(_center_of_mass(values)) - _MIDDLE)
    lightest = tf.reduce_max(values)
    in_place = (longer >= _BOX - 2) & (longer <= _BOX) & tf.reduce_all(off < 0.6)
    return (lightest == 0) | (in_place & (lightest >= 250))


def redraw(image: tf.Tensor) -> tf.Tensor:
    """Take the steps of this module with one image, whatever it looks like.

    Args:
        image: (height, width, 1) uint8.

    Returns:
        (28, 28, 1) uint8.
    """
    values = tf.cast(image[..., 0], tf.float32) / 255
    size = tf.cast(tf.shape(values), tf.float32)
    zoom = _PAGE / tf.reduce_max(size)
    shape = tf.maximum(tf.cast(tf.round(size * zoom), tf.int32), 8)
    page = _resample(values, size / 2, zoom, shape)
    surface = _fit_paper(page)
    relative = [_relative(n) for n in tf.unstack(shape)]
    departs = _blur(page - _paper(surface, *relative), 1)
    # A quarter of a Gaussian is within 0.319 deviations. No more than that needs to be
    # bare paper, where a digit fills its image.
    noise = tf.maximum(_quantile(tf.abs(departs), 4) / 0.319, _LEAST_NOISE)
    beyond = tf.nn.relu(tf.abs(departs) - 3 * noise)
    sign = tf.sign(tf.reduce_sum(tf.sign(departs) * tf.square(beyond)))
    ink, contrast = _written(sign * departs, 4 * noise)

    def drawn() -> tf.Tensor:
        (top, bottom), (left, right) = (_extent(ink > 0.5, i) for i in (0, 1))
        middle = tf.stack([top + bottom, left + right])
        center = tf.cast(middle, tf.float32) / 2 / zoom
        longer = tf.maximum(bottom - top, right - left)
        closer = zoom * _INK_BOX / tf.cast(longer, tf.float32)
        close = _resample(values, center, closer, (_INK, _INK))
        places = ((_centers(_INK) - _INK / 2)[:, None] / closer + center) / size
        within = tf.cast((places > 0) & (places < 1), tf.float32)  # else bare paper
        paper = _paper(surface, *tf.unstack(places, axis=1))
        room = tf.where(sign < 0, paper, 1 - paper)
        departs = sign * (close - paper) / tf.maximum(room, 0.2)
        departs *= within[:, :1] * within[:, 1]
        smooth = _blur(departs, _SMOOTH)
        # Unsharp masking: what small loops are half filled with stays open.
        sharp = smooth + _SHARPEN * (smooth - _blur(smooth, _AROUND))
        strokes, _ = _written(sharp, 2 * noise)
        return _place(_even_strokes(strokes))

    blank = tf.zeros((_SIDE, _SIDE), tf.float32)
    drawing = tf.cond(contrast > tf.maximum(6 * noise, _FAINTEST), drawn, lambda: blank)
    return tf.cast(tf.round(255 * drawing), tf.uint8)[..., None]


def _resample(
    image: tf.Tensor, center: tf.Tensor, zoom: tf.Tensor, shape: tf.Tensor
) -> tf.Tensor:
    """Show a part of a (height, width) image larger or smaller, antialiased.

    Args:
        image: goes on beyond its border with the border's values.
        center: (2,) row and column that become the middle; the first pixel's is 0.5.
        zoom: pixels of the result a pixel of the image.
        shape: (2,) of the result.
    """

    def weights(n: tf.Tensor, middle: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return (length, n): how much of each pixel is in each of the result's."""
        at = (_centers(length) - tf.cast(length, tf.float32) / 2) / zoom + middle
        at = tf.clip_by_value(at, 0.5, tf.cast(n, tf.float32) - 0.5)
        away = tf.abs(at[:, None] - _centers(n)) * tf.minimum(zoom, 1.0)
        near = tf.nn.relu(1 - away)
        return near / tf.reduce_sum(near, 1, keepdims=True)

    rows, columns = tf.unstack(tf.shape(image))
    down = weights(rows, center[0], shape[0])
    across = weights(columns, center[1], shape[1])
    return tf.matmul(tf.matmul(down, image), across, transpose_b=True)


def _fit_paper(page: tf.Tensor) -> tf.Tensor:
    """Fit the paper's brightness to a (height, width) page in [0, 1].

    Iteratively reweighted least squares with Geman and McClure's weights, at first on
    the border alone, where the least ink is; then wherever the paper goes on.

    Returns:
        (6,) coefficients for `_paper`.
    """
    rows, columns = tf.unstack(tf.shape(page))
    terms = _terms(_relative(rows), _relative(columns))
    values = tf.reshape(page, [-1, 1])
    margin = tf.cast(tf.maximum(rows, columns), tf.float32) / 16
    edge = [
        tf.minimum(_centers(n), tf.cast(n, tf.float32) - _centers(n)) < margin
        for n in (rows, columns)
    ]
    border = tf.reshape(edge[0][:, None] | edge[1], [-1])
    at_border = tf.boolean_mask(values, border)
    level = _quantile(at_border, 2)
    surface = tf.concat([[[level]], tf.zeros((5, 1))], 0)
    # A little resistance to slopes that few pixels speak for.
    resistance = tf.constant(np.diag([0, 1, 1, 1, 1, 1]), tf.float32)
    for turn in range(2 * _TURNS):
        departs = values - tf.matmul(terms, surface)
        spread = 1.4826 * _quantile(tf.abs(tf.boolean_mask(departs, border)), 2)
        weights = 1 / tf.square(1 + tf.square(departs / tf.maximum(2 * spread, 0.04)))
        if turn < _TURNS:
            weights *= tf.cast(border, tf.float32)[:, None]
        weighted = tf.transpose(terms * weights)
        left = tf.matmul(weighted, terms) + resistance
        surface = tf.linalg.solve(left, tf.matmul(weighted, values))
    return surface[:, 0]


def _paper(surface: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return the paper's brightness (height, width) at relative rows and columns."""
    values = tf.matmul(_terms(rows, columns), surface[:, None])
    return tf.reshape(values, (tf.size(rows), tf.size(columns)))


def _terms(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return (height * width, 6): 1, y, x, y^2, yx, x^2 with y, x from -1 to 1."""
    y, x = tf.meshgrid(2 * rows - 1, 2 * columns - 1, indexing="ij")
    terms = tf.stack([tf.ones_like(y), y, x, y * y, y * x, x * x], -1)
    return tf.reshape(terms, (-1, 6))


def _written(departs: tf.Tensor, least: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tell ink from noise and specks.

    Args:
        departs: (height, width), how much darker than the paper, or lighter.
        least: what may be noise.

    Returns:
        (height, width) in [0, 1], about 0.5 at the edge of a stroke; and the ink's mean
        contrast.
    """
    beyond = tf.nn.relu(departs - least)
    density = tf.nn.avg_pool2d(beyond[None, ..., None], 13, 1, "SAME")[0, ..., 0]
    dense = tf.cast(density > _SPARSE * tf.reduce_max(density), tf.float32)
    beyond *= dense
    mean = tf.reduce_sum(tf.square(beyond)) / (tf.reduce_sum(beyond) + 1e-6)
    contrast = mean + tf.where(mean > 0, least, 0.0)
    share = departs / tf.maximum(contrast, 1e-6)
    low, high = _EDGE
    return dense * tf.clip_by_value((share - low) / (high - low), 0, 1), contrast


def _even_strokes(strokes: tf.Tensor) -> tf.Tensor:
    """Thicken or thin (height, width) strokes in [0, 1] towards MNIST's width.

    Twice the area over the length of the edges is a stroke's mean width.
    """
    down, across = tf.image.image_gradients(strokes[None, ..., None])
    edges = tf.reduce_sum(tf.sqrt(tf.square(down) + tf.square(across)))
    width = 2 * tf.reduce_sum(strokes) / tf.maximum(edges, 1e-6)
    # The box grows with the strokes: what counts is their share of it in the end.
    share = _STROKE / _BOX
    side = tf.cast(tf.reduce_max(_sides(strokes > 0.5)), tf.float32)
    change = (share * side - width) / (1 - share) / 2
    change = tf.clip_by_value(change, -0.35 * width, _MOST_CHANGE)
    thin = change < 0
    picture = tf.where(thin, 1 - strokes, strokes)[None, ..., None]
    for i in range(_MOST_CHANGE):
        part = tf.clip_by_value(tf.abs(change) - i, 0, 1)
        if i % 2:  # in turn with a cross: nearly a disc
            wider = tf.maximum(
                tf.nn.max_pool2d(picture, (3, 1), 1, "SAME"),
                tf.nn.max_pool2d(picture, (1, 3), 1, "SAME"),
            )
        else:
            wider = tf.nn.max_pool2d(picture, 3, 1, "SAME")
        picture += part * (wider - picture)
    return tf.where(thin, 1 - picture, picture)[0, ..., 0]


def _place(strokes: tf.Tensor) -> tf.Tensor:
    """Shrink strokes to MNIST's box and center them by mass: (28, 28) in [0, 1]."""
    (top, bottom), (left, right) = (_extent(strokes > 0.1, i) for i in (0, 1))
    cut = strokes[top:bottom, left:right]
    sides = tf.stack([bottom - top, right - left])
    size = tf.cast(tf.round(_BOX * sides / tf.reduce_max(sides)), tf.int32)
    size = tf.maximum(size, 1)
    small = tf.image.resize(cut[..., None], size, "area")[..., 0]
    small /= tf.maximum(tf.reduce_max(small), 1e-6)
    shift = tf.cast(tf.round(_MIDDLE - tf.stack(_center_of_mass(small))), tf.int32)
    before = tf.clip_by_value(shift, 0, _SIDE - size)
    padded = tf.pad(small, tf.stack([before, _SIDE - size - before], 1))
    return tf.ensure_shape(padded, (_SIDE, _SIDE))


def _extent(inside: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return where a (height, width) bool mask begins and ends along an axis."""
    found = tf.cast(tf.reduce_any(inside, 1 - axis), tf.int32)
    first = tf.argmax(found, output_type=tf.int32)
    last = tf.size(found) - tf.argmax(found[::-1], output_type=tf.int32)
    return first, last


def _sides(inside: tf.Tensor) -> tf.Tensor:
    """Return height and width, (2,) int32, of what a (height, width) mask holds."""
    ends = tf.stack([_extent(inside, axis) for axis in (0, 1)])
    return ends[:, 1] - ends[:, 0]


def _center_of_mass(values: tf.Tensor) -> list[tf.Tensor]:
    """Return row and column of (height, width) values; the first pixel's is 0.5."""
    sums = [tf.reduce_sum(values, 1 - axis) for axis in (0, 1)]
    total = tf.maximum(tf.reduce_sum(values), 1e-6)
    return [tf.reduce_sum(one * _centers(tf.size(one))) / total for one in sums]


def _centers(n: tf.Tensor) -> tf.Tensor:
    """Return (n,) float32: 0.5, 1.5, ... where pixels have their middle."""
    return tf.range(n, dtype=tf.float32) + 0.5


def _relative(n: tf.Tensor) -> tf.Tensor:
    return _centers(n) / tf.cast(n, tf.float32)


def _quantile(values: tf.Tensor, parts: int) -> tf.Tensor:
    """Return what one of so many equal parts of some values lies below."""
    values = tf.reshape(values, [-1])
    return tf.sort(values)[tf.size(values) // parts]


def _blur(image: tf.Tensor, deviation: int) -> tf.Tensor:
    """Blur (height, width) by a Gaussian; beyond the border it is mirrored."""
    reach = 3 * deviation
    at = tf.range(-reach, reach + 1, dtype=tf.float32)
    bell = tf.exp(-tf.square(at / deviation) / 2)
    bell /= tf.reduce_sum(bell)
    image = tf.pad(image, [[reach, reach]] * 2, "SYMMETRIC")[None, ..., None]
    image = tf.nn.conv2d(image, tf.reshape(bell, (-1, 1, 1, 1)), 1, "VALID")
    return tf.nn.conv2d(image, tf.reshape(bell, (1, -1, 1, 1)), 1, "VALID")[0, ..., 0]
