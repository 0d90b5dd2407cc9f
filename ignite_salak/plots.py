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

__all__ = ["confusion_figure", "save_png", "to_data_uri"]


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
