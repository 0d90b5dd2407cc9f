"""A small picture of a large map: the photo with its classes painted over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.files import write_whole
from ignite_salak.inference.maps import BLOCK, Block
from ignite_salak.pictures import color_labels

__all__ = ["Preview"]


class Preview:
    """Collects blocks of a map at a resolution at which all of it fits on a screen.

    The photo is reduced by means over squares, the classes by the pixel in the middle of each.

    Args:
        height: H of the map.
        width: W of the map.
        longest: most pixels of the longer side of the preview; it is reduced by a power of two.

    Raises:
        ValueError: the map is larger than ``longest`` times 512.
    """

    def __init__(self, height: int, width: int, longest: int = 2048) -> None:
        self.factor = 1
        while max(height, width) > longest * self.factor:
            self.factor *= 2
        if self.factor > BLOCK:
            raise ValueError(f"no preview of a map of {width} x {height} pixels: it is too large")
        self._photo: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, block: Block) -> None:
        """Takes the next block from the top."""
        by = self.factor
        rows, width = block.classes.shape
        margin = ((0, -rows % by), (0, -width % by))
        image = np.pad(block.image, ((0, 0), *margin), mode="edge")
        _, high, wide = image.shape
        cells = image.reshape(3, high // by, by, wide // by, by)
        self._photo.append(cells.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8))
        labels = np.pad(block.classes, margin, mode="edge")
        # A copy, because a view would keep all pixels of the map.
        self._labels.append(labels[by // 2 :: by, by // 2 :: by].copy())

    def draw(self, classes: ClassMap) -> np.ndarray:
        """Returns the photo mixed half and half with the colours of the classes.

        Pixels without image content are striped in grey.

        Args:
            classes: the class list.

        Returns:
            uint8 [h, w, 3].
        """
        photo = np.concatenate(self._photo, axis=1).transpose(1, 2, 0)
        labels = np.concatenate(self._labels)
        painted = color_labels(labels, classes)
        mixed = ((photo.astype(np.uint16) + painted) // 2).astype(np.uint8)
        return np.where((labels == IGNORE_INDEX)[..., None], painted, mixed)

    def save(self, path: Path, classes: ClassMap) -> None:
        """Writes ``draw`` as JPEG, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        image = Image.fromarray(self.draw(classes))
        write_whole(path, lambda file: image.save(file, format="JPEG", quality=90))
