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
    with equally many can get one, it is every n-th along each folder's flight, since neighbours
    show the same ground. Which patches of a source image is drawn; if one of them is left out,
    another of the same source image takes its place and nothing else changes.

    Args:
        index: all patches.
        patches: the patches to choose from, int64 [M].
        labeled: those that have labels already, int64 [L].
        size: how many; all of them where there are no more.
        seed: of the draw.

    Returns:
        int64 [min(M, size)], sorted.
    """
    count = min(size, len(patches))
    if count < 1:
        return patches[:0]
    sources = len(index.sources)
    place = np.empty(sources, dtype=np.int64)
    place[np.concatenate(flight_order(index, np.arange(sources)))] = np.arange(sources)
    key = numpy_generator(seed, "labels").permutation(len(index))
    drawn = patches[np.argsort(key[patches])]
    source = index.source_ids[drawn]
    labels = np.bincount(index.source_ids[labeled], minlength=sources)[source] + _turns(source)
    order = np.lexsort((place[source], labels))
    drawn, labels = drawn[order], labels[order]
    sure, end = np.searchsorted(labels, labels[count - 1] + np.arange(2))
    spaced = sure + (np.arange(count - sure) + 0.5) * (end - sure) / (count - sure)
    return np.sort(drawn[np.concatenate([np.arange(sure), spaced.astype(np.int64)])])


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


def _turns(sources: np.ndarray) -> np.ndarray:
    """How many patches of its own source image stand before each, int64 [M]."""
    by_source = np.argsort(sources, kind="stable")
    _, first, counts = np.unique(sources[by_source], return_index=True, return_counts=True)
    turns = np.empty(len(sources), dtype=np.int64)
    turns[by_source] = np.arange(len(sources)) - np.repeat(first, counts)
    return turns
