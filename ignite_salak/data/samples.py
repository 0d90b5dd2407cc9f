"""Samples of patches: random ones, ones spread over the photos, and ones that show all classes."""

from __future__ import annotations

import numpy as np

from ignite_salak.data.flights import flight_order
from ignite_salak.data.patches import PatchIndex
from ignite_salak.randomness import numpy_generator

__all__ = ["diverse_patches", "patches_to_label", "sample_patches", "sample_sources"]

_WELL_SHOWN = 0.1  # of a patch's area; enough to judge a class by eye


def sample_patches(patches: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns a fixed random sample of at most ``size`` patches, sorted."""
    if len(patches) <= size:
        return patches
    chosen = numpy_generator(seed, "sample").choice(len(patches), size, replace=False)
    return patches[np.sort(chosen)]


def sample_sources(index: PatchIndex, patches: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns a fixed random sample of at most ``size`` patches, spread over the source images.

    No source image has two patches more than another one that has patches left.

    Args:
        index: all patches.
        patches: the patches to choose from, int64 [M].
        size: how many; all of them where there are no more.
        seed: of the run.

    Returns:
        int64 [min(M, size)], sorted.
    """
    drawn = numpy_generator(seed, "sources").permutation(patches)
    return np.sort(drawn[np.argsort(_turns(index.source_ids[drawn]), kind="stable")[:size]])


def patches_to_label(
    index: PatchIndex, patches: np.ndarray, labeled: np.ndarray, size: int, seed: int
) -> np.ndarray:
    """Chooses the patches to label next: of the source images that have fewest labels.

    No source image gets a label while another has fewer and patches left. Where only some of those
    with equally many can get one, they are spaced evenly along each folder's flight, between those
    that have more, since neighbours show the same ground; a flight without any is first. Which
    patches of a source image is drawn; if one of them is left out, another of that source image
    takes its place, where there is one.

    Args:
        index: all patches.
        patches: the patches to choose from, int64 [M].
        labeled: those that have labels already, and those of validation images, int64 [L].
        size: how many; all of them where there are no more.
        seed: of the draw.

    Returns:
        int64 [min(M, size)], sorted.
    """
    count = min(size, len(patches))
    if count < 1:
        return patches[:0]
    key = numpy_generator(seed, "labels").permutation(len(index))
    drawn = patches[np.argsort(key[patches])]
    source = index.source_ids[drawn]
    had = np.bincount(index.source_ids[labeled], minlength=len(index.sources))
    labels = had[source] + _turns(source)
    last = np.sort(labels)[count - 1]
    sure, rivals = labels < last, labels == last
    spaced = _spaced(index, source[rivals], had > last, count - int(sure.sum()))
    return np.sort(drawn[sure | (rivals & np.isin(source, spaced))])


def diverse_patches(counts: np.ndarray, patches: np.ndarray, size: int) -> np.ndarray:
    """Chooses patches that together show as many classes as possible, rare ones first.

    Greedy: a class is shown well by a patch of which it covers a tenth, or as much as it ever
    does. The next patch is the one that adds most to how well the classes are shown, where a
    class weighs one over the square root of its pixels. Once no patch adds anything, all classes
    count as not shown again. Of equal patches the first is taken, so nothing is random.

    Args:
        counts: pixels per patch and class, int64 [N, C].
        patches: the patches to choose from, int64 [M].
        size: how many; all of them where there are no more.

    Returns:
        int64 [min(M, size)], sorted.
    """
    if len(patches) <= size:
        return np.sort(patches)
    pixels = counts[patches]
    # Of the fullest patch, so that patches which are mostly padding show little.
    shares = pixels / max(1, pixels.sum(axis=1).max())
    best_shares = np.minimum(_WELL_SHOWN, shares.max(axis=0))
    visible = np.minimum(1.0, shares / np.where(best_shares > 0, best_shares, 1.0))
    weights = 1.0 / np.sqrt(np.maximum(1, pixels.sum(axis=0)))
    shown = np.zeros(pixels.shape[1])
    left = np.arange(len(patches))
    while len(left) > len(patches) - size:
        gains = np.maximum(0.0, visible[left] - shown) @ weights
        if not gains.any() and shown.any():
            shown[:] = 0.0
            continue
        position = int(gains.argmax())
        shown = np.maximum(shown, visible[left[position]])
        left = np.delete(left, position)
    return np.sort(np.delete(patches, left))


def _spaced(index: PatchIndex, rivals: np.ndarray, apart: np.ndarray, size: int) -> np.ndarray:
    """Of some source images ``size``, evenly along the flights, far from those in ``apart``.

    A flight that has none in ``apart`` gets one first, the longest of them before the others.

    Args:
        index: all patches.
        rivals: source images to choose from, int64 [R].
        apart: source images to stay away from, bool [S].
        size: how many, at most R.

    Returns:
        int64 [size].
    """
    # Stretches of a flight, from one to stay away from to the next
    involved = np.union1d(rivals, np.flatnonzero(apart))
    stretches: list[np.ndarray] = []
    untouched: list[bool] = []  # whether of a flight that has none to stay away from
    for positions in flight_order(index, involved):
        flight = involved[positions]
        parts = np.split(flight, np.flatnonzero(apart[flight]))
        stretches.extend(part[~apart[part]] for part in parts)
        untouched.extend([not apart[flight].any()] * len(parts))
    lengths = np.asarray([len(stretch) for stretch in stretches])
    first = lengths.max() * np.asarray(untouched)

    # The next one where they are furthest from each other
    sizes = np.zeros_like(lengths)
    for _ in range(size):
        sizes[np.argmax(lengths / (sizes + 1) + np.where(sizes == 0, first, 0))] += 1
    return np.concatenate(
        [
            stretch[np.arange(1, part + 1) * len(stretch) // (part + 1)]
            for stretch, part in zip(stretches, sizes, strict=True)
        ]
    )


def _turns(sources: np.ndarray) -> np.ndarray:
    """How many patches of its own source image stand before each, int64 [M]."""
    by_source = np.argsort(sources, kind="stable")
    _, first, counts = np.unique(sources[by_source], return_index=True, return_counts=True)
    turns = np.empty(len(sources), dtype=np.int64)
    turns[by_source] = np.arange(len(sources)) - np.repeat(first, counts)
    return turns
