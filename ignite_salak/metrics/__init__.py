"""Metrics of segmentation."""

from ignite_salak.metrics.class_iou import ClassIoU, scores_from_confusion

__all__ = ["ClassIoU", "scores_from_confusion"]
