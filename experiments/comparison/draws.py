"""Several draws of photos of one comparison, each with validation photos of its own.

Sixteen photos say little of a gain, and other sixteen say as much again: where no photo is judged
in two draws, their errors over the photos are independent, and the squares add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

from experiments.comparison.budget import check_equal_budgets
from experiments.comparison.cells import RESULT, Result, read_result
from experiments.comparison.setting import differing
from experiments.comparison.statistics import (
    Line,
    by_seed,
    compare,
    gain_and_gap,
    judged_alone,
    share_of_gap,
)
from experiments.comparison.study import Study
from ignite_salak.metrics import jackknife_error

__all__ = ["Draws", "Together", "judged_photos", "read_draws", "together"]

Draws = Mapping[str, Sequence[Result]]
"""The finished cells of every draw, by its folder."""

# What may differ between the cells of a recipe in two draws.
_OF_THE_DRAW = ("labeled", "validation", "seed")


@dataclass(frozen=True)
class Together:
    """Where a recipe stands between baseline and upper bound, over all draws.

    Attributes:
        gain: mean of the draws' gains over the baseline.
        photo_error: its standard error over the photos of all draws; NaN where it is not known.
        draw_error: its standard error over the draws, the sample standard deviation of their gains
            over the root of their number: the luck of photos, labels and seeds.
        closed: share of the gap to the upper bound: sum of the draws' gains / sum of their gaps.
        closed_error: its standard error over the photos; NaN where it is not known.
    """

    gain: float
    photo_error: float
    draw_error: float
    closed: float
    closed_error: float


def read_draws(study: Study, folders: Sequence[Path]) -> Draws:
    """Reads the finished cells of a study's recipes and lists.

    Args:
        study: says which.
        folders: what ``compare`` was given as --output; where the same photos are judged in some of
            them they are one draw, named like the first.

    Raises:
        ValueError: fewer than two draws; a folder without such a cell; a cell that is in two
            folders of a draw; two lists of one name in a draw; a photo that is judged in two draws;
            or a recipe that was not trained in the same way in all of them.
    """
    draws: dict[str, list[Result]] = {}
    folder_of: dict[tuple[str, str], Path] = {}
    for folder in folders:
        cells = [folder / cell.name for cell in study.cells()]
        results = [read_result(cell) for cell in cells if (cell / RESULT).is_file()]
        if not results:
            raise ValueError(f"{folder} has no finished cell of the study, such as {cells[0]}")
        photos = judged_photos(results)
        same = (name for name, others in draws.items() if judged_photos(others) == photos)
        draw = next(same, folder.as_posix())
        for result in results:
            cell = f"{result['recipe']}/{result['list']}/seed_{result['seed']}"
            if (draw, cell) in folder_of:
                raise ValueError(f"{cell} is in both {folder_of[draw, cell]} and {folder}")
            folder_of[draw, cell] = folder
        draws.setdefault(draw, []).extend(results)
        _check_lists(draw, draws[draw])
    if len(draws) < 2:
        raise ValueError("give the folders of at least two draws, each with photos of its own")
    _check_photos(draws)
    _check_recipes(draws)
    return draws


def together(draws: Draws, own: Line, base: Line, upper: Line | None) -> Together:
    """Compares a recipe with the baseline and the upper bound over several draws.

    The errors over the photos are the jackknife of every draw's photos, the squares added
    (stratified jackknife; Wolter 2007, "Introduction to Variance Estimation", section 4.5).

    Args:
        draws: at least two; no photo is judged in two of them.
        own: the recipe.
        base: the baseline.
        upper: the upper bound, or None.
    """
    gains = [compare(results, own, base, upper).gain for results in draws.values()]
    whole = [_pair(results, own, base, upper, None) for results in draws.values()]
    errors = []
    for number, results in enumerate(draws.values()):
        photos = judged_alone(results)
        fewer = [_pair(results, own, base, upper, photo) for photo in photos]
        shares = [_closed([*whole[:number], pair, *whole[number + 1 :]]) for pair in fewer]
        errors.append(jackknife_error(len(photos), shares.__getitem__))
    means = [gain.mean for gain in gains]
    return Together(
        gain=fmean(means),
        photo_error=math.hypot(*(gain.photo_error for gain in gains)) / len(gains),
        draw_error=stdev(means) / math.sqrt(len(means)),
        closed=_closed(whole),
        closed_error=math.hypot(*errors),
    )


def judged_photos(results: Sequence[Result]) -> set[str]:
    """Returns the validation photos of a draw."""
    return {photo for result in results for photo in result["identity"]["validation"]}


def _pair(
    results: Sequence[Result], own: Line, base: Line, upper: Line | None, without: str | None
) -> tuple[float, float]:
    """Gain and gap of a draw, as they are or without a photo."""
    if upper is None:
        return math.nan, math.nan
    return gain_and_gap(*(by_seed(results, line, without) for line in (own, base, upper)))


def _closed(pairs: Sequence[tuple[float, float]]) -> float:
    return share_of_gap(*(sum(values) for values in zip(*pairs, strict=True)))


def _check_lists(draw: str, results: Sequence[Result]) -> None:
    """A seed is no seed of the others where its list has other photos."""
    labeled: dict[str, list[str]] = {}
    for result in results:
        photos = result["identity"]["labeled"]
        if labeled.setdefault(result["list"], photos) != photos:
            raise ValueError(f"cells of {draw} have two lists named {result['list']}")


def _check_photos(draws: Draws) -> None:
    for (first, some), (second, others) in combinations(draws.items(), 2):
        for photo in sorted(judged_photos(some) & judged_photos(others)):
            raise ValueError(f"{photo} is a validation photo of both {first} and {second}")


def _check_recipes(draws: Draws) -> None:
    """Compares how every recipe was trained with how it was first; seeds and photos may differ."""
    named = [
        (f"{folder}/{result['recipe']}/{result['list']}/seed_{result['seed']}", result)
        for folder, results in draws.items()
        for result in results
    ]
    check_equal_budgets({name: result["budget"] for name, result in named})
    first: dict[str, tuple[str, Mapping]] = {}
    for name, result in named:
        own = {k: v for k, v in result["identity"].items() if k not in _OF_THE_DRAW}
        other, made = first.setdefault(result["recipe"], (name, own))
        if difference := differing(made, own):
            raise ValueError(f"{other} was made with {difference} of {name}")
