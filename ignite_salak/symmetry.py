"""The eight flips and quarter turns of a square image (its dihedral group)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ignite_salak.randomness import torch_generator

__all__ = ["SYMMETRIES", "RandomSymmetries", "Symmetry"]


@dataclass(frozen=True)
class Symmetry:
    """One flip or turn, or both.

    Attributes:
        flipped: left and right change places, before the turns.
        turns: by 90 degrees each, counterclockwise.
    """

    flipped: bool
    turns: int

    def apply(self, images: Tensor) -> Tensor:
        """Returns the images seen so.

        Args:
            images: [B, C, H, W].

        Returns:
            [B, C, H, W], or [B, C, W, H] after an odd number of turns; channels last.
        """
        view = torch.rot90(images.flip(-1) if self.flipped else images, self.turns, dims=(-2, -1))
        return view.contiguous(memory_format=torch.channels_last)

    def undo(self, maps: Tensor) -> Tensor:
        """Brings what was found on such a view back to the pixels of the image.

        Args:
            maps: [..., H, W].
        """
        straight = torch.rot90(maps, -self.turns, dims=(-2, -1))
        return straight.flip(-1) if self.flipped else straight


SYMMETRIES = tuple(Symmetry(flipped, turns) for flipped in (False, True) for turns in range(4))
"""All eight; the first one leaves an image as it is."""


class RandomSymmetries:
    """Draws some of the eight for every iteration, the same ones in every process of a run.

    Args:
        seed: of the run.
        count: different ones in every iteration, 1 to 8.

    Raises:
        ValueError: another count.
    """

    def __init__(self, seed: int, count: int = 1) -> None:
        if not 1 <= count <= len(SYMMETRIES):
            raise ValueError(f"{count} flips and turns: expected 1 to {len(SYMMETRIES)}")
        self.seed = seed
        self.count = count

    def draw(self, iteration: int) -> tuple[Symmetry, ...]:
        """Returns those of an iteration; the first does not depend on how many there are."""
        generator = torch_generator(self.seed, iteration, "symmetry")
        first = int(torch.randint(len(SYMMETRIES), (), generator=generator))
        steps = 1 + torch.randperm(len(SYMMETRIES) - 1, generator=generator)
        chosen = [first, *(first + steps[: self.count - 1]).tolist()]
        return tuple(SYMMETRIES[each % len(SYMMETRIES)] for each in chosen)
