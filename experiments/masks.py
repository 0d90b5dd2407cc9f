"""Masks as every script looks at them first: how they are read, and what they hold."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

from ignite_salak.classes import ClassMap
from ignite_salak.data.balance import MaskStatistics, inspect_masks
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.patches import PatchIndex

__all__ = ["look_at_masks"]

_LOGGER = logging.getLogger(__name__)
_FORMAT_SAMPLES = 256


def look_at_masks(
    index: PatchIndex,
    patches: np.ndarray,
    classes: ClassMap,
    mask_format: Literal["auto", "color", "index"],
    skip_bad_files: bool,
) -> tuple[MaskReader, MaskStatistics]:
    """Finds out how masks are read, and counts their pixels; warns of bad files that it skips.

    Args:
        index: all patches.
        patches: which have the masks, int64 [M].
        classes: the class list.
        mask_format: how RGB masks with three equal channels are read.
        skip_bad_files: go on without files that cannot be read.

    Raises:
        BadFileError: an image or mask cannot be decoded, or their sizes differ.
        ValueError: colours that the class list lacks cover over 5 % of the pixels, or the format
            cannot be told.
    """
    step = max(1, len(patches) // _FORMAT_SAMPLES)
    samples = [index.mask_path(patch) for patch in patches[::step]]
    reader = MaskReader.resolve(classes, mask_format, samples)
    statistics = inspect_masks(index, patches, reader, skip_bad_files=skip_bad_files)
    for reason in statistics.bad_files.values():
        _LOGGER.warning("skipped a bad file: %s", reason)
    return reader, statistics
