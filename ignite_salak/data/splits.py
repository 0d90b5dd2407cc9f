"""Labelled, validation and unlabelled patches; validation never shares a source image."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ignite_salak.data.flights import flight_order, source_totals
from ignite_salak.data.listings import check_apart, listed_patches
from ignite_salak.data.patches import PatchIndex
from ignite_salak.randomness import numpy_generator

__all__ = ["Split", "masked_patches", "split_patches"]

_LOGGER = logging.getLogger(__name__)
_CANDIDATES = 200


@dataclass(frozen=True)
class Split:
    """Patch numbers of the three pools; no source image is in validation and in another pool.

    Attributes:
        labeled: patches trained with their masks, int64 [L], sorted.
        validation: patches with masks that training never sees, int64 [V], sorted.
        unlabeled: patches used without masks, int64 [U], sorted.
    """

    labeled: np.ndarray
    validation: np.ndarray
    unlabeled: np.ndarray

    def sources(self, index: PatchIndex) -> dict[str, list[str]]:
        """Returns the names of the source images of every pool."""
        return {
            pool: [index.source_name(source) for source in np.unique(index.source_ids[patches])]
            for pool, patches in self._pools().items()
        }

    def chosen_patches(self, index: PatchIndex) -> list[str]:
        """Returns the names of the labelled patches, where they were chosen one by one.

        That is where masks of their own source images are left to the unlabelled pool; empty where
        the source images alone say what is labelled.
        """
        left = self.unlabeled[index.has_mask[self.unlabeled]]
        if not np.isin(index.source_ids[left], index.source_ids[self.labeled]).any():
            return []
        return [index.patch_name(patch) for patch in self.labeled.tolist()]

    def describe(self, index: PatchIndex) -> str:
        """Returns one line per pool: patches and source images."""
        sources = self.sources(index)
        return "\n".join(
            f"{pool:<10} {len(patches):>8,} patches of {len(sources[pool]):,} source images"
            for pool, patches in self._pools().items()
        )

    def digest(self, index: PatchIndex) -> str:
        """Returns a fingerprint of what is in which pool, independent of where the root lies."""
        digest = hashlib.blake2b(digest_size=12)
        for pool, patches in self._pools().items():
            digest.update(f"{pool} {index.folders}".encode())
            digest.update(index.folder_ids[patches].tobytes())
            digest.update("\n".join(index.images[patches].tolist()).encode("utf-8"))
        return digest.hexdigest()

    def _pools(self) -> dict[str, np.ndarray]:
        return {
            "labelled": self.labeled,
            "validation": self.validation,
            "unlabelled": self.unlabeled,
        }


def masked_patches(
    index: PatchIndex, labeled_files: Path | None = None, val_files: Path | None = None
) -> np.ndarray:
    """Returns the patches whose masks a run may read: those that are listed, or all.

    Args:
        index: the patches.
        labeled_files: text file of source images, or single patches, that may be used with masks;
            None for all.
        val_files: text file of validation source images, or None.

    Returns:
        int64 [M], sorted.

    Raises:
        FileNotFoundError: there is no such list, or no mask at all.
        ValueError: a listed name matches no source image and no patch, or none with a mask.
    """
    patches = np.union1d(*_listed_patches(index, labeled_files, val_files))
    if not len(patches):
        raise FileNotFoundError(
            f"data root {index.root} holds no mask; expected <folder>/masks/<stem>.png or "
            "<stem>_mask.png beside <folder>/images"
        )
    return patches


def split_patches(
    index: PatchIndex,
    counts: np.ndarray,
    *,
    labeled_files: Path | None = None,
    val_files: Path | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    excluded: tuple[int, ...] = (),
) -> Split:
    """Divides the patches.

    With ``val_files`` validation is what it lists. Otherwise it is a contiguous block of the sorted
    labelled source images of every folder, because neighbouring frames overlap on the ground; of
    many seeded draws the first is taken that leaves fewest classes missing from either half.

    Args:
        index: the patches.
        counts: pixels per patch and class, integer [N, C].
        labeled_files: text file of the source images that may be used with masks, one a line,
            ``name`` or ``folder/name``, extension ignored; None for all that have masks. A name
            without folder means every source image of that name that has a mask. A line may name
            a single patch instead: the others of its source image are then unlabelled.
        val_files: text file of the validation source images, or None.
        val_fraction: share of the labelled source images held out where ``val_files`` is None.
        seed: seed of the run.
        excluded: patches that are in no pool, such as those with bad files.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: a list names nothing that is known, the two lists overlap, or there are too few
            labelled source images.
    """
    labeled, validation = _listed_patches(index, labeled_files, val_files)
    check_apart(index, labeled, validation, (labeled_files, val_files))
    sources = np.unique(index.source_ids[labeled])
    held_out = np.unique(index.source_ids[validation])
    usable = np.ones(len(index), dtype=bool)
    usable[list(excluded)] = False
    if val_files is None:
        present = _class_presence(index, counts, sources)
        held_out = _draw_validation(index, sources, present, val_fraction, seed)
        is_held_out = np.isin(index.source_ids[labeled], held_out)
        labeled, validation = labeled[~is_held_out], labeled[is_held_out]
    free = usable & ~np.isin(index.source_ids, held_out)
    free[labeled] = False
    split = Split(
        labeled=labeled[usable[labeled]],
        validation=validation[usable[validation]],
        unlabeled=np.flatnonzero(free),
    )
    for name, pool in (("labelled", split.labeled), ("validation", split.validation)):
        if not len(pool):
            raise ValueError(f"no usable {name} patch with a mask under {index.root}")
    return split


def _listed_patches(
    index: PatchIndex, labeled_files: Path | None, val_files: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Patches with masks that the lists name: labelled ones, and those of validation images."""
    masked = np.flatnonzero(index.has_mask)
    validation = np.empty(0, dtype=np.int64)
    if val_files is not None:
        validation = listed_patches(index, val_files, single_patches=False)
    if labeled_files is not None:
        return listed_patches(index, labeled_files, single_patches=True), validation
    held_out = np.isin(index.source_ids[masked], index.source_ids[validation])
    return masked[~held_out], validation


