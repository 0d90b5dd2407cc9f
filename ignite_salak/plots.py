"""Figures for people: the confusion matrix, and whatever else a run is judged by.

Figures are made without pyplot, so no window system is touched and nothing is kept alive.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ignite_salak.files import write_whole

__all__ = ["confusion_figure", "on_white", "save_png", "threshold_figure", "to_data_uri"]

_BRIGHTEST = 0.30  # relative luminance; gives a contrast of 3 : 1 on white
_DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))


def confusion_figure(confusion: Tensor, names: Sequence[str], title: str = "") -> Figure:
    """Draws a confusion matrix, coloured by row share, with share and pixel count in every cell.

    Args:
        confusion: pixel counts, int64 [C, C], rows are the truth and columns the prediction.
        names: class names.
        title: heading of the figure.
    """
    counts = confusion.cpu().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    size = 2.6 + 0.95 * len(names)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(title, parse_math=False)
    for row, column in np.ndindex(*counts.shape):
        if not totals[row, 0]:
            text = "-"
        else:
            text = f"{shares[row, column]:.1%}\n{_compact(int(counts[row, column]))}"
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    return figure


def threshold_figure(
    thresholds: np.ndarray,
    precision: np.ndarray,
    kept_share: np.ndarray,
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    *,
    chosen: Sequence[float],
    wanted: float,
    title: str = "",
) -> Figure:
    """Draws how right pseudo-labels are, and how many are left, over the confidence threshold.

    Args:
        thresholds: the thresholds, float [T].
        precision: share of the kept pixels that are right, float [C, T]; NaN makes a gap.
        kept_share: share of the predicted pixels that are kept, float [C, T].
        names: class names.
        colors: class colours, which are darkened until they can be seen on white.
        chosen: threshold in force per class, marked by a dot.
        wanted: precision to draw as a horizontal line.
        title: heading of the figure.
    """
    figure = Figure(figsize=(8.0, 8.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for row, (name, color) in enumerate(zip(names, colors, strict=True)):
        for axes, values in ((upper, precision[row]), (lower, kept_share[row])):
            style = {"color": on_white(color), "linestyle": _DASHES[row % len(_DASHES)]}
            axes.plot(thresholds, values, linewidth=1.8, label=name, **style)
            height = np.interp(chosen[row], thresholds, values)
            axes.plot(chosen[row], height, "o", color=style["color"], markersize=6)
    upper.axhline(wanted, color="0.35", linewidth=1.0, linestyle=":", label=f"wanted: {wanted:g}")
    upper.set_ylabel("precision: right share of the kept pixels")
    lower.set_ylabel("kept share of the predicted pixels")
    lower.set_xlabel("confidence threshold (dot: in force)")
    for axes in (upper, lower):
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    lower.set_xlim(thresholds[0], thresholds[-1])
    upper.set_title(title, parse_math=False)
    handles = upper.get_legend_handles_labels()
    legend = figure.legend(*handles, loc="outside lower center", ncols=4)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def on_white(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """Darkens a colour until it can be seen on white, a contrast of 3 : 1 (WCAG 2.1, 1.4.11).

    Args:
        color: red, green, blue, 0-255.

    Returns:
        Red, green, blue, 0-1, of the same hue.
    """
    values = np.asarray(color) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    linear = linear * min(1.0, _BRIGHTEST / max(luminance, _BRIGHTEST))
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    red, green, blue = np.where(linear <= 0.0031308, low, high).clip(0, 1).tolist()
    return red, green, blue


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


def to_data_uri(figure: Figure) -> str:
    """Returns a figure as a ``data:`` URI of an SVG, for a page that needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _compact(count: int) -> str:
    for unit, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{suffix}"
    return str(count)
