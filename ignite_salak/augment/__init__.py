"""Weak, multi-scale and strong views of GPU batches; the only room that knows kornia."""

from ignite_salak.augment.geometry import Geometry, RandomGeometry, draw_size
from ignite_salak.augment.mixing import (
    ClassConfidence,
    draw_boxes,
    draw_classes,
    mix,
    neighbours,
)
from ignite_salak.augment.photometric import RandomColors

__all__ = [
    "ClassConfidence",
    "Geometry",
    "RandomColors",
    "RandomGeometry",
    "draw_boxes",
    "draw_classes",
    "draw_size",
    "mix",
    "neighbours",
]
