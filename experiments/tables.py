"""Scores as tables: for the terminal, as CSV, and as values for JSON."""

from __future__ import annotations

import csv
import functools
import io
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ignite_salak.files import write_whole
from ignite_salak.inference.areas import ClassAreas
from ignite_salak.metrics import ClassQuality, PseudoLabelCounts, scores_from_confusion

__all__ = [
    "area_table",
    "grid_table",
    "plain",
    "quality_table",
    "score_table",
    "source_table",
    "text_table",
    "write_confusion",
    "write_csv",
    "write_qualities",
    "write_sources",
]

_GRID = [step / 100 for step in range(50, 100, 5)]


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligns cells: the first column to the left, all others to the right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
        for first, *rest in lines
    )


def score_table(
    names: Sequence[str], scores: dict[str, float], band: dict[str, float], confusion: Tensor
) -> str:
    """Returns a table of one class a line.

    Args:
        names: class names.
        scores: see ``metrics.scores_from_confusion``.
        band: the same, of the pixels along the borders.
        confusion: pixel counts, int64 [C, C], rows are the truth.
    """
    columns = ("IoU", "precision", "recall", "F1")
    truth = confusion.sum(dim=1).tolist()
    rows = [
        [
            name,
            *(_score(scores[f"{column}/{name}"]) for column in columns),
            _percent(pixels / max(1, sum(truth))),
            _score(band[f"IoU/{name}"]),
        ]
        for name, pixels in zip(names, truth, strict=True)
    ]
    return text_table(["class", *columns, "of truth", "band IoU"], rows)


def source_table(confusions: Mapping[str, Tensor], names: Sequence[str], most: int) -> str:
    """Returns the source images with the most wrong pixels, one a line.

    Args:
        confusions: pixel counts by source image, int64 [C, C], rows are the truth.
        names: class names.
        most: lines.
    """
    counted = _by_wrong_pixels(confusions)
    all_wrong = sum(wrong for *_, wrong in counted)
    rows = []
    for source, matrix, wrong in counted[:most]:
        scores = scores_from_confusion(matrix, names)
        share = _percent(wrong / max(1, all_wrong))
        rows.append(
            [source, f"{wrong:,}", share, *map(_score, (scores["accuracy"], scores["mIoU"]))]
        )
    return text_table(["source image", "wrong px", "of all wrong", "accuracy", "mIoU"], rows)


def quality_table(qualities: Sequence[ClassQuality]) -> str:
    """Returns what the thresholds do, one class a line."""
    head = ["class", "threshold", "kept px", "kept", "precision", "recall", "of kept", "of truth"]
    rows = [
        [
            quality.name,
            "" if math.isnan(quality.threshold) else f"{quality.threshold:g}",
            f"{quality.kept:,}",
            *map(_percent, (quality.kept_share, quality.precision, quality.recall)),
            *map(_percent, (quality.share_of_kept, quality.share_of_truth)),
        ]
        for quality in qualities
    ]
    return text_table(head, rows)


def grid_table(counts: PseudoLabelCounts) -> str:
    """Returns precision and kept share in percent for thresholds from 0.5 to 0.95."""
    columns = [counts.judge_all(threshold) for threshold in _GRID]
    rows = [
        [each[0].name, *(f"{_whole(q.precision)}/{_whole(q.kept_share)}" for q in each)]
        for each in zip(*columns, strict=True)
    ]
    return text_table(["class", *(f"{threshold:.2f}" for threshold in _GRID)], rows)


def area_table(names: Sequence[str], maps: Sequence[ClassAreas]) -> str:
    """Returns a table of the areas of all maps together, one class a line.

    Args:
        names: class names.
        maps: areas of at least one map; without hectares of all of them there are none.
    """
    total = functools.reduce(operator.add, maps)
    columns = [names, [f"{n:,}" for n in total.pixels], [f"{n:.2%}" for n in total.shares]]
    if total.hectares is None:
        return text_table(("class", "pixels", "share"), zip(*columns, strict=True))
    columns.append([f"{n:,.4f}" for n in total.hectares])
    return text_table(("class", "pixels", "share", "hectares"), zip(*columns, strict=True))


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes UTF-8 CSV, whole or not at all; NaN becomes an empty cell."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[_cell(value) for value in row] for row in rows])
    write_whole(path, lambda file: file.write(text.getvalue().encode("utf-8")))


def write_confusion(folder: Path, names: Sequence[str], confusion: Tensor) -> None:
    """Writes confusion.csv, pixel counts, and confusion_shares.csv, shares of the true class."""
    shares = confusion.double() / confusion.sum(dim=1, keepdim=True)
    for file, values in (("confusion.csv", confusion), ("confusion_shares.csv", shares)):
        rows = [[name, *row] for name, row in zip(names, values.tolist(), strict=True)]
        write_csv(folder / file, [["truth \\ prediction", *names], *rows])


def write_sources(path: Path, names: Sequence[str], confusions: Mapping[str, Tensor]) -> None:
    """Writes the scores of every source image, those with the most wrong pixels first.

    Args:
        path: of the CSV file.
        names: class names.
        confusions: pixel counts by source image, int64 [C, C], rows are the truth.
    """
    columns = ["accuracy", "mIoU", *(f"IoU/{name}" for name in names)]
    rows = []
    for source, matrix, wrong in _by_wrong_pixels(confusions):
        scores = scores_from_confusion(matrix, names)
        rows.append([source, int(matrix.sum()), wrong, *(scores[column] for column in columns)])
    write_csv(path, [["source image", "pixels", "wrong pixels", *columns], *rows])


def write_qualities(path: Path, counts: PseudoLabelCounts) -> None:
    """Writes the quality of pseudo-labels of every class at thresholds from 0.00 to 0.99."""
    columns = [counts.judge_all(step / 100) for step in range(100)]
    head = ["class", "threshold", "kept_pixels", "kept_share", "precision", "recall"]
    rows = [
        [quality.name, f"{step / 100:.2f}", quality.kept, *_shares(quality)]
        for each in zip(*columns, strict=True)
        for step, quality in enumerate(each)
    ]
    write_csv(path, [head, *rows])


def plain(value: Any) -> Any:
    """Returns nested values for JSON, which knows no NaN: it becomes None."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return None if _is_nan(value) else value


def _by_wrong_pixels(confusions: Mapping[str, Tensor]) -> list[tuple[str, Tensor, int]]:
    """Names, matrices and numbers of wrong pixels, the most first."""
    counted = [(name, m, int(m.sum() - m.diag().sum())) for name, m in confusions.items()]
    return sorted(counted, key=lambda each: (-each[2], each[0]))


def _shares(quality: ClassQuality) -> list[float]:
    return [quality.kept_share, quality.precision, quality.recall]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def _whole(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f}"
