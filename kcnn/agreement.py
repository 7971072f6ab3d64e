"""Whether a published figure is one that the same recipe gives here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import scipy.stats

from kcnn.statistics import Interval, prediction_interval, summarize

# Of the eighty published figures four would be off by chance at 95%, here not one.
CONFIDENCE = 0.99


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A published figure beside those of several random seeds, in the same unit.

    `interval` is where one more run lies with 99% confidence, widened by half of the
    published figure's last digit; `interval_of` is what it goes by: "seeds", or for
    the accuracy of a single run "images", which does not know how random seeds vary.
    Where there is neither, both are None, and so is `agrees`. `difference` is measured
    less published. A figure that was not published is None, and so is all that hangs
    on it.
    """

    published: float | None
    values: list[float]
    mean: float
    deviation: float | None
    interval: Interval | None
    interval_of: str | None
    difference: float | None
    agrees: bool | None


def agreement(
    published: float | None,
    values: Sequence[float],
    digits: int,
    images: int | None = None,
) -> Agreement:
    """Compare a figure from one published run with those of several random seeds.

    Args:
        published: None where none was.
        values: what each random seed gave, one or more.
        digits: after the point, to which the figure was printed.
        images: of which the values are parts that are right; None for other figures.
    """
    summary = summarize(values)
    interval, interval_of = prediction_interval(values, CONFIDENCE), "seeds"
    if interval is None and images:
        # Two runs that are right as often differ by sampling two sets of images.
        error = math.sqrt(2 * summary.mean * (1 - summary.mean) / images)
        reach = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * error
        interval, interval_of = (summary.mean - reach, summary.mean + reach), "images"
    agrees = None
    if interval is not None:
        half = 0.5 * 10**-digits
        interval = float(interval[0] - half), float(interval[1] + half)
        if published is not None:
            agrees = interval[0] <= published <= interval[1]
    return Agreement(
        published,
        list(values),
        summary.mean,
        summary.deviation,
        interval,
        interval_of if interval else None,
        None if published is None else summary.mean - published,
        agrees,
    )
