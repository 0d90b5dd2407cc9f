"""What a comparison says: means and deviations, paired gains, the share of the gap that closes.

Two kinds of errors belong to a gain. That of the seeds says how far it depends on the luck of the
training; that of the photos, a jackknife over them, how far on which photos it was measured on. Few
seeds that agree prove nothing where few photos are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import torch

from experiments.comparison.cells import Result, number
from ignite_salak.metrics import jackknife_error, mean_iou_without

__all__ = [
    "Comparison",
    "Gain",
    "Line",
    "Spread",
    "by_seed",
    "closed_share",
    "compare",
    "gain",
    "gain_and_gap",
    "judged_alone",
    "share_of_gap",
    "spread",
]

Line = tuple[str, str]
"""A recipe and the list that it was trained on."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of the values that are numbers.

    Attributes:
        n: how many there are.
        mean: NaN of none.
        std: divided by n - 1; NaN of fewer than two.
    """

    n: int
    mean: float
    std: float

    def text(self, decimals: int = 3) -> str:
        """Returns "mean ± std"; one value alone, "-" for none."""
        if not self.n:
            return "-"
        shown = f"{self.mean:.{decimals}f}"
        return shown if self.n == 1 else f"{shown} ± {self.std:.{decimals}f}"


def spread(values: Iterable[float]) -> Spread:
    """Computes mean and standard deviation; NaN values are left out."""
    finite = [value for value in values if math.isfinite(value)]
    return Spread(
        len(finite),
        mean(finite) if finite else math.nan,
        stdev(finite) if len(finite) > 1 else math.nan,
    )


@dataclass(frozen=True)
class Gain:
    """Paired differences of one recipe and the baseline.

    Attributes:
        by_seed: difference of every seed that both have.
        mean: NaN of none.
        error: standard error of the mean over the seeds, the sample standard deviation of the
            differences over the root of their number; NaN of fewer than two.
        photo_error: standard error of the mean over the photos; NaN where it is not known.
    """

    by_seed: Mapping[int, float]
    mean: float
    error: float
    photo_error: float = math.nan

    @property
    def is_clear(self) -> bool:
        """Whether it is more than two of each standard error, and positive for every seed."""
        if len(self.by_seed) < 2:
            return False
        widest = self.error if math.isnan(self.photo_error) else max(self.error, self.photo_error)
        return self.mean > 2 * widest and min(self.by_seed.values()) > 0

    def verdict(self) -> str:
        """Says in words what ``is_clear`` says."""
        if not self.by_seed:
            return "no seed in common"
        if len(self.by_seed) == 1:
            return "one seed"
        if self.is_clear:
            return "yes"
        above = sum(difference > 0 for difference in self.by_seed.values())
        said = f"no: {above} of {len(self.by_seed)} seeds, {_ratio(self.mean, self.error)}"
        if math.isnan(self.photo_error):
            return said
        return f"{said} of the seeds, {_ratio(self.mean, self.photo_error)} of the photos"


def gain(own: Mapping[int, float], base: Mapping[int, float]) -> Gain:
    """Pairs scores by seed; NaN scores are left out.

    Args:
        own: score by seed.
        base: that of the baseline.
    """
    both = [seed for seed in sorted(own) if math.isfinite(own[seed] - base.get(seed, math.nan))]
    differences = {seed: own[seed] - base[seed] for seed in both}
    found = spread(differences.values())
    return Gain(differences, found.mean, found.std / math.sqrt(max(1, found.n)))


def closed_share(
    own: Mapping[int, float], base: Mapping[int, float], upper: Mapping[int, float]
) -> float:
    """Computes (mean own - mean base) / (mean upper - mean base) over the seeds that all have.

    Returns:
        NaN where there is no such seed, or the upper bound is not above the baseline.
    """
    return share_of_gap(*gain_and_gap(own, base, upper))


def share_of_gap(gain: float, gap: float) -> float:
    """Returns gain / gap; NaN where the upper bound is not above the baseline."""
    return gain / gap if gap > 0 else math.nan


def gain_and_gap(
    own: Mapping[int, float], base: Mapping[int, float], upper: Mapping[int, float]
) -> tuple[float, float]:
    """Computes mean own - mean base and mean upper - mean base over the seeds that all have.

    Returns:
        NaN, both, where there is no such seed.
    """
    sums = {seed: own[seed] + base[seed] + upper[seed] for seed in {*own} & {*base} & {*upper}}
    seeds = [seed for seed, value in sums.items() if math.isfinite(value)]
    if not seeds:
        return math.nan, math.nan
    mine, theirs, most = (mean(scores[seed] for seed in seeds) for scores in (own, base, upper))
    return mine - theirs, most - theirs


@dataclass(frozen=True)
class Comparison:
    """Where a recipe stands between baseline and upper bound.

    Attributes:
        gain: over the baseline.
        closed: share of the gap to the upper bound, see ``closed_share``.
        closed_error: its standard error over the photos; NaN where it is not known.
    """

    gain: Gain
    closed: float
    closed_error: float


def compare(results: Sequence[Result], own: Line, base: Line, upper: Line | None) -> Comparison:
    """Compares a recipe with the baseline and the upper bound.

    The errors over the photos are those of the seeds whose cells keep a confusion matrix per photo.

    Args:
        results: finished cells.
        own: the recipe.
        base: the baseline.
        upper: the upper bound, or None.
    """

    def without(photo: str | None) -> tuple[Gain, float]:
        mine, theirs = (by_seed(results, line, photo) for line in (own, base))
        bound = by_seed(results, upper, photo) if upper is not None else {}
        return gain(mine, theirs), closed_share(mine, theirs, bound)

    photos = judged_alone(results)
    found, closed = without(None)
    fewer = [without(photo) for photo in photos]
    gain_error = jackknife_error(len(photos), lambda photo: fewer[photo][0].mean)
    closed_error = jackknife_error(len(photos), lambda photo: fewer[photo][1])
    return Comparison(replace(found, photo_error=gain_error), closed, closed_error)


def judged_alone(results: Iterable[Result]) -> list[str]:
    """Returns the photos of which a cell keeps a confusion matrix, sorted."""
    return sorted({photo for result in results for photo in result.get("confusions") or ()})


def by_seed(results: Iterable[Result], line: Line, without: str | None = None) -> dict[int, float]:
    """Returns the last validation mIoU of a recipe's cells on a list, by seed.

    Args:
        results: finished cells.
        line: recipe and list.
        without: a photo to leave out; NaN where a cell keeps no matrix of any other photo.
    """
    own = [result for result in results if (result["recipe"], result["list"]) == line]
    return {result["seed"]: _score(result, without) for result in own}


def _score(result: Result, photo: str | None) -> float:
    if photo is None:
        return number(result, "last", "mIoU")
    confusions = result.get("confusions") or {}
    if photo not in confusions:
        return math.nan
    matrices = torch.tensor(list(confusions.values()))
    return mean_iou_without(matrices, list(confusions).index(photo), result["classes"])


def _ratio(value: float, error: float) -> str:
    return f"{value / error:.1f} standard errors" if error > 0 else "no spread"