def _class_presence(index: PatchIndex, counts: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Bool [S, C]: whether each of the given source images holds each class."""
    return source_totals(index, counts)[sources] > 0


def _draw_validation(
    index: PatchIndex, labeled: np.ndarray, present: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"--val-split {fraction} is not between 0 and 1")
    if len(labeled) < 2:
        raise ValueError(
            f"{len(labeled)} labelled source image(s): validation is held out by source image, so "
            "at least two are needed; label another, or name validation images by --val-files"
        )
    blocks = _folder_blocks(index, labeled, fraction)
    generator = numpy_generator(seed, "split")
    expected = present.any(axis=0)
    best: tuple[int, np.ndarray] | None = None
    for _ in range(_CANDIDATES):
        chosen = np.zeros(len(labeled), dtype=bool)
        for positions, size in blocks:
            start = int(generator.integers(len(positions) - size + 1))
            chosen[positions[start : start + size]] = True
        missing = sum(int((expected & ~present[h].any(axis=0)).sum()) for h in (chosen, ~chosen))
        if best is None or missing < best[0]:
            best = (missing, chosen)
        if missing == 0:
            break
    assert best is not None
    _warn_missing(present, best[1])
    return labeled[best[1]]


def _folder_blocks(
    index: PatchIndex, labeled: np.ndarray, fraction: float
) -> list[tuple[np.ndarray, int]]:
    """Positions in ``labeled`` of every folder's source images, sorted, and how many to hold out.

    The numbers are rounded so that their sum is the wanted share of all, at least one and not all.
    """
    groups = flight_order(index, labeled)
    wanted = min(len(labeled) - 1, max(1, round(fraction * len(labeled))))
    ideal = np.asarray([fraction * len(group) for group in groups])
    sizes = np.floor(ideal).astype(int)
    for group in np.argsort(sizes - ideal, kind="stable"):
        if sizes.sum() < wanted:
            sizes[group] += 1
    return [(group, int(size)) for group, size in zip(groups, sizes, strict=True)]


def _warn_missing(present: np.ndarray, chosen: np.ndarray) -> None:
    for half, where in (("validation", chosen), ("training", ~chosen)):
        missing = np.flatnonzero(present.any(axis=0) & ~present[where].any(axis=0))
        if len(missing):
            _LOGGER.warning(
                "no split by source image puts every class in both halves: %s lacks class index %s",
                half,
                ", ".join(map(str, missing)),
            )
