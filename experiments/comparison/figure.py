"""A comparison as a picture: every seed as a dot, and the mIoU over the iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.comparison.cells import Result
from experiments.comparison.statistics import by_seed, spread
from experiments.comparison.study import Study

__all__ = ["comparison_figure", "mean_curve"]

# Okabe and Ito's colours, told apart by most colour-blind readers; the yellow is left out.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", "-.", ":")
_UPPER = "0.35"


def comparison_figure(study: Study, results: Sequence[Result]) -> Figure:
    """Draws a column per labelled list: dots per seed above, mean curves below.

    Args:
        study: what is compared.
        results: finished cells.
    """
    lists = study.compared_lists()
    names = list(study.recipes)
    upper = _upper_scores(study, results)
    height = 1.3 + 0.34 * len(names)
    figure = Figure(figsize=(max(7.0, 4.6 * len(lists)), height + 4.4), layout="constrained")
    axes = figure.subplots(
        2, len(lists), squeeze=False, sharex="row", sharey="row",
        gridspec_kw={"height_ratios": [height, 3.4]},
    )  # fmt: skip
    styles = {
        name: {"color": _COLORS[row % len(_COLORS)], "linestyle": _DASHES[row // len(_COLORS) % 4]}
        for row, name in enumerate(names)
    }
    for column, listing in enumerate(lists):
        scores = {name: by_seed(results, (name, listing)) for name in names}
        base = spread(by_seed(results, study.base(listing)).values()).mean
        marked = {f"mean of {study.baseline_name}": (base, "--"), "upper bound": (upper, ":")}
        _dots(axes[0, column], scores, marked, styles)
        axes[0, column].set_title(listing, parse_math=False)
        curves = {
            name: mean_curve([r for r in results if (r["recipe"], r["list"]) == (name, listing)])
            for name in names
        }
        _curves(axes[1, column], curves, styles)
        if study.upper_bound is not None:
            bound = study.upper_bound
            cells = [result for result in results if (result["recipe"], result["list"]) == bound]
            axes[1, column].plot(*_columns(mean_curve(cells)), color=_UPPER, linestyle=":")
    axes[1, 0].set_ylabel("validation mIoU, mean of the seeds")
    _legend(figure)
    return figure


def mean_curve(results: Sequence[Result]) -> list[tuple[int, float]]:
    """Returns the mean mIoU over seeds at the iterations at which all were evaluated."""
    curves = [dict(map(tuple, result["curve"])) for result in results]
    if not curves:
        return []
    shared = set(curves[0]).intersection(*curves[1:])
    return [(iteration, mean(curve[iteration] for curve in curves)) for iteration in sorted(shared)]


def _dots(
    axes: Axes,
    scores: Mapping[str, Mapping[int, float]],
    marked: Mapping[str, tuple[float, str]],
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    for row, (name, values) in enumerate(scores.items()):
        color = styles[name]["color"]
        axes.plot(list(values.values()), [row] * len(values), "o", color=color, alpha=0.55)
        found = spread(values.values())
        if found.n:
            axes.plot([found.mean] * 2, [row - 0.3, row + 0.3], color=color, linewidth=3)
            place = (found.mean, row - 0.34)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            text = f"{found.mean:.3f}"
            axes.annotate(text, place, ha="center", va="bottom", fontsize=8, bbox=box)
    for text, (value, style) in marked.items():
        if math.isfinite(value):
            axes.axvline(value, color=_UPPER, linestyle=style, linewidth=1.2, label=text, zorder=0)
    axes.set_yticks(range(len(scores)), list(scores), parse_math=False)
    axes.set_ylim(len(scores) - 0.4, -0.75)
    axes.set_xlabel("last validation mIoU (dot: a seed, bar: their mean)")
    axes.grid(axis="x", alpha=0.3)


def _curves(
    axes: Axes,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    for name, curve in curves.items():
        if curve:
            axes.plot(*_columns(curve), label=name, marker=".", linewidth=1.6, **styles[name])
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)


def _legend(figure: Figure) -> None:
    """One legend below all axes, each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        legend = figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=9
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _columns(curve: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [iteration for iteration, _ in curve], [value for _, value in curve]


def _upper_scores(study: Study, results: Sequence[Result]) -> float:
    if study.upper_bound is None:
        return math.nan
    return spread(by_seed(results, study.upper_bound).values()).mean
