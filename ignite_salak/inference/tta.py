"""Test-time augmentation: the mean over the flips and turns of an image, at several scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ignite_salak.inference.resized import resize
from ignite_salak.symmetry import SYMMETRIES
from ignite_salak.voting import predict_once

__all__ = ["TestTimeAugmentation"]


class TestTimeAugmentation:
    """Averages the probabilities of the views of an image.

    A photo from straight above has no up, so all eight flips and quarter turns (the dihedral group
    of the square) are as likely as the photo itself. The views are mapped back pixel by pixel;
    those at other scales bilinearly.

    Args:
        scales: factors by which height and width are resized, rounded to whole pixels.
        dihedral: False leaves out the flips and turns.
        predict: called with (model, view) for probabilities [B, C, h, w].

    Raises:
        ValueError: no scale, or one that is not positive.

    Example:
        >>> create_evaluator(model, metrics, predict=TestTimeAugmentation((0.75, 1.0, 1.25)))
    """

    def __init__(
        self,
        scales: Sequence[float] = (1.0,),
        dihedral: bool = True,
        predict: Callable[[nn.Module, Tensor], Tensor] = predict_once,
    ) -> None:
        if not scales or not all(0 < scale < math.inf for scale in scales):
            shown = " ".join(map(str, scales)) or "(none)"
            raise ValueError(f"scales of the test-time augmentation {shown}: expected numbers > 0")
        self.scales = tuple(scales)
        self.dihedral = dihedral
        self.predict = predict

    def __len__(self) -> int:
        """Number of views of one image."""
        return len(self.scales) * (8 if self.dihedral else 1)

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns the mean probabilities, float32 [B, C, H, W].

        Args:
            model: returns logits [N, B, C, h, w].
            images: floating point [B, 3, H, W] in 0-1.
        """
        height, width = images.shape[-2:]
        total = torch.zeros((), device=images.device)
        for scale in self.scales:
            inner = max(1, round(height * scale)), max(1, round(width * scale))
            at_scale = self._over_the_symmetries(model, resize(images, inner))
            total = total + resize(at_scale, (height, width))
        return total / len(self)

    def _over_the_symmetries(self, model: nn.Module, images: Tensor) -> Tensor:
        total = torch.zeros((), device=images.device)
        for symmetry in SYMMETRIES if self.dihedral else SYMMETRIES[:1]:
            total = total + symmetry.undo(self.predict(model, symmetry.apply(images)))
        return total
