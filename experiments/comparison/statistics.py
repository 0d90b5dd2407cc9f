"""What a comparison says: means and deviations, paired gains, the share of the gap that closes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from experiments.comparison.cells import Result, number

__all__ = ["Gain", "Spread", "by_seed", "closed_share", "gain", "spread"]


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
        error: standard error of the mean, the sample standard deviation of the differences over
            the root of their number; NaN of fewer than two.
    """

    by_seed: Mapping[int, float]
    mean: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than two standard errors, and positive for every seed."""
        if len(self.by_seed) < 2:
            return False
        return self.mean > 2 * self.error and min(self.by_seed.values()) > 0

    def verdict(self) -> str:
        """Says in words what ``is_clear`` says."""
        if not self.by_seed:
            return "no seed in common"
        if len(self.by_seed) == 1:
            return "one seed"
        if self.is_clear:
            return "yes"
        above = sum(difference > 0 for difference in self.by_seed.values())
        return f"no: {above} of {len(self.by_seed)} seeds, {_ratio(self.mean, self.error)}"


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
    sums = {seed: own[seed] + base[seed] + upper[seed] for seed in {*own} & {*base} & {*upper}}
    seeds = [seed for seed, value in sums.items() if math.isfinite(value)]
    if not seeds:
        return math.nan
    means = [mean(scores[seed] for seed in seeds) for scores in (own, base, upper)]
    gap = means[2] - means[1]
    return (means[0] - means[1]) / gap if gap > 0 else math.nan


def by_seed(results: Iterable[Result], recipe: str, listing: str) -> dict[int, float]:
    """Returns the last validation mIoU of a recipe's cells on a list, by seed."""
    return {
        result["seed"]: number(result, "last", "mIoU")
        for result in results
        if (result["recipe"], result["list"]) == (recipe, listing)
    }


def _ratio(value: float, error: float) -> str:
    return f"{value / error:.1f} standard errors" if error > 0 else "no spread"
