"""Metrics of segmentation."""

from ignite_salak.metrics.boundary_iou import BoundaryBandIoU, boundary_band
from ignite_salak.metrics.class_iou import ClassIoU, scores_from_confusion
from ignite_salak.metrics.pseudo_label_quality import (
    ClassQuality,
    PseudoLabelCounts,
    PseudoLabelQuality,
)

__all__ = [
    "BoundaryBandIoU",
    "ClassIoU",
    "ClassQuality",
    "PseudoLabelCounts",
    "PseudoLabelQuality",
    "boundary_band",
    "scores_from_confusion",
]
