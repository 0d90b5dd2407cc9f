"""Lists of source images and patches, as users write them: read, compared, written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ignite_salak.data.patches import IMAGE_SUFFIXES, PatchIndex

__all__ = ["check_apart", "listed_patches", "write_list"]

_SUFFIXES = (*IMAGE_SUFFIXES, ".dng", ".bmp", ".webp")


def listed_patches(
    index: PatchIndex, listing: Path, *, single_patches: bool, masks_needed: bool = True
) -> np.ndarray:
    """Finds the patches with masks of the listed source images, and those listed one by one.

    Args:
        index: all patches.
        listing: text file in UTF-8: on every line a source image or a patch, ``name`` or
            ``folder/name``, perhaps after ``./``, whatever its case and extension; lines that begin
            with # are ignored.
        single_patches: whether it may name single patches.
        masks_needed: whether the source images that it names must have masks; otherwise all patches
            of all that have the name are found.

    Returns:
        int64 [M], sorted.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: it is not UTF-8, names nothing, or something that is unknown or lacks the mask
            that it needs, or a single patch where it may not.
    """
    masked_sources = np.unique(index.source_ids[index.has_mask])
    sources_by_name = _by_name(map(index.source_name, range(len(index.sources))))
    patches_by_name: dict[str, list[int]] = {}
    sources: list[int] = []
    patches: list[int] = []
    for where, entry, spellings in _entries(listing):
        name = next((name for name in spellings if name in sources_by_name), None)
        if name is not None:
            # Cameras number from one again: another flight may have a photo of that name, unmasked.
            usable = np.asarray(sources_by_name[name])
            if masks_needed:
                usable = np.intersect1d(usable, masked_sources)
            if not len(usable):
                raise ValueError(f"{where}: source image {entry!r} has no mask")
            sources.extend(usable.tolist())
            continue
        patches_by_name = patches_by_name or _by_name(map(index.patch_name, range(len(index))))
        name = next((name for name in spellings if name in patches_by_name), None)
        if name is None:
            raise ValueError(
                f"{where}: no source image or patch named {entry!r} under {index.root}; there are "
                f"{len(index.sources)} source images, such as {index.source_name(0)}"
            )
        if not single_patches:
            source = index.source_name(int(index.source_ids[patches_by_name[name][0]]))
            raise ValueError(
                f"{where}: {entry!r} is one patch of {source}: validation holds out whole source "
                "images; list these"
            )
        masked = [patch for patch in patches_by_name[name] if index.has_mask[patch]]
        if not masked:
            raise ValueError(f"{where}: patch {entry!r} has no mask")
        patches.extend(masked)
    if not sources and not patches:
        raise ValueError(f"list of source images {listing} names none")
    listed = np.isin(index.source_ids, sources)
    if masks_needed:
        listed &= index.has_mask
    listed[patches] = True
    return np.flatnonzero(listed)


def check_apart(
    index: PatchIndex,
    labeled: np.ndarray,
    validation: np.ndarray,
    lists: tuple[Path | None, Path | None],
) -> None:
    """Refuses labelled and validation patches of the same source image.

    Args:
        index: all patches.
        labeled: those that are trained with, int64 [L].
        validation: those of validation images, int64 [V].
        lists: the names of the two lists, for the message.

    Raises:
        ValueError: a source image has patches of both.
    """
    both = np.intersect1d(index.source_ids[labeled], index.source_ids[validation])
    if len(both):
        raise ValueError(
            f"source image {index.source_name(int(both[0]))} is in {lists[0]} and in {lists[1]} "
            f"({len(both)} in both): validation images must not be trained on"
        )


def write_list(path: Path, names: Iterable[str]) -> None:
    """Writes names one a line, as ``listed_patches`` reads them."""
    text = "".join(f"./{name}\n" if name.startswith("#") else f"{name}\n" for name in names)
    path.write_text(text, encoding="utf-8", newline="\n")


def _entries(listing: Path) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Where each entry of a list stands, the entry, and the names that it is looked up by."""
    try:
        lines = Path(listing).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise FileNotFoundError(f"list of source images {listing} cannot be read") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"list of source images {listing} is not UTF-8 text ({error}); save it as UTF-8"
        ) from error
    suffix = re.compile(f"({'|'.join(map(re.escape, _SUFFIXES))})$")
    for number, line in enumerate(lines, start=1):
        entry = line.strip().replace("\\", "/")
        if entry and not entry.startswith("#"):
            name = entry.removeprefix("./").casefold()
            yield f"{listing}, line {number}", entry, (name, suffix.sub("", name))


def _by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """Positions of names, by the name with and without its folder, in lower case."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        for key in {name.casefold(), name.rpartition("/")[2].casefold()}:
            found.setdefault(key, []).append(position)
    return found
