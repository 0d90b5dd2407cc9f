"""Which patches a model is judged on: options, the check of the class list, the choice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ignite_salak.classes import ClassMap
from ignite_salak.data.patches import PatchIndex
from ignite_salak.data.splits import masked_patches

__all__ = ["PatchOptions", "check_classes", "choose_patches"]

_LOGGER = logging.getLogger("ignite_salak.evaluate")


@dataclass
class PatchOptions:
    """Patches."""

    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    class_mapping: Path | None = None
    """CSV that must agree with the checkpoint's classes; DATA_ROOT/class_mapping.csv, if there."""
    val_files: Path | None = None
    """Text file of the source images, or single patches, to judge on."""
    labeled_files: Path | None = None
    """The same under the name of the other list; give one of the two."""
    pool: Literal["validation", "labeled", "unlabeled", "all"] | None = None
    """That pool of the training, where no list is given; unlabeled: neither trained with masks nor
    validated on. Default: validation, or unlabeled with --pseudo-labels."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    skip_bad_files: bool = False
    """Go on without files that cannot be read, and list them."""

    def listing(self) -> Path | None:
        """Returns the list of source images, or None."""
        if self.val_files is not None and self.labeled_files is not None:
            raise ValueError("--val-files and --labeled-files are both given: give one list")
        listing = self.val_files or self.labeled_files
        if listing is not None and self.pool is not None:
            raise ValueError(f"--pool {self.pool} and the list {listing}: give one of the two")
        return listing


def check_classes(classes: ClassMap, options: PatchOptions) -> None:
    """Compares the checkpoint's class list with that of the data, where the data have one.

    Raises:
        ValueError: names, colours or their order differ.
    """
    path = options.class_mapping or options.data_root / "class_mapping.csv"
    if options.class_mapping is None and not path.is_file():
        return
    listed = ClassMap.from_csv(path)
    ours, theirs = (list(zip(c.names, c.colors, strict=True)) for c in (classes, listed))
    for index, (trained, given) in enumerate(zip(ours, theirs, strict=False)):
        if trained != given:
            raise ValueError(
                f"class {index} is {_shown(*trained)} in the checkpoint, but {_shown(*given)} in "
                f"{path}: judge on data with the classes of the training"
            )
    if len(ours) != len(theirs):
        raise ValueError(
            f"the checkpoint has {len(ours)} classes, but {path} lists {len(theirs)}: judge on "
            "data with the classes of the training"
        )


def _shown(name: str, color: Sequence[int]) -> str:
    return f"{name!r} ({' '.join(map(str, color))})"


def choose_patches(
    index: PatchIndex, options: PatchOptions, facts: dict[str, Any], pseudo_labels: bool
) -> np.ndarray:
    """Chooses the patches with masks to judge on, and says which.

    Args:
        index: all patches.
        options: a list or a pool of source images.
        facts: what the checkpoint remembers, such as "sources".
        pseudo_labels: whether the default pool is that of the unlabelled.

    Returns:
        int64 [M], sorted.

    Raises:
        FileNotFoundError: none of the chosen patches has a mask.
        ValueError: the choice is contradictory or empty.
    """
    listing = options.listing()
    pool = options.pool or ("unlabeled" if pseudo_labels else "validation")
    trained_on = _trained_on(index, facts)
    if listing is not None:
        patches = masked_patches(index, listing)
        in_pool = np.isin(index.source_ids, index.source_ids[patches]) & ~index.has_mask
        in_pool[patches] = True
        label = f"source images of {listing}"
    else:
        in_pool = np.isin(index.source_ids, _pool_sources(index, pool, facts))
        if pool in ("labeled", "unlabeled"):
            in_pool &= trained_on if pool == "labeled" else ~trained_on
        patches = np.flatnonzero(in_pool & index.has_mask)
        label = f"source images of the pool '{pool}'"
    if not len(patches):
        raise FileNotFoundError(
            f"none of the {in_pool.sum():,} patches of the {label} under {index.root} has a mask, "
            "so they cannot be judged; expected <folder>/masks/<stem>.png"
        )
    sources = np.unique(index.source_ids[patches])
    _LOGGER.info("%s patches of %s %s", f"{len(patches):,}", f"{len(sources):,}", label)
    if in_pool.sum() > len(patches):
        count = f"{in_pool.sum() - len(patches):,}"
        _LOGGER.warning("%s further patches have no mask and cannot be judged", count)
    seen = np.unique(index.source_ids[patches[trained_on[patches]]])
    if len(seen):
        _LOGGER.warning(
            "%d of %d source images were trained on with masks", len(seen), len(sources)
        )
    return patches


def _trained_on(index: PatchIndex, facts: dict[str, Any]) -> np.ndarray:
    """Bool [N]: which patches the training had the masks of, by what the checkpoint remembers."""
    if "labelled_patches" in facts:
        names = set(facts["labelled_patches"])
        return np.asarray([index.patch_name(patch) in names for patch in range(len(index))])
    sources = set(facts.get("sources", {}).get("labelled", ()))
    labeled = [index.source_name(source) in sources for source in range(len(index.sources))]
    return np.asarray(labeled)[index.source_ids]


def _pool_sources(index: PatchIndex, pool: str, facts: dict[str, Any]) -> np.ndarray:
    """The source images of a pool; where single patches were labelled, labelled ones in both."""
    every = np.arange(len(index.sources))
    if pool == "all":
        return every
    if "sources" not in facts:
        raise ValueError(
            "the checkpoint does not remember its source images: name those to judge on by "
            "--val-files, or take all by --pool all"
        )
    remembered = {kind: set(facts["sources"][kind]) for kind in ("labelled", "validation")}
    names = [index.source_name(source) for source in every.tolist()]
    if pool == "unlabeled":
        if "labelled_patches" in facts:
            remembered["labelled"] = set()
        used = set().union(*remembered.values())
        found = every[[name not in used for name in names]]
        if not len(found):
            raise ValueError(
                "no source image is unlabelled: the training had the masks of all under "
                f"{index.root}, or kept them for validation; judge on these by --pool validation"
            )
        return found
    wanted = remembered["labelled" if pool == "labeled" else "validation"]
    found = every[[name in wanted for name in names]]
    if not len(found):
        raise ValueError(
            f"none of the {len(wanted)} {pool} source images of the training (such as "
            f"{min(wanted, default='none')}) is under {index.root}: name those to judge on by "
            "--val-files, or take all by --pool all"
        )
    if len(found) < len(wanted):
        missing = len(wanted) - len(found)
        _LOGGER.warning("%d of %d %s source images are missing", missing, len(wanted), pool)
    return found
