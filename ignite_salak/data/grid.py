"""Where the patches of a photo lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["EDGES", "Grid", "fill_up"]

EDGES = ("pad", "drop", "shift")

_MIN_SIZE = 16


@dataclass(frozen=True)
class Grid:
    """Squares at equal distances, from the upper left corner of a photo.

    Attributes:
        size: side of the squares in pixels.
        stride: distance between them; smaller than ``size`` they overlap, larger they leave gaps.
        edge: what becomes of a square that leaves the photo: "pad" keeps it, to be filled up;
            "drop" leaves it out; "shift" moves it back inside, or keeps it if the photo is smaller.
    """

    size: int
    stride: int
    edge: str = "pad"

    def __post_init__(self) -> None:
        if self.size < _MIN_SIZE:
            raise ValueError(f"--patch-size {self.size} is not at least {_MIN_SIZE}")
        if self.stride < 1:
            raise ValueError(f"--stride {self.stride} is not at least 1")
        if self.edge not in EDGES:
            raise ValueError(f"--edge {self.edge!r} is none of {', '.join(EDGES)}")

    def starts(self, length: int) -> list[int]:
        """Returns where the squares begin along one side of a photo.

        Args:
            length: the side in pixels.
        """
        beyond = max(0, length - self.size)  # where the last square begins that ends inside
        if self.edge == "drop":
            return list(range(0, beyond + 1, self.stride)) if length >= self.size else []
        count = -(-beyond // self.stride) + 1
        starts = [place * self.stride for place in range(count) if place * self.stride < length]
        if self.edge == "shift":
            return [min(start, beyond) for start in starts]
        return starts

    def count(self, height: int, width: int) -> int:
        """Returns the number of squares in a photo of this size."""
        return len(self.starts(height)) * len(self.starts(width))


def fill_up(pixels: np.ndarray, size: int, fill: int) -> np.ndarray:
    """Extends an array to the right and below.

    Args:
        pixels: [H, W] or [H, W, C], neither side over ``size``.
        size: side of the result.
        fill: value of what is added.

    Returns:
        [size, size] or [size, size, C].
    """
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels
    margin = [(0, size - height), (0, size - width), *[(0, 0)] * (pixels.ndim - 2)]
    return np.pad(pixels, margin, constant_values=fill)
