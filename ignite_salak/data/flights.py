"""Source images: the order in which they were taken, and what their masks hold."""

from __future__ import annotations

import re

import numpy as np

from ignite_salak.data.patches import PatchIndex

__all__ = ["flight_order", "source_totals"]


def flight_order(index: PatchIndex, sources: np.ndarray) -> list[np.ndarray]:
    """Sorts the source images of every folder by name, numbers by value: neighbours overlap.

    Args:
        index: the patches.
        sources: source images, int64 [S].

    Returns:
        Of every folder that has any, the positions in ``sources`` of its n, int64 [n].
    """
    folders = np.asarray([index.sources[source][0] for source in sources])
    groups = []
    for folder in np.unique(folders):
        members = np.flatnonzero(folders == folder)
        names = [index.sources[sources[member]][1] for member in members]
        order = sorted(range(len(members)), key=lambda i, n=names: _natural_key(n[i]))  # type: ignore[misc]
        groups.append(members[order])
    return groups


def source_totals(index: PatchIndex, counts: np.ndarray) -> np.ndarray:
    """Adds up the pixels of every source image's patches.

    Args:
        index: the patches.
        counts: pixels per patch and class, integer [N, C].

    Returns:
        Pixels per source image and class, int64 [S, C].
    """
    totals = np.zeros((len(index.sources), counts.shape[1]), dtype=np.int64)
    np.add.at(totals, index.source_ids, counts)
    return totals


def _natural_key(name: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
