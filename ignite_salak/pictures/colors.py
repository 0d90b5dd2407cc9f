"""Maps of a patch painted as pictures: classes, confidence, errors and pseudo-labels."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX, ClassMap

__all__ = [
    "WRONG",
    "check_shapes",
    "color_confidence",
    "color_errors",
    "color_labels",
    "color_pseudo_labels",
    "dim",
    "stripes",
]

WRONG = (255, 128, 48)
"""Colour of wrong pixels: bright against the dimmed photo for colour-blind people, too."""

_DIM_BLACK, _DIM_WHITE = 20, 102
_STRIPES = ((222, 222, 222), (120, 120, 120))
_STRIPE_PERIOD, _STRIPE_WIDTH = 8, 3


def color_labels(labels: np.ndarray, classes: ClassMap) -> np.ndarray:
    """Paints every class in its colour, and ignored pixels in stripes of two greys.

    Args:
        labels: class indices or 255, integer [H, W].
        classes: the class list.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: not two dimensions, or an index without class.
    """
    ignored = labels == IGNORE_INDEX
    if labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape}, expected [H, W]")
    strange = ~ignored & ((labels < 0) | (labels >= classes.num_classes))
    if strange.any():
        raise ValueError(
            f"label {labels[strange][0]}, expected 0 to {classes.num_classes - 1} or {IGNORE_INDEX}"
        )
    painted = classes.palette[np.where(ignored, 0, labels)]
    return np.where(ignored[..., None], stripes(*labels.shape), painted)


def color_confidence(confidence: np.ndarray) -> np.ndarray:
    """Paints 0 to 1 in viridis, dark to bright.

    Args:
        confidence: floating point [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    return colormaps["viridis"](np.clip(confidence, 0.0, 1.0), bytes=True)[..., :3]


def dim(image: np.ndarray) -> np.ndarray:
    """Returns a photo in dark greys, on which every bright colour stands out.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        uint8 [H, W, 3], at most 102.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)
    dimmed = np.rint(_DIM_BLACK + grey * ((_DIM_WHITE - _DIM_BLACK) / 255))
    return np.repeat(dimmed.astype(np.uint8)[..., None], 3, axis=2)


def color_errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Paints wrong pixels over the dimmed photo, and ignored ones in stripes.

    Args:
        image: uint8 [H, W, 3].
        truth: class indices or 255, integer [H, W].
        prediction: class indices, integer [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    check_shapes(image, truth=truth, prediction=prediction)
    picture = dim(image)
    picture[prediction != truth] = WRONG
    ignored = truth == IGNORE_INDEX
    picture[ignored] = stripes(*truth.shape)[ignored]
    return picture


def color_pseudo_labels(image: np.ndarray, labels: np.ndarray, classes: ClassMap) -> np.ndarray:
    """Paints kept pixels in the colours of their classes over the dimmed photo.

    Args:
        image: uint8 [H, W, 3].
        labels: class indices, 255 where nothing was kept, integer [H, W].
        classes: the class list.

    Returns:
        uint8 [H, W, 3].
    """
    check_shapes(image, labels=labels)
    kept = (labels != IGNORE_INDEX)[..., None]
    return np.where(kept, color_labels(labels, classes), dim(image))


def stripes(height: int, width: int) -> np.ndarray:
    """Returns diagonal stripes of two greys, uint8 [H, W, 3]."""
    across = np.add.outer(np.arange(height), np.arange(width)) % _STRIPE_PERIOD
    return np.asarray(_STRIPES, dtype=np.uint8)[(across < _STRIPE_WIDTH).astype(int)]


def check_shapes(image: np.ndarray, **maps: np.ndarray) -> None:
    """Refuses what is no photo, and maps of another size than the photo.

    Args:
        image: uint8 [H, W, 3].
        maps: [H, W] each, by the name they have in the message.

    Raises:
        ValueError: a shape or the type of the photo is another one.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image of {image.dtype} {image.shape}, expected uint8 [H, W, 3]")
    for name, values in maps.items():
        if values.shape != image.shape[:2]:
            raise ValueError(f"{name} of shape {values.shape}, the image has {image.shape[:2]}")
