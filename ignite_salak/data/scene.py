"""A synthetic photo in the making, and what all its painters share.

Sizes are in pixels, points are (x, y), and fields are [H, W] with H rows and W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = [
    "BARE",
    "BETEL",
    "BUILDING",
    "OVERHANG",
    "ROAD",
    "SETTLEMENT",
    "SHADE_GREEN",
    "SNAKE",
    "WATER",
    "Color",
    "Point",
    "Scene",
    "direction",
    "fractal",
    "lerp",
    "local_axes",
    "value_at",
]

WATER, BUILDING, ROAD, BETEL, SNAKE, BARE = range(1, 7)
"""Class indices, in the order of ``plantation.SALAK_CLASSES``."""
SETTLEMENT = 7
"""A zone, not a class: houses with yards of bare land and vegetation."""

OVERHANG = 16
"""Houses and palms may stand this far outside the photo and reach into it."""
SHADE_GREEN = (38, 48, 30)
"""Colour of shadows on vegetation."""

_NOISE_GAIN = 1.6
"""Interpolation and octaves narrow the range of noise; this widens it again."""

Point = tuple[float, float]
"""(x, y) in pixels."""
Color = Sequence[float] | np.ndarray
"""Red, green and blue, 0-255."""


@dataclass
class Scene:
    """A photo in the making: what every layer reads and paints on.

    Attributes:
        rng: the only source of randomness; the order of draws is part of the picture.
        parcels: int32 [H, W], the field a pixel lies in.
        zones: uint8 [H, W], use of that field, before anything stands on it.
        labels: uint8 [H, W], class indices.
        image: float32 [H, W, 3], 0-255.
        sun: direction in which shadows fall.
    """

    rng: np.random.Generator
    parcels: np.ndarray
    zones: np.ndarray
    labels: np.ndarray
    image: np.ndarray
    sun: Point

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape[0], self.labels.shape[1]

    def noise(self, *cells: float) -> np.ndarray:
        """Smooth noise float32 [H, W] in 0-1; details of the first cell size weigh most."""
        return fractal(self.rng, *self.size, cells)

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """Rows and columns within ``radius`` of a point, as far as they lie in the photo."""
        height, width = self.size
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        return (
            slice(top, max(top, min(height, int(y + radius) + 2))),
            slice(left, max(left, min(width, int(x + radius) + 2))),
        )

    def grid(self, pitch: tuple[float, float], axis: Point, jitter: float) -> Iterator[Point]:
        """Yields the points of a turned, jittered grid in and around the photo in random order."""
        height, width = self.size
        reach = math.hypot(height, width) / 2 + 2 * OVERHANG
        along, across = (np.arange(-reach, reach, step) for step in pitch)
        nodes = np.stack(np.meshgrid(along, across), axis=-1).reshape(-1, 2)
        nodes += self.rng.uniform(-jitter, jitter, nodes.shape)
        x = width / 2 + nodes[:, 0] * axis[0] - nodes[:, 1] * axis[1]
        y = height / 2 + nodes[:, 0] * axis[1] + nodes[:, 1] * axis[0]
        near = (np.abs(2 * x - width) < width + 2 * OVERHANG) & (
            np.abs(2 * y - height) < height + 2 * OVERHANG
        )
        for node in self.rng.permutation(np.flatnonzero(near)):
            yield float(x[node]), float(y[node])


def fractal(
    rng: np.random.Generator, height: int, width: int, cells: Sequence[float]
) -> np.ndarray:
    """Smooth noise float32 [H, W] in 0-1: one octave a cell size, each half the one before."""
    total = np.zeros((height, width), np.float32)
    for octave, cell in enumerate(cells):
        knots = rng.random((int(height / cell) + 4, int(width / cell) + 4), np.float32)
        left, top = (float(offset) for offset in rng.uniform(0.5, 1.5, 2))
        box = (left, top, left + width / cell, top + height / cell)
        smooth = Image.fromarray(knots).resize((width, height), Image.Resampling.BICUBIC, box)
        total += np.float32(0.5**octave) * (np.asarray(smooth) - np.float32(0.5))
    gain = _NOISE_GAIN / (2 - 0.5 ** (len(cells) - 1))
    return np.clip(total * np.float32(gain) + np.float32(0.5), 0, 1)


def lerp(low: Color, high: Color, amount: np.ndarray) -> np.ndarray:
    """Mixes two colours by ``amount`` [...] into float32 [..., 3]."""
    start, end = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return start + (end - start) * amount[..., None]


def direction(turn: float) -> Point:
    """Unit vector of a part of a full turn."""
    # Rounded, because the last digit of a sine differs between platforms.
    return round(math.cos(2 * math.pi * turn), 6), round(math.sin(2 * math.pi * turn), 6)


def local_axes(
    window: tuple[slice, slice], x: float, y: float, axis: Point
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from (x, y) along and across ``axis`` for every pixel of a window, float [h, w]."""
    rows, columns = np.ogrid[window]
    dx, dy = columns - x, rows - y
    return dx * axis[0] + dy * axis[1], dy * axis[0] - dx * axis[1]


def value_at(field: np.ndarray, x: float, y: float) -> float:
    """Value of a field [H, W] at a point, or at the edge nearest to it."""
    height, width = field.shape
    return field[min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)]
