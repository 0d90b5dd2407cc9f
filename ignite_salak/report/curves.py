"""The curves of one run or of several, as charts that are data until they are drawn."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ignite_salak.report.run import Run, Series

__all__ = ["Chart", "Line", "comparison_charts", "draw", "picture", "readable", "run_charts"]

Color = tuple[float, float, float]

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#444444", "#882255")
_STYLES = ("-", "--", ":", "-.")
_MAX_LINES = 20
_MAX_LUMINANCE = 0.25  # contrast 3.5 to white
_NEAR = 0.22  # distance of two colours that one line style does not tell apart
_LARGEST_SVG = 200_000  # bytes; a longer one becomes a PNG


@dataclass(frozen=True)
class Line:
    """One curve; ``color`` is anything that matplotlib takes."""

    label: str
    series: Series
    color: str | Color
    style: str = "-"


@dataclass(frozen=True)
class Chart:
    """What is to be drawn.

    Attributes:
        title: heading.
        unit: label of the vertical axis.
        lines: those without a number are left out.
        marks: horizontal lines, value and text.
        start: iteration at which self-training starts, None for no vertical line.
        best: iteration and value that get a dot.
        bottom: lower end of the vertical axis, None for wherever the numbers end.
        note: what a reader should know.
        missing: what to say where there is no number at all.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...] = ()
    start: int | None = None
    best: tuple[int, float] | None = None
    bottom: float | None = 0.0
    note: str = ""
    missing: str = "not logged"

    @property
    def drawn(self) -> tuple[Line, ...]:
        """The lines that have a finite number."""
        return tuple(line for line in self.lines if np.isfinite(line.series.values).any())

    @property
    def text(self) -> str:
        """The chart for those who cannot see it: first and last value of every line."""
        parts = []
        for line in self.drawn:
            values = line.series.values[np.isfinite(line.series.values)]
            parts.append(f"{line.label} from {values[0]:.4g} to {values[-1]:.4g}")
        return f"{self.title}: {'; '.join(parts)}"


def run_charts(run: Run) -> tuple[Chart, ...]:
    """Returns the charts of one run."""
    start = run.option("self_training", "st_start_iter") if run.self_training else None
    off = "self-training is off (--st-loss-weight 0)"
    no_st = "not logged" if run.self_training else off
    st_px = (Line("ST_px", run.series("st_px"), _COLORS[0]),) if run.self_training else ()
    parts = ("loss", "ce", "dice", "focal", "st") if run.self_training else _SUPERVISED
    rates = sorted(name for name in run.history if name.startswith("lr/"))
    gap = (Line("training minus validation mIoU", run.series("gap"), _COLORS[0]),)
    speed = (Line("seconds", run.series("seconds_per_iteration"), _COLORS[0]),)
    return (
        _scores(run, start),
        _class_scores(run, start),
        Chart("Losses", "loss", _lines(run, parts), start=start, note=_logged(run)),
        Chart(
            "Self-training pixels (ST_px)",
            "pixels a batch",
            st_px,
            marks=((10_000, "guide: at least 10,000"), (50_000, "guide: up to 50,000")),
            start=start,
            missing=no_st,
        ),
        Chart(
            "Share of pixels kept, and on which the heads differ",
            "share",
            _lines(run, ("st_share", "disagreement")) if run.self_training else (),
            start=start,
            missing=no_st,
        ),
        Chart(
            "Train/val gap",
            "gap",
            gap,
            marks=((0.12, "minimum"), (0.08, "good"), (0.05, "excellent")),
            start=start,
            bottom=None,
            missing="no evaluation yet",
        ),
        Chart("Learning rate", "learning rate", _lines(run, rates, _STYLES)),
        Chart("Seconds per iteration", "seconds", speed, note="Evaluations are left out."),
    )


def comparison_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """Returns the charts that put runs over each other."""
    marks = ((10_000, "guide: at least 10,000"), (50_000, "guide: up to 50,000"))
    return (
        Chart("Validation mIoU", "mIoU", _overlay(runs, "validation/mIoU")),
        Chart("Self-training pixels (ST_px)", "pixels a batch", _overlay(runs, "st_px"), marks),
        Chart("Train/val gap", "gap", _overlay(runs, "gap"), bottom=None),
        Chart("Loss", "loss", _overlay(runs, "loss")),
    )


_SUPERVISED = ("loss", "ce", "dice", "focal")


def _logged(run: Run) -> str:
    every = run.option("run", "log_every")
    return f"Means over {every} iterations, nothing else is smoothed." if every else ""


def _lines(run: Run, names: Sequence[str], styles: Sequence[str] = "-") -> tuple[Line, ...]:
    return tuple(
        Line(name.removeprefix("lr/"), run.series(name), _COLORS[i % 8], styles[i % len(styles)])
        for i, name in enumerate(names)
    )


