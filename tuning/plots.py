"""Pictures of a search, from its records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from kcnn.canvas import BLUE, GREY, ORANGE, VERMILION, Path, drawing, fit, log_scale
from kcnn.knobs import show
from tuning.importance import Importance, comparable, position
from tuning.journal import Record, ranked
from tuning.objective import Objective
from tuning.space import Choices, Domain, Space, Span

_PANEL_POINTS = 170  # width of a panel, for its labels
_COLORS = "viridis"  # as dark as the score is good, so that grey shows it too


def best_so_far(records: Sequence[Record], objective: Objective, path: Path) -> None:
    """Draw every trial's score, and the best so far, against the time of the search.

    At least one trial must have come to its end. What is beyond the scale, see `scale`,
    is drawn at its edge.
    """
    scored = sorted(
        (r for r in records if r.score is not None), key=lambda r: r.elapsed
    )
    unit, name = _time_unit(max((r.elapsed for r in records), default=1.0))
    done = [r for r in scored if r.status == "done"]
    low, high = scale(done, objective)
    margin = 0.08 * (high - low) or 0.01 * abs(high) or 0.01
    low, high = low - margin, high + margin
    with drawing(path, (6.4, 3.6)) as figure:
        axes = figure.subplots()
        axes.set_ylim(low, high)
        for status, marker, label in (
            ("done", "o", "trial"),
            ("pruned", "v", "trial stopped as hopeless"),
        ):
            own = [r for r in scored if r.status == status]
            if own:
                axes.plot(
                    [r.elapsed / unit for r in own],
                    np.clip([_shown(r.score, objective) for r in own], low, high),
                    marker,
                    clip_on=False,
                    color=BLUE if status == "done" else GREY,
                    markerfacecolor=BLUE if status == "done" else "none",
                    markersize=4,
                    label=label,
                )
        times, best = _best_line(done, objective)
        end = max(r.elapsed for r in records)
        axes.step(
            [t / unit for t in [*times, end]],
            [_shown(b, objective) for b in [*best, best[-1]]],
            where="post",
            color=VERMILION,
            linewidth=1.5,
            label="best so far",
        )
        failed = [r.elapsed / unit for r in records if r.status == "failed"]
        if failed:
            axes.plot(
                failed,
                [low] * len(failed),
                "x",
                clip_on=False,
                color="black",
                label="failed trial",
            )
        axes.set(xlabel=f"time of the search ({name})", ylabel=_label(objective))
        axes.grid(True)
        figure.legend(loc="outside upper center", ncols=4, frameon=False)


def by_knob(
    records: Sequence[Record],
    space: Space,
    objective: Objective,
    importance: Importance | None,
    path: Path,
) -> None:
    """Draw the score against each knob, the most important first."""
    used = comparable(records)
    names = list(importance.by_knob) if importance else list(space.domains)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    with drawing(path, (2.9 * columns + 0.4, 2.5 * rows + 0.2)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        panels = [axes for row in grid for axes in row]
        for name, axes in zip(names, panels, strict=False):
            _knob_panel(axes, used, name, space.domains[name], objective)
            if importance:
                mean, deviation = importance.by_knob[name]
                axes.set_title(f"importance {mean:.2f} ± {deviation:.2f}", fontsize=9)
        for axes in panels[len(names) :]:
            axes.axis("off")
        figure.supylabel(_label(objective), fontsize=9)


def _knob_panel(
    axes: Axes, used: Sequence[Record], name: str, domain: Domain, objective: Objective
) -> None:
    own = [r for r in used if name in r.values]
    scores = [_shown(r.score, objective) for r in own]
    style: dict[str, Any] = {
        "color": BLUE,
        "markersize": 3.5,
        "alpha": 0.7,
        "markeredgewidth": 0,
    }
    axes.set_xlabel(name)
    axes.grid(True)
    if isinstance(domain, Span):
        axes.plot([r.values[name] for r in own], scores, "o", **style)
        if domain.log:
            log_scale(axes, "x")
            axes.set_xlim(domain.low, domain.high)
            ends = (domain.low, math.sqrt(domain.low * domain.high), domain.high)
            axes.set_xticks(ends, [f"{n:.2g}" for n in ends])
        return
    places = [domain.values.index(r.values[name]) for r in own]
    axes.plot(places, scores, "o", **style)
    for place in sorted(set(places)):
        at = [s for p, s in zip(places, scores, strict=True) if p == place]
        middle = statistics.median(at)
        axes.hlines(middle, place - 0.25, place + 0.25, color=VERMILION, linewidth=1.5)
    size = 9 if len(domain.values) < 4 else 7
    room = _PANEL_POINTS / len(domain.values)
    labels = [fit(show(value) or "none", room, size) for value in domain.values]
    axes.set_xticks(range(len(labels)), labels, fontsize=size)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def parallel_coordinates(
    records: Sequence[Record], space: Space, objective: Objective, path: Path
) -> None:
    """Draw each trial as a line over all knobs to its score; the best ones dark."""
    used = sorted(
        comparable(records), key=lambda r: objective.cost(r.score), reverse=True
    )
    names = list(space.domains)
    scores = [_shown(r.score, objective) for r in used]
    low, high = scale(used, objective)
    norm = Normalize(vmin=low, vmax=high if high > low else low + 1e-9, clip=True)
    colors = ScalarMappable(
        norm, f"{_COLORS}_r" if objective.direction == "max" else _COLORS
    )
    with drawing(path, (1.15 * (len(names) + 1) + 1.2, 3.8)) as figure:
        axes = figure.subplots()
        for i, (record, score) in enumerate(zip(used, scores, strict=True)):
            heights = [position(space.domains[n], record.values.get(n)) for n in names]
            last = i == len(used) - 1
            axes.plot(
                [*range(len(names)), len(names)],
                [*heights, norm(score)],
                color=VERMILION if last else colors.cmap(float(norm(score))),
                linewidth=2.4 if last else 0.9,
                alpha=1 if last else 0.75,
                zorder=3 if last else 2,
            )
        for i, name in enumerate(names):
            axes.axvline(i, color="black", linewidth=0.8)
            for height, text in _marks(space.domains[name]):
                axes.text(i + 0.04, height, fit(text, 52, 7), fontsize=7, va="center")
        axes.axvline(len(names), color="black", linewidth=0.8)
        axes.set_xticks(
            range(len(names) + 1),
            [*(fit(name, 78) for name in names), "score"],
        )
        axes.set_yticks([])
        axes.set_ylim(-0.14, 1.06)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(colors, ax=axes, pad=0.02)
        bar.set_label(_label(objective))


def _marks(domain: Domain) -> list[tuple[float, str]]:
    if isinstance(domain, Choices):
        return [(position(domain, v), show(v) or "none") for v in domain.values]
    return [(position(domain, v), show(v)) for v in (domain.low, domain.high)]


def rungs(records: Sequence[Record], objective: Objective, path: Path) -> None:
    """Draw Hyperband's brackets: each configuration's score from rung to rung."""
    numbers = sorted(
        {r.bracket for r in records if r.bracket is not None}, reverse=True
    )
    with drawing(path, (2.4 * len(numbers) + 0.6, 3.2)) as figure:
        panels = figure.subplots(1, len(numbers), squeeze=False, sharey=True)[0]
        for number, axes in zip(numbers, panels, strict=True):
            own = [r for r in records if r.bracket == number and r.score is not None]
            paths: dict[str, list[Record]] = {}
            for record in sorted(own, key=lambda r: r.epochs):
                paths.setdefault(record.told, []).append(record)
            longest = max(map(len, paths.values()), default=0)
            for line in paths.values():
                promoted = len(line) > 1
                axes.plot(
                    [r.epochs for r in line],
                    [_shown(r.score, objective) for r in line],
                    "o-",
                    color=BLUE
                    if len(line) == longest and promoted
                    else ORANGE
                    if promoted
                    else GREY,
                    linewidth=1.2,
                    markersize=3.5,
                )
            epochs = sorted({r.epochs for r in own})
            log_scale(axes, "x")
            axes.set_xticks(epochs, [str(n) for n in epochs])
            axes.minorticks_off()
            axes.set(title=f"bracket {number}", xlabel="epochs")
            axes.title.set_fontsize(9)
            axes.grid(True)
        panels[0].set_ylabel(_label(objective))


def _best_line(
    done: Sequence[Record], objective: Objective
) -> tuple[list[float], list[float]]:
    times: list[float] = []
    best: list[float] = []
    for i, record in enumerate(done):
        first = ranked(done[: i + 1], objective)[0]
        assert first.score is not None  # it is done
        times.append(record.elapsed)
        best.append(first.score)
    return times, best


def scale(trials: Sequence[Record], objective: Objective) -> tuple[float, float]:
    """Return the ends of the scores as they are shown, without the worst tenth.

    That would take most of the picture otherwise.
    """
    costs = sorted(objective.cost(r.score) for r in trials)
    worst = costs[math.ceil(0.9 * len(costs)) - 1]
    low, high = sorted(_shown(abs(cost), objective) for cost in (worst, costs[0]))
    return low, high


def _shown(score: float | None, objective: Objective) -> float:
    assert score is not None
    return 100 * score if objective.direction == "max" else score


def _label(objective: Objective) -> str:
    unit = " (%)" if objective.direction == "max" else ""
    return objective.title + unit


def _time_unit(longest: float) -> tuple[float, str]:
    units: Mapping[str, float] = {"hours": 3600, "minutes": 60, "seconds": 1}
    return next((s, n) for n, s in units.items() if longest >= 2 * s or s == 1)
