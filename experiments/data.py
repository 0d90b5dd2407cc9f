"""From data options to batches: the first act of every recipe."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.masks import look_at_masks
from experiments.options import DataOptions, RunOptions
from ignite_salak.classes import ClassMap
from ignite_salak.data.balance import (
    MaskStatistics,
    balanced_weights,
    estimated_pixels,
    format_balance,
)
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.loaders import EvaluationBatches, TrainingStream
from ignite_salak.data.patch_cache import PatchCache, open_cache
from ignite_salak.data.patches import PatchIndex, scan_patches
from ignite_salak.data.samples import diverse_patches, sample_patches, sample_sources
from ignite_salak.data.splits import Split, masked_patches, split_patches
from ignite_salak.handlers.panels import Gallery
from ignite_salak.ranks import rank_count

__all__ = ["RunData", "load_data"]

_LOGGER = logging.getLogger(__name__)
_MANY_IGNORED = 0.2
_CANDIDATES = 4  # unlabelled patches that are read for every one that is drawn: some are padding


@dataclass(frozen=True)
class RunData:
    """What a recipe trains and is judged on.

    Attributes:
        classes: the class list.
        index: all patches.
        split: who is in which pool.
        class_weights: balanced weights of the labelled training pixels, float32 [C].
        labeled_pixels: pixels of every class in every labelled training patch, int64 [N, C].
        estimated_pixels: pixels of every class in all patches of the labelled source images, by
            those that are labelled, int64 [C].
        stream: training batches.
        validation: all validation patches.
        training: a fixed sample of the labelled training patches, as many as in validation.
        panel_validation: validation patches that are drawn at every evaluation, None for none.
        panel_unlabeled: the same of the unlabelled patches.
        watched: a fixed sample of the unlabelled patches, spread over the source images, without
            masks; None for none.
    """

    classes: ClassMap
    index: PatchIndex
    split: Split
    class_weights: torch.Tensor
    labeled_pixels: np.ndarray
    estimated_pixels: np.ndarray
    stream: TrainingStream
    validation: EvaluationBatches
    training: EvaluationBatches
    panel_validation: Gallery | None = None
    panel_unlabeled: Gallery | None = None
    watched: EvaluationBatches | None = None


def load_data(
    options: DataOptions,
    run: RunOptions,
    *,
    batch_size: int,
    device: torch.device,
    panels: int = 0,
    watch: int = 0,
    unlabeled: bool = True,
) -> RunData:
    """Scans, inspects, splits and prints what was found; see the parts for the errors.

    Args:
        options: the data.
        run: seed and workers.
        batch_size: patches of either kind a batch.
        device: where they will go.
        panels: patches of either pool that are drawn at every evaluation.
        watch: unlabelled patches whose classes are counted at every evaluation.
        unlabeled: whether any unlabelled patch is read.

    Raises:
        ValueError: ``panels`` or ``watch`` is negative.
    """
    for flag, number in (("--panels", panels), ("--watch-patches", watch)):
        if number < 0:
            raise ValueError(f"{flag} {number} is negative")
    root = options.root()
    classes = options.load_classes()
    lists = {"labeled_files": options.labeled_files, "val_files": options.val_files}
    index, reader, statistics = _inspect(root, options, classes, lists)
    split = split_patches(
        index,
        statistics.counts,
        **lists,
        val_fraction=options.val_split,
        seed=run.seed,
        excluded=tuple(statistics.bad_files),
    )
    pixels = statistics.counts[split.labeled].sum(axis=0)
    weights = balanced_weights(pixels)
    _LOGGER.info("patches under %s\n%s", index.root, split.describe(index))
    _report_pixels(classes, pixels, weights, int(statistics.ignored[split.labeled].sum()))
    cache = open_cache(options.cache, index, reader, input_size=options.input_size)
    patches = functools.partial(_patches, index, options, cache)
    loading: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": run.num_workers,
        "pin_memory": device.type == "cuda",
    }
    judging = {**loading, "batch_size": max(1, batch_size // rank_count())}
    if unlabeled and not len(split.unlabeled):
        _LOGGER.warning("no unlabelled patch: training is supervised only")
    read = split.unlabeled if unlabeled else split.unlabeled[:0]
    second = patches(read, None) if len(read) else None
    validation = EvaluationBatches(patches(split.validation, reader), **judging)
    sample = patches(sample_patches(split.labeled, len(split.validation), run.seed), reader)
    training = EvaluationBatches(sample, **judging, workers_of=validation)
    watched = sample_sources(index, read, watch, run.seed)
    if options.skip_bad_files:
        watched = _readable(index, options, cache, watched)
    return RunData(
        classes,
        index,
        split,
        torch.tensor(weights, dtype=torch.float32),
        statistics.counts[split.labeled],
        estimated_pixels(statistics.counts, index.source_ids, split.labeled, split.unlabeled),
        TrainingStream(patches(split.labeled, reader), second, seed=run.seed, **loading),
        validation,
        training,
        _gallery(patches(diverse_patches(statistics.counts, split.validation, panels), reader)),
        _gallery(patches(sample_patches(read, panels * _CANDIDATES, run.seed), None), panels),
        EvaluationBatches(patches(watched, None), **judging, workers_of=validation)
        if len(watched) >= rank_count()
        else None,
    )


def _inspect(
    root: Path, options: DataOptions, classes: ClassMap, lists: dict[str, Path | None]
) -> tuple[PatchIndex, MaskReader, MaskStatistics]:
    index = scan_patches(root)
    if index.orphan_masks:
        _LOGGER.warning("%d masks have no image of the same name", index.orphan_masks)
    masked = masked_patches(index, **lists)
    reader, statistics = look_at_masks(
        index, masked, classes, options.mask_format, options.skip_bad_files
    )
    return index, reader, statistics


def _patches(
    index: PatchIndex,
    options: DataOptions,
    cache: PatchCache | None,
    which: np.ndarray,
    reader: MaskReader | None,
) -> PatchDataset:
    return PatchDataset(
        index,
        which,
        reader,
        input_size=options.input_size,
        skip_bad_files=options.skip_bad_files,
        cache=cache,
    )


def _readable(
    index: PatchIndex, options: DataOptions, cache: PatchCache | None, which: np.ndarray
) -> np.ndarray:
    """Leaves out bad files, so that no other source image's patch is counted in their place."""
    items = PatchDataset(index, which, input_size=options.input_size, cache=cache)
    good = ["bad_file" not in items[position] for position in range(len(which))]
    return which[np.array(good, dtype=bool)]


