"""A teacher that votes on the flips and turns of an image, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ignite_salak.symmetry import SYMMETRIES

__all__ = ["SymmetricTeacher"]

_VIEWS = {
    1: SYMMETRIES[:1],
    2: tuple(symmetry for symmetry in SYMMETRIES if symmetry.turns == 0),
    4: tuple(symmetry for symmetry in SYMMETRIES if not symmetry.flipped),
    8: SYMMETRIES,
}


class SymmetricTeacher(nn.Module):
    """Lets the heads of a model vote on several views of an image, mapped back pixel by pixel.

    A photo from straight above has no up, so the views are as likely as the image itself, and their
    mean is less noisy than one vote: what test-time augmentation gains, pseudo-labels gain as well.
    Each view costs one forward pass without gradient.

    Args:
        model: returns logits [N, B, C, H, W] for images [B, 3, H, W]; shared, not copied.
        views: 1 for the image alone; 2 with its mirror image; 4 for its quarter turns; 8 for both.

    Raises:
        ValueError: another number of views.
    """

    def __init__(self, model: nn.Module, views: int) -> None:
        super().__init__()
        if views not in _VIEWS:
            raise ValueError(f"--teacher-views {views}: expected {', '.join(map(str, _VIEWS))}")
        self.model = model
        self.views = _VIEWS[views]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of all heads on all views, [views * N, B, C, H, W].

        Args:
            images: float [B, 3, H, W]; square where there are turns.
        """
        return torch.cat([view.undo(self.model(view.apply(images))) for view in self.views])
