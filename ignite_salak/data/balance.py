"""Pixel counts per class of every labelled mask -> what is in the data, and class weights."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.patches import CACHE_ERRORS, PatchIndex, cache_folder, write_cache

__all__ = [
    "MaskStatistics",
    "balanced_weights",
    "check_unlisted",
    "clipped_weights",
    "estimated_pixels",
    "format_balance",
    "inspect_masks",
]

_LOGGER = logging.getLogger(__name__)
_MAX_UNKNOWN_SHARE = 0.05
_MANY_MASKS = 2_000  # some seconds
_CACHE_VERSION = 1


@dataclass(frozen=True)
class MaskStatistics:
    """What the inspected masks hold.

    Attributes:
        counts: pixels of every class in every patch of the index, int64 [N, C]; zero where the mask
            was not inspected.
        ignored: pixels with label 255, int64 [N]; pixels of unlisted colours are among them.
        unlisted: pixels of every colour that the class list lacks.
        bad_files: reason, starting with the path, for every patch that cannot be used.
    """

    counts: np.ndarray
    ignored: np.ndarray
    unlisted: dict[tuple[int, int, int], int] = field(default_factory=dict)
    bad_files: dict[int, str] = field(default_factory=dict)


def inspect_masks(
    index: PatchIndex,
    patches: np.ndarray,
    reader: MaskReader,
    *,
    skip_bad_files: bool = False,
    workers: int = 4,
    cache: bool = True,
) -> MaskStatistics:
    """Decodes masks and their images once, in parallel, and counts pixels; the result is cached.

    Args:
        index: the patches.
        patches: which of them to inspect, integer [M]; each has a mask.
        reader: how masks are read.
        skip_bad_files: list unusable patches in the result instead of raising.
        workers: threads that decode.
        cache: False neither reads nor writes the cache.

    Raises:
        BadFileError: an image or mask cannot be decoded, or their sizes differ.
        ValueError: colours that the class list lacks cover over 5 % of the pixels.
    """
    cache_file = cache_folder() / f"masks-{_digest(index, patches, reader)}.npz"
    rows = _load(cache_file, len(patches)) if cache else None
    if rows is None:
        if len(patches) >= _MANY_MASKS:
            _LOGGER.info("checking %d masks and their images; this takes a while", len(patches))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            results = list(pool.map(lambda patch: _inspect(index, patch, reader), patches))
        rows = _stack(results, reader.classes.num_classes)
        if cache and not rows[3]:
            _store(cache_file, rows)
    counts, ignored, unlisted, bad = rows
    bad_files = {int(patches[row]): reason for row, reason in bad.items()}
    if bad_files and not skip_bad_files:
        more = f" (and {len(bad_files) - 1} more)" if len(bad_files) > 1 else ""
        raise BadFileError(
            f"{next(iter(bad_files.values()))}{more}; repair it, or go on without it by "
            "--skip-bad-files"
        )
    check_unlisted(unlisted, int(counts.sum() + ignored.sum()), reader.classes)
    statistics = MaskStatistics(
        np.zeros((len(index), reader.classes.num_classes), dtype=np.int64),
        np.zeros(len(index), dtype=np.int64),
        unlisted,
        bad_files,
    )
    statistics.counts[patches] = counts
    statistics.ignored[patches] = ignored
    return statistics


def check_unlisted(
    unlisted: dict[tuple[int, int, int], int], pixels: int, classes: ClassMap
) -> None:
    """Warns of mask colours that the class list lacks; such pixels are ignored.

    Args:
        unlisted: pixels of every such colour, the commonest first.
        pixels: pixels of all masks.
        classes: the class list.

    Raises:
        ValueError: they are over 5 % of the pixels.
    """
    if not unlisted:
        return
    color, count = next(iter(unlisted.items()))
    share = sum(unlisted.values()) / max(1, pixels)
    found = (
        f"{100 * share:.2f} % of the mask pixels have {len(unlisted)} colour(s) that the class "
        f"mapping lacks; the commonest is {' '.join(map(str, color))} ({count:,} pixels)"
    )
    if share > _MAX_UNKNOWN_SHARE:
        raise ValueError(
            f"{found}: over {100 * _MAX_UNKNOWN_SHARE:.0f} %, so the mapping is probably not the "
            f"one of these masks (its classes: {', '.join(classes.names)}); add the colour or give "
            "the right --class-mapping"
        )
    _LOGGER.warning("%s: they are ignored (label %d)", found, IGNORE_INDEX)


def balanced_weights(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Class weights by the balanced formula n / (k * count).

    n is the number of labelled pixels and k the number of classes that occur. A class that does not
    occur gets weight 1, which no pixel ever takes.

    Args:
        counts: pixels per class [C].

    Returns:
        float64 [C].

    Raises:
        ValueError: no class has a pixel.
    """
    pixels, present = _present(counts)
    weights = np.ones_like(pixels)
    weights[present] = pixels.sum() / (present.sum() * pixels[present])
    return weights


