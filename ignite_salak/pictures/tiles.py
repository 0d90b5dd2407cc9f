"""The pictures of one patch, at a size that people can read: its row on a sheet."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ignite_salak.classes import ClassMap
from ignite_salak.pictures.colors import (
    check_shapes,
    color_confidence,
    color_errors,
    color_labels,
    color_pseudo_labels,
)

__all__ = ["tile_size", "unlabeled_tiles", "validation_tiles"]

_LARGEST, _SMALLEST, _ENLARGED = 256, 128, 160  # sides of a tile, pixels


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Returns the size at which a patch is shown.

    Patches over 256 pixels are reduced to 256, patches under 128 are enlarged by a whole number to
    at least 160, others keep their size; the longer side counts.

    Args:
        height: of the patch, pixels.
        width: of the patch, pixels.
    """
    longest = max(height, width)
    if longest < _SMALLEST:
        times = math.ceil(_ENLARGED / longest)
        return height * times, width * times
    factor = min(1.0, _LARGEST / longest)
    return max(1, round(height * factor)), max(1, round(width * factor))


def validation_tiles(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    confidence: np.ndarray,
    classes: ClassMap,
) -> tuple[np.ndarray, ...]:
    """Returns image, truth, prediction, confidence and errors, each uint8 [h, w, 3].

    Args:
        image: uint8 [H, W, 3].
        truth: class indices or 255, integer [H, W].
        prediction: class indices, integer [H, W].
        confidence: probability of the prediction, floating point [H, W].
        classes: the class list.

    Raises:
        ValueError: the shapes differ, or an index has no class.
    """
    check_shapes(image, truth=truth, prediction=prediction, confidence=confidence)
    image, truth = _resize_photo(image), _resize_labels(truth)
    prediction = _resize_labels(prediction)
    return (
        image,
        color_labels(truth, classes),
        color_labels(prediction, classes),
        color_confidence(_resize_scalars(confidence)),
        color_errors(image, truth, prediction),
    )


def unlabeled_tiles(
    image: np.ndarray,
    prediction: np.ndarray,
    confidence: np.ndarray,
    classes: ClassMap,
    pseudo_labels: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Returns image, prediction, confidence and, where given, pseudo-labels, uint8 [h, w, 3].

    Args:
        image: uint8 [H, W, 3].
        prediction: class indices, integer [H, W].
        confidence: probability of the prediction, floating point [H, W].
        classes: the class list.
        pseudo_labels: class indices, 255 where nothing was kept, integer [H, W], or None.

    Raises:
        ValueError: the shapes differ, or an index has no class.
    """
    check_shapes(image, prediction=prediction, confidence=confidence)
    photo = _resize_photo(image)
    tiles = (
        photo,
        color_labels(_resize_labels(prediction), classes),
        color_confidence(_resize_scalars(confidence)),
    )
    if pseudo_labels is None:
        return tiles
    check_shapes(image, pseudo_labels=pseudo_labels)
    return *tiles, color_pseudo_labels(photo, _resize_labels(pseudo_labels), classes)


def _resize_photo(image: np.ndarray) -> np.ndarray:
    height, width = tile_size(*image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _resize_labels(labels: np.ndarray) -> np.ndarray:
    height, width = tile_size(*labels.shape)
    picture = Image.fromarray(labels.astype(np.int32))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))


def _resize_scalars(values: np.ndarray) -> np.ndarray:
    height, width = tile_size(*values.shape)
    # Enlarged pixels stay as sharp as those of the prediction beside them.
    how = Image.Resampling.NEAREST if height > values.shape[0] else Image.Resampling.BOX
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how))
