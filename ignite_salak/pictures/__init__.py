"""Sheets of patches for people to look at: photo, classes, confidence, errors, and a legend."""

from ignite_salak.pictures.colors import (
    WRONG,
    color_confidence,
    color_errors,
    color_labels,
    color_pseudo_labels,
    dim,
)
from ignite_salak.pictures.sheets import Row, unlabeled_sheet, validation_sheet
from ignite_salak.pictures.tiles import tile_size, unlabeled_tiles, validation_tiles

__all__ = [
    "WRONG",
    "Row",
    "color_confidence",
    "color_errors",
    "color_labels",
    "color_pseudo_labels",
    "dim",
    "tile_size",
    "unlabeled_sheet",
    "unlabeled_tiles",
    "validation_sheet",
    "validation_tiles",
]
