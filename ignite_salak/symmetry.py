"""The eight flips and quarter turns of a square image (its dihedral group)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SYMMETRIES", "Symmetry"]


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
