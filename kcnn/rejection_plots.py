"""Pictures of what a model rejects: plain figures and arrays in, PNG or SVG out."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kcnn.canvas import BLUE, SKY, VERMILION, Path, drawing, floats
from kcnn.confidence import Judged, Rule, readable

_BINS = 40


def draw(
    folder: pathlib.Path,
    rule: Rule,
    known: tuple[Mapping[str, Any] | None, Judged],
    unknown: tuple[Mapping[str, Any] | None, Judged | None],
) -> list[pathlib.Path]:
    """Draw what is rejected and how scores are spread, as far as there is any.

    Args:
        folder: for risk_coverage.png and scores.png.
        rule: by which images are accepted.
        known: what `kcnn.rejection.selective_scores` found, or None; and images of
            known classes.
        unknown: what `known_against_unknown` found, or None; and of what.

    Returns:
        What was drawn.
    """
    drawn = []
    (rejected, judged), (figures, strange) = known, unknown
    if rejected is not None:
        drawn.append(folder / "risk_coverage.png")
        risk_coverage(rejected, rule.score, drawn[-1])
    if figures is not None and strange is not None:
        drawn.append(folder / "scores.png")
        scores = {name: judged.scores[name] for name in strange.scores}
        threshold = {} if rule.threshold is None else {rule.score: rule.threshold}
        score_histograms(
            readable(scores),
            readable(strange.scores),
            figures["auroc"],
            readable(threshold),
            drawn[-1],
        )
    return drawn


def risk_coverage(rejected: Mapping[str, Any], score: str, path: Path) -> Figure:
    """Draw how the risk falls as fewer images are accepted.

    Args:
        rejected: of `kcnn.rejection.selective_scores`, for the test images.
        score: the name of the score by which they are accepted.
        path: where to write it.
    """
    curve = rejected["risk_coverage"]
    coverage = 100 * floats(curve, "coverage")
    risk = 100 * floats(curve, "risk")
    with drawing(path, (5.6, 4.4)) as figure:
        axes = figure.subplots()
        axes.plot(coverage, risk, "-", color=BLUE, label=f"accepted by {score}")
        axes.plot(
            [0, 100],
            [risk[-1], risk[-1]],
            "--",
            color="black",
            lw=1,
            label="accepted at random",
        )
        if rejected["accepted"]:
            low, high = (100 * (1 - end) for end in rejected["accuracy_interval"])
            at, here = 100 * rejected["coverage"], 100 * (1 - rejected["accuracy"])
            axes.errorbar(
                at,
                here,
                [[here - high], [low - here]],
                fmt="o",
                color=VERMILION,
                capsize=3,
                label=f"at the threshold: {at:.1f} % accepted, {here:.2f} % of them "
                "wrong,\nwith its 95% interval",
            )
        axes.set_xlim(0, 101)
        axes.set_ylim(bottom=0)
        axes.grid(True)
        axes.set_xlabel("coverage: accepted test images (%)")
        axes.set_ylabel("risk: mistakes among the accepted (%)")
        title = f"area under the curve {rejected['aurc']:.3g} (of 1)"
        figure.legend(loc="outside upper center", frameon=False, title=title)
    return figure


def score_histograms(
    known: Mapping[str, np.ndarray],
    unknown: Mapping[str, np.ndarray],
    areas: Mapping[str, Mapping[str, Any]],
    thresholds: Mapping[str, float],
    path: Path,
) -> Figure:
    """Draw how the scores of test images and of images of no class are spread.

    Args:
        known: name of a score -> (n,) float, as a person reads it, of test images.
        unknown: the same scores of images of no class.
        areas: name of a score -> `value`, the area under its ROC curve.
        thresholds: from where on images are accepted, by the score that decides it.
        path: where to write it.
    """
    with drawing(path, (6.4, 2.5 * len(known) + 0.5)) as figure:
        grid = figure.subplots(len(known), 1, squeeze=False)[:, 0]
        for axes, (name, scores) in zip(grid, known.items(), strict=True):
            _histograms(axes, scores, unknown[name])
            if name in thresholds:
                axes.axvline(
                    thresholds[name],
                    color="black",
                    ls="--",
                    label="accepted from here on",
                )
            axes.set_title(f"AUROC {areas[name]['value']:.4f}", loc="right", fontsize=9)
            axes.set_xlabel(name.replace("_", " "))
            axes.set_ylabel("images (%)")
        entries = {
            label: handle
            for axes in grid
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
    return figure


def _histograms(axes: Axes, known: np.ndarray, unknown: np.ndarray) -> None:
    both = np.concatenate([known, unknown])
    edges = np.histogram_bin_edges(both, _BINS)
    for scores, label, style in (
        (known, "test images", {"color": SKY}),
        (
            unknown,
            "unknown images",
            {"histtype": "step", "color": VERMILION, "hatch": "////", "lw": 1.2},
        ),
    ):
        weights = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, edges.tolist(), weights=weights, label=label, **style)
