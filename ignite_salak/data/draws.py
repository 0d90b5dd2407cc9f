"""Several draws of validation photos, so that every photo with a mask is judged once.

Draws are those of a cross-validation, except that validation photos are chosen so that each draw's
class shares are like those of all photos: a rare class that stands in one draw alone says nothing.
"""

from __future__ import annotations

import numpy as np

from ignite_salak.data.flights import flight_order
from ignite_salak.data.patches import PatchIndex
from ignite_salak.randomness import numpy_generator

__all__ = ["class_shares", "representative_sources", "share_distance", "validation_draws"]

_CANDIDATES = 2_000


def class_shares(totals: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Returns the share of every class among the pixels of some source images.

    Args:
        totals: pixels per source image and class, int64 [S, C].
        sources: which, int64 [M].

    Returns:
        float64 [C]; zeros where there is no pixel.
    """
    pixels = totals[sources].sum(axis=0)
    return pixels / max(1, pixels.sum())


def share_distance(totals: np.ndarray, sources: np.ndarray, shares: np.ndarray) -> float:
    """Returns the largest difference, over the classes, of some photos' class shares and others.

    Args:
        totals: pixels per source image and class, int64 [S, C].
        sources: whose shares, int64 [M].
        shares: the others, float64 [C].
    """
    return float(np.abs(class_shares(totals, sources) - shares).max())


def validation_draws(
    index: PatchIndex,
    totals: np.ndarray,
    sources: np.ndarray,
    draws: int,
    *,
    seed: int,
    overlapping: bool = True,
) -> list[np.ndarray]:
    """Divides source images into validation sets of as many photos each, give or take one.

    Of 2,000 random divisions the one is taken whose draws' class shares are closest to those of all
    of the source images, the furthest class of the furthest draw counting. Every folder's photos
    are spread over the draws.

    Args:
        index: the patches.
        totals: pixels per source image and class, int64 [S, C].
        sources: source images with masks, int64 [M].
        draws: number of sets.
        seed: of the draw.
        overlapping: whether neighbouring photos show the same ground, as those of a flight do: then
            a set takes one run of neighbours from every folder, not photos anywhere in it.

    Returns:
        Source images of every set, int64 [M / draws, give or take one], sorted.

    Raises:
        ValueError: fewer than two sets, or fewer source images than sets.
    """
    if draws < 2:
        raise ValueError(f"--draws {draws} is not at least 2")
    if len(sources) < draws:
        raise ValueError(f"--draws {draws}, but only {len(sources)} photos have masks")
    shares = class_shares(totals, sources)
    groups = flight_order(index, sources)
    generator = numpy_generator(seed, "draws")
    candidates = (
        [sources[chosen] for chosen in _divide(groups, draws, generator, overlapping)]
        for _ in range(_CANDIDATES)
    )
    best = min(
        candidates, key=lambda sets: max(share_distance(totals, each, shares) for each in sets)
    )
    return [np.sort(each) for each in best]


def representative_sources(
    totals: np.ndarray, sources: np.ndarray, size: int, shares: np.ndarray, *, seed: int
) -> np.ndarray:
    """Chooses source images to label whose class shares are like others.

    Args:
        totals: pixels per source image and class, int64 [S, C].
        sources: the source images to choose from, int64 [M].
        size: how many, 1 to M.
        shares: the class shares to come close to, float64 [C].
        seed: of the draw.

    Returns:
        Of 2,000 random choices the one with the closest shares, int64 [size], sorted.

    Raises:
        ValueError: ``size`` is not between 1 and M.
    """
    if not 1 <= size <= len(sources):
        raise ValueError(f"--labeled {size} is not between 1 and the {len(sources)} photos left")
    generator = numpy_generator(seed, "labeled", size)
    candidates = (generator.choice(sources, size, replace=False) for _ in range(_CANDIDATES))
    return np.sort(min(candidates, key=lambda each: share_distance(totals, each, shares)))


def _divide(
    groups: list[np.ndarray], draws: int, generator: np.random.Generator, overlapping: bool
) -> list[np.ndarray]:
    """Divides every group at random into one run per set; the smallest sets get the longest."""
    chosen: list[list[np.ndarray]] = [[] for _ in range(draws)]
    sizes = np.zeros(draws, dtype=np.int64)
    for group in groups:
        members = group if overlapping else generator.permutation(group)
        lengths = np.full(draws, len(members) // draws)
        smallest_first = np.lexsort((generator.random(draws), sizes))
        lengths[smallest_first[: len(members) % draws]] += 1
        places = generator.permutation(draws)
        runs = np.split(members, np.cumsum(lengths[places])[:-1])
        for place, run in zip(places, runs, strict=True):
            chosen[place].append(run)
        sizes += lengths
    return [np.concatenate(each) for each in chosen]
