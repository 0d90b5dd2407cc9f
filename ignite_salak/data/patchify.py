"""Photos -> square patches in the layout that ``patches.py`` reads."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.data.balance import check_unlisted
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.patches import PatchIndex, scan_patches

__all__ = ["PatchifySummary", "cut", "patchify"]


@dataclass
class PatchifySummary:
    """What ``patchify`` wrote.

    Attributes:
        photos: photos cut.
        patches: patches written.
        masks: patches written with a mask.
        pixels: mask pixels of every class, int64 [C].
        unlisted: mask pixels of every colour that the class list lacks; they are 255 in the
            patches.
    """

    photos: int
    patches: int
    masks: int
    pixels: np.ndarray
    unlisted: Counter[tuple[int, int, int]] = field(default_factory=Counter)


def cut(pixels: np.ndarray, size: int, fill: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cuts an array into a grid of squares; those at the right and lower edge are filled up.

    Args:
        pixels: [H, W] or [H, W, C].
        size: side of the squares in pixels.
        fill: value of what lies outside.

    Yields:
        Row and column number of the square, and the square [size, size] or [size, size, C].
    """
    height, width = pixels.shape[:2]
    margin = [(0, -height % size), (0, -width % size), *[(0, 0)] * (pixels.ndim - 2)]
    padded = np.pad(pixels, margin, constant_values=fill)
    for row in range(padded.shape[0] // size):
        for column in range(padded.shape[1] // size):
            top, left = row * size, column * size
            yield row, column, padded[top : top + size, left : left + size]


def patchify(
    source: Path,
    output: Path,
    classes: ClassMap,
    *,
    patch_size: int = 256,
    mask_format: str = "auto",
    workers: int = 2,
) -> PatchifySummary:
    """Cuts every photo, and its mask where there is one, and writes the class list beside them.

    Everything goes to a folder ``<output>.partial``, which gets its name when it is complete.

    Patches are PNG files named ``<photo>_patch_RRR_CCC``; masks hold class indices with the
    class list's colours as palette. What lies outside the photo is black and 255 in the mask.

    Args:
        source: folder with ``images`` and perhaps ``masks``, or with folders that have them.
        output: a new or empty folder.
        classes: the class list.
        patch_size: side of the patches in pixels.
        mask_format: see ``MaskReader``.
        workers: threads.

    Raises:
        FileNotFoundError: there are no photos.
        FileExistsError: ``output`` is not empty.
        BadFileError: a photo or mask cannot be read, or their sizes differ.
        ValueError: the patch size is too small, or the masks have too many unlisted colours;
            nothing is written then.
    """
    if patch_size < 16:
        raise ValueError(f"--patch-size {patch_size} is not at least 16")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"--output {output} exists and is not empty; give a new folder")
    index = scan_patches(source, cache=False)
    masks = [index.mask_path(photo) for photo in np.flatnonzero(index.has_mask).tolist()]
    reader = MaskReader.resolve(classes, mask_format, masks)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        summary = _count(masks, len(index), reader, pool)
        partial = output.with_name(f"{output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for written, with_mask in pool.map(
            lambda photo: _cut_photo(index, photo, reader, partial, patch_size), range(len(index))
        ):
            summary.patches += written
            summary.masks += with_mask
    classes.to_csv(partial / "class_mapping.csv")
    if output.exists():
        output.rmdir()
    partial.rename(output)
    return summary


def _count(
    masks: list[Path], photos: int, reader: MaskReader, pool: ThreadPoolExecutor
) -> PatchifySummary:
    """Reads all masks before anything is written, so that wrong colours cost nothing."""
    summary = PatchifySummary(photos, 0, 0, np.zeros(reader.classes.num_classes, np.int64))
    ignored = 0
    for mask, colors in pool.map(reader.read, masks):
        histogram = np.bincount(mask.ravel(), minlength=256)
        summary.pixels += histogram[: reader.classes.num_classes]
        summary.unlisted.update(colors)
        ignored += int(histogram[IGNORE_INDEX])
    unlisted = dict(summary.unlisted.most_common())
    check_unlisted(unlisted, int(summary.pixels.sum()) + ignored, reader.classes)
    return summary


def _cut_photo(
    index: PatchIndex, photo: int, reader: MaskReader, output: Path, size: int
) -> tuple[int, int]:
    path = index.image_path(photo)
    image = read_image(path)
    folder = output / index.folders[int(index.folder_ids[photo])]
    patches = _write(cut(image, size, 0), folder / "images", path.stem, None)
    if not index.has_mask[photo]:
        return patches, 0
    mask, _ = reader.read(index.mask_path(photo))
    if mask.shape != image.shape[:2]:
        raise BadFileError(
            f"{index.mask_path(photo)}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its "
            f"image {image.shape[1]} x {image.shape[0]}"
        )
    tiles = cut(mask, size, IGNORE_INDEX)
    return patches, _write(tiles, folder / "masks", path.stem, reader.classes.palette)


def _write(
    tiles: Iterator[tuple[int, int, np.ndarray]],
    folder: Path,
    stem: str,
    palette: np.ndarray | None,
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for row, column, tile in tiles:
        image = Image.fromarray(tile)
        if palette is not None:
            # A palette of 256 colours, or PNG stores fewer bits than the label 255 needs.
            image.putpalette(palette.tobytes() + bytes(3 * (256 - len(palette))))
        image.save(folder / f"{stem}_patch_{row:03d}_{column:03d}.png", compress_level=3)
        count += 1
    return count