def _gallery(patches: PatchDataset, size: int | None = None) -> Gallery | None:
    """The patches under their folders and names; None where there are none."""
    index = patches.index
    folders = [index.folders[folder] for folder in index.folder_ids[patches.patches]]
    stems = [Path(image).stem for image in index.images[patches.patches].tolist()]
    names = [f"{folder}/{stem}".lstrip("/") for folder, stem in zip(folders, stems, strict=True)]
    return Gallery(patches, names, size) if names else None


def _report_pixels(
    classes: ClassMap, pixels: np.ndarray, weights: np.ndarray, ignored: int
) -> None:
    _LOGGER.info("labelled training pixels\n%s", format_balance(classes, pixels, weights))
    _warn_absent(classes, pixels)
    _warn_ignored(ignored, int(pixels.sum()))


def _warn_absent(classes: ClassMap, pixels: np.ndarray) -> None:
    absent = [name for name, count in zip(classes.names, pixels, strict=True) if count == 0]
    if absent:
        _LOGGER.warning("no labelled training pixel of: %s", ", ".join(absent))


def _warn_ignored(ignored: int, labeled: int) -> None:
    share = ignored / (ignored + labeled)
    if share > _MANY_IGNORED:
        _LOGGER.warning(
            "%.0f %% of the labelled training pixels are ignored (label 255, or unlisted colours)",
            100 * share,
        )
