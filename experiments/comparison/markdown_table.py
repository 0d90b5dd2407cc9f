"""Markdown tables, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["decimal", "markdown_table", "percent", "with_error"]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table: the first column to the left, all others to the right."""
    rule = ["---", *("--:" for _ in head[1:])]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def decimal(value: float, decimals: int = 3, sign: str = "") -> str:
    """Returns a number with its decimals; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def percent(value: float) -> str:
    """Returns a share in whole percent; "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def with_error(value: str, error: str) -> str:
    """Returns "value ± error"; the value alone where the error is "-"."""
    return value if error == "-" else f"{value} ± {error}"
