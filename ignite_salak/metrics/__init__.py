"""Metrics of segmentation."""

from ignite_salak.metrics.boundary_iou import BoundaryBandIoU, boundary_band
from ignite_salak.metrics.class_iou import ClassIoU, scores_from_confusion
from ignite_salak.metrics.jackknife import jackknife_error
from ignite_salak.metrics.pseudo_label_quality import (
    ClassQuality,
    PseudoLabelCounts,
    PseudoLabelQuality,
)
from ignite_salak.metrics.source_iou import SourceIoU, mean_iou_without

__all__ = [
    "BoundaryBandIoU",
    "ClassIoU",
    "ClassQuality",
    "PseudoLabelCounts",
    "PseudoLabelQuality",
    "SourceIoU",
    "boundary_band",
    "jackknife_error",
    "mean_iou_without",
    "scores_from_confusion",
]