def clipped_weights(
    counts: Sequence[int] | np.ndarray, *, power: float = 0.5, limit: float = 4.0
) -> np.ndarray:
    """Class weights f^-power, divided by their mean over the classes that occur, then clipped.

    f is the share of the labelled pixels. The balanced formula is power 1, and gives a rare class
    so much weight that one wrong pixel outweighs hundreds. A class that does not occur gets
    weight 1, which no pixel ever takes.

    Args:
        counts: pixels per class [C].
        power: 0 for equal weights, 1 for those of equal classes.
        limit: highest weight.

    Returns:
        float64 [C].

    Raises:
        ValueError: no class has a pixel, ``power`` is negative, or ``limit`` is under 1.
    """
    if power < 0:
        raise ValueError(f"power {power} of the class weights is negative; 0 gives equal weights")
    if limit < 1:
        raise ValueError(f"limit {limit} of the class weights is under 1, the mean weight")
    pixels, present = _present(counts)
    raw = (pixels[present] / pixels.sum()) ** -power
    weights = np.ones_like(pixels)
    weights[present] = np.minimum(raw / raw.mean(), limit)
    return weights


def estimated_pixels(
    counts: np.ndarray, sources: np.ndarray, labeled: np.ndarray, unlabeled: np.ndarray
) -> np.ndarray:
    """Estimates the pixels of every class in all source images that have labelled patches.

    A labelled patch stands for the others of its source image: it counts as often as that image has
    patches for each labelled one (the expansion estimator of stratified sampling: Horvitz and
    Thompson 1952; Cochran 1977, "Sampling Techniques", section 5.3). So photos of which as many
    patches are labelled, though one is larger than another, do not count alike. Where source images
    are labelled whole, it is the plain sum.

    Args:
        counts: pixels per patch and class, integer [N, C].
        sources: the source image of every patch, integer [N].
        labeled: the labelled patches, int64 [L].
        unlabeled: the unlabelled patches, int64 [U].

    Returns:
        int64 [C], rounded.
    """
    patches = np.bincount(sources[np.concatenate([labeled, unlabeled])])
    shown = np.bincount(sources[labeled], minlength=len(patches))
    weights = (patches / np.maximum(1, shown))[sources[labeled]]
    return np.rint(weights @ counts[labeled]).astype(np.int64)


def format_balance(classes: ClassMap, counts: np.ndarray, weights: np.ndarray) -> str:
    """Returns a table of pixels, shares and weights, one class a line.

    Args:
        classes: the class list.
        counts: pixels per class [C].
        weights: class weights [C].
    """
    width = max(len(name) for name in classes.names)
    lines = [f"{'class':<{width}}  {'pixels':>14}  {'share':>8}  {'weight':>8}"]
    for name, pixels, weight in zip(classes.names, counts, weights, strict=True):
        shown = f"{weight:8.3f}" if pixels else f"{'absent':>8}"
        share = 100 * pixels / max(1, counts.sum())
        lines.append(f"{name:<{width}}  {int(pixels):>14,}  {share:>7.2f}%  {shown}")
    return "\n".join(lines)


def _present(counts: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(counts, dtype=np.float64)
    present = pixels > 0
    if not present.any():
        raise ValueError("no labelled pixel in the training masks: every pixel is ignored")
    return pixels, present


_Rows = tuple[np.ndarray, np.ndarray, dict[tuple[int, int, int], int], dict[int, str]]


def _inspect(
    index: PatchIndex, patch: int, reader: MaskReader
) -> tuple[np.ndarray, int, Counter[tuple[int, int, int]]] | str:
    try:
        image = read_image(index.image_path(patch))
        mask, unlisted = reader.read(index.mask_path(patch))
    except BadFileError as error:
        return str(error)
    if image.shape[:2] != mask.shape:
        return (
            f"{index.mask_path(patch)}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its "
            f"image {image.shape[1]} x {image.shape[0]}"
        )
    histogram = np.bincount(mask.ravel(), minlength=256)
    return histogram[: reader.classes.num_classes], int(histogram[IGNORE_INDEX]), unlisted


def _stack(results: list, num_classes: int) -> _Rows:
    counts = np.zeros((len(results), num_classes), dtype=np.int64)
    ignored = np.zeros(len(results), dtype=np.int64)
    unlisted: Counter[tuple[int, int, int]] = Counter()
    bad: dict[int, str] = {}
    for row, result in enumerate(results):
        if isinstance(result, str):
            bad[row] = result
        else:
            counts[row], ignored[row] = result[:2]
            unlisted.update(result[2])
    return counts, ignored, dict(unlisted.most_common()), bad


def _digest(index: PatchIndex, patches: np.ndarray, reader: MaskReader) -> str:
    digest = hashlib.blake2b(digest_size=12)
    classes = json.dumps([_CACHE_VERSION, reader.classes.to_dict(), reader.mask_format])
    digest.update(classes.encode("utf-8"))
    resolve = functools.cache(Path.resolve)  # of folders: for each file it costs more than the rest
    for patch in patches:
        for path in (index.image_path(patch), index.mask_path(patch)):
            digest.update(f"{resolve(path.parent)} {path.name} {_file_stamp(path)}".encode())
    return digest.hexdigest()


def _file_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _store(path: Path, rows: _Rows) -> None:
    counts, ignored, unlisted, _ = rows
    colors = np.asarray([(*color, count) for color, count in unlisted.items()], dtype=np.int64)
    write_cache(path, {"counts": counts, "ignored": ignored, "unlisted": colors.reshape(-1, 4)})


def _load(path: Path, patches: int) -> _Rows | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if len(stored["counts"]) != patches:
                return None
            unlisted = {(r, g, b): n for r, g, b, n in stored["unlisted"].tolist()}
            return stored["counts"], stored["ignored"], unlisted, {}
    except CACHE_ERRORS:
        return None
