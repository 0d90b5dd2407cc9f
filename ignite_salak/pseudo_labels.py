"""Probabilities, thresholds and valid pixels -> pseudo-labels and how many there are.

Shapes: B batch, C classes, H and W of the patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ignite_salak.classes import BACKGROUND, IGNORE_INDEX

__all__ = ["PseudoLabels", "content_mask", "select_pseudo_labels"]


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of one batch.

    Attributes:
        labels: class indices, int64 [B, H, W], 255 where no class was trusted.
        per_class: kept pixels of every class, int64 [C]; that of the background is 0.
        valid: pixels with image content, int64 0-d.
    """

    labels: Tensor
    per_class: Tensor
    valid: Tensor

    @property
    def kept(self) -> Tensor:
        """Kept pixels of all classes, int64 0-d."""
        return self.per_class.sum()


def content_mask(images: Tensor) -> Tensor:
    """Tells image content from padding and nodata, which are pure black.

    Args:
        images: [B, 3, H, W], 0 is black.

    Returns:
        Bool [B, H, W].
    """
    return (images != 0).any(dim=1)


def select_pseudo_labels(probabilities: Tensor, thresholds: Tensor, valid: Tensor) -> PseudoLabels:
    """Keeps the most probable class where its probability reaches the threshold of that class.

    The background is never kept: a crop pixel missed by the model looks like it.

    Args:
        probabilities: float32 [B, C, H, W], sum 1 over C.
        thresholds: float32 [C].
        valid: pixels with image content, bool [B, H, W].
    """
    confidence, labels = probabilities.max(dim=1)
    kept = valid & (labels != BACKGROUND) & (confidence >= thresholds[labels])
    per_class = torch.stack(
        [(kept & (labels == index)).sum() for index in range(probabilities.shape[1])]
    )
    return PseudoLabels(torch.where(kept, labels, IGNORE_INDEX), per_class, valid.sum())
