"""Several draws of photos in tables: a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from experiments.comparison.cells import Result
from experiments.comparison.draws import Draws, Together, judged_photos, together
from experiments.comparison.markdown_table import decimal, markdown_table, percent, with_error
from experiments.comparison.statistics import Comparison, Line, by_seed, compare, spread
from experiments.comparison.study import Study

__all__ = ["draws_page"]

_READING = (
    "mIoU of the last evaluation, mean of the seeds. Gain: paired by seed; ± is the standard error "
    "over the photos, a jackknife over the validation photos, of the seeds whose cells keep a "
    "confusion matrix per photo. Share of the gap closed: gain / (upper bound - baseline), over "
    "the seeds that all three have. All draws: the means, and the sum of the gains over the sum of "
    "the gaps; the squares of the draws' errors are added. The error over the draws holds the luck "
    "of photos, labels and seeds."
)


def draws_page(study: Study, draws: Draws) -> str:
    """Returns a page with a table of every list and recipe that all draws have.

    Args:
        study: says which lists and recipes, the baseline and the upper bound.
        draws: see ``read_draws``.

    Raises:
        ValueError: no list and recipe are in all draws, beside the baseline.
    """
    common = set.intersection(*map(_lines, draws.values()))
    upper = study.upper_bound if study.upper_bound in common else None
    tables = []
    for listing in study.compared_lists():
        base = study.base(listing)
        for own in [(recipe, listing) for recipe in study.recipes]:
            if own != base and {own, base} <= common:
                tables.append(f"## {own[0]}, {listing}\n\n{_table(draws, own, base, upper)}")
    if not tables:
        base_name = study.baseline_name
        raise ValueError(f"no recipe beside {base_name} has a cell of one list in every draw")
    return "\n\n".join(["# Draws", *tables, _READING]) + "\n"


def _table(draws: Draws, own: Line, base: Line, upper: Line | None) -> str:
    rows, scores = [], []
    for name, results in draws.items():
        found = compare(results, own, base, upper)
        scores.append([_score(results, line) for line in (base, own, upper)])
        row = [name, str(len(judged_photos(results))), str(len(found.gain.by_seed))]
        gain = with_error(decimal(found.gain.mean, sign="+"), decimal(found.gain.photo_error))
        rows.append([*row, *map(decimal, scores[-1]), gain, _closed(found)])
    total = together(draws, own, base, upper)
    photos = sum(len(judged_photos(results)) for results in draws.values())
    means = [decimal(fmean(values)) for values in zip(*scores, strict=True)]
    gain = with_error(decimal(total.gain, sign="+"), decimal(total.photo_error))
    rows.append(["all draws", str(photos), "", *means, gain, _closed(total)])
    names = [name if base[1] == own[1] else f"{name}, {listing}" for name, listing in (base, own)]
    head = ["draw", "photos", "seeds", *names, "upper bound", "gain"]
    table = markdown_table([*head, "share of the gap closed"], rows)
    return f"{table}\n\nError of the gain over the draws: {decimal(total.draw_error)}."


def _score(results: Sequence[Result], line: Line | None) -> float:
    """Mean of the seeds; NaN of a line that there is not."""
    return math.nan if line is None else spread(by_seed(results, line).values()).mean


def _closed(found: Comparison | Together) -> str:
    return with_error(percent(found.closed), percent(found.closed_error))


def _lines(results: Sequence[Result]) -> set[Line]:
    return {(result["recipe"], result["list"]) for result in results}