def _overlay(runs: Sequence[Run], name: str) -> tuple[Line, ...]:
    return tuple(
        Line(run.name, run.series(name), _COLORS[i % 8], _STYLES[i // 8 % 4])
        for i, run in enumerate(runs)
    )


def _scores(run: Run, start: int | None) -> Chart:
    scores = run.series("validation/mIoU")
    lines = (
        Line("validation", scores, _COLORS[0]),
        Line("training", run.series("training/mIoU"), _COLORS[1]),
    )
    value = scores.at(run.best)
    best = (run.best, value) if run.best is not None and value is not None else None
    return Chart("mIoU", "mIoU", lines, start=start, best=best, missing="no evaluation yet")


def _class_scores(run: Run, start: int | None) -> Chart:
    names = run.classes.names
    colors = [readable(color) for color in run.classes.colors]
    lines = [
        Line(name, run.series(f"validation/IoU/{name}"), color, style)
        for name, color, style in zip(names, colors, _styles(colors), strict=True)
    ]
    note = "Colours of the class list, darkened where they would be lost on white."
    if len(lines) > _MAX_LINES:
        lines.sort(key=lambda line: _last(line.series))
        lines = lines[:_MAX_LINES]
        note += f" The {_MAX_LINES} worst of {len(names)} classes are drawn."
    missing = "no evaluation yet"
    return Chart("IoU per class", "IoU", tuple(lines), start=start, note=note, missing=missing)


def _last(series: Series) -> float:
    finite = series.values[np.isfinite(series.values)]
    return float(finite[-1]) if len(finite) else math.inf


def readable(color: tuple[int, int, int]) -> Color:
    """Darkens a colour, 0-255, until it can be told from white paper; returns it as 0-1.

    The hue stays; the luminance of sRGB becomes at most 0.25.
    """
    channels = np.asarray(color) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    linear = linear * min(1.0, _MAX_LUMINANCE / max(luminance, 1e-9))
    dark = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = dark.clip(0, 1).tolist()
    return red, green, blue


def _styles(colors: Sequence[Color]) -> list[str]:
    """Gives every colour a line style that none of the near colours before it has."""
    styles: list[str] = []
    for color in colors:
        taken = [
            style
            for other, style in zip(colors, styles, strict=False)
            if math.dist(color, other) < _NEAR
        ]
        free = [style for style in _STYLES if style not in taken]
        styles.append(free[0] if free else _STYLES[len(styles) % len(_STYLES)])
    return styles


def draw(chart: Chart) -> Figure:
    """Draws a chart that has at least one line with a number."""
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.add_subplot()
    for line in chart.drawn:
        marker = "o" if len(line.series.values) <= 40 else ""
        axes.plot(
            line.series.iterations,
            line.series.values,
            line.style,
            color=line.color,
            marker=marker,
            markersize=3,
            linewidth=1.5,
        )
    _annotate(figure, chart)
    axes.set_xlabel("iteration")
    axes.set_ylabel(chart.unit)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if axes.get_ylim()[1] >= 1000:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(color="#e3e7ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    if chart.bottom is not None:
        axes.set_ylim(bottom=chart.bottom)
    return figure


def _annotate(figure: Figure, chart: Chart) -> None:
    """Adds marks, the start of self-training, the best, and the legend above the axes."""
    axes = figure.axes[0]
    keys = [
        (_key(color=line.color, linestyle=line.style, linewidth=2), line.label)
        for line in chart.drawn
    ]
    for position, (value, text) in enumerate(chart.marks):
        axes.axhline(value, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            text,
            (1 - 0.2 * position, value),  # beside each other, for marks may be close
            (-2, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#666666",
        )
    if chart.start is not None:
        dots: dict[str, Any] = {"color": "#444444", "linewidth": 1, "linestyle": (0, (1, 2))}
        axes.axvline(chart.start, **dots)
        keys.append((_key(**dots), f"self-training starts ({chart.start:,})"))
    if chart.best is not None:
        iteration, value = chart.best
        star: dict[str, Any] = {
            "marker": "*",
            "markersize": 12,
            "color": "#c00000",
            "linestyle": "",
        }
        axes.plot([iteration], [value], **star, zorder=5)
        keys.append((_key(**star), f"best {value:.3f} at {iteration:,}"))
    # Labels are set afterwards: matplotlib hides those that begin with an underscore.
    legend = figure.legend(
        [key for key, _ in keys],
        ["x"] * len(keys),
        loc="outside upper left",
        ncols=2 if max(len(label) for _, label in keys) > 16 else 4,
        fontsize=8.5,
        frameon=False,
    )
    for text_of_key, (_, label) in zip(legend.get_texts(), keys, strict=True):
        text_of_key.set_parse_math(False)
        text_of_key.set_text(label if len(label) <= 40 else f"{label[:39]}…")


def _key(**look: Any) -> Line2D:
    return Line2D([], [], **look)


def picture(figure: Figure) -> str:
    """Returns a figure as a ``data:`` URI: an SVG, or a PNG where that is the shorter one."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ignite_salak"}):  # same numbers, same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    kind = "svg+xml"
    if len(buffer.getvalue()) > _LARGEST_SVG:
        buffer, kind = io.BytesIO(), "png"
        figure.savefig(buffer, format="png", dpi=150)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
