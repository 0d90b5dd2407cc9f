"""How far a score depends on which images it was measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

__all__ = ["jackknife_error"]


def jackknife_error(count: int, score_without: Callable[[int], float]) -> float:
    """Computes the standard error of a score over the images it was measured on.

    The jackknife: leave out one image at a time, and take
    sqrt((n - 1) / n * sum((score without i - their mean)^2)) (Tukey 1958; Efron and Tibshirani
    1993, "An Introduction to the Bootstrap", equation 11.5). Of a mean of one value per image it is
    the usual standard error; it holds for ratios of sums such as IoU as well, also for differences
    of two models, whose common luck with an image then cancels.

    Args:
        count: images; patches of one photo are no independent draws, photos are.
        score_without: returns the score without image i, 0 to count - 1.

    Returns:
        In the unit of the score; NaN of fewer than two images, or where a score is NaN.
    """
    if count < 2:
        return math.nan
    scores = [score_without(image) for image in range(count)]
    middle = fmean(scores)
    return math.sqrt((count - 1) / count * math.fsum((score - middle) ** 2 for score in scores))
