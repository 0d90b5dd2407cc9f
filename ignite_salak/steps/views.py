"""The random views of both pools that a student trains on, addressed by iteration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ignite_salak.augment import Geometry, RandomGeometry, draw_size
from ignite_salak.randomness import torch_generator
from ignite_salak.ranks import rank

__all__ = ["Views"]


@dataclass(frozen=True)
class Views:
    """The random views that the student trains on.

    Attributes:
        geometry: flips, scales and crops of the single patches.
        sizes: smallest and largest side of the views in pixels; one side per iteration is drawn.
        seed: seed of the run.
    """

    geometry: RandomGeometry
    sizes: tuple[int, int]
    seed: int

    def draw(self, images: Tensor, iteration: int, pool: str) -> Geometry:
        """Draws the warps of this rank's patches [B, 3, H, W]; all pools get views of one side."""
        size = draw_size(*self.sizes, torch_generator(self.seed, iteration, "size"))
        generator = torch_generator(self.seed, iteration, "geometry", pool)
        count, _, height, width = images.shape
        first = rank() * count
        whole = self.geometry.draw(first + count, height, width, size, generator)
        return Geometry(whole.matrices[first:], size)
